"""Polling orders at the upstream that nobody was shown: spares of our orders, and such as are nobody's.

They are watched for thirty days, since a deposit on one of them would be a customer's money.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from swap.domain.times import Timing
from swap.errors import OrderExpired, UpstreamError, UpstreamNotFound
from swap.orders.spares import claim_place, give_to_its_maker, move_to_spare, with_stored_place
from swap.store import orders as order_rows
from swap.store import upstream_ids, upstream_orders
from swap.store.database import Database
from swap.tables import UpstreamOrder
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

# Up to this age: how often an unowned order is polled.
_SCHEDULE = (
    (timedelta(hours=24), timedelta(minutes=5)),
    (timedelta(days=3), timedelta(hours=1)),
    (timedelta(days=30), timedelta(days=1)),
)
# What one poll may take longer than its call.
_SLACK = timedelta(seconds=5)


class UnownedOrderPoller:
    """`upstream`: any client will do, whatever pair made the order: public-info is read without a signature."""

    def __init__(self, database: Database, upstream: UpstreamClient, timing: Timing) -> None:
        self._database, self._upstream, self._timing = database, upstream, timing
        self._lease = timedelta(seconds=timing.read_timeout) + _SLACK

    def poll_due(self) -> None:
        """Poll each that is due, and raise the alarm when a deposit shows up on one: somebody paid to an address that we
        never showed."""
        while True:
            now = self._timing.now()
            with self._database.write() as session:
                row = upstream_orders.claim_due(session, now, self._lease)
                refs = [] if row is None else upstream_orders.refs_of(session, row)
            if row is None:
                return
            try:
                self._poll(row, refs, now)
            except Exception:
                # It is due again after its lease; the others must not wait for it.
                log.exception("orphan.poll_broke", ref=row.ref)

    def _poll(self, row: UpstreamOrder, refs: Sequence[str], now: datetime) -> None:
        age = now - row.seen_at
        wait = next((every for until, every in _SCHEDULE if age < until), None)
        reply: OrderReply | None = None
        if row.destination_address is not None:
            try:
                reply = self._upstream.order(
                    row.ref, row.destination_address, deadline=self._timing.read_timeout, also=refs
                )
            except UpstreamError as error:
                log.warning("orphan.not_readable", ref=row.ref, code=error.code)
                if not isinstance(error, UpstreamNotFound | OrderExpired):
                    # Nobody has looked: no watch ends on that.
                    wait = wait or _SCHEDULE[-1][1]
        next_check_at = None if wait is None else now + self._timing.shorten(wait)
        with self._database.write() as session:
            current = upstream_orders.still_leased(session, row)
            if current is None:
                return
            current.next_check_at = next_check_at
            if reply is not None:
                self._learn(session, current, reply, now)

    def _learn(self, session: Session, row: UpstreamOrder, reply: OrderReply, now: datetime) -> None:
        names = upstream_ids.named(session, reply.primary_ref, reply.refs, about=row)
        upstream_ids.keep_shared(session, names, now)
        if names.rows and row not in names.rows:
            log.warning("orphan.answer_of_another", ref=row.ref, named=list(names.refs))
            return
        if row.role == upstream_orders.UNOWNED and not reply.unreadable:
            give_to_its_maker(session, row, reply)
        soon = now + self._timing.shorten(_SCHEDULE[0][1])
        if reply.facts.deposit_seen and move_to_spare(session, row, reply, now, soon):
            return
        order = None if row.order_id is None else order_rows.get(session, row.order_id)
        told = with_stored_place(row, reply)
        place = told.deposit_address, told.deposit_memo or None
        if order is not None and place != (row.deposit_address, row.deposit_memo):
            claim_place(session, order, names.refs, told)
        if told.deposit_address is not None:
            row.deposit_address, row.deposit_memo = place
        if reply.facts.deposit_seen and row.deposit_seen_at is None:
            row.deposit_seen_at = now
            log.critical("orphan.deposit_seen", ref=row.ref, order_id=row.order_id, candidates=row.candidates)
        if not reply.unreadable:
            upstream_orders.unite(session, row, names.refs)
