"""How much may be created again: a sick upstream is not to be flooded with orders that nobody will pay.

Creating again what was not found costs an unpaid upstream order and no more, as long as few are. So creates that were sent
again and showed nothing are counted, per upstream key; and while almost nothing is answered for a pair, one doubt in thirty
seconds goes on, as a probe. What waited goes on one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

import structlog
from sqlalchemy.orm import Session

from swap.domain.times import Timing
from swap.orders.candidates import GRACE
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.tables import Order

log = structlog.get_logger()

_HOUR = timedelta(hours=1)
_SHARE = 0.05

# A pair is sick while more than this share of its creates stay unanswered.
_SICK_WITHIN = timedelta(minutes=10)
_SICK_SHARE = 0.75
_SICK_FROM = 10
_SICK_PAIRS = 3
_PROBE_EVERY = timedelta(seconds=30)
# Doubts that had to wait go on one at a time.
_RESUME_EVERY = timedelta(seconds=1)


@dataclass(frozen=True)
class SpareLimits:
    """`attempts`: SWAP_CREATE_ATTEMPTS, creates of one order that were sent; `spares`: SWAP_SPARE_LIMIT, creates that were
    sent again and showed nothing, of one upstream key in an hour, where five in a hundred of its creates are not more."""

    attempts: int
    spares: int


class SpareBounds:
    """`upstream_key`: of the key pair that creates are sent with."""

    def __init__(self, limits: SpareLimits, upstream_key: str, timing: Timing) -> None:
        self.limits, self._key, self._timing = limits, upstream_key, timing

    def hold_back_alone(self, session: Session, order: Order, due_since: datetime) -> timedelta | None:
        """`hold_back` for the transaction that starts the attempt: until it ends, no other process counts. Of creates that
        are due at the same moment each one sees those before it."""
        attempt_rows.count_alone(session)
        return self.hold_back(session, order, due_since)

    def hold_back(self, session: Session, order: Order, due_since: datetime) -> timedelta | None:
        """How long creating `order` again has to wait, or None when it may go on now. `due_since`: when it should have been
        created again; one that has waited longer than a moment goes on in turn. A bound that is reached is an alarm."""
        now = self._timing.now()
        since = now - self._timing.shorten(_HOUR)
        hour = attempt_rows.creates_since(session, self._key, since)
        if hour.unshown_again >= max(self.limits.spares, ceil(hour.sent * _SHARE)):
            log.critical("resolver.spare_limit_reached", upstream_key=self._key, unanswered=hour.unshown_again)
            return self._pause(_PROBE_EVERY)
        sick = self._sick_pairs(session, now)
        pair = (order.from_currency, order.from_network, order.to_currency, order.to_network)
        again = attempt_rows.last_again_by_pair(session, self._key, since)
        last = max(again.values(), default=None)
        # Where all are sick, any of them is a probe for all; else only one of the same pair.
        probed = last if len(sick) >= _SICK_PAIRS else again.get(pair)
        if (pair in sick or len(sick) >= _SICK_PAIRS) and not self._is_past(probed, now, _PROBE_EVERY):
            log.critical("resolver.upstream_sick", pairs=sorted("/".join(pair) for pair in sick), order_id=order.id)
            return self._pause(_PROBE_EVERY)
        waited = now - due_since > self._timing.shorten(_PROBE_EVERY) / 2
        if waited and not self._is_past(last, now, _RESUME_EVERY):
            # Each asks as seldom as there are others, so that all together ask once a second.
            others = order_rows.count_in_doubt(session, limit=_PROBE_EVERY // _RESUME_EVERY)
            return self._pause(max(1, others) * _RESUME_EVERY)
        return None

    def _sick_pairs(self, session: Session, now: datetime) -> set[tuple[str, ...]]:
        since = now - self._timing.shorten(_SICK_WITHIN)
        on_its_way = now - timedelta(seconds=self._timing.create_timeout) - GRACE
        return {
            pair
            for pair, (over, unanswered) in attempt_rows.unanswered_by_pair(
                session, self._key, since, on_its_way
            ).items()
            if over >= _SICK_FROM and unanswered > over * _SICK_SHARE
        }

    def _is_past(self, last: datetime | None, now: datetime, wait: timedelta) -> bool:
        return last is None or now - last >= self._timing.shorten(wait)

    def _pause(self, wait: timedelta) -> timedelta:
        return self._timing.shorten(wait) * self._timing.rng.uniform(0.5, 1.5)
