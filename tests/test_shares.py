"""Places that are shared out among owners: one that asks for a lot keeps nobody else out."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap.infra.shares import NoPlace, Shares
from tests.waiting import until


def held(shares: Shares, *owners: str) -> ExitStack:
    with ExitStack() as stack:
        for owner in owners:
            stack.enter_context(shares.place(owner, 0))
        return stack.pop_all()


def is_refused(shares: Shares, owner: str) -> bool:
    try:
        with shares.place(owner, 0):
            return False
    except NoPlace:
        return True


def test_an_owner_alone_leaves_a_quarter_to_whoever_comes_next() -> None:
    shares = Shares(8, waiting=4)
    with held(shares, *["greedy"] * 6):
        assert is_refused(shares, "greedy")
        assert not is_refused(shares, "other")


def test_an_owner_has_half_while_another_has_any() -> None:
    shares = Shares(8, waiting=4)
    with held(shares, "other", *["greedy"] * 4):
        assert is_refused(shares, "greedy")
        assert not is_refused(shares, "other")


def test_a_place_that_comes_free_goes_to_whoever_has_the_fewest() -> None:
    shares, got = Shares(2, waiting=8), []
    with held(shares, "greedy", "third") as both:

        def want(owner: str) -> None:
            with shares.place(owner, 10):
                got.append(owner)
                time.sleep(0.01)

        threads = [threading.Thread(target=want, args=("greedy",)) for _ in range(3)]
        threads.append(threading.Thread(target=want, args=("late",)))
        for thread in threads:
            thread.start()
        until(lambda: shares._wanted.total() == 4)
        both.close()
        for thread in threads:
            thread.join()
    assert got.index("late") <= 1, got


def test_more_of_one_owner_than_may_wait_are_refused_at_once() -> None:
    shares = Shares(1, waiting=1)
    with held(shares, "other"):
        waiting = threading.Thread(target=is_given, args=(shares, "greedy"))
        waiting.start()
        until(lambda: shares._wanted["greedy"] == 1)
        began = time.monotonic()
        with pytest.raises(NoPlace), shares.place("greedy", 30):
            pass
        assert time.monotonic() - began < 5
    waiting.join()


def is_given(shares: Shares, owner: str) -> None:
    with shares.place(owner, 30):
        pass


def test_it_is_all_free_when_nobody_holds_or_wants_any() -> None:
    shares = Shares(2, waiting=1)
    with held(shares, "one"):
        assert not shares.all_free(0)
    assert shares.all_free(0)


@given(st.integers(1, 12), st.lists(st.sampled_from("abc"), max_size=40))
def test_never_more_than_there_are_and_never_all_for_one(places: int, owners: list[str]) -> None:
    shares = Shares(places, waiting=1)
    with ExitStack() as stack:
        for owner in owners:
            try:
                stack.enter_context(shares.place(owner, 0))
            except NoPlace:
                continue
            assert shares._held.total() <= places
            assert shares._held[owner] <= max(1, places * 3 // 4)
    assert shares._held == shares._wanted == {}
