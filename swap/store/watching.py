"""How the fleet polls: the slowdown, and how far the upstream's list has proved to announce changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Float, and_, case, func, literal, select, update
from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.schedules import FRESH_FOR, PLANS, Tier, relaxed, tier
from swap.tables import Order, UpstreamOrder, UpstreamRef, Watching

_HALVED_AT = 400


def state(session: Session) -> Watching:
    return session.scalars(select(Watching)).one()


def change(session: Session, **values: object) -> None:
    session.execute(update(Watching).values(**values), execution_options={"synchronize_session": False})


def count_change(session: Session, *, announced: bool) -> None:
    """Count a change that the list could have announced before a poll found it. Old counts fade: at 400 both counts are
    halved."""
    full = Watching.counted >= _HALVED_AT
    counted, announced_count = (
        case((full, count / 2), else_=count) + more
        for count, more in ((Watching.counted, 1), (Watching.announced, int(announced)))
    )
    change(session, counted=counted, announced=announced_count)


def planned_polls(session: Session, now: datetime, *, list_trusted: bool) -> dict[Tier, float]:
    """How many polls a second the plans ask for at SWAP_TIME_SCALE 1, by tier."""
    rate, fresh = _rate(now, list_trusted), Order.created_at > now - FRESH_FOR
    query = select(Order.status, func.sum(case((fresh, rate), else_=0.0)), func.sum(case((fresh, 0.0), else_=rate)))
    planned: dict[Tier, float] = {"moving": 0.0, "fresh": 0.0, "aged": 0.0}
    for status, young, old in session.execute(query.where(Order.next_check_at.is_not(None)).group_by(Order.status)):
        planned[tier(Status(status), timedelta())] += young
        planned[tier(Status(status), FRESH_FOR)] += old
    return planned


def _rate(now: datetime, list_trusted: bool) -> ColumnElement[float]:
    """Polls a second that the plan of an order asks for."""
    whens: list[tuple[ColumnElement[bool], ColumnElement[float]]] = []
    for status, plan in PLANS.items():
        since = Order.created_at if plan.clock == "age" else Order.status_changed_at
        for until, planned in plan.steps:
            every = relaxed(planned) if list_trusted and status not in BEFORE_ADDRESS else planned
            young = [since > now - until] if until is not None else []
            whens.append((and_(Order.status == status, *young), literal(1 / every.total_seconds(), Float)))
    return case(*whens, else_=literal(0.0, Float))


def watched_keys(session: Session) -> Sequence[str]:
    """The upstream keys under which watched orders were made."""
    return session.scalars(select(Order.upstream_key).where(Order.next_check_at.is_not(None)).distinct()).all()


def last_polled(session: Session, refs: Sequence[str]) -> dict[str, tuple[str, datetime | None]]:
    """Of these upstream ids: the watched order that owns each, and when it was last polled with success."""
    rows = session.execute(
        select(UpstreamRef.ref, Order.id, Order.as_of)
        .join(UpstreamOrder, UpstreamOrder.id == UpstreamRef.upstream_order)
        .join(Order, Order.id == UpstreamOrder.order_id)
        .where(
            UpstreamRef.ref.in_(refs),
            UpstreamOrder.role == "shown",
            Order.next_check_at.is_not(None),
            Order.status.not_in(_BEFORE_ADDRESS),
        )
    )
    return {ref: (order_id, as_of) for ref, order_id, as_of in rows}


_BEFORE_ADDRESS = [status.value for status in BEFORE_ADDRESS]
