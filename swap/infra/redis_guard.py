"""What every use of Redis shares: short waits, and one idea of whether it is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from swap.infra.away import Away

_ANSWER_SECONDS = 0.3
_PAUSES = (1.0, 2.0, 4.0, 8.0)

T = TypeVar("T")


def open_redis(url: str) -> Redis:
    """A Redis for commands that take no time there: what hangs costs 0.3 s, connecting included once more."""
    return Redis.from_url(url, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_ANSWER_SECONDS)


class RedisGuard:
    """Keeps an outage of Redis from costing every caller its timeout. One for each process, for all that it asks of Redis;
    thread-safe.

    `monotonic`: any seconds, for tests.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._away = Away(_PAUSES, monotonic)

    def ask(self, command: Callable[[], T], on_failure: Callable[[RedisError], None] | None = None) -> T | None:
        """What the command returns; None when it fails, and without asking while Redis is left alone: for a second after a
        connection failed or was silent, then for two, four and eight.

        `on_failure` receives the error of a command that failed. Errors other than RedisError go through.
        """
        if not self._away.may_ask():
            return None
        try:
            answer = command()
        except RedisError as error:
            if isinstance(error, RedisConnectionError | RedisTimeoutError):
                self._away.failed()
            if on_failure is not None:
                on_failure(error)
            return None
        self._away.answered()
        return answer
