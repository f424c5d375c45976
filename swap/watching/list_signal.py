"""The upstream's list as a signal: one read shows which orders changed, and makes those due for a poll. The list never
moves an order, and polls by plan go on beneath it, only rarer: a list that announces nothing costs delay.

Whether the list announces every change is not documented (docs/upstream.md E7 names `updatedAt`, not when it moves). So
the list has to prove it: of the changes that polls find, those count which the list could have announced, and it is
trusted only while it announced at least 95 % of them. A list that is too large or too slow to be read is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import structlog
from sqlalchemy.orm import Session

from swap.domain.facts import UpstreamEvent
from swap.domain.times import Timing
from swap.errors import Malformed, TimedOut, UpstreamError
from swap.store import leases, periodic, watching
from swap.store.database import Database
from swap.tables import Order
from swap.upstream.client import UpstreamClient

log = structlog.get_logger()

EVERY = timedelta(seconds=15)
LARGEST_BYTES = 8_000_000
SLOWEST_SECONDS = 5.0
OFF_FOR, SLOW_FOR = timedelta(hours=6), timedelta(minutes=15)
ENOUGH, TRUSTED_FROM = 40, Decimal("0.95")

_SHORTEST = timedelta(seconds=1)
# A poll may have been answered from a copy that is older than the list's.
_STALE = timedelta(seconds=5)
# A row that is older than the read before was in that read, but for clocks and delays.
_OVERLAP = timedelta(seconds=60)
# A list that lags by no more than this still announces soon enough.
_LAG_ALLOWED = EVERY
# A read saves polls only where more polls than this would be planned in its time.
_WORTH = 2
_BATCH = 500


class ListSignal:
    """`upstreams`: a client for each key pair that may have made orders; a list holds only the orders of its own key."""

    def __init__(self, database: Database, upstreams: Mapping[str, UpstreamClient], timing: Timing) -> None:
        self._database, self._upstreams, self._timing = database, upstreams, timing
        self._every = timing.shorten(EVERY, at_least=_SHORTEST)
        self._patience = min(SLOWEST_SECONDS, timing.read_timeout)

    def poll_due(self) -> None:
        """Read the list and make the orders due that it shows to have changed; one process does it for all."""
        now = self._timing.now()
        if not periodic.take(self._database, "list", now, now + self._every):
            return
        with self._database.write() as session:
            if not self._wanted(session, now):
                return
            before = watching.state(session).list_began_at
            keys = watching.watched_keys(session)
        try:
            for upstream in (self._upstreams[key] for key in keys if key in self._upstreams):
                self._read(upstream, before)
        except TimedOut:
            # The whole upstream may have been slow for a moment.
            self._switch_off("too slow", SLOW_FOR)
        except UpstreamError as error:
            if isinstance(error, Malformed) and error.cause == "too_large":
                self._switch_off("too large", OFF_FOR)
            else:
                log.info("doorbell.list_not_read", code=error.code)
        else:
            with self._database.write() as session:
                watching.change(session, list_began_at=now)

    def _wanted(self, session: Session, now: datetime) -> bool:
        """Whether the list is to be read now. Writes down what the list has proved since the last time."""
        row = watching.state(session)
        if row.list_state == "off":
            if row.list_until is not None and now < row.list_until:
                return False
            watching.change(session, list_state="learning", list_reason=None, list_until=None, counted=0, announced=0)
        elif row.counted >= ENOUGH:
            share = Decimal(row.announced) / row.counted
            if share < TRUSTED_FROM:
                self._note_off(session, f"announced {row.announced} of {row.counted}", OFF_FOR)
                return False
            if row.list_state == "learning":
                watching.change(session, list_state="trusted")
                log.info("doorbell.trusted", announced=row.announced, counted=row.counted)
        return float(row.planned) * self._every.total_seconds() > _WORTH

    def _read(self, upstream: UpstreamClient, before: datetime | None) -> None:
        """`before`: when the last good read began, None when there was none."""
        rows = upstream.orders(deadline=self._patience, max_bytes=LARGEST_BYTES, priority="look")
        offset, read_at = timedelta(seconds=upstream.offset_seconds), self._timing.now()
        dated = {row.refs: row.updated_at - offset for row in rows if row.updated_at is not None}
        # A row that is dated ahead would look changed after every poll. It announces nothing, and that counts against the
        # list (`record_hit`).
        changed = {
            refs: at
            for refs, at in dated.items()
            if at <= read_at + _STALE and (before is None or at > before - _OVERLAP)
        }
        by_ref = [(ref, changed_at) for refs, changed_at in changed.items() for ref in refs]
        for start in range(0, len(by_ref), _BATCH):
            batch = dict(by_ref[start : start + _BATCH])
            with self._database.read() as session:
                ours = watching.last_polled(session, list(batch))
            due = {id for ref, (id, as_of) in ours.items() if as_of is None or batch[ref] > as_of - _STALE}
            if due:
                with self._database.write() as session:
                    leases.bring_forward(session, sorted(due), self._timing.now(), signalled=True)

    def _switch_off(self, reason: str, wait: timedelta) -> None:
        with self._database.write() as session:
            self._note_off(session, reason, wait)

    def _note_off(self, session: Session, reason: str, wait: timedelta) -> None:
        until = self._timing.now() + self._timing.shorten(wait)
        watching.change(session, list_state="off", list_reason=reason, list_until=until)
        log.warning("doorbell.off", reason=reason)


def record_hit(
    session: Session, order: Order, new: Iterable[UpstreamEvent], asked_at: datetime, offset_seconds: float
) -> None:
    """Count one change for or against the list: did it announce the newest of the `new` events that a poll found?

    A miss counts only if an earlier read of the list should have shown the event; a poll that was simply faster proves
    nothing. `order`: as it was before the poll; `asked_at`: when the poll was sent.
    """
    happened = max((event.at for event in new), default=None)
    began = watching.state(session).list_began_at
    if happened is None or began is None:
        return
    happened -= timedelta(seconds=offset_seconds)
    if order.as_of is not None and happened <= order.as_of:
        return
    announced = order.signalled_at is not None and order.signalled_at >= happened
    if announced or happened < began - _LAG_ALLOWED < began < asked_at:
        watching.count_change(session, announced=announced)
