"""When to look at an order again, and when to try a webhook again. Pure: the dice are handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from random import Random
from types import MappingProxyType
from typing import Literal

from swap.domain.lifecycle import BEFORE_ADDRESS, PROFILES, Status

JITTER = 0.2
Tier = Literal["moving", "fresh", "aged"]
FAILURE_CAP = timedelta(hours=1)

_S = Status
_SECOND, _MINUTE, _HOUR, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PollingPlan:
    """`steps`: (until, every) in ascending order; `until` is exclusive and measured by `clock`: `age` since the order
    was created, `since_change` since its status changed. None is for ever. After the last step there are no
    more looks."""

    clock: Literal["age", "since_change"]
    steps: tuple[tuple[timedelta | None, timedelta], ...]


# Nearly all deposits come soon after the address was shown, and an abandoned order cannot be cancelled upstream: it is
# looked at ever more rarely, never dropped.
_WAITING = PollingPlan(
    "age",
    (
        (15 * _MINUTE, 15 * _SECOND),
        (_HOUR, 30 * _SECOND),
        (6 * _HOUR, 2 * _MINUTE),
        (24 * _HOUR, 10 * _MINUTE),
        (None, 30 * _MINUTE),
    ),
)
_MOVING = PollingPlan("since_change", ((_HOUR, 15 * _SECOND), (6 * _HOUR, _MINUTE), (None, 5 * _MINUTE)))
_HELD = PollingPlan("since_change", ((_HOUR, _MINUTE), (24 * _HOUR, 5 * _MINUTE), (None, 30 * _MINUTE)))
_LATE = PollingPlan("since_change", ((6 * _HOUR, 5 * _MINUTE), (48 * _HOUR, _HOUR), (30 * _DAY, _DAY)))
_STRANDED = PollingPlan("since_change", ((48 * _HOUR, _HOUR), (30 * _DAY, _DAY)))
_REVERSAL = PollingPlan("since_change", ((30 * _DAY, _DAY),))
_NEVER = PollingPlan("since_change", ())
_CREATE = PollingPlan("age", ((None, 30 * _SECOND),))

# What waits to be announced by the upstream's list needs looks of its own only as a safeguard.
_REST, _LONGEST_REST = 4, 30 * _MINUTE
FRESH_FOR = _HOUR
# Of a budget that is too small for all, the most urgent first.
_SHARES: Mapping[Tier, float] = MappingProxyType({"moving": 0.5, "fresh": 0.3, "aged": 0.2})

# `failed` is the plan for a failed order with a deposit; without one nothing can follow (`polling_plan`).
PLANS: Mapping[Status, PollingPlan] = MappingProxyType(
    {
        _S.CREATING: _CREATE,
        _S.IN_DOUBT: _CREATE,
        _S.AWAITING_DEPOSIT: _WAITING,
        _S.CONFIRMING: _MOVING,
        _S.EXCHANGING: _MOVING,
        _S.SENDING: _MOVING,
        _S.ON_HOLD: _HELD,
        _S.REFUNDING: _MOVING,
        _S.NEEDS_REVIEW: PollingPlan("since_change", ((None, 5 * _MINUTE),)),
        _S.EXPIRED: _LATE,
        _S.FAILED: _STRANDED,
        _S.COMPLETED: _REVERSAL,
        _S.REFUNDED: _NEVER,
    }
)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """How far the planned looks are spread out for want of budget, by tier; 1 is as planned. `listened`: changes are
    announced by the upstream's list (`swap.watching.list_signal`), so that looks may be rarer."""

    moving: float = 1.0
    fresh: float = 1.0
    aged: float = 1.0
    listened: bool = False

    def every(self, status: Status, age: timedelta, planned: timedelta) -> timedelta:
        """The interval between two looks, from the planned one. Creates and doubts are never put off."""
        if status in BEFORE_ADDRESS:
            return planned
        factor: float = getattr(self, tier(status, age))
        return rested(planned, self.listened) * factor


NO_SLOWDOWN = Slowdown()


def rested(planned: timedelta, listened: bool) -> timedelta:
    return min(_REST * planned, max(planned, _LONGEST_REST)) if listened else planned


def tier(status: Status, age: timedelta) -> Tier:
    """What an order is put off with: money that is on the move, held or under review; a deposit that may come any moment;
    all others."""
    if status is not _S.AWAITING_DEPOSIT and PROFILES[status].final == "no":
        return "moving"
    return "fresh" if status is _S.AWAITING_DEPOSIT and age < FRESH_FOR else "aged"


def pace(planned: Mapping[Tier, float], capacity: float, *, listened: bool) -> Slowdown:
    """The pace at which `capacity` looks a second suffice for the `planned` ones, each tier's a second. Every tier gets its
    share of the capacity if it needs it; what others leave goes to the most urgent first."""
    given = {name: min(planned[name], share * capacity) for name, share in _SHARES.items()}
    for name in _SHARES:
        left = max(0.0, capacity - sum(given.values()))
        given[name] += min(planned[name] - given[name], left)
    return Slowdown(
        **{name: max(1.0, planned[name] / given[name]) if given[name] else 1.0 for name in _SHARES}, listened=listened
    )


# Waits after the 1st, 2nd, ... failed attempt; with the first attempt that makes eight, the last after about 28 hours.
WEBHOOK_RETRIES: tuple[timedelta, ...] = (
    5 * _SECOND,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    10 * _HOUR,
)


def polling_plan(status: Status, deposit_seen: bool) -> PollingPlan:
    """A failed order is judged like its finality: without a deposit there is nothing to watch."""
    return _NEVER if PROFILES[status].final == "without a deposit" and not deposit_seen else PLANS[status]


def _base(status: Status, age: timedelta, since_change: timedelta, deposit_seen: bool) -> timedelta | None:
    plan = polling_plan(status, deposit_seen)
    clock = age if plan.clock == "age" else since_change
    return next((every for until, every in plan.steps if until is None or clock < until), None)


def is_watched(status: Status, *, age: timedelta, since_change: timedelta, deposit_seen: bool) -> bool:
    """Whether another look is planned; what `swap.domain.lifecycle.is_final` asks for."""
    return _base(status, age, since_change, deposit_seen) is not None


def next_poll(
    status: Status,
    *,
    age: timedelta,
    since_change: timedelta,
    deposit_seen: bool,
    failures: int,
    rng: Random,
    scale: Decimal | float = 1,
    pace: Slowdown = NO_SLOWDOWN,
) -> timedelta | None:
    """How long to wait until the next look; None: no more looks.

    `age` since the order was created, `since_change` since its status changed. `failures`: exceptions in a row while
    looking at this order; each doubles the wait up to an hour, and never shortens one that is longer by plan. `scale`
    (SWAP_TIME_SCALE) divides the wait. It leaves the limits between the steps alone, so a scaled run watches an order
    for no shorter a time than a real one. creating and in_doubt are looked after by create and resolver; their answer
    here is only a wait that is safe to fall back on."""
    base = _base(status, age, since_change, deposit_seen)
    if base is None:
        return None
    base = pace.every(status, age, base)
    # Doubling stops well before a number no timedelta can hold.
    doubled = base * 2 ** min(max(failures, 0), 16)
    return _spread(min(doubled, max(base, FAILURE_CAP)), rng, scale)


def retry_delay(
    attempt: int, schedule: Sequence[timedelta], rng: Random, scale: Decimal | float = 1
) -> timedelta | None:
    """How long to wait after failed attempt number `attempt` (the first is 1); None: given up."""
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    return _spread(schedule[attempt - 1], rng, scale) if attempt <= len(schedule) else None


def claim_rank(status: Status) -> int:
    """Which orders are claimed first when not all can be; the lower the sooner. 0: creates and doubts; 1: money on the move,
    held or under review; 2: waiting for a deposit; 3: ended but watched."""
    if status in BEFORE_ADDRESS:
        return 0
    if status is Status.AWAITING_DEPOSIT:
        return 2
    return 1 if tier(status, timedelta()) == "moving" else 3


def _spread(base: timedelta, rng: Random, scale: Decimal | float) -> timedelta:
    """A fifth up or down: orders made in one burst must not come due in one burst for the rest of their lives."""
    factor = float(scale)
    if not factor > 0:
        raise ValueError("scale must be more than 0")
    return base * (rng.uniform(1 - JITTER, 1 + JITTER) / factor)
