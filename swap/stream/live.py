"""The feed as it grows: one reader per process, however many sockets there are.

A socket that resumes reads the database up to some position, and is handed over to the live feed at exactly that position:
the last entries are kept in memory, so that neither side has to wait for the other, and the hand-over leaves neither gap
nor duplicate.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap.push.feed import Feed
from swap.store.events import cursor_text
from swap.stream.protocol import ORDERS, Entry
from swap.stream.threads import InThread

log = structlog.get_logger()

# Notices come over Redis and make it quick; this is how late it may be without them.
_POLL_SECONDS = 1.0
_AT_ONCE = 200
_KEPT = 2_000


class Listener(Protocol):
    def offer(self, entry: Entry) -> None: ...


class Live:
    """`in_thread`: runs what waits for the database. `on_void`: called when every cursor has become void."""

    def __init__(self, feed: Feed, in_thread: InThread, on_void: Callable[[], None]) -> None:
        self._feed, self._in_thread, self._on_void = feed, in_thread, on_void
        self.position, self.epoch = 0, ""
        self._recent: deque[Entry] = deque(maxlen=_KEPT)
        self._before_recent = 0
        self._listeners: dict[str, set[Listener]] = {}
        self._grown = asyncio.Event()

    # --- listeners ---------------------------------------------------------------------------------------------------

    def join(self, client_id: str, channel: str, listener: Listener) -> None:
        self._listeners.setdefault(_key(client_id, channel), set()).add(listener)

    def leave(self, client_id: str, channel: str, listener: Listener) -> None:
        key = _key(client_id, channel)
        listeners = self._listeners.get(key, set())
        listeners.discard(listener)
        if not listeners:
            self._listeners.pop(key, None)

    def since(self, position: int) -> list[Entry] | None:
        """What came after that position, or None when that is further back than memory goes."""
        if position < self._before_recent:
            return None
        newest_first = takewhile(lambda entry: entry.position > position, reversed(self._recent))
        return list(newest_first)[::-1]

    def cursor(self, position: int) -> str:
        return cursor_text(position, self.epoch)

    # --- the feed ----------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """There may be something new."""
        self._grown.set()

    async def start(self) -> None:
        """Stand at the end of the feed. Raises SQLAlchemyError."""
        self.epoch, self.position, _ = await self._in_thread(self._read, None)
        self._recent.clear()
        self._before_recent = self.position

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._grown.wait()
            except TimeoutError:
                pass
            self._grown.clear()
            try:
                while await self._follow():
                    pass
            except SQLAlchemyError as error:
                log.error("stream.database_away", error=type(error).__name__)

    async def _follow(self) -> bool:
        """Read on once; True when there is more."""
        epoch, end, entries = await self._in_thread(self._read, self.position)
        if epoch != self.epoch or end < self.position:
            log.warning("stream.feed_restored")
            # First the new epoch: a socket that subscribes from here on joins that.
            await self.start()
            self._on_void()
            return False
        for entry in entries:
            self._take(entry)
            # Each entry may go to thousands of sockets; other tasks have their turn in between.
            await asyncio.sleep(0)
        return len(entries) == _AT_ONCE

    def _read(self, after: int | None) -> tuple[str, int, list[Entry]]:
        if after is None:
            head = self._feed.head()
            return head.epoch, head.position, []
        head, events = self._feed.all_clients(after, _AT_ONCE)
        return head.epoch, head.position, [Entry.of(event, head.epoch) for event in events]

    def _take(self, entry: Entry) -> None:
        # In one step, without waiting: a socket that joins finds it either kept or delivered, never neither.
        if len(self._recent) == _KEPT:
            self._before_recent = self._recent[0].position
        self._recent.append(entry)
        self.position = entry.position
        listeners: set[Listener] = set()
        for name in entry.names():
            listeners |= self._listeners.get(_key(entry.client_id, name), set())
        for listener in listeners:
            listener.offer(entry)


def _key(client_id: str, channel: str) -> str:
    return f"{client_id} {ORDERS}" if channel == ORDERS else channel
