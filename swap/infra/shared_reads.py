"""One read serves everybody who asks the same within a moment of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
_MOST_KEPT = 1000


class SharedReads(Generic[T]):
    """Thread-safe. `seconds`: for how long after it came an answer is good for others."""

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._monotonic = seconds, monotonic
        self._reads: dict[Hashable, tuple[Future[T], float | None]] = {}
        self._lock = threading.Lock()

    def kept(self, key: Hashable) -> T | None:
        """The answer to the same question, where it came a moment ago."""
        with self._lock:
            read, came_at = self._reads.get(key, (None, None))
        fresh = came_at is not None and self._monotonic() - came_at < self._seconds
        return read.result() if read is not None and fresh else None

    def read(self, key: Hashable, ask: Callable[[], T], seconds: float) -> T:
        """The answer of whoever asks this now, or asked a moment ago; else of `ask`, for all who come meanwhile. A failure
        is told to those who waited for it, and is not kept. Raises what `ask` raised; TimeoutError after so many seconds of
        waiting for another's read."""
        with self._lock:
            read, came_at = self._reads.get(key, (None, None))
            if read is None or (came_at is not None and self._monotonic() - came_at >= self._seconds):
                read = None
                mine: Future[T] = Future()
                self._forget_old()
                self._reads[key] = mine, None
        if read is not None:
            return read.result(seconds)
        try:
            answer = ask()
        except BaseException as error:
            with self._lock:
                self._reads.pop(key, None)
            mine.set_exception(error)
            raise
        with self._lock:
            self._reads[key] = mine, self._monotonic()
        mine.set_result(answer)
        return answer

    def _forget_old(self) -> None:
        if len(self._reads) >= _MOST_KEPT:
            self._reads = {key: (read, came_at) for key, (read, came_at) in self._reads.items() if came_at is None}
