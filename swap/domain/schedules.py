"""When an order is polled next, and when a webhook is tried again. Pure: the clock and the dice come with `Timing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Literal

from swap.domain.lifecycle import BEFORE_ADDRESS, PROFILES, Status
from swap.domain.times import Timing

JITTER = 0.2
Tier = Literal["moving", "fresh", "aged"]
FAILURE_CAP = timedelta(hours=1)
_UNREADABLE = timedelta(seconds=15)

_S = Status
_SECOND, _MINUTE, _HOUR, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PollingPlan:
    """`steps`: (until, every) in ascending order. `until` is exclusive, and None means for ever; it is measured by
    `clock`, which is the time since the order was created (`age`) or since its status changed (`since_change`). After
    the last step the order is polled no more."""

    clock: Literal["age", "since_change"]
    steps: tuple[tuple[timedelta | None, timedelta], ...]


# Nearly all deposits come soon after the address was shown. An abandoned order cannot be cancelled upstream, so it is
# polled ever more rarely, but never dropped.
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
# No watch ends over a deposit that is neither paid out nor returned, however long ago the order itself has ended.
_MONEY_LEFT = _HOUR
UNHEARD = _DAY
"""When an order is polled again whose watch would end on a poll that brought no answer."""
_CREATE = PollingPlan("age", ((None, 30 * _SECOND),))

# While the upstream's list announces changes, polls by plan are only a safeguard: this many times rarer, and at most
# this far apart.
_RELAXED_FACTOR, _LONGEST_RELAXED = 4, 30 * _MINUTE
# For want of budget, looks at an order that a customer waits for are no further apart.
_LONGEST_STRETCHED = 10 * _MINUTE
FRESH_FOR = _HOUR
# How a budget that is too small for all is divided; the most urgent tier first.
_SHARES: Mapping[Tier, float] = MappingProxyType({"moving": 0.5, "fresh": 0.3, "aged": 0.2})

# A failed order whose address was never shown has no due time, and so no plan counts for it.
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
        _S.REFUNDED: _REVERSAL,
    }
)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """By which factor each tier's planned intervals are stretched for want of budget; 1 is as planned. `list_trusted`:
    the upstream's list announces changes (`swap.watching.list_signal`), so that polls may be rarer."""

    moving: float = 1.0
    fresh: float = 1.0
    aged: float = 1.0
    list_trusted: bool = False

    def interval(self, status: Status, age: timedelta, planned: timedelta) -> timedelta:
        """The interval between two polls, from the planned one. Creates and orders in doubt are never slowed down."""
        if status in BEFORE_ADDRESS:
            return planned
        planned = relaxed(planned) if self.list_trusted else planned
        stretched = planned * self.factor(status, age)
        if tier(status, age) == "aged":
            return stretched
        # The budget may be small for a moment only, and this wait is planned in it.
        return min(stretched, max(planned, _LONGEST_STRETCHED))

    def factor(self, status: Status, age: timedelta) -> float:
        """By how much two polls of such an order are further apart than planned, for want of budget."""
        factor: float = getattr(self, tier(status, age))
        return factor


NO_SLOWDOWN = Slowdown()


def relaxed(planned: timedelta) -> timedelta:
    """The interval that is enough while the upstream's list announces changes."""
    return min(_RELAXED_FACTOR * planned, max(planned, _LONGEST_RELAXED))


def tier(status: Status, age: timedelta) -> Tier:
    """Which factor of a `Slowdown` counts. moving: money that is on the move, held or under review; fresh: a deposit that
    may come any moment; aged: every other order."""
    if status is not _S.AWAITING_DEPOSIT and PROFILES[status].final == "no":
        return "moving"
    return "fresh" if status is _S.AWAITING_DEPOSIT and age < FRESH_FOR else "aged"


def slowdown_for(planned: Mapping[Tier, float], capacity: float, *, list_trusted: bool) -> Slowdown:
    """The slowdown with which `capacity` polls a second suffice for the `planned` ones, each tier's a second.

    A tier gets its share of the capacity if it needs it. What a tier leaves goes to the others, the most urgent first.
    """
    given = {name: min(planned[name], share * capacity) for name, share in _SHARES.items()}
    for name in _SHARES:
        left = max(0.0, capacity - sum(given.values()))
        given[name] += min(planned[name] - given[name], left)
    factors = {name: max(1.0, planned[name] / given[name]) if given[name] else 1.0 for name in _SHARES}
    return Slowdown(**factors, list_trusted=list_trusted)


# Waits after the 1st, 2nd, ... failed attempt. With the first attempt that makes eight, the last after about 28 hours.
WEBHOOK_RETRIES: tuple[timedelta, ...] = (
    5 * _SECOND,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    10 * _HOUR,
)


@dataclass(frozen=True, slots=True)
class PollState:
    """What decides when an order is polled next. `age`: since it was created; `since_change`: since its status changed;
    `failures`: polls in a row that failed; `money_left`: the order has come to its end, but another deposit has not
    (`Ledger.remaining`)."""

    status: Status
    age: timedelta = timedelta()
    since_change: timedelta = timedelta()
    failures: int = 0
    money_left: bool = False


def next_poll(state: PollState, timing: Timing, slowdown: Slowdown = NO_SLOWDOWN) -> timedelta | None:
    """How long to wait until the next poll; None: the order is polled no more.

    Each failure doubles the wait up to an hour, but never shortens a wait that is longer by plan. SWAP_TIME_SCALE divides
    the wait. It leaves the limits between the steps of a plan alone, so a scaled run watches an order for no shorter a
    time than a real one. Creates and orders in doubt have due times of their own, set by the create and the resolver; the
    answer for them is only a wait that is safe to fall back on.
    """
    plan = PLANS[state.status]
    elapsed = state.age if plan.clock == "age" else state.since_change
    planned = next((every for until, every in plan.steps if until is None or elapsed < until), None)
    if state.money_left:
        planned = min(planned or _MONEY_LEFT, _MONEY_LEFT)
    if planned is None:
        return None
    interval = slowdown.interval(state.status, state.age, planned)
    return _spread(_doubled(interval, state.failures), timing)


def failure_delay(failures: int, timing: Timing) -> timedelta:
    """How long to wait after this many failures in a row of an order that cannot even be read, so that no plan is known."""
    return _spread(_doubled(_UNREADABLE, failures), timing)


def _doubled(interval: timedelta, failures: int) -> timedelta:
    # Doubling stops well before a number that no timedelta can hold.
    doublings: int = 2 ** min(max(failures, 0), 16)
    return min(interval * doublings, max(interval, FAILURE_CAP))


def retry_delay(attempt: int, schedule: Sequence[timedelta], timing: Timing) -> timedelta | None:
    """How long to wait after failed attempt number `attempt`, the first of which is 1; None: given up.

    Raises ValueError for an attempt below 1.
    """
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    return _spread(schedule[attempt - 1], timing) if attempt <= len(schedule) else None


def claim_rank(status: Status) -> int:
    """Which orders are claimed first when not all can be; the lower the sooner. 0: creates and orders in doubt; 1: money
    that is on the move, held or under review; 2: waiting for a deposit; 3: ended, but still watched."""
    if status in BEFORE_ADDRESS:
        return 0
    if status is Status.AWAITING_DEPOSIT:
        return 2
    return 1 if tier(status, timedelta()) == "moving" else 3


CLAIM_RANKS = tuple(
    tuple(status for status in Status if claim_rank(status) == rank) for rank in sorted(set(map(claim_rank, Status)))
)
"""The statuses of each rank, the first one first."""


def _spread(delay: timedelta, timing: Timing) -> timedelta:
    """A fifth up or down: orders made in one burst must not come due in one burst for the rest of their lives."""
    return timing.shorten(delay * timing.rng.uniform(1 - JITTER, 1 + JITTER))
