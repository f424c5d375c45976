"""What every use of Redis shares: after a failure it is left alone for a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import RedisError

_AWAY_SECONDS = 1.0

T = TypeVar("T")


class RedisGuard:
    """Keeps an outage of Redis from costing every caller its timeout. One per user of Redis and process; thread-safe.

    `monotonic`: any seconds, for tests.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._away_until = 0.0

    def ask(self, command: Callable[[], T], on_failure: Callable[[RedisError], None] | None = None) -> T | None:
        """What the command returns; None when it fails, and without asking for a second after a failure.

        `on_failure` receives the error of a command that failed. Errors other than RedisError go through.
        """
        if self._monotonic() < self._away_until:
            return None
        try:
            return command()
        except RedisError as error:
            self._away_until = self._monotonic() + _AWAY_SECONDS
            if on_failure is not None:
                on_failure(error)
            return None
