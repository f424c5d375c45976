"""Threads for what waits: the event loop itself waits for sockets only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

InThread = Callable[..., Awaitable[Any]]
"""Calls a function with these arguments on a thread; returns what it returns."""


class Threads:
    """`database`: for single reads and replays. `live`, `rates`: threads of their own, so that neither a replay nor a slow
    upstream holds up the live feed."""

    def __init__(self) -> None:
        self._pools: list[ThreadPoolExecutor] = []
        self.database = self._pool(6, "stream-db")
        self.live = self._pool(1, "stream-live")
        self.rates = self._pool(2, "stream-rates")

    def _pool(self, size: int, name: str) -> InThread:
        pool = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._pools.append(pool)

        def run(work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
            return asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

        return run

    def close(self) -> None:
        """Wait for what is running. What a thread holds must be given back before the database is closed."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)
