"""Slowdown: all orders are polled less often when the budget is too small, those with money on the move last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap.domain import schedules
from swap.domain.lifecycle import Status
from swap.domain.schedules import PollState, Slowdown, slowdown_for
from swap.domain.times import Timing
from swap.store import watching
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import make_orders
from tests.polling import place, view, watch_due

AGE = timedelta(hours=2)
looks = st.floats(min_value=0, max_value=10_000)


planned_looks = st.fixed_dictionaries({"moving": looks, "fresh": looks, "aged": looks})


@given(planned=planned_looks, capacity=st.floats(min_value=0.1, max_value=1000))
def test_a_slowdown_never_asks_for_more_than_there_is_and_never_hurries(
    planned: dict[schedules.Tier, float], capacity: float
) -> None:
    slowdown = slowdown_for(planned, capacity, list_trusted=False)
    assert min(slowdown.moving, slowdown.fresh, slowdown.aged) >= 1
    assert sum(looks / getattr(slowdown, name) for name, looks in planned.items()) <= capacity * 1.000001
    if sum(planned.values()) <= capacity:
        assert [slowdown.moving, slowdown.fresh, slowdown.aged] == pytest.approx([1, 1, 1])


@given(planned=planned_looks, capacity=st.floats(min_value=0.1, max_value=1000))
def test_every_tier_keeps_its_share_when_it_needs_it_and_nothing_is_left_while_somebody_waits(
    planned: dict[schedules.Tier, float], capacity: float
) -> None:
    slowdown = slowdown_for(planned, capacity, list_trusted=False)
    given = {name: looks / getattr(slowdown, name) for name, looks in planned.items()}
    shares: dict[schedules.Tier, float] = {"moving": 0.5, "fresh": 0.3, "aged": 0.2}
    for name, share in shares.items():
        assert given[name] >= min(planned[name], share * capacity) * 0.999999
    assert sum(given.values()) >= min(sum(planned.values()), capacity) * 0.999999


def test_creates_and_doubts_are_never_put_off() -> None:
    slow = Slowdown(moving=50, fresh=50, aged=50, list_trusted=True)
    for status in (Status.CREATING, Status.IN_DOUBT):
        assert slow.interval(status, timedelta(), timedelta(seconds=30)) == timedelta(seconds=30)


def test_a_list_that_announces_changes_makes_looks_rarer_but_not_rarer_than_half_an_hour() -> None:
    trusting = Slowdown(list_trusted=True)
    assert trusting.interval(Status.CONFIRMING, AGE, timedelta(seconds=15)) == timedelta(minutes=1)
    assert trusting.interval(Status.AWAITING_DEPOSIT, AGE, timedelta(minutes=10)) == timedelta(minutes=30)
    assert trusting.interval(Status.COMPLETED, AGE, timedelta(days=1)) == timedelta(days=1)


def make(service: Service, shop: Shop, clock: Clock, status: Status, count: int) -> None:
    """Open orders, born now, and not due for a day."""
    now, later = clock(), clock() + timedelta(days=1)
    make_orders(
        service.database,
        count,
        shop.client_id,
        status=status,
        created_at=now,
        status_changed_at=now,
        next_check_at=later,
    )


def planned(service: Service, clock: Clock) -> dict[schedules.Tier, float]:
    with service.database.read() as session:
        return watching.planned_polls(session, clock(), list_trusted=False)


def test_the_looks_that_are_added_up_are_those_of_the_cadence_at_every_age(
    service: Service, shop: Shop, clock: Clock
) -> None:
    counts = {Status.AWAITING_DEPOSIT: 3, Status.CONFIRMING: 2, Status.EXPIRED: 1}
    for status, count in counts.items():
        make(service, shop, clock, status, count)
    passed = timedelta()
    for minutes in (0, 20, 90, 60 * 10, 60 * 40, 60 * 24 * 20):
        clock.advance(timedelta(minutes=minutes) - passed + timedelta(seconds=1))
        passed = timedelta(minutes=minutes) + timedelta(seconds=1)
        sums: dict[schedules.Tier, float] = {"moving": 0, "fresh": 0, "aged": 0}
        for status in counts:
            wait = schedules.next_poll(PollState(status, passed, passed), Timing(rng=_Even()))
            sums[schedules.tier(status, passed)] += counts[status] / wait.total_seconds() if wait else 0
        assert planned(service, clock) == {name: pytest.approx(looks) for name, looks in sums.items()}


class _Even(Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def test_more_orders_than_the_budget_can_look_at_are_looked_at_less_often_and_their_next_check_says_so(
    other_service: Callable[..., Service], shop: Shop, clock: Clock
) -> None:
    service = other_service(upstream_rps=Decimal(4))
    order_id = place(shop)
    make(service, shop, clock, Status.AWAITING_DEPOSIT, 299)
    service.throttle.set_due()
    with service.database.read() as session:
        row = watching.state(session)
    # 300 orders, each planned every 15 s, are 20 looks a second; four fifths of the budget are for looks.
    stretched = 20 / (0.8 * 4)
    assert float(row.planned) == pytest.approx(20, rel=0.01)
    assert float(row.fresh) == pytest.approx(stretched, rel=0.01)
    clock.advance(20)
    assert watch_due(service) == [order_id]
    order = view(service, order_id)
    wait = datetime.fromisoformat(order["next_check_at"]) - datetime.fromisoformat(order["as_of"])
    assert 0.79 <= wait.total_seconds() / (15 * stretched) <= 1.21


def test_one_of_many_schedulers_sets_the_slowdown(
    service: Service, other_service: Callable[..., Service], clock: Clock
) -> None:
    other = other_service()
    service.throttle.set_due()
    with service.database.write() as session:
        watching.change(session, aged=Decimal(7))
    other.throttle.set_due()
    assert other.throttle.slowdown().aged == 7, "the task was done a moment ago"
    clock.advance(11)
    other.throttle.set_due()
    with service.database.read() as session:
        assert watching.state(session).aged == 1


@pytest.mark.parametrize(
    ("status", "age", "apart"),
    [
        (Status.AWAITING_DEPOSIT, timedelta(minutes=5), timedelta(minutes=10)),
        (Status.SENDING, timedelta(hours=9), timedelta(minutes=10)),
        (Status.COMPLETED, timedelta(hours=9), timedelta(days=148)),
    ],
)
def test_a_budget_that_is_small_for_a_moment_puts_no_look_off_that_a_customer_waits_for(
    status: Status, age: timedelta, apart: timedelta
) -> None:
    planned = timedelta(days=1) if status is Status.COMPLETED else timedelta(seconds=15)
    assert Slowdown(moving=148, fresh=148, aged=148).interval(status, age, planned) == apart
