"""What a key may spend per minute. A process leases tokens by the handful and spends them locally: a call to Redis for
every request would cost more than most requests do."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from swap.access.keys import Caller
from swap.errors import TooManyRequests
from swap.infra.token_bucket import LocalBucket, SharedBucket

_LEASE = 50


@dataclass
class _TokenLease:
    alone: LocalBucket
    tokens: float = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class KeyLimits:
    def __init__(self, shared: SharedBucket) -> None:
        self._shared = shared
        self._purses: dict[tuple[str, int], _TokenLease] = {}
        self._lock = threading.Lock()

    def spend(self, caller: Caller) -> None:
        """Take one token from the key's budget. Raises TooManyRequests when it is spent.

        While Redis is away each process grants a quarter of the budget by itself.
        """
        rate = caller.weight_per_minute / 60
        purse = self._purse(caller, rate)
        with purse.lock:
            if purse.tokens < 1:
                lease = max(1.0, min(_LEASE, caller.weight_per_minute / 20))
                # A new bucket starts at a quarter, which must be at least one lease: a key's first request always passes.
                burst = max(4 * lease, caller.weight_per_minute / 4)
                wait = self._shared.take(f"key:{caller.key}", rate=rate, burst=burst, tokens=lease)
                if wait is None:
                    wait, lease = purse.alone.take(), 1
                if wait > 0:
                    raise TooManyRequests(
                        f"This key may make {caller.weight_per_minute} requests a minute.",
                        code="RATE_LIMITED",
                        retry_after=max(1, round(wait + 0.5)),
                    )
                purse.tokens += lease
            purse.tokens -= 1

    def _purse(self, caller: Caller, rate: float) -> _TokenLease:
        name = (caller.key, caller.weight_per_minute)
        with self._lock:
            if name not in self._purses:
                if len(self._purses) >= 10_000:
                    self._purses.clear()
                self._purses[name] = _TokenLease(LocalBucket(rate / 4, max(1.0, rate)))
            return self._purses[name]
