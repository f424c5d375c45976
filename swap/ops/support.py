"""What support staff look up: orders by what a customer tells, and everything about one of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from swap.domain.facts import Kind
from swap.domain.lifecycle import WATCHED
from swap.domain.money import plain
from swap.domain.times import iso
from swap.errors import NotFound
from swap.orders.validation import sent_form
from swap.store import attempts as attempt_rows
from swap.store import deliveries, events, search, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.serializers import delivery_view, order_view
from swap.tables import Order, OrderAttempt, OrderEvent, UpstreamOrder


class Support:
    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, clue: str, limit: int) -> dict[str, Any]:
        """Orders of all clients that have the clue, whole, as an id, a transaction, an address, a memo, a name of the
        client's or a search term: the newest first, at most `limit`, each with what the clue is of it (`matched`).
        `has_more`: there are more."""
        with self._database.read() as session:
            found = search.matches(session, clue, sent_form(clue), limit + 1)
            ids = {order_id for of_kind in found.values() for order_id in of_kind}
            shown = search.newest(session, ids, limit)
        orders = [
            {
                **order_view(order),
                "client_id": order.client_id,
                "matched": [name for name, of_kind in found.items() if order.id in of_kind],
            }
            for order in shown
        ]
        return {"orders": orders, "has_more": len(ids) > limit}

    def record(self, order_id: str) -> dict[str, Any]:
        """The order's full record: the row, every upstream order made for it, every create attempt, every event with the
        journal, every delivery.

        Raises NotFound (ORDER_NOT_FOUND).
        """
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
            if order is None:
                raise NotFound(f"There is no order {order_id[:64]}.", code="ORDER_NOT_FOUND")
            epoch = events.head(session).epoch
            refs = upstream_orders.shown_refs(session, order_id)
            told = events.events_of(session, order_id, public_only=False)
            internal = {
                "status": order.status,
                "version": order.version,
                "client_id": order.client_id,
                "upstream_key": order.upstream_key,
                "upstream_refs": refs,
                "upstream_state": order.upstream_state,
                "rate": order.rate,
                "referrer_id": order.referrer_id,
                "markup": None if order.markup is None else plain(order.markup),
                "deposit_address": order.deposit_address,
                "deposit_memo": order.deposit_memo,
                "payable": order.payable,
                "status_before_review": order.status_before_review,
                "conflict": order.conflict,
                "conflict_since": None if order.conflict_since is None else iso(order.conflict_since),
                "accepted_answer": order.accepted_answer,
                "failures": order.failures,
                "facts": order.facts,
            }
            return {
                "order": {**order_view(order), "internal": internal},
                "upstream_orders": _shown(order, refs, told)
                + [
                    _upstream_order("spare", ids, spare.deposit_address, spare.seen_at)
                    for spare, ids in upstream_orders.spares_of(session, order_id)
                ],
                "attempts": [_attempt(attempt) for attempt in attempt_rows.attempts_of(session, order_id)],
                "events": [_event(event, epoch) for event in told],
                "deliveries": [delivery_view(d) for d in deliveries.deliveries_of(session, order_id)],
            }

    def replay(self, now: datetime) -> list[str]:
        """Make those orders due now whose stored unknown kinds this version knows: the next poll reads them anew, whether
        the upstream repeats them or not. Journalled; each order once per set of kinds. Returns their ids.
        """
        with self._database.read() as session:
            unknown = events.unknown_kinds(session)
        readable = {
            order_id: sorted(kind for kind in kinds if Kind.of(kind) is not Kind.UNKNOWN)
            for order_id, kinds in unknown.items()
        }
        return [order_id for order_id, kinds in readable.items() if kinds and self._make_due(order_id, kinds, now)]

    def _make_due(self, order_id: str, kinds: list[str], now: datetime) -> bool:
        with self._database.write() as session:
            order = order_rows.get(session, order_id)
            if order is None or order.status not in WATCHED:
                return False
            moved = order_rows.move(session, order, {"next_check_at": now}, at=now, source="replay")
            if moved is not None:
                events.add_event(session, moved, events.REPLAYED, at=now, detail={"source": "replay", "kinds": kinds})
            return moved is not None

    def unowned_orders(self) -> list[dict[str, Any]]:
        """Orders at the upstream that nobody was shown, oldest first; what `swap orders orphans` shows. `role`: spare of the
        order `order_id`, or unowned; then it may be of one of the `candidates`."""
        with self._database.read() as session:
            return [_unowned(row, refs) for row, refs in upstream_orders.not_shown(session)]


def _shown(order: Order, refs: Sequence[str], told: Sequence[OrderEvent]) -> list[dict[str, Any]]:
    """The upstream order whose deposit address the customer was shown, if one was."""
    if order.deposit_kind is None:
        return []
    at = next((event.created_at for event in told if event.order and event.order["deposit"]), order.created_at)
    return [_upstream_order("shown", refs, order.deposit_address, at)]


def _upstream_order(role: str, refs: Sequence[str], deposit_address: str | None, at: datetime) -> dict[str, Any]:
    return {"role": role, "refs": sorted(refs), "deposit_address": deposit_address, "created_at": iso(at)}


def _unowned(row: UpstreamOrder, refs: Sequence[str]) -> dict[str, Any]:
    return {
        "upstream_order_id": row.ref,
        "refs": list(refs),
        "role": row.role,
        "destination_address": row.destination_address,
        "amount": None if row.amount is None else plain(row.amount),
        "seen_at": iso(row.seen_at),
        "order_id": row.order_id,
        "candidates": row.candidates,
        "deposit_seen_at": None if row.deposit_seen_at is None else iso(row.deposit_seen_at),
    }


def _attempt(attempt: OrderAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "upstream_key": attempt.upstream_key,
        "sent_at": iso(attempt.sent_at),
        "finished_at": None if attempt.finished_at is None else iso(attempt.finished_at),
        "outcome": attempt.outcome,
        "code": attempt.code,
        "cause": attempt.cause,
        "http_status": attempt.http_status,
        "refs": attempt.refs,
        "answer": attempt.answer,
    }


def _event(event: OrderEvent, epoch: str) -> dict[str, Any]:
    return {**events.event_view(event, epoch), "detail": event.detail}
