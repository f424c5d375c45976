"""Leases on orders: who works on which order now.

A lease is two columns of the order's row. While `leased_until` lies ahead no other process takes the order up; and what its
holder learned counts only while its `lease_token` is still in the row. So a holder that was slow, stopped or cut off can
come back at any time and spoil nothing. `next_check_at` stays the due time throughout.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, bindparam, case, func, literal, or_, select, true, update
from sqlalchemy.orm import Session

from swap.domain import schedules
from swap.tables import Order, Utc

LEASE = timedelta(seconds=15)
"""How long a lease holds without being renewed: what an order loses when its worker is killed. Real seconds, whatever
SWAP_TIME_SCALE says, for it is the worker's life that it guards."""

_UNSYNCED = {"synchronize_session": False}
# Written out, not bound as parameters: an index of one rank is used only where the statement itself shows that it fits.
_OF_RANK = [
    Order.status.in_(bindparam(None, [status.value for status in rank], expanding=True, literal_execute=True))
    for rank in schedules.CLAIM_RANKS
]


def count_due(session: Session, now: datetime, limit: int) -> int:
    """How many orders are due and not leased; counted up to `limit`."""
    # In an order, so that an index is read, and not the table as soon as much of it is due.
    due = select(Order.id).where(_claimable(now)).order_by(Order.next_check_at).limit(limit).subquery()
    return session.scalar(select(func.count()).select_from(due)) or 0


def claim(session: Session, now: datetime, limit: int, *, by_rank: bool = True) -> Sequence[Order]:
    """Lease up to `limit` due orders, and return them as they are now, each with its token.

    The longest overdue first; `by_rank`: lower ranks before them (`schedules.claim_rank`). Every claim has a token of its
    own, so that not even the same process takes an order that it lost for one that it holds.
    """
    token = secrets.token_hex(8)
    claimed: list[Order] = []
    # Rank by rank, each along its own index: to sort all that is due takes half a second where 100,000 orders are.
    for of_rank in _OF_RANK if by_rank else [true()]:
        if len(claimed) < limit:
            claimed += _claim(session, now, limit - len(claimed), of_rank, token)
    return claimed


def _claim(session: Session, now: datetime, limit: int, which: ColumnElement[bool], token: str) -> Sequence[Order]:
    # A CTE, since PostgreSQL may run a plain subquery with LIMIT more than once, and lease more than `limit`.
    due = (
        select(Order.id)
        .where(_claimable(now), which)
        .order_by(Order.next_check_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    claimed = (
        update(Order)
        .where(Order.id.in_(select(due.c.id)))
        .values(leased_until=now + LEASE, lease_token=token)
        .returning(Order)
    )
    return session.scalars(claimed, execution_options=_UNSYNCED).all()


def renew(session: Session, held: Collection[tuple[str, str]], now: datetime) -> None:
    """Prolong the leases of these (order id, token) that are still in their rows, even those that have run out."""
    # Of two tokens for one order, the older one was lost: only the newer can be in the row.
    ids, tokens = {order_id for order_id, _ in held}, {token for _, token in held}
    session.execute(
        update(Order).where(Order.id.in_(ids), Order.lease_token.in_(tokens)).values(leased_until=now + LEASE),
        execution_options=_UNSYNCED,
    )


def release(session: Session, order: Order, due_at: datetime) -> None:
    """End the lease with which `order` was claimed, if it is still held. An order that nobody has given a new due time
    meanwhile is due at `due_at`: otherwise it would be claimed again at once, and for ever."""
    unplanned = Order.next_check_at == order.next_check_at
    session.execute(
        update(Order)
        .where(Order.id == order.id, Order.lease_token == order.lease_token)
        .values(
            lease_token=None,
            leased_until=None,
            next_check_at=case((unplanned, _time(due_at)), else_=Order.next_check_at),
        ),
        execution_options=_UNSYNCED,
    )


def bring_forward(session: Session, order_ids: Collection[str], at: datetime, *, signalled: bool = False) -> None:
    """Make watched orders due at `at`, sooner, never later; not those that are being worked on, were put off, or back off
    after failures. `signalled`: note in all of them that the upstream's list announced a change."""
    free = and_(Order.next_check_at > at, Order.failures == 0, _unleased(at))
    values = {"next_check_at": case((free, _time(at)), else_=Order.next_check_at)} | (
        {"signalled_at": at} if signalled else {}
    )
    which = (Order.id.in_(order_ids), Order.next_check_at.is_not(None))
    session.execute(
        update(Order).where(*which, *(() if signalled else (free,))).values(values),
        execution_options=_UNSYNCED,
    )


def _time(moment: datetime) -> ColumnElement[datetime]:
    """The time as our columns write it: inside an expression SQLAlchemy would choose a form of its own for SQLite."""
    return literal(moment, Utc)


def _claimable(now: datetime) -> ColumnElement[bool]:
    return and_(Order.next_check_at <= now, _unleased(now))


def _unleased(now: datetime) -> ColumnElement[bool]:
    return or_(Order.leased_until.is_(None), Order.leased_until <= now)
