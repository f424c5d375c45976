"""What was refused, one line for many: who is turned away, and with which code, is seen without reading every request.

A line holds nothing that a caller made up but the id of a key: no path, no query, no signature, no token.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from swap.access.key_ids import is_key_id

log = structlog.get_logger()

EVERY_SECONDS = 60.0
_MOST = 1_000
NOBODY, OTHERS = "none", "others"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def key_id(given: str) -> str:
    """The id of a key, where the header's value has the form of one: it may be a secret in the wrong place."""
    return given if is_key_id(given) else NOBODY


@dataclass
class _Told:
    at: float
    left_out: int = 0


class Refusals:
    """One per process and door. Thread-safe.

    For each key and code one line a minute, with how many were left out since the last one; the number of those that end a
    row of refusals is told with the next. Of more than a thousand keys and codes within a minute, invented ones say, the
    rest is told together, as `others`.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._lock = monotonic, threading.Lock()
        self._told: dict[tuple[str, str], _Told] = {}

    def note(self, code: str, status: int, *, key: str, method: str, route: str | None) -> None:
        """`key`: as it was given. `route`: the rule that the path matched, such as `/v1/orders/<string:order_id>`."""
        method = method if method in _METHODS else "other"
        key = key_id(key)
        with self._lock:
            now = self._monotonic()
            key = self._place(key, code, now)
            told = self._told.get((key, code))
            if told is not None and now - told.at < EVERY_SECONDS:
                told.left_out += 1
                return
            self._told[key, code] = _Told(now)
        left_out = 0 if told is None else told.left_out
        log.warning("web.refused", code=code, status=status, key=key, method=method, route=route, left_out=left_out)

    def _place(self, key: str, code: str, now: float) -> str:
        """The key to count under."""
        if (key, code) not in self._told and len(self._told) >= _MOST:
            self._told = {pair: told for pair, told in self._told.items() if now - told.at < EVERY_SECONDS}
            if len(self._told) >= _MOST:
                return OTHERS
        return key
