"""Giving an upstream order that is nobody's, or an order's spare, to an order of ours by hand."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS
from swap.domain.times import Timing
from swap.errors import Conflict, NotFound, OrderExpired, UpstreamNotFound
from swap.ops.by_hand import Act, ByHand, Changes, outcome
from swap.orders.create import OrderCreator
from swap.orders.matching import deposit_place, shown_place
from swap.orders.reply_check import ReplyCheck, told_terms
from swap.orders.spares import with_stored_place
from swap.store import attempts as attempt_rows
from swap.store import deposit_places, upstream_ids, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order, UpstreamOrder
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import OrderReply

# What an upstream says that knows the order no more.
_NOTHING = OrderReply(order_id=None, refs=())


class Linking:
    """`upstream`: any client will do, whatever pair made the order: public-info is read without a signature."""

    def __init__(
        self,
        database: Database,
        upstream: UpstreamClient,
        creator: OrderCreator,
        reply_check: ReplyCheck,
        by_hand: ByHand,
        timing: Timing,
    ) -> None:
        self._database, self._upstream, self._creator = database, upstream, creator
        self._reply_check, self._by_hand, self._timing = reply_check, by_hand, timing

    def link(self, ref: str, order_id: str, act: Act) -> dict[str, Any]:
        """Give the upstream order `ref` (any of its ids) to an order: as the one that its customer is shown, while the
        order is still being created or in doubt; else as its spare, so that a deposit on it names the order.

        The rules are those of a create: no id and no place to pay at may be another order's, and what is shown must pass
        every check of an answer. Raises NotFound (ORDER_NOT_FOUND, UPSTREAM_ORDER_UNKNOWN), Conflict
        (UPSTREAM_ORDER_OWNED, DEPOSIT_PLACE_TAKEN, UPSTREAM_DISAGREES, ORDER_STATE_FORBIDS), and UpstreamError where
        there is no answer.
        """
        order, row = self._by_hand.load(order_id), self._find(ref)
        reply = self._ask(row, order)
        with self._database.read() as session:
            self._require_free(session, order, row, reply or _NOTHING)
        if order.status not in BEFORE_ADDRESS:
            return self._as_spare(order, row, act, reply)
        if reply is None or not reply.complete:
            raise Conflict("The upstream does not say where to pay for it.", code="UPSTREAM_DISAGREES")
        return self._as_shown(order, row, act, reply)

    def _find(self, ref: str) -> UpstreamOrder:
        with self._database.read() as session:
            row = upstream_ids.by_refs(session, [ref]).get(ref)
        if row is None:
            raise NotFound(f"There is no spare or unowned order {ref[:64]}.", code="UPSTREAM_ORDER_UNKNOWN")
        if row.role == upstream_orders.SHOWN:
            raise _owned(row.order_id)
        return row

    def _ask(self, row: UpstreamOrder, order: Order) -> OrderReply | None:
        """What the upstream says about it; None when it knows it no more."""
        with self._database.read() as session:
            refs = upstream_orders.refs_of(session, row)
        try:
            return self._upstream.order(
                row.ref,
                row.destination_address or order.destination_address,
                order_ref=order.id,
                priority="read",
                deadline=self._timing.read_timeout,
                also=refs,
            )
        except (UpstreamNotFound, OrderExpired):
            return None

    def _require_free(self, session: Session, order: Order, row: UpstreamOrder, reply: OrderReply) -> None:
        """What is recorded of it counts as well: a customer may have been shown that, whatever the upstream says by now."""
        names = upstream_ids.named(session, reply.primary_ref, reply.refs, about=row)
        for each in names.rows:
            if each.id != row.id and each.order_id not in (None, order.id):
                raise _owned(each.order_id)
        if names.another_than(row):
            raise Conflict(
                "The upstream's answer is about another upstream order. Ask again.",
                code="UPSTREAM_DISAGREES",
                refs=list(names.refs),
            )
        before = None if row.order_id is None else order_rows.get(session, row.order_id)
        places = _places(order, before, row, reply)
        for place in places:
            if deposit_places.holder(session, place) not in (None, order.id, row.order_id):
                raise Conflict("Another order's customer was shown its deposit address.", code="DEPOSIT_PLACE_TAKEN")
        if before is not None and before.id != order.id and shown_place(before) in places:
            raise Conflict(f"The customer of {before.id} was shown its deposit address.", code="DEPOSIT_PLACE_TAKEN")

    def _take_over(self, session: Session, order: Order, row: UpstreamOrder, reply: OrderReply) -> None:
        """Give the upstream order, and the places to pay at that it has, to the order, as its spare."""
        current = upstream_ids.by_refs(session, [row.ref], lock=True).get(row.ref)
        if current is None or current.role == upstream_orders.SHOWN:
            raise _owned(None if current is None else current.order_id)
        self._require_free(session, order, current, reply)
        before = None if current.order_id is None else order_rows.get(session, current.order_id)
        places = _places(order, before, current, reply)
        for place in places:
            if before is not None:
                deposit_places.free(session, before.id, place)
        upstream_orders.give(session, current, order.id)
        for place in places:
            if not deposit_places.claim(session, order.id, place):
                raise Conflict("Another order's customer was shown its deposit address.", code="DEPOSIT_PLACE_TAKEN")

    def _as_spare(self, order: Order, row: UpstreamOrder, act: Act, reply: OrderReply | None) -> dict[str, Any]:
        def plan(_: Order) -> Changes:
            return {}

        def beside(session: Session, moved: Order) -> None:
            self._take_over(session, moved, row, reply or _NOTHING)

        told = None if reply is None else told_terms(order, reply)
        done = self._by_hand.carry_out(order.id, "link", act, plan, told, beside=beside, ref=row.ref, role="spare")
        return {**done, "changes": {"spare": {"from": row.order_id, "to": order.id}}}

    def _as_shown(self, order: Order, row: UpstreamOrder, act: Act, reply: OrderReply) -> dict[str, Any]:
        problem = self._reply_check.problem(order, reply, self._reply_check.source_of(order))
        if problem is not None:
            raise Conflict(
                f"It may not be shown to the customer of this order: {problem}.",
                code="UPSTREAM_DISAGREES",
                conflict=problem,
                upstream=told_terms(order, reply),
            )
        shown = {"upstream_order_id": reply.primary_ref, "deposit_address": reply.deposit_address}
        if not act.do:
            return outcome("link", act, order, {"status": "awaiting_deposit", **shown}, told_terms(order, reply))
        with self._database.read() as session:
            attempts = attempt_rows.attempts_of(session, order.id)
        if not attempts:
            raise Conflict("Nothing was ever sent for this order.", code="ORDER_STATE_FORBIDS")

        def allowed(session: Session, current: Order) -> bool:
            self._take_over(session, current, row, reply)
            return True

        detail = {"source": "person", **act.detail("link"), "ref": row.ref, "role": "shown"}
        also = [row.ref]
        linked = self._creator.adopt(order.id, reply, detail, attempts[-1].number, allowed, row.upstream_key, also)
        if linked.deposit_kind is None or linked.upstream_order_id != reply.primary_ref:
            raise Conflict(
                f"The order was changed meanwhile; it is {linked.status}. Look at it again.",
                code="ORDER_STATE_FORBIDS",
                status=linked.status,
            )
        changes = {"status": linked.status, **shown}
        return outcome("link", act, linked, changes, told_terms(order, reply), before=order)


def _places(order: Order, before: Order | None, row: UpstreamOrder, reply: OrderReply) -> list[str]:
    """Where it is to be paid, by what is recorded and by the answer: as the order writes it, and as the one whose spare it
    was (`before`) has claimed it."""
    owners = [order] if before is None else [order, before]
    told = [with_stored_place(row, _NOTHING), with_stored_place(row, reply)]
    places = {deposit_place(owner, each) for owner in owners for each in told}
    # Sorted, or two that claim the same could wait for each other.
    return sorted(place for place in places if place is not None)


def _owned(order_id: str | None) -> Conflict:
    return Conflict(f"It belongs to {order_id}.", code="UPSTREAM_ORDER_OWNED", order_id=order_id)
