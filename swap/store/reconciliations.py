"""Reconciliations: their reports, and our orders as they are compared with the upstream's list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, load_only

from swap.domain.money import total
from swap.tables import Order, OrderAttempt, Reconciliation, TransferRow, UpstreamOrder, UpstreamRef

# All that is compared. An order has a dozen more columns, facts among them, which need not be loaded a hundred thousand
# times.
_COMPARED = load_only(
    Order.id,
    Order.status,
    Order.status_changed_at,
    Order.from_currency,
    Order.from_network,
    Order.to_currency,
    Order.to_network,
    Order.amount,
    Order.destination_address,
    Order.refund_address,
    Order.upstream_order_id,
    Order.failures,
    Order.created_at,
    raiseload=True,
)


@dataclass(frozen=True, slots=True)
class OurOrder:
    """An order of ours, to be compared with the list. Of `order` only the compared columns are loaded; the others raise.

    `refs`: every upstream id it owns. `attempted_at`: when its last create was sent. `paid_out`: the sum of all known
    payouts in the currency paid out, None when there are none or one has no amount."""

    order: Order
    refs: tuple[str, ...]
    attempted_at: datetime | None
    paid_out: Decimal | None


def page(session: Session, upstream_key: str, after: str, limit: int) -> list[OurOrder]:
    """The next orders of this key by id, those after the given one; "" is before the first."""
    attempted_at = (
        select(func.max(OrderAttempt.sent_at))
        .where(OrderAttempt.order_id == Order.id)
        .correlate(Order)
        .scalar_subquery()
    )
    orders = session.execute(
        select(Order, attempted_at)
        .where(Order.upstream_key == upstream_key, Order.id > after)
        .order_by(Order.id)
        .limit(limit)
        .options(_COMPARED)
    ).all()
    if not orders:
        return []
    last = orders[-1][0].id
    refs: dict[str, list[str]] = {}
    owned = select(UpstreamOrder.order_id, UpstreamRef.ref).join(
        UpstreamRef, UpstreamRef.upstream_order == UpstreamOrder.id
    )
    owned = owned.where(UpstreamOrder.order_id > after, UpstreamOrder.order_id <= last, UpstreamOrder.role == "shown")
    for order_id, ref in session.execute(owned.order_by(UpstreamRef.ref)):
        refs.setdefault(str(order_id), []).append(ref)
    payouts: dict[str, list[Decimal | None]] = {}
    paid = select(TransferRow.order_id, TransferRow.amount).where(
        TransferRow.order_id > after, TransferRow.order_id <= last, TransferRow.direction == "withdrawal"
    )
    for order_id, amount in session.execute(paid):
        payouts.setdefault(order_id, []).append(amount)
    return [
        OurOrder(order, tuple(refs.get(order.id, ())), attempted_at, _sum(payouts.get(order.id, [])))
        for order, attempted_at in orders
    ]


def owns_any(session: Session, upstream_key: str, before: datetime) -> bool:
    """Whether there is an order of this key, created before then, that the upstream has given an id."""
    query = select(Order.id).join(UpstreamOrder, UpstreamOrder.order_id == Order.id)
    query = query.where(UpstreamOrder.role == "shown", Order.upstream_key == upstream_key, Order.created_at < before)
    return session.scalar(query.limit(1)) is not None


def without_id(session: Session, destination_address: str, since: datetime, until: datetime) -> Sequence[Order]:
    """Orders created in that time, paid out to this address, without a known upstream order; fifty at most."""
    query = select(Order).where(Order.destination_address == destination_address, Order.upstream_order_id.is_(None))
    query = query.where(Order.created_at >= since, Order.created_at <= until)
    return session.scalars(query.limit(50).options(_COMPARED)).all()


def latest(session: Session, limit: int) -> Sequence[Reconciliation]:
    """The newest reports of all keys, newest first."""
    newest = select(Reconciliation).order_by(Reconciliation.started_at.desc(), Reconciliation.id.desc())
    return session.scalars(newest.limit(limit)).all()


def forget(session: Session, before: datetime) -> None:
    session.execute(delete(Reconciliation).where(Reconciliation.started_at < before))


def _sum(amounts: list[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    if not known or len(known) < len(amounts):
        return None
    return total(known)
