"""A few places that many want at once, shared out among owners: who asks a lot waits for itself, and nobody else for it.

An owner alone may hold three quarters of them, so that whoever comes next finds some free; half, while others hold or want
any.
A place that comes free goes to the waiting owner that holds the fewest.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class NoPlace(Exception):
    """No place came free in time, or the owner has as many and as many waiting as it may."""


class Shares:
    """Thread-safe. `places`: how many may be held at once. `waiting`: how many of one owner may wait; a further one is
    refused at once, since each that waits holds a thread."""

    def __init__(self, places: int, waiting: int) -> None:
        self._places, self._waiting = places, waiting
        self._held: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def place(self, owner: str, seconds: float) -> Iterator[None]:
        """Hold a place, after at most so many seconds of waiting. Raises NoPlace."""
        self._enter(owner, seconds)
        try:
            yield
        finally:
            with self._changed:
                _less(self._held, owner)
                self._changed.notify_all()

    def all_free(self, seconds: float) -> bool:
        """Whether no place is held or wanted any more within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held and not self._wanted, seconds)

    def _enter(self, owner: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._changed:
            if self._wanted[owner] >= self._waiting:
                raise NoPlace
            self._wanted[owner] += 1
            try:
                while not self._is_next(owner):
                    left = until - time.monotonic()
                    if left <= 0:
                        raise NoPlace
                    self._changed.wait(left)
                self._held[owner] += 1
            finally:
                _less(self._wanted, owner)
                # Whoever was kept back by this one's want may be next.
                self._changed.notify_all()

    def _is_next(self, owner: str) -> bool:
        if self._held.total() >= self._places or self._held[owner] >= self._most(owner):
            return False
        return all(
            self._held[owner] <= self._held[other] or self._held[other] >= self._most(other) for other in self._wanted
        )

    def _most(self, owner: str) -> int:
        alone = not any(other != owner for other in (*self._held, *self._wanted))
        return max(1, self._places * 3 // 4 if alone else self._places // 2)


def _less(counted: Counter[str], owner: str) -> None:
    counted[owner] -= 1
    if counted[owner] <= 0:
        del counted[owner]
