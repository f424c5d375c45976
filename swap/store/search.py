"""Finding orders of all clients by whatever a customer tells support."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from swap.domain import search_terms
from swap.tables import Client, Order, SearchTerm, TransferRow, UpstreamOrder, UpstreamRef

_TEXTS = ("client_order_id", "user_id", "session_id", "account_id", "destination_memo", "deposit_memo")


def matches(session: Session, clue: str, sent: Mapping[str, str | None], limit: int) -> dict[str, Sequence[str]]:
    """Orders that have the clue, whole: what it is of them -> their ids, of each the latest `limit`. `sent`: what an order
    has instead of it where it is another form of a destination (`swap.orders.validation.sent_form`)."""
    found = {}
    for name, query in _queries(clue, sent).items():
        (order_id,) = query.selected_columns
        # By id: that is the order in which they were made, near enough to choose by, and every index has it.
        found[name] = session.scalars(query.order_by(order_id.desc()).limit(limit)).all()
    return found


def _queries(clue: str, sent: Mapping[str, str | None]) -> dict[str, Select[Any]]:
    order = select(Order.id)
    # Client by client, so that the indexes serve by which clients find their own orders.
    of_clients = order.where(Order.client_id.in_(select(Client.id)))
    destination = [getattr(Order, name) == value for name, value in (sent or {"destination_address": clue}).items()]
    upstream = select(UpstreamOrder.order_id).join(UpstreamRef, UpstreamRef.upstream_order == UpstreamOrder.id)
    return {
        "id": order.where(Order.id == clue),
        **{name: of_clients.where(getattr(Order, name) == clue) for name in _TEXTS},
        "search_term": select(SearchTerm.order_id).where(SearchTerm.term == search_terms.key(clue)),
        "destination_address": order.where(*destination),
        "deposit_address": order.where(Order.deposit_address == clue),
        "upstream_order_id": upstream.where(UpstreamRef.ref == clue, UpstreamOrder.order_id.is_not(None)),
        "tx_id": select(TransferRow.order_id).where(TransferRow.tx_id == clue).distinct(),
    }


def newest(session: Session, order_ids: Collection[str], limit: int) -> Sequence[Order]:
    """Of these orders the newest, newest first."""
    query = select(Order).where(Order.id.in_(order_ids))
    return session.scalars(query.order_by(Order.created_at.desc(), Order.id.desc()).limit(limit)).all()
