"""Orphans: orders at the upstream that are nobody's here, or could not be proved to be. They are watched, since a deposit on
one is somebody's money."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import structlog

from swap.errors import UpstreamError
from swap.store import orders
from swap.store import orphans as rows
from swap.store.database import Database
from swap.tables import Orphan
from swap.upstream.client import UpstreamClient

log = structlog.get_logger()

# An orphan of this age is looked at this often; a deposit on one is somebody's money.
_LOOKS = (
    (timedelta(hours=24), timedelta(minutes=5)),
    (timedelta(days=3), timedelta(hours=1)),
    (timedelta(days=30), timedelta(days=1)),
)


class Orphans:
    """`upstreams`: a client for each key pair that may have made orders."""

    def __init__(
        self,
        database: Database,
        upstreams: Mapping[str, UpstreamClient],
        clock: Callable[[], datetime],
        *,
        read_timeout: float,
        scale: Decimal,
    ) -> None:
        self._database, self._upstreams, self._clock = database, upstreams, clock
        self._read_seconds, self._scale = read_timeout, float(scale)

    def watch_due(self) -> None:
        """Look at every orphan that is due, and raise the alarm when a deposit shows up on one: somebody paid for an order
        that we do not know as ours."""
        while True:
            now = self._clock()
            with self._database.write() as session:
                orphan = rows.claim_due(session, now, timedelta(minutes=2))
            if orphan is None:
                return
            self._look_at(orphan, now)

    def _look_at(self, orphan: Orphan, now: datetime) -> None:
        age = now - orphan.seen_at
        wait = next((every for until, every in _LOOKS if age < until), None)
        refs, deposit_seen_at = list(orphan.refs), orphan.deposit_seen_at
        upstream = self._upstreams.get(orphan.upstream_key)
        if upstream is not None and orphan.destination_address is not None:
            try:
                reply = upstream.order(orphan.ref, orphan.destination_address, deadline=self._read_seconds)
            except UpstreamError as error:
                log.warning("orphan.not_readable", ref=orphan.ref, code=error.code)
            else:
                refs = sorted({*refs, *reply.refs})
                if reply.facts.deposit_seen and deposit_seen_at is None:
                    deposit_seen_at = now
                    log.critical("orphan.deposit_seen", ref=orphan.ref, order_id=orphan.order_id)
        with self._database.write() as session:
            if orders.owned(session, refs):
                rows.adopt(session, refs)
                return
            rows.looked(
                session,
                orphan.ref,
                refs=refs,
                deposit_seen_at=deposit_seen_at,
                next_check_at=None if wait is None else now + wait / self._scale,
            )
