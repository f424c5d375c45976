"""Until when a shown address may be paid. Times in minutes after an arbitrary start."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swap.domain.expiry import APART, ToldExpiry, fixed_rate_end, not_payable

START = datetime(2025, 10, 9, 8, 0, tzinfo=UTC)
# (minutes since the look before, whether this look said expired)
looks = st.lists(st.tuples(st.integers(0, 14), st.booleans()), max_size=60)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def after(looks: list[tuple[int, bool]]) -> list[ToldExpiry]:
    """What is held after each look."""
    told, minute, seen = ToldExpiry(), 0, []
    for wait, expired in looks:
        minute += wait
        told = told.told(at(minute)) if expired else told.good(at(minute))
        seen.append(told)
    return seen


@given(looks)
def test_an_expiry_is_confirmed_only_by_two_that_were_told_ten_minutes_apart(looks: list[tuple[int, bool]]) -> None:
    told_at, minute = [], 0
    for (wait, expired), told in zip(looks, after(looks), strict=True):
        minute += wait
        if expired:
            told_at.append(at(minute))
        if told.confirmed:
            assert told_at[-1] - told_at[0] >= APART


@given(looks)
def test_a_confirmed_expiry_is_taken_back_once_at_most(looks: list[tuple[int, bool]]) -> None:
    seen = [ToldExpiry(), *after(looks)]
    assert sum(a.confirmed and not b.confirmed for a, b in pairwise(seen)) <= 1


@given(looks)
def test_an_upstream_that_answers_both_ways_changes_what_holds_a_few_times_and_no_more(
    looks: list[tuple[int, bool]],
) -> None:
    seen = [ToldExpiry(), *after(looks)]
    changes = sum((a.since is None) != (b.since is None) for a, b in pairwise(seen))
    minutes = sum(wait for wait, _ in looks)
    assert changes <= 3 + minutes / 5, "one doubt at once; after that nothing is taken back within ten minutes"


@given(looks)
def test_what_was_told_survives_being_stored(looks: list[tuple[int, bool]]) -> None:
    for told in after(looks):
        text = json.dumps(told.to_json())
        assert ToldExpiry.from_json(json.loads(text)) == told


def test_one_good_look_takes_the_first_doubt_back_and_two_take_back_a_later_one() -> None:
    once = ToldExpiry().told(at(0)).good(at(1))
    assert once.since is None
    twice = once.told(at(2)).good(at(3))
    assert twice.since == at(2)
    assert twice.good(at(12.9)).since == at(2)
    assert twice.good(at(13)).since is None


def test_two_looks_that_say_expired_with_a_good_one_between_them_are_no_confirmation_of_each_other() -> None:
    assert not ToldExpiry().told(at(0)).good(at(1)).told(at(20)).confirmed


def test_the_end_of_a_fixed_rate_comes_before_every_doubt_and_stays() -> None:
    doubt, end = ToldExpiry().told(at(0)), at(15)
    assert not_payable(ToldExpiry(), None, at(10_000)) is None
    assert not_payable(ToldExpiry(), end, at(14.9)) is None
    assert not_payable(doubt, end, at(14.9)) == "unverified"
    assert not_payable(doubt, end, at(15)) == not_payable(ToldExpiry(), end, at(99)) == "fixed_rate_ended"


def test_no_window_is_promised_where_none_was_told() -> None:
    assert fixed_rate_end(None, START) is fixed_rate_end(0, START) is None
    assert fixed_rate_end(15, START) == at(15)
