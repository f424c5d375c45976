"""Polling orders at the upstream that nobody was shown: spares of our orders, and such as are nobody's.

They are watched for thirty days, since a deposit on one of them would be a customer's money.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog

from swap.domain.times import Timing
from swap.errors import OrderExpired, UpstreamError, UpstreamNotFound
from swap.orders.spares import move_to_spare
from swap.store import orders as order_rows
from swap.store import unowned as unowned_rows
from swap.store.database import Database
from swap.tables import UnownedOrder
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
    """`upstreams`: a client for each key pair that may have made orders."""

    def __init__(self, database: Database, upstreams: Mapping[str, UpstreamClient], timing: Timing) -> None:
        self._database, self._upstreams, self._timing = database, upstreams, timing
        self._lease = timedelta(seconds=timing.read_timeout) + _SLACK

    def poll_due(self) -> None:
        """Poll each that is due, and raise the alarm when a deposit shows up on one: somebody paid to an address that we
        never showed."""
        while True:
            now = self._timing.now()
            with self._database.write() as session:
                unowned = unowned_rows.claim_due(session, now, self._lease)
            if unowned is None:
                return
            try:
                self._poll(unowned, now)
            except Exception:
                # It is due again after its lease; the others must not wait for it.
                log.exception("orphan.poll_broke", ref=unowned.ref)

    def _poll(self, unowned: UnownedOrder, now: datetime) -> None:
        age = now - unowned.seen_at
        wait = next((every for until, every in _SCHEDULE if age < until), None)
        refs, deposit_seen_at = list(unowned.refs), unowned.deposit_seen_at
        address, memo = unowned.deposit_address, unowned.deposit_memo
        upstream = self._upstreams.get(unowned.upstream_key)
        if upstream is not None and unowned.destination_address is not None:
            try:
                reply = upstream.order(unowned.ref, unowned.destination_address, deadline=self._timing.read_timeout)
            except UpstreamError as error:
                log.warning("orphan.not_readable", ref=unowned.ref, code=error.code)
                if not isinstance(error, UpstreamNotFound | OrderExpired):
                    # Nobody has looked: no watch ends on that.
                    wait = wait or _SCHEDULE[-1][1]
            else:
                if reply.facts.deposit_seen and self._moved(unowned, reply, now):
                    return
                refs = sorted({*refs, *reply.refs})
                if reply.deposit_address is not None:
                    address, memo = reply.deposit_address, reply.deposit_memo
                if reply.facts.deposit_seen and deposit_seen_at is None:
                    deposit_seen_at = now
                    log.critical("orphan.deposit_seen", ref=unowned.ref, order_id=unowned.order_id)
        with self._database.write() as session:
            if order_rows.owned_refs(session, refs):
                unowned_rows.adopt(session, refs)
                return
            unowned_rows.record_poll(
                session,
                unowned,
                refs=refs,
                deposit_address=address,
                deposit_memo=memo,
                deposit_seen_at=deposit_seen_at,
                next_check_at=None if wait is None else now + self._timing.shorten(wait),
            )

    def _moved(self, unowned: UnownedOrder, reply: OrderReply, now: datetime) -> bool:
        with self._database.write() as session:
            next_check_at = now + self._timing.shorten(_SCHEDULE[0][1])
            return move_to_spare(session, unowned, reply, now, next_check_at)
