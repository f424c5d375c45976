"""What the keys of a client may spend together per minute. A process leases tokens by the handful and spends them locally: a
call to Redis for every request would cost more than most requests do."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

from swap.errors import TooManyRequests
from swap.infra.token_bucket import LocalBucket, SharedBucket

_LEASE = 50
COSTS = {"orders.page": 10, "webhooks.deliveries": 10, "instruments.pairs": 5, "support.find": 5}
"""What a request costs by its endpoint, where that is not 1: what has the database read many rows. A list of orders that
names what it looks for costs half."""

_DEAREST = max(COSTS.values())


@dataclass(frozen=True, slots=True)
class Budget:
    """`limit`: what may be spent per minute; `left`: about how much of it is there now, for other processes spend of it too;
    `full_in`: seconds until all of it is there again."""

    limit: int
    left: int
    full_in: int


@dataclass
class _TokenLease:
    alone: LocalBucket
    tokens: float = 0
    shared: float = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ClientLimits:
    def __init__(self, shared: SharedBucket) -> None:
        self._shared = shared
        self._purses: dict[tuple[str, int], _TokenLease] = {}
        self._lock = threading.Lock()

    def spend(self, owner: str, weight_per_minute: int, cost: int = 1) -> Budget:
        """Take what a request costs from the budget of its client. Raises TooManyRequests when it is spent.

        While Redis is away each process grants a quarter of the budget by itself.
        """
        rate = weight_per_minute / 60
        purse = self._purse(owner, weight_per_minute, rate)
        # A budget that is smaller than what one request costs buys one all the same, at its whole.
        cost = min(cost, max(1, weight_per_minute // 4))
        lease = max(float(cost), min(_LEASE, weight_per_minute / 20))
        # A new bucket starts at a quarter, which must be at least one lease: a first request always passes.
        burst = max(4 * lease, weight_per_minute / 4)
        with purse.lock:
            if purse.tokens < cost:
                taken = self._shared.take_and_look(f"client:{owner}", rate=rate, burst=burst, tokens=lease)
                if taken is None:
                    wait, purse.shared, lease = purse.alone.take(cost), 0.0, float(cost)
                else:
                    wait, purse.shared = taken
                if wait > 0:
                    raise TooManyRequests(
                        f"This client may spend {weight_per_minute} a minute; this request costs {cost}.",
                        code="RATE_LIMITED",
                        retry_after=max(1, round(wait + 0.5)),
                        limit=weight_per_minute,
                        cost=cost,
                    )
                purse.tokens += lease
            purse.tokens -= cost
            left = purse.tokens + purse.shared
        return Budget(weight_per_minute, int(left), max(0, math.ceil((burst - left) / rate)))

    def _purse(self, owner: str, weight_per_minute: int, rate: float) -> _TokenLease:
        name = (owner, weight_per_minute)
        with self._lock:
            if name not in self._purses:
                if len(self._purses) >= 10_000:
                    self._purses.clear()
                self._purses[name] = _TokenLease(
                    LocalBucket(rate / 4, max(1.0, rate, min(_DEAREST, weight_per_minute // 4)))
                )
            return self._purses[name]
