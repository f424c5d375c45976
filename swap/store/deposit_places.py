"""Where orders are paid: no two orders that are watched share a place (`swap.orders.matching.deposit_place`)."""

from __future__ import annotations

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import DepositPlace, Order, UpstreamOrder


def claim(session: Session, order_id: str, place: str) -> bool:
    """Claim the place where the order, or a spare of it, is to be paid. False when it is another order's."""
    return insert_new(session, DepositPlace, place=place, order_id=order_id) or holder(session, place) == order_id


def holder(session: Session, place: str | None) -> str | None:
    """The order that is paid there."""
    return session.scalar(select(DepositPlace.order_id).where(DepositPlace.place == place))


def taken(session: Session, place: str | None, *, excluding: str) -> bool:
    """Whether an order of ours other than `excluding` is paid at this place. Without a place: no."""
    return place is not None and holder(session, place) not in (None, excluding)


def free(session: Session, order_id: str, place: str | None) -> None:
    """Give back a place of an order that is not paid there after all."""
    session.execute(delete(DepositPlace).where(DepositPlace.order_id == order_id, DepositPlace.place == place))


def free_unwatched(session: Session) -> None:
    """Give back the places of orders that are watched no longer, and none of whose spares is. An upstream may use such an
    address again."""
    # From the places, of which there are few: of orders that have ended there are ever more.
    order = exists().where(Order.id == DepositPlace.order_id, Order.next_check_at.is_not(None))
    spare = exists().where(UpstreamOrder.order_id == DepositPlace.order_id, UpstreamOrder.next_check_at.is_not(None))
    session.execute(delete(DepositPlace).where(~order, ~spare))
