"""Attempts to create orders at the upstream: what was sent, and what was answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from swap.domain.lifecycle import BEFORE_ADDRESS
from swap.store.upstream_ids import in_parts
from swap.tables import Order, OrderAttempt


def start_attempt(session: Session, order: Order, now: datetime, *, amount_to_get: Decimal | None = None) -> int:
    """Write down that a create is about to be sent, with the order's upstream key. `amount_to_get`: what this attempt is
    promised, where that is not what the order was. Returns the attempt's number, 1 for the first."""
    last = session.scalar(select(func.max(OrderAttempt.number)).where(OrderAttempt.order_id == order.id))
    number = (last or 0) + 1
    session.add(
        OrderAttempt(
            order_id=order.id,
            number=number,
            upstream_key=order.upstream_key,
            amount_to_get=order.amount_to_get if amount_to_get is None else amount_to_get,
            sent_at=now,
            refs=[],
        )
    )
    return number


def finish_attempt(session: Session, order_id: str, number: int, **values: Any) -> None:
    """Write down the answer to an attempt, even when the order has moved on meanwhile. `values`: column -> value."""
    session.execute(
        update(OrderAttempt).where(OrderAttempt.order_id == order_id, OrderAttempt.number == number).values(**values)
    )


def attempts_of(session: Session, order_id: str) -> Sequence[OrderAttempt]:
    return session.scalars(
        select(OrderAttempt).where(OrderAttempt.order_id == order_id).order_by(OrderAttempt.number)
    ).all()


def attempts_of_each(session: Session, order_ids: Collection[str]) -> dict[str, list[OrderAttempt]]:
    """The attempts of each of these orders, in their order."""
    found: dict[str, list[OrderAttempt]] = {order_id: [] for order_id in order_ids}
    for part in in_parts(order_ids):
        query = select(OrderAttempt).where(OrderAttempt.order_id.in_(part)).order_by(OrderAttempt.number)
        for attempt in session.scalars(query):
            found[attempt.order_id].append(attempt)
    return found


def count_alone(session: Session) -> None:
    """Until this transaction ends, no other one that asks for this counts or starts an attempt. SQLite has one writer
    anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_COUNTING)))


class Creates(NamedTuple):
    """`sent`: attempts that may have reached the upstream; `unshown_again`: those that created an order again and are not
    answered, or not yet, or with what could not be shown."""

    sent: int
    unshown_again: int


# Any number of one's own.
_COUNTING = 7_306_412
_MAY_BE_SENT = or_(OrderAttempt.outcome.is_(None), OrderAttempt.outcome != "not_sent")
_UNANSWERED = or_(OrderAttempt.outcome.is_(None), OrderAttempt.outcome == "unknown")
_BEFORE_ADDRESS = [status.value for status in BEFORE_ADDRESS]
_PAIR = (Order.from_currency, Order.from_network, Order.to_currency, Order.to_network)


_OTHER = aliased(OrderAttempt)
_OF_ORDER = and_(_OTHER.order_id == OrderAttempt.order_id, or_(_OTHER.outcome.is_(None), _OTHER.outcome != "not_sent"))
_AGAIN = select(_OTHER.number).where(_OF_ORDER, _OTHER.number < OrderAttempt.number).exists()
_LATER = select(_OTHER.number).where(_OF_ORDER, _OTHER.number > OrderAttempt.number).exists()
_UNSHOWN = or_(_UNANSWERED, and_(OrderAttempt.outcome == "done", or_(Order.deposit_kind.is_(None), _LATER)))


def creates_since(session: Session, upstream_key: str, since: datetime) -> Creates:
    """The creates that were sent with this key since then. One that is on its way counts as not answered, or a hundred that
    are sent at the same moment would pass any bound."""
    query = select(func.count(), func.count(case((and_(_AGAIN, _UNSHOWN), 1)))).join(
        Order, Order.id == OrderAttempt.order_id
    )
    query = query.where(OrderAttempt.upstream_key == upstream_key, OrderAttempt.sent_at >= since, _MAY_BE_SENT)
    return Creates(*session.execute(query).one())


def last_again_by_pair(session: Session, upstream_key: str, since: datetime) -> dict[tuple[str, ...], datetime]:
    """Of each pair of which an order was created again with this key since then: when that was last."""
    query = select(*_PAIR, func.max(OrderAttempt.sent_at)).join(OrderAttempt, OrderAttempt.order_id == Order.id)
    query = query.where(OrderAttempt.upstream_key == upstream_key, OrderAttempt.sent_at >= since, _MAY_BE_SENT, _AGAIN)
    return {tuple(row[:4]): row[4] for row in session.execute(query.group_by(*_PAIR))}


def unanswered_by_pair(
    session: Session, upstream_key: str, since: datetime, on_its_way_since: datetime
) -> dict[tuple[str, ...], tuple[int, int]]:
    """Of each pair: how many creates that were sent with this key since then are over, and how many of those were not
    answered. One that was sent after `on_its_way_since` and is not answered yet tells nothing about the pair."""
    is_over = or_(OrderAttempt.outcome.is_not(None), OrderAttempt.sent_at < on_its_way_since)
    query = (
        select(*_PAIR, func.count(), func.count(case((_UNANSWERED, 1))))
        .join(OrderAttempt, OrderAttempt.order_id == Order.id)
        .where(OrderAttempt.upstream_key == upstream_key, OrderAttempt.sent_at >= since, _MAY_BE_SENT, is_over)
        .group_by(*_PAIR)
    )
    return {tuple(row[:4]): (row[4], row[5]) for row in session.execute(query)}


def named_since(session: Session, since: datetime) -> Sequence[OrderAttempt]:
    """The attempts that were sent since then, with any key, and whose answers name an upstream order, of orders that are
    over or go on with another one."""
    query = select(OrderAttempt).join(Order, Order.id == OrderAttempt.order_id).where(OrderAttempt.sent_at >= since)
    query = query.where(OrderAttempt.outcome.in_(("done", "unknown")), Order.status.not_in(_BEFORE_ADDRESS))
    return [attempt for attempt in session.scalars(query) if attempt.refs]


def unshown_since(session: Session, upstream_key: str, since: datetime) -> Sequence[Order]:
    """The orders of which a create was sent with this key since then, and not answered, or with what was not shown: it may
    have made something else than that."""
    attempts = select(OrderAttempt.order_id).join(Order, Order.id == OrderAttempt.order_id)
    attempts = attempts.where(OrderAttempt.upstream_key == upstream_key, OrderAttempt.sent_at >= since, _UNSHOWN)
    return session.scalars(select(Order).where(Order.id.in_(attempts))).all()
