"""The rules of access to the upstream: two breakers, one budget, and what every answer teaches them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from swap.errors import Blocked, RateLimited, Unreachable, UpstreamUnavailable
from swap.upstream.access import UpstreamAccess
from swap.upstream.circuit_breaker import CircuitBreaker
from swap.upstream.journal import Call
from swap.upstream.rate_budget import RateBudget

AWAY, BLOCKED = Unreachable.code, Blocked.code


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeBudget(RateBudget):
    """Grants every turn unless it is spent; notes what it was asked for, and what it learned."""

    def __init__(self) -> None:
        self.spent = False
        self.turns: list[tuple[str, float]] = []
        self.cuts: list[object] = []

    def take(self, priority: str, max_wait: float) -> None:
        self.turns.append((priority, max_wait))
        if self.spent:
            raise RateLimited("spent", retry_after=1)

    def rate(self) -> float:
        return 7.5

    def refused(self, retry_after: float | None) -> None:
        self.cuts.append(("refused", retry_after))

    def left(self, remaining: int, reset: float | None) -> None:
        self.cuts.append(("left", remaining, reset))


class World:
    """Access on real breakers with a clock of their own."""

    def __init__(self) -> None:
        self.seconds, self.budget = Seconds(), FakeBudget()
        self.breaker, self.check_breaker = (
            CircuitBreaker(monotonic=self.seconds),
            CircuitBreaker(monotonic=self.seconds),
        )
        self.access = UpstreamAccess(self.budget, self.breaker, self.check_breaker)

    def call(self, endpoint: str, outcome: str, times: int = 1, **fields: object) -> None:
        for _ in range(times):
            self.access.learn(replace(call(endpoint, outcome), **fields))  # type: ignore[arg-type] # by name

    def refused(self, priority: str) -> bool:
        """Whether this priority gets no turn now because of a breaker."""
        try:
            self.access.take(priority, 5)
        except UpstreamUnavailable as error:
            assert error.cause == "breaker"
            return True
        return False

    def pause_over(self) -> None:
        self.seconds.now += 1.1


def call(endpoint: str, outcome: str) -> Call:
    return Call(
        endpoint=endpoint,
        method="POST",
        order_ref=None,
        attempt=1,
        status=200 if outcome == "OK" else None,
        ms=10,
        request_id=None,
        outcome=outcome,
        request_body=None,
        response_body=None,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def away(world: World) -> World:
    """The upstream is away, its first pause has begun."""
    world.call("create", AWAY, times=5)
    assert world.access.state == "away"
    return world


# --- leave -----------------------------------------------------------------------------------------------------------


def test_a_call_takes_its_turn_from_the_budget(world: World) -> None:
    world.access.take("create", 5)
    world.access.take("look", 3)
    assert world.budget.turns == [("create", 5), ("look", 3)]
    assert (world.access.state, world.access.rate()) == ("ok", 7.5)


@pytest.mark.parametrize("priority", ["check", "preview"])
def test_a_check_waits_a_second_at_most(world: World, priority: str) -> None:
    world.access.take(priority, 5)
    world.access.take(priority, 0.5)
    assert world.budget.turns == [(priority, 1.0), (priority, 0.5)]


@pytest.mark.parametrize("priority", ["create", "read", "look", "check", "preview"])
def test_while_the_upstream_is_away_no_call_is_made_and_no_turn_is_spent(away: World, priority: str) -> None:
    assert away.refused(priority)
    assert away.budget.turns == []


@pytest.mark.parametrize("outcome", [AWAY, BLOCKED])
def test_checks_that_fail_stop_checks_alone(world: World, outcome: str) -> None:
    world.call("validate", outcome, times=5)
    assert world.access.state == "ok"
    assert world.refused("check") and world.refused("preview")
    assert not world.refused("create")


def test_checks_are_probed_by_themselves(world: World) -> None:
    world.call("validate", BLOCKED, times=5)
    world.pause_over()
    assert not world.refused("preview")
    assert world.refused("check"), "one probe at a time"
    world.call("validate", "OK")
    assert not world.refused("check")


def test_other_calls_that_fail_leave_the_checks_own_breaker_alone(world: World) -> None:
    world.call("create", AWAY, times=5)
    assert world.check_breaker.state == "ok"


# --- the probe -------------------------------------------------------------------------------------------------------


def test_a_preview_is_never_the_probe(away: World) -> None:
    away.pause_over()
    assert away.refused("preview")
    assert not away.refused("create"), "the probe is still to be had"


def test_the_check_of_an_order_may_be_the_probe_and_find_the_upstream_back(away: World) -> None:
    away.pause_over()
    assert not away.refused("check")
    assert away.refused("create"), "one probe at a time"
    away.call("validate", "OK")
    assert away.access.state == "ok"
    assert not away.refused("create")


def test_a_check_as_the_probe_that_fails_lengthens_the_pause(away: World) -> None:
    away.pause_over()
    away.access.take("check", 5)
    away.call("validate", AWAY)
    away.pause_over()
    assert away.refused("create"), "the second pause takes two seconds"
    away.pause_over()
    assert not away.refused("create")


def test_a_blocked_check_as_the_probe_says_nothing_about_the_rest(away: World) -> None:
    away.pause_over()
    away.access.take("check", 5)
    away.call("validate", BLOCKED)
    assert away.access.state == "away", "neither blocked nor back"
    away.pause_over()
    assert not away.refused("create"), "another probe after a pause that has not grown"


def test_a_probe_that_gets_no_turn_is_given_back(away: World) -> None:
    away.pause_over()
    away.budget.spent = True
    with pytest.raises(RateLimited):
        away.access.take("create", 5)
    away.budget.spent = False
    away.pause_over()
    assert not away.refused("create"), "not only after the half minute that a lost probe has"


def test_a_check_that_gets_no_turn_gives_back_the_probe_of_the_checks(world: World) -> None:
    world.call("validate", AWAY, times=5)
    world.pause_over()
    world.budget.spent = True
    with pytest.raises(RateLimited):
        world.access.take("check", 5)
    world.budget.spent = False
    world.pause_over()
    assert not world.refused("check")


# --- what the rate learns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["orders", "validate"])
def test_a_429_lowers_the_rate(world: World, endpoint: str) -> None:
    world.call(endpoint, RateLimited.code, status=429, retry_after=9.0)
    world.call(endpoint, RateLimited.code, status=429)
    assert world.budget.cuts == [("refused", 9.0), ("refused", None)]
    assert world.access.state == "ok"


def test_how_many_requests_are_left_is_passed_on(world: World) -> None:
    world.call("order", "OK", status=200, requests_left=(0, 30.0))
    world.call("order", "OK", status=200, requests_left=(12, None))
    world.call("order", "OK", status=200)
    assert world.budget.cuts == [("left", 0, 30.0), ("left", 12, None)]


def test_a_429_that_also_counts_cuts_the_rate_once(world: World) -> None:
    world.call("order", RateLimited.code, status=429, retry_after=2.0, requests_left=(0, 30.0))
    assert world.budget.cuts == [("refused", 2.0)]


def test_a_list_that_is_slow_does_not_close_the_door(world: World) -> None:
    world.call("orders", UpstreamUnavailable.code, times=10, status=504)
    assert world.access.state == "ok"
