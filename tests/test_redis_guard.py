"""The guard of Redis: a failure, then rest; and what stands behind it for other servers too."""

from __future__ import annotations

from itertools import pairwise

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from swap.infra.away import Away
from swap.infra.redis_guard import RedisGuard


class Command:
    """Counts its calls; raises `error` while one is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    def __call__(self) -> int:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.calls


def test_the_answer_comes_through_as_long_as_redis_answers() -> None:
    guard, command = RedisGuard(), Command()
    assert [guard.ask(command) for _ in range(3)] == [1, 2, 3]


def test_after_a_failure_redis_is_left_alone_for_a_second() -> None:
    now = 1000.0
    guard, command = RedisGuard(monotonic=lambda: now), Command()
    command.error = RedisConnectionError("refused")
    assert guard.ask(command) is None
    command.error = None
    now += 0.99
    assert guard.ask(command) is None
    assert command.calls == 1, "not asked"
    now += 0.02
    assert guard.ask(command) == 2


def test_a_redis_that_stays_away_is_asked_ever_more_rarely_and_at_most_every_eight_seconds() -> None:
    now = 1000.0
    guard, command = RedisGuard(monotonic=lambda: now), Command()
    command.error = RedisTimeoutError("silent")
    asked = []
    for tenth in range(600):
        now = 1000.0 + tenth / 10
        before = command.calls
        guard.ask(command)
        if command.calls > before:
            asked.append(tenth / 10)
    gaps = [round(later - earlier, 1) for earlier, later in pairwise(asked)]
    assert gaps == [1, 2, 4, 8, 8, 8, 8, 8, 8]
    command.error = None
    now = 1070.0
    assert guard.ask(command) is not None
    command.error = RedisTimeoutError("silent")
    guard.ask(command)
    now += 1.1
    command.error = None
    assert guard.ask(command) is not None, "an answer makes it forget the failures before"


def test_an_answer_that_says_no_does_not_make_redis_away_for_the_others() -> None:
    guard, command, other = RedisGuard(), Command(), Command()
    command.error = ResponseError("WRONGTYPE")
    assert guard.ask(command) is None
    assert guard.ask(other) == 1


def test_calls_that_fail_together_count_as_one_failure() -> None:
    now = 1000.0
    away = Away((1, 8), lambda: now)
    for _ in range(5):
        away.failed()
    now += 1.1
    assert away.may_ask()


def test_once_a_pause_is_over_one_caller_asks_and_the_others_wait_for_what_it_finds() -> None:
    now = 1000.0
    away = Away((1, 2), lambda: now)
    away.failed()
    now += 1.1
    assert [away.may_ask() for _ in range(3)] == [True, False, False]
    away.answered()
    assert [away.may_ask() for _ in range(3)] == [True, True, True]


def test_an_asker_that_never_tells_how_it_went_is_followed_by_another_one() -> None:
    now = 1000.0
    away = Away((1, 2), lambda: now)
    away.failed()
    now += 1.1
    assert away.may_ask()
    now += 1.1
    assert away.may_ask()


def test_the_second_begins_when_the_command_has_failed_not_when_it_was_sent() -> None:
    now = 1000.0
    guard, quick = RedisGuard(monotonic=lambda: now), Command()

    def time_out() -> None:
        nonlocal now
        now += 2
        raise RedisConnectionError("timed out")

    guard.ask(time_out)
    now += 0.5
    assert guard.ask(quick) is None
    assert quick.calls == 0


def test_each_failure_is_reported_and_what_is_not_asked_is_none() -> None:
    reported: list[RedisError] = []
    guard, command = RedisGuard(), Command()
    command.error = RedisConnectionError("refused")
    for _ in range(3):
        guard.ask(command, reported.append)
    assert reported == [command.error]


def test_an_error_that_is_not_of_redis_goes_through() -> None:
    guard, command = RedisGuard(), Command()
    command.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        guard.ask(command)
    command.error = None
    assert guard.ask(command) == 2, "Redis did answer"
