"""When an order is looked at again, and a webhook tried again."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swap.domain.lifecycle import TERMINAL, WATCHED, Status
from swap.domain.schedules import PLANS, WEBHOOK_RETRIES, PollState, claim_rank, next_poll, retry_delay
from swap.domain.times import Timing

S = Status
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Middle(Random):
    """Dice that always fall in the middle: what comes out is the base."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


MIDDLE = Timing(rng=Middle())


def base(
    status: Status,
    *,
    age: timedelta = timedelta(0),
    since: timedelta | None = None,
    failures: int = 0,
) -> timedelta | None:
    change = age if since is None else since
    return next_poll(PollState(status, age, change, failures), MIDDLE)


def test_every_status_has_a_plan_and_every_watched_one_is_looked_at() -> None:
    assert set(PLANS) == set(Status)
    for status in WATCHED:
        assert base(status) is not None
    assert all(base(status, age=31 * DAY) is None for status in TERMINAL)


@pytest.mark.parametrize(
    ("age", "wait"),
    [
        (0 * MINUTE, 15 * SECOND),
        (14 * MINUTE, 15 * SECOND),
        (15 * MINUTE, 30 * SECOND),
        (HOUR, 2 * MINUTE),
        (6 * HOUR, 10 * MINUTE),
        (24 * HOUR, 30 * MINUTE),
        (300 * DAY, 30 * MINUTE),
    ],
)
def test_a_waiting_order_is_looked_at_by_its_age(age: timedelta, wait: timedelta) -> None:
    assert base(S.AWAITING_DEPOSIT, age=age, since=timedelta(0)) == wait


@pytest.mark.parametrize("status", [S.CONFIRMING, S.EXCHANGING, S.SENDING, S.REFUNDING])
def test_money_on_the_move_is_looked_at_by_the_last_change(status: Status) -> None:
    assert base(status, age=9 * DAY, since=59 * MINUTE) == 15 * SECOND
    assert base(status, age=9 * DAY, since=HOUR) == MINUTE
    assert base(status, age=9 * DAY, since=6 * HOUR) == 5 * MINUTE


@pytest.mark.parametrize(
    ("status", "since", "wait"),
    [
        (S.ON_HOLD, 0 * HOUR, MINUTE),
        (S.ON_HOLD, HOUR, 5 * MINUTE),
        (S.ON_HOLD, 24 * HOUR, 30 * MINUTE),
        (S.NEEDS_REVIEW, 90 * DAY, 5 * MINUTE),
        (S.EXPIRED, 5 * HOUR, 5 * MINUTE),
        (S.EXPIRED, 6 * HOUR, HOUR),
        (S.EXPIRED, 48 * HOUR, DAY),
        (S.EXPIRED, 30 * DAY, None),
        (S.COMPLETED, 29 * DAY, DAY),
        (S.COMPLETED, 30 * DAY, None),
        (S.REFUNDED, 29 * DAY, DAY),
        (S.REFUNDED, 30 * DAY, None),
        (S.CREATING, 0 * HOUR, 30 * SECOND),
        (S.IN_DOUBT, 0 * HOUR, 30 * SECOND),
    ],
)
def test_the_others_are_looked_at_as_designed(status: Status, since: timedelta, wait: timedelta | None) -> None:
    assert base(status, age=since) == wait


def test_a_failed_order_whose_address_was_shown_is_watched_for_thirty_days() -> None:
    assert base(S.FAILED) == HOUR
    assert base(S.FAILED, age=48 * HOUR) == DAY
    assert base(S.FAILED, age=30 * DAY) is None


def test_failures_double_the_wait_up_to_an_hour_and_never_shorten_it() -> None:
    assert [base(S.CONFIRMING, failures=n) for n in (0, 1, 2, 7, 8, 10**6)] == [
        *(15 * SECOND, 30 * SECOND, 60 * SECOND, 32 * MINUTE, HOUR, HOUR)
    ]
    assert base(S.COMPLETED, age=DAY, failures=3) == DAY
    assert base(S.REFUNDED, age=31 * DAY, failures=3) is None


@given(
    st.sampled_from(list(Status)),
    st.timedeltas(timedelta(0), 60 * DAY),
    st.timedeltas(timedelta(0), 60 * DAY),
    st.integers(0, 100),
    st.integers(0, 2**32),
    st.sampled_from([Decimal(1), Decimal(60), Decimal("2.5"), Decimal("100.5")]),
)
@settings(deadline=None, max_examples=200)
def test_jitter_stays_within_a_fifth_and_scale_divides(
    status: Status,
    age: timedelta,
    since: timedelta,
    failures: int,
    seed: int,
    scale: Decimal,
) -> None:
    plain = base(status, age=age, since=since, failures=failures)
    wait = next_poll(PollState(status, age, since, failures), Timing(rng=Random(seed), scale=scale))
    assert (wait is None) == (plain is None)
    if wait is not None and plain is not None:
        slack = timedelta(microseconds=2)
        assert plain * 0.8 / float(scale) - slack <= wait <= plain * 1.2 / float(scale) + slack


def test_waits_differ_from_order_to_order() -> None:
    timing, state = Timing(rng=Random(1)), PollState(S.CONFIRMING, HOUR, MINUTE)
    waits = {next_poll(state, timing) for _ in range(50)}
    assert len(waits) == 50


def test_a_webhook_is_tried_eight_times_in_about_a_day() -> None:
    waits = [retry_delay(n, WEBHOOK_RETRIES, MIDDLE) for n in range(1, 9)]
    assert waits == [
        *(5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR, None),
    ]
    assert retry_delay(99, WEBHOOK_RETRIES, MIDDLE) is None
    assert retry_delay(1, (), MIDDLE) is None


def test_a_webhook_wait_is_jittered_and_scaled() -> None:
    for seed in range(50):
        wait = retry_delay(2, WEBHOOK_RETRIES, Timing(rng=Random(seed), scale=Decimal(10)))
        assert wait is not None
        assert 24 * SECOND <= wait <= 36 * SECOND


def test_a_scale_of_nothing_and_an_attempt_of_none_are_mistakes() -> None:
    with pytest.raises(ValueError, match="scale"):
        Timing(scale=Decimal(0))
    with pytest.raises(ValueError, match="counted from 1"):
        retry_delay(0, WEBHOOK_RETRIES, MIDDLE)


def test_creates_are_claimed_first_then_money_on_the_move_then_what_waits_then_what_has_ended() -> None:
    moving = (S.CONFIRMING, S.EXCHANGING, S.SENDING, S.ON_HOLD, S.REFUNDING, S.NEEDS_REVIEW)
    ended = (S.EXPIRED, S.FAILED, S.COMPLETED, S.REFUNDED)
    ranked = ((S.CREATING, S.IN_DOUBT), moving, (S.AWAITING_DEPOSIT,), ended)
    assert [{claim_rank(status) for status in statuses} for statuses in ranked] == [{0}, {1}, {2}, {3}]
