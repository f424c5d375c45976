"""Who may ask the upstream now: the fleet's budget and two circuit breakers, and what every answer teaches them.

Checks of addresses have a breaker of their own, because their endpoint is known to be firewalled alone
(docs/upstream.md E3): that must neither stop creates nor speak for them."""

from __future__ import annotations

from swap.errors import Blocked, RateLimited, UpstreamUnavailable
from swap.upstream.circuit_breaker import CircuitBreaker, State
from swap.upstream.journal import Call
from swap.upstream.rate_budget import CHECKS, PREVIEW, RateBudget

# Seconds that a check of an address may wait for its turn; what is left of its time is for the answer.
_LONGEST_CHECK_WAIT = 1.0


class UpstreamAccess:
    """One per process. Every attempt of every client asks `take` first, and every answer goes to `learn`. Thread-safe."""

    def __init__(self, budget: RateBudget, breaker: CircuitBreaker, check_breaker: CircuitBreaker) -> None:
        self._budget, self._breaker, self._check_breaker = budget, breaker, check_breaker

    @property
    def state(self) -> State:
        """ok, away or blocked: the upstream as a whole, as this process knows it."""
        return self._breaker.state

    def rate(self) -> float:
        """Requests a second that may be spent now; see `RateBudget.rate`."""
        return self._budget.rate()

    def take(self, priority: str, max_wait: float) -> None:
        """Wait for one request's turn, at most `max_wait` seconds. `priority`: see `RateBudget.take`.

        Raises UpstreamUnavailable (cause "breaker") while the upstream is known to be away, RateLimited (cause "limit") when
        no turn comes in time.
        """
        breaker = self._breaker
        if priority in CHECKS:
            max_wait = min(max_wait, _LONGEST_CHECK_WAIT)
            if breaker.state == "ok":
                breaker = self._check_breaker
            elif priority == PREVIEW:
                raise UpstreamUnavailable(f"The upstream is {breaker.state}.", cause="breaker")
            # Else the check of an order may be the probe. Better that than a create, whose silence leaves a doubt.
        breaker.before()
        try:
            self._budget.take(priority, max_wait)
        except RateLimited:
            breaker.give_back()
            raise

    def learn(self, call: Call) -> None:
        """Take note of how one attempt ended: open or close the breakers, lower the rate after a 429 or when the upstream
        says that no requests are left."""
        if call.endpoint != "validate":
            self._breaker.after(call.outcome, endpoint=call.endpoint, status=call.status, subject=call.subject)
        else:
            self._check_breaker.after(call.outcome, status=call.status, subject=call.subject)
            if self._breaker.state != "ok" and call.outcome == Blocked.code:
                # The check was the probe, and its endpoint's own firewall says nothing about the rest.
                self._breaker.give_back()
            elif self._breaker.state != "ok":
                self._breaker.after(call.outcome, status=call.status, subject=call.subject)
        if call.status == 429:
            self._budget.refused(call.retry_after)
        elif call.requests_left is not None:
            self._budget.left(*call.requests_left)
