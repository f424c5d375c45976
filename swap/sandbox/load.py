"""How many requests arrived in each second of the clock: what a client's rate budget is checked against."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from swap.sandbox.faults import Endpoint

KEPT_SECONDS = 7200


class Load:
    """The last two hours. Thread-safe; memory is bounded by seconds times endpoints, however much arrives.

    `clock` gives Unix seconds and should be the caller's time, not the world's: advancing the world by a day must not
    tear a hole into the count.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds: dict[int, Counter[Endpoint]] = {}

    def count(self, endpoint: Endpoint) -> None:
        second = int(self._clock())
        with self._lock:
            if second not in self._seconds:
                self._forget(second - KEPT_SECONDS)
                self._seconds[second] = Counter()
            self._seconds[second][endpoint] += 1

    def report(self) -> dict[str, Any]:
        """`seconds` oldest first, without those in which nothing arrived; `peak` is the largest total among them."""
        with self._lock:
            self._forget(int(self._clock()) - KEPT_SECONDS)
            seconds = sorted(self._seconds.items())
            totals = [counts.total() for _, counts in seconds]
            return {
                "seconds": [
                    {"second": second, "total": counts.total(), "endpoints": dict(counts)} for second, counts in seconds
                ],
                "peak": max(totals, default=0),
                "total": sum(totals),
            }

    def _forget(self, last: int) -> None:
        """Everything up to and including second `last`."""
        for second in [second for second in self._seconds if second <= last]:
            del self._seconds[second]
