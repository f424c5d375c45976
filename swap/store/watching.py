"""How the fleet watches: the pace of looks, and what the list as a doorbell has proved to be worth."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Float, and_, case, func, literal, select, update
from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.schedules import FRESH_FOR, PLANS, Tier, rested, tier
from swap.tables import Order, UpstreamRef, Watching

_HALVED_AT = 400


def state(session: Session) -> Watching:
    return session.scalars(select(Watching)).one()


def change(session: Session, **values: object) -> None:
    session.execute(update(Watching).values(**values), execution_options={"synchronize_session": False})


def count_change(session: Session, *, announced: bool) -> None:
    """Note a change that the list could have announced before a look found it. Old counts fade: at 400 all are halved."""
    full = Watching.counted >= _HALVED_AT
    counted, told = (
        case((full, count / 2), else_=count) + more
        for count, more in ((Watching.counted, 1), (Watching.announced, int(announced)))
    )
    change(session, counted=counted, announced=told)


def planned_looks(session: Session, now: datetime, *, listened: bool) -> dict[Tier, float]:
    """How many looks a second the plans ask for, by tier."""
    rate, fresh = _rate(now, listened), Order.created_at > now - FRESH_FOR
    query = select(Order.status, func.sum(case((fresh, rate), else_=0.0)), func.sum(case((fresh, 0.0), else_=rate)))
    planned: dict[Tier, float] = {"moving": 0.0, "fresh": 0.0, "aged": 0.0}
    for status, young, old in session.execute(query.where(Order.next_check_at.is_not(None)).group_by(Order.status)):
        planned[tier(Status(status), timedelta())] += young
        planned[tier(Status(status), FRESH_FOR)] += old
    return planned


def _rate(now: datetime, listened: bool) -> ColumnElement[float]:
    """Looks a second that the plan of an order asks for."""
    whens: list[tuple[ColumnElement[bool], ColumnElement[float]]] = []
    for status, plan in PLANS.items():
        since = Order.created_at if plan.clock == "age" else Order.status_changed_at
        for until, every in plan.steps:
            rate = 1 / (every if status in BEFORE_ADDRESS else rested(every, listened)).total_seconds()
            young = [since > now - until] if until is not None else []
            whens.append((and_(Order.status == status, *young), literal(rate, Float)))
    return case(*whens, else_=literal(0.0, Float))


def watched_keys(session: Session) -> Sequence[str]:
    """The upstream keys under which watched orders were made."""
    return session.scalars(select(Order.upstream_key).where(Order.next_check_at.is_not(None)).distinct()).all()


def looked_at(session: Session, refs: Sequence[str]) -> dict[str, tuple[str, datetime | None]]:
    """Of these upstream ids: the watched order that owns each, and when it was last looked at with success."""
    found = session.execute(
        select(UpstreamRef.ref, Order.id, Order.as_of)
        .join(Order, Order.id == UpstreamRef.order_id)
        .where(UpstreamRef.ref.in_(refs), Order.next_check_at.is_not(None), Order.status.not_in(_UNSETTLED))
    )
    return {ref: (order_id, as_of) for ref, order_id, as_of in found}


def signal(session: Session, order_ids: Sequence[str], now: datetime) -> None:
    """Make watched orders due now; those that are due already are noted as announced all the same."""
    sooner = case((Order.next_check_at > now, now), else_=Order.next_check_at)
    session.execute(
        update(Order)
        .where(Order.id.in_(order_ids), Order.next_check_at.is_not(None))
        .values(next_check_at=sooner, signalled_at=now),
        execution_options={"synchronize_session": False},
    )


_UNSETTLED = [status.value for status in BEFORE_ADDRESS]
