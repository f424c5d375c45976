"""The circuit breaker towards the upstream: while it is away, no caller waits for it; one probe at a time finds out when it
is back. Being blocked (IP list, firewall) is a state of its own: it does not pass by itself, an operator has to act.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

import structlog

from swap.errors import Blocked, NotSent, OutcomeUnknown, OutOfDescriptors, TimedOut, Unreachable, UpstreamUnavailable

log = structlog.get_logger()

State = Literal["ok", "away", "blocked"]

_AWAY_CODES = {Unreachable.code, TimedOut.code, UpstreamUnavailable.code}
_PROVES_NOTHING = {OutcomeUnknown.code, NotSent.code, OutOfDescriptors.code}
_LISTS = {"instruments", "orders", "pairs"}
_GATEWAY_TIMEOUT = 504
# What stands behind the upstream for one pair is away (section 4 of docs/upstream.md); the upstream itself is there.
_FAILED_DEPENDENCY = 424
_FAILURES = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
# A probe that never came back must not keep every other call out.
_PROBE_SECONDS = 30.0


class CircuitBreaker:
    """One per process. `before` is asked for leave before every request, `after` receives how it ended. Thread-safe."""

    def __init__(self, *, scale: float = 1.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._scale, self._monotonic = scale, monotonic
        self._lock = threading.Lock()
        self._state: State = "ok"
        # Of each kind: the subjects that failed, each once, and every connection that could not be made.
        self._failures: dict[State, set[object]] = {"away": set(), "blocked": set()}
        self._pause = _FIRST_PAUSE
        self._opens_at = 0.0

    @property
    def state(self) -> State:
        """ok, away or blocked; as this process knows it."""
        return self._state

    def before(self) -> None:
        """Raises UpstreamUnavailable (cause "breaker", with retry_after) while the upstream is known to be away or blocked.

        When the pause is over one request is let through as a probe; the others go on being refused until
        `after` receives how it ended.
        """
        with self._lock:
            if self._state == "ok":
                return
            now = self._monotonic()
            if now >= self._opens_at:
                self._opens_at = now + _PROBE_SECONDS
                return
            left = self._opens_at - now
        raise UpstreamUnavailable(
            f"The upstream is {self._state}; it is probed again soon.",
            cause="breaker",
            retry_after=min(left, self._pause),
        )

    def give_back(self) -> None:
        """The request was not made after all, or proved nothing: if it was the probe, another request may be."""
        with self._lock:
            if self._state != "ok":
                self._opens_at = min(self._opens_at, self._monotonic() + self._pause / self._scale)

    def after(self, outcome: str, *, endpoint: str = "", status: int | None = None, subject: str = "") -> None:
        """`outcome`: "OK" or the code of the error. An answer that refuses is an answer: the upstream is there.

        `endpoint` and HTTP `status`, where known: a whole list that does not come in time is a slow list, and no reason
        to stop creates and polls. `subject`: what the request was about, such as a pair. A failure counts once for each
        subject until there is an answer again: one pair that is sick must not shut the others out, not even if it breaks
        the connection. Where none could be made nothing was asked, so the subject does not matter, and every failure counts.
        """
        slow_list = endpoint in _LISTS and (outcome == TimedOut.code or status == _GATEWAY_TIMEOUT)
        if slow_list or status == _FAILED_DEPENDENCY or outcome in _PROVES_NOTHING:
            # Half an answer proves neither, and a request that was never sent may have been held back by ourselves.
            self.give_back()
            return
        bad: State | None = "away" if outcome in _AWAY_CODES else "blocked" if outcome == Blocked.code else None
        with self._lock:
            if bad is None:
                if self._state != "ok":
                    log.warning("breaker.closed", after=self._state)
                self._state, self._pause = "ok", _FIRST_PAUSE
                self._failures = {"away": set(), "blocked": set()}
                return
            # What blocks us has not looked at what we ask.
            asked = bad == "away" and (status is not None or outcome != Unreachable.code)
            self._failures[bad].add((endpoint, subject) if asked and subject else object())
            if self._state == "ok" and len(self._failures[bad]) < _FAILURES:
                return
            if self._state == "ok":
                log.error("breaker.opened", state=bad, outcome=outcome)
            else:
                self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self._state = bad
            self._opens_at = self._monotonic() + self._pause / self._scale
