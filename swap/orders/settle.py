"""Settling a create: its outcome takes the order through the one door, if the order still waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.times import Timing
from swap.infra.queue import JobQueue
from swap.orders.attempts import retry_while_database_away
from swap.orders.matching import deposit_place
from swap.orders.showing import Changes, still_in_doubt
from swap.orders.spares import record_spare, told
from swap.store import attempts as attempt_rows
from swap.store import deposit_places, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

# How often an order is read again that another process changes at the same moment.
_TRIES = 5


@dataclass(frozen=True)
class Settlement:
    """What the outcome of a create makes of its order.

    `changes`: column -> value, from the order as it is inside the transaction. `detail`: for the event. `reply`: the
    upstream order that becomes the order's own, with all its ids, if the changes show it; made with `upstream_key` (None:
    the order's), and perhaps known by more ids (`also`). `attempt`: nothing changes unless this is the order's last attempt.
    `allowed`: asked inside the transaction; nothing changes when it says no.
    """

    changes: Callable[[Order], Changes]
    detail: dict[str, Any]
    reply: OrderReply | None = None
    upstream_key: str | None = None
    also: Sequence[str] = ()
    attempt: int | None = None
    allowed: Callable[[Session, Order], bool] | None = None


class Settler:
    def __init__(self, database: Database, queue: JobQueue, timing: Timing) -> None:
        self._database, self._queue, self._timing = database, queue, timing

    def settle(self, order_id: str, settlement: Settlement) -> Order:
        """Apply the settlement while the order is still being created or in doubt; retried for 10 s while the database is
        away. Returns the order as it is afterwards.

        A sweep may have moved the order into doubt meanwhile: the settlement is applied to what the order is now. An order
        that has gone further is left alone.
        """
        for again in retry_while_database_away():
            with again:
                for _ in range(_TRIES):
                    order = self._try(order_id, settlement)
                    if order is not None:
                        return order
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
        assert order is not None
        log.error("orders.not_settled", order_id=order_id, status=order.status)
        return order

    def _try(self, order_id: str, settlement: Settlement) -> Order | None:
        """One try; None when another process changed the order during it."""
        reply = settlement.reply
        with self._database.write() as session:
            order = order_rows.get(session, order_id)
            assert order is not None
            if order.status not in BEFORE_ADDRESS:
                if reply is not None:
                    self._record_too_late(session, order, settlement, reply)
                return order
            if not _applies(session, order, settlement):
                return order
            changes, detail = settlement.changes(order), settlement.detail
            if reply is not None and changes["status"] == Status.AWAITING_DEPOSIT:
                conflict = self._claim(session, order, settlement, reply)
                # Another key pair may have come into use since: polls and lists are read with the one that made it.
                changes = {**changes, "upstream_key": settlement.upstream_key or order.upstream_key}
                if conflict:
                    changes, detail = still_in_doubt(order, self._timing), {**detail, **conflict}
            moved = order_rows.move(session, order, changes, at=self._timing.now(), source="api", detail=detail)
            if moved is None:
                # The ids must not stay claimed either: the process that was first has decided about them.
                session.rollback()
        if moved is not None:
            self._queue.enqueue("publish")
        return moved

    def _claim(self, session: Session, order: Order, settlement: Settlement, reply: OrderReply) -> dict[str, Any]:
        """Make the upstream order, with its ids and the place to pay at, this order's own. Returns what belongs to another
        order of ours already, for the event; then nothing of the answer may be shown."""
        now, key = self._timing.now(), settlement.upstream_key or order.upstream_key
        # Before the place, whose row refers to the order: two answers to creates of one order would wait for each other.
        order_rows.lock(session, order.id)
        place = deposit_place(order, reply)
        # A spare of the order may have it already.
        held = deposit_places.holder(session, place) == order.id
        if place is not None and not deposit_places.claim(session, order.id, place):
            record_spare(session, order, key, reply.refs, now, reply=reply)
            return {"deposit_address_in_use": True}
        taken = upstream_orders.show(session, order, told(order, key, reply.refs, reply), now, also=settlement.also)
        if taken:
            log.error("orders.upstream_id_taken", order_id=order.id, refs=sorted(taken))
            if not held:
                deposit_places.free(session, order.id, place)
            return {"refs_taken": sorted(taken)}
        return {}

    def _record_too_late(self, session: Session, order: Order, settlement: Settlement, reply: OrderReply) -> None:
        """The order has ended or goes on without this upstream order. No customer saw the deposit address, so no money is
        lost; but without a record nothing would watch the upstream order either."""
        key = settlement.upstream_key or order.upstream_key
        if record_spare(session, order, key, reply.refs, self._timing.now(), reply=reply):
            log.critical("orders.answer_too_late", order_id=order.id, status=order.status, refs=reply.refs)


def _applies(session: Session, order: Order, settlement: Settlement) -> bool:
    if settlement.attempt is not None and attempt_rows.attempts_of(session, order.id)[-1].number != settlement.attempt:
        return False
    return settlement.allowed is None or settlement.allowed(session, order)
