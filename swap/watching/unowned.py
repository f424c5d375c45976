"""Orphans: orders at the upstream that are nobody's here, or could not be proved to be. They are watched, since a deposit on
one is somebody's money."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog

from swap.domain.times import Timing
from swap.errors import UpstreamError
from swap.store import orders
from swap.store import orphans as orphan_rows
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


class UnownedOrders:
    """`upstreams`: a client for each key pair that may have made orders."""

    def __init__(
        self,
        database: Database,
        upstreams: Mapping[str, UpstreamClient],
        timing: Timing,
    ) -> None:
        self._database, self._upstreams, self._timing = database, upstreams, timing

    def watch_due(self) -> None:
        """Look at every orphan that is due, and raise the alarm when a deposit shows up on one: somebody paid for an order
        that we do not know as ours."""
        while True:
            now = self._timing.now()
            with self._database.write() as session:
                orphan = orphan_rows.claim_due(session, now, timedelta(minutes=2))
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
                reply = upstream.order(orphan.ref, orphan.destination_address, deadline=self._timing.read_timeout)
            except UpstreamError as error:
                log.warning("orphan.not_readable", ref=orphan.ref, code=error.code)
            else:
                refs = sorted({*refs, *reply.refs})
                if reply.facts.deposit_seen and deposit_seen_at is None:
                    deposit_seen_at = now
                    log.critical("orphan.deposit_seen", ref=orphan.ref, order_id=orphan.order_id)
        with self._database.write() as session:
            if orders.owned_refs(session, refs):
                orphan_rows.adopt(session, refs)
                return
            orphan_rows.record_poll(
                session,
                orphan.ref,
                refs=refs,
                deposit_seen_at=deposit_seen_at,
                next_check_at=None if wait is None else now + self._timing.shorten(wait),
            )
