"""The guard of Redis: one failure, then a second of rest."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

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
