"""The circuit breaker towards the upstream."""

from __future__ import annotations

import pytest

from swap.errors import UpstreamUnavailable
from swap.upstream.circuit_breaker import CircuitBreaker

AWAY, BLOCKED = "UPSTREAM_UNREACHABLE", "UPSTREAM_BLOCKED"


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def breaker(seconds: Seconds) -> CircuitBreaker:
    return CircuitBreaker(monotonic=seconds)


def fail(breaker: CircuitBreaker, outcome: str = AWAY, times: int = 5) -> None:
    for _ in range(times):
        breaker.before()
        breaker.after(outcome)


def test_four_failures_in_a_row_change_nothing(breaker: CircuitBreaker) -> None:
    fail(breaker, times=4)
    breaker.before()
    assert breaker.state == "ok"


def test_descriptors_used_up_say_nothing_about_the_upstream(breaker: CircuitBreaker) -> None:
    fail(breaker, "OUT_OF_DESCRIPTORS", times=20)
    assert breaker.state == "ok"


def test_a_probe_for_which_no_descriptor_was_left_is_given_back(breaker: CircuitBreaker, seconds: Seconds) -> None:
    fail(breaker)
    seconds.now = 1.1
    fail(breaker, "OUT_OF_DESCRIPTORS", times=1)
    assert breaker.state == "away"
    seconds.now = 2.2
    breaker.before()


def test_an_answer_in_between_begins_the_count_anew(breaker: CircuitBreaker) -> None:
    for outcome in (AWAY, AWAY, AWAY, AWAY, "AMOUNT_REFUSED", AWAY, AWAY):
        breaker.after(outcome)
    assert breaker.state == "ok"


def test_after_five_nobody_asks_any_more_and_is_told_when_to_come_back(breaker: CircuitBreaker) -> None:
    fail(breaker)
    with pytest.raises(UpstreamUnavailable) as refused:
        breaker.before()
    assert (refused.value.cause, breaker.state) == ("breaker", "away")
    assert 0 < (refused.value.retry_after or 0) <= 1


def test_one_probe_at_a_time_finds_out_whether_it_is_back(breaker: CircuitBreaker, seconds: Seconds) -> None:
    fail(breaker)
    seconds.now = 1.1
    breaker.before()
    with pytest.raises(UpstreamUnavailable):
        breaker.before()
    breaker.after("OK")
    breaker.before()
    assert breaker.state == "ok"


def test_the_pauses_grow_to_half_a_minute_and_no_longer(breaker: CircuitBreaker, seconds: Seconds) -> None:
    fail(breaker)
    for _ in range(10):
        seconds.now += 30.1
        fail(breaker, times=1)
    seconds.now += 29
    with pytest.raises(UpstreamUnavailable):
        breaker.before()
    seconds.now += 1.1
    breaker.before()


def test_a_probe_that_never_comes_back_does_not_keep_everybody_out(breaker: CircuitBreaker, seconds: Seconds) -> None:
    fail(breaker)
    seconds.now = 1.1
    breaker.before()
    seconds.now = 32
    breaker.before()


def test_being_blocked_is_a_state_of_its_own(breaker: CircuitBreaker) -> None:
    fail(breaker, BLOCKED)
    assert breaker.state == "blocked"


@pytest.mark.parametrize("outcome", ["UPSTREAM_OUTCOME_UNKNOWN", "UPSTREAM_NOT_SENT"])
def test_a_create_without_an_answer_proves_nothing_about_the_upstream(breaker: CircuitBreaker, outcome: str) -> None:
    fail(breaker, outcome, times=10)
    before = breaker.state
    fail(breaker)
    breaker.after(outcome)
    assert (before, breaker.state) == ("ok", "away")


@pytest.mark.parametrize("endpoint", ["orders", "pairs", "instruments"])
@pytest.mark.parametrize(("outcome", "status"), [("UPSTREAM_TIMEOUT", None), ("UPSTREAM_UNAVAILABLE", 504)])
def test_a_list_that_does_not_come_in_time_stops_nobody(
    breaker: CircuitBreaker, endpoint: str, outcome: str, status: int | None
) -> None:
    for _ in range(10):
        breaker.before()
        breaker.after(outcome, endpoint=endpoint, status=status)
    assert breaker.state == "ok"


def test_a_list_that_cannot_be_reached_at_all_counts_like_anything_else(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        breaker.after("UPSTREAM_UNREACHABLE", endpoint="orders")
    assert breaker.state == "away"


def test_a_slow_list_as_the_probe_lets_another_probe_ask_soon(breaker: CircuitBreaker, seconds: Seconds) -> None:
    fail(breaker)
    seconds.now = 1.1
    breaker.before()
    breaker.after("UPSTREAM_TIMEOUT", endpoint="orders")
    seconds.now = 2.2
    breaker.before()
    assert breaker.state == "away"


def test_one_sick_subject_stops_nobody_however_often_it_fails(breaker: CircuitBreaker) -> None:
    for _ in range(50):
        breaker.before()
        breaker.after(AWAY, endpoint="rate", status=503, subject="btc/btc ltc/ltc")
        breaker.after("UPSTREAM_TIMEOUT", endpoint="rate", subject="btc/btc ltc/ltc")
    assert breaker.state == "ok"


def test_five_different_subjects_that_fail_mean_that_the_upstream_is_away(breaker: CircuitBreaker) -> None:
    for number in range(4):
        breaker.after(AWAY, endpoint="rate", status=503, subject=f"btc/btc coin/{number}")
    before = breaker.state
    breaker.after(AWAY, endpoint="order", status=500, subject="90210")
    assert (before, breaker.state) == ("ok", "away")


def test_a_subject_that_breaks_the_connection_counts_once_like_one_that_is_answered(breaker: CircuitBreaker) -> None:
    for _ in range(50):
        breaker.before()
        breaker.after("UPSTREAM_UNAVAILABLE", endpoint="order", subject="btc/btc ltc/ltc")
    assert breaker.state == "ok"


def test_where_nothing_can_be_connected_to_the_subject_does_not_matter(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        breaker.after("UPSTREAM_UNREACHABLE", endpoint="rate", subject="btc/btc ltc/ltc")
    assert breaker.state == "away"


def test_a_failed_dependency_is_not_the_upstreams_absence(breaker: CircuitBreaker, seconds: Seconds) -> None:
    for number in range(50):
        breaker.before()
        breaker.after(AWAY, endpoint="rate", status=424, subject=str(number))
    assert breaker.state == "ok"
    fail(breaker)
    seconds.now = 1.1
    breaker.before()
    breaker.after(AWAY, endpoint="rate", status=424, subject="1")
    seconds.now = 2.2
    breaker.before()  # another probe: that one proved neither
