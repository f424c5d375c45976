"""Webhook deliveries: one row for each event, or message, that one endpoint is to receive.

A transaction that writes to an endpoint and to its deliveries locks the endpoint's row first, so that no two transactions
wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session, aliased

from swap.store.database import insert_all_new
from swap.tables import FeedHead, OrderEvent, WebhookDelivery, WebhookEndpoint, new_id

_UNSYNCED = {"synchronize_session": False}
# Written out, not bound as a parameter: a partial index is used only where the statement itself shows that it fits.
_PENDING: ColumnElement[str] = literal_column("'pending'")


def skip_waiting(session: Session, endpoint_id: str, type: str | None = None) -> None:
    """Skip what waits for the endpoint; of one type only where told."""
    own = WebhookDelivery.endpoint_id == endpoint_id
    _skip(session, own if type is None else and_(own, WebhookDelivery.type == type))


def _skip(session: Session, which: ColumnElement[bool]) -> None:
    session.execute(
        update(WebhookDelivery)
        .where(which, WebhookDelivery.status == _PENDING)
        .values(status="skipped", next_attempt_at=None),
        execution_options=_UNSYNCED,
    )


def add_deliveries(session: Session, pairs: Sequence[tuple[WebhookEndpoint, OrderEvent]], now: datetime) -> None:
    """Create one delivery for each of the (endpoint, event) pairs. A delivery becomes due together with the one before it
    in its order's queue; otherwise every event behind a failing one would be claimed again and again, and skipped."""
    if not pairs:
        return
    earlier = session.execute(
        select(WebhookDelivery.endpoint_id, WebhookDelivery.order_id, func.max(WebhookDelivery.next_attempt_at))
        .where(
            WebhookDelivery.endpoint_id.in_({endpoint.id for endpoint, _ in pairs}),
            WebhookDelivery.order_id.in_({event.order_id for _, event in pairs}),
            WebhookDelivery.status == _PENDING,
            WebhookDelivery.next_attempt_at > now,
        )
        .group_by(WebhookDelivery.endpoint_id, WebhookDelivery.order_id)
    )
    due = {(endpoint_id, order_id): at for endpoint_id, order_id, at in earlier}
    insert_all_new(
        session,
        WebhookDelivery,
        [
            {
                "id": new_id("whd"),
                "client_id": endpoint.client_id,
                "endpoint_id": endpoint.id,
                "type": event.type,
                "event_id": event.id,
                "order_id": event.order_id,
                "sequence": event.sequence,
                "status": "pending",
                "attempts": 0,
                "tries": 0,
                "next_attempt_at": due.get((endpoint.id, event.order_id), now),
                "created_at": now,
            }
            for endpoint, event in pairs
        ],
    )


def add_message(
    session: Session, endpoint: WebhookEndpoint, type: str, data: dict[str, Any], now: datetime
) -> WebhookDelivery:
    """Create a delivery that is no event of an order; `data` is what its body carries."""
    delivery = WebhookDelivery(
        id=new_id("whd"),
        client_id=endpoint.client_id,
        endpoint_id=endpoint.id,
        type=type,
        message=data,
        status="pending",
        attempts=0,
        tries=0,
        next_attempt_at=now,
        created_at=now,
    )
    session.add(delivery)
    return delivery


def has_due(session: Session, now: datetime) -> bool:
    """Whether a delivery is due; `claim_due` may leave it because its endpoint has enough in flight."""
    # Endpoint by endpoint: an endpoint that is down may have any number of deliveries due, too many to be read each time.
    return session.scalar(select(WebhookEndpoint.id).where(_has_due(now)).limit(1)) is not None


def claim_due(
    session: Session, now: datetime, lease: timedelta, free: int, *, at_once: int, probe_from: int
) -> Sequence[str]:
    """Lease up to `free` due deliveries, for the endpoints with the fewest in flight first. Returns their ids.

    At most `at_once` deliveries to one endpoint are leased at any time, in all processes, and only one after a hold or
    `probe_from` failures in a row. No endpoint gets more than half of what is free: endpoints that hang must leave room for
    the rest.
    """
    own = WebhookDelivery.endpoint_id == WebhookEndpoint.id
    in_flight = select(func.count()).where(own, WebhookDelivery.leased_until > now).scalar_subquery()
    probed = or_(WebhookEndpoint.failures >= probe_from, WebhookEndpoint.held_until.is_not(None))
    room = case((probed, 1), else_=at_once) - in_flight
    waiting = select(func.min(WebhookDelivery.next_attempt_at)).where(own, WebhookDelivery.status == _PENDING)
    locked = session.scalars(
        select(WebhookEndpoint.id)
        .where(_has_due(now), room > 0)
        # Fewest deliveries in flight first. Otherwise a few slow endpoints would take every free thread, and the rest would
        # wait until all their backlog was sent.
        .order_by(in_flight, waiting.scalar_subquery())
        .limit(free)
        .with_for_update(skip_locked=True, key_share=True, of=WebhookEndpoint)
    ).all()
    # Counted again under the lock: the first count may be older than another process' claim.
    counted = session.execute(select(WebhookEndpoint.id, room).where(WebhookEndpoint.id.in_(locked)))
    rooms: dict[str, int] = {endpoint_id: left for endpoint_id, left in counted}  # noqa: C416 - rows are no pairs
    claimed: list[str] = []
    for endpoint_id in locked:
        share = min(rooms[endpoint_id], max(1, (free - len(claimed)) // 2), free - len(claimed))
        if share > 0:
            claimed += _lease(session, endpoint_id, now, lease, share)
    return claimed


def _lease(session: Session, endpoint_id: str, now: datetime, lease: timedelta, limit: int) -> Sequence[str]:
    # A CTE for the same reason as in `store.orders.claim_due`.
    due = (
        _due(now)
        .where(WebhookDelivery.endpoint_id == endpoint_id)
        .order_by(WebhookDelivery.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
        .cte("due")
    )
    leased = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(select(due.c.id)))
        .values(leased_until=now + lease)
        .returning(WebhookDelivery.id)
    )
    return session.scalars(leased, execution_options=_UNSYNCED).all()


def _has_due(now: datetime) -> ColumnElement[bool]:
    """Of an endpoint: it is enabled and not held, and a delivery to it is due."""
    due = _due(now).where(WebhookDelivery.endpoint_id == WebhookEndpoint.id).correlate(WebhookEndpoint)
    # Not EXISTS: PostgreSQL turns that into a join over all deliveries that are due anywhere. Here it stops at the first.
    first = due.order_by(WebhookDelivery.next_attempt_at).limit(1)
    free = or_(WebhookEndpoint.held_until.is_(None), WebhookEndpoint.held_until <= now)
    return and_(WebhookEndpoint.enabled, free, first.scalar_subquery().is_not(None))


def _due(now: datetime) -> Select[str]:
    """Pending, due, not leased, and with all earlier deliveries of the same order to that endpoint settled."""
    earlier = aliased(WebhookDelivery)
    blocked = exists().where(
        and_(
            earlier.endpoint_id == WebhookDelivery.endpoint_id,
            earlier.order_id == WebhookDelivery.order_id,
            earlier.sequence < WebhookDelivery.sequence,
            earlier.status == _PENDING,
        )
    )
    return select(WebhookDelivery.id).where(
        WebhookDelivery.status == _PENDING,
        WebhookDelivery.next_attempt_at <= now,
        or_(WebhookDelivery.leased_until.is_(None), WebhookDelivery.leased_until <= now),
        ~blocked,
    )


def load_for_sending(
    session: Session, delivery_id: str
) -> tuple[WebhookDelivery, WebhookEndpoint, OrderEvent | None, str] | None:
    """What a delivery is made of, and the feed's epoch; None when it must not be sent any more."""
    query = (
        select(WebhookDelivery, WebhookEndpoint, OrderEvent, select(FeedHead.epoch).scalar_subquery())
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .outerjoin(OrderEvent, OrderEvent.id == WebhookDelivery.event_id)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.status == _PENDING, WebhookEndpoint.enabled)
    )
    row = session.execute(query).one_or_none()
    return None if row is None else (row[0], row[1], row[2], row[3])


def record(session: Session, delivery: WebhookDelivery, **values: Any) -> bool:
    """Write the result of an attempt. False, and nothing written, when another worker has recorded a result meanwhile, or
    when the attempt failed and the delivery was skipped meanwhile."""
    matching = [WebhookDelivery.id == delivery.id, WebhookDelivery.attempts == delivery.attempts]
    if values.get("status") != "delivered":
        matching.append(WebhookDelivery.status == _PENDING)
    counted = session.execute(
        update(WebhookDelivery)
        .where(*matching)
        .values(attempts=delivery.attempts + 1, tries=delivery.tries + 1, leased_until=None, **values),
        execution_options=_UNSYNCED,
    )
    return bool(counted.rowcount)  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult


def hold_back(session: Session, delivery: WebhookDelivery, until: datetime) -> None:
    """Make the order's later events due no sooner than this one; see `add_deliveries`."""
    if delivery.order_id is None:
        return
    session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == delivery.endpoint_id,
            WebhookDelivery.order_id == delivery.order_id,
            WebhookDelivery.sequence > delivery.sequence,
            WebhookDelivery.status == _PENDING,
            WebhookDelivery.next_attempt_at < until,
        )
        .values(next_attempt_at=until),
        execution_options=_UNSYNCED,
    )


def send_again(session: Session, delivery: WebhookDelivery, now: datetime) -> None:
    """Make the delivery due now, at the start of the retry schedule; and with it the later events of its order."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery.id)
        .values(status="pending", tries=0, next_attempt_at=now),
        execution_options=_UNSYNCED,
    )
    if delivery.order_id is None:
        return
    session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == delivery.endpoint_id,
            WebhookDelivery.order_id == delivery.order_id,
            WebhookDelivery.status == _PENDING,
            WebhookDelivery.next_attempt_at > now,
        )
        .values(next_attempt_at=now),
        execution_options=_UNSYNCED,
    )


def send_all_again(
    session: Session, endpoint: WebhookEndpoint, statuses: Collection[str], since: datetime, now: datetime, limit: int
) -> int:
    """Make up to `limit` deliveries due now that were created at `since` or later, oldest first; pending ones only if they
    wait for a later time. Returns how many."""
    chosen = (
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.client_id == endpoint.client_id,
            WebhookDelivery.endpoint_id == endpoint.id,
            WebhookDelivery.created_at >= since,
            WebhookDelivery.status.in_(statuses),
            or_(WebhookDelivery.status != _PENDING, WebhookDelivery.next_attempt_at > now),
        )
        .order_by(WebhookDelivery.created_at, WebhookDelivery.id)
        .limit(limit)
        .cte("chosen")
    )
    changed = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(select(chosen.c.id)))
        .values(status="pending", tries=0, next_attempt_at=now)
        .returning(WebhookDelivery.id)
    )
    return len(session.scalars(changed, execution_options=_UNSYNCED).all())


def get_delivery(session: Session, client_id: str, delivery_id: str) -> WebhookDelivery | None:
    query = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.client_id == client_id)
    return session.scalars(query).one_or_none()


def waiting_message(session: Session, endpoint_id: str, type: str) -> WebhookDelivery | None:
    query = select(WebhookDelivery).where(
        WebhookDelivery.endpoint_id == endpoint_id,
        WebhookDelivery.status == _PENDING,
        WebhookDelivery.type == type,
    )
    return session.scalars(query.limit(1)).one_or_none()


def page(
    session: Session,
    client_id: str,
    filters: dict[str, str],
    since: datetime | None,
    after: WebhookDelivery | None,
    limit: int,
) -> Sequence[WebhookDelivery]:
    """Deliveries of a client, newest first, strictly after the one given. `filters`: column -> value."""
    query = select(WebhookDelivery).where(WebhookDelivery.client_id == client_id).filter_by(**filters)
    if since is not None:
        query = query.where(WebhookDelivery.created_at >= since)
    if after is not None:
        # As one comparison: of one with OR, the index would still be read from its newest end.
        query = query.where(tuple_(WebhookDelivery.created_at, WebhookDelivery.id) < (after.created_at, after.id))
    query = query.order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc())
    return session.scalars(query.limit(limit)).all()


def deliveries_of(session: Session, order_id: str) -> Sequence[WebhookDelivery]:
    query = select(WebhookDelivery).where(WebhookDelivery.order_id == order_id)
    return session.scalars(query.order_by(WebhookDelivery.sequence, WebhookDelivery.endpoint_id)).all()


def forget(session: Session, now: datetime, kept: timedelta) -> None:
    """Delete settled deliveries older than `kept`, and skip those that the publisher created for an endpoint while the
    endpoint was being disabled."""
    disabled = select(WebhookEndpoint.id).where(~WebhookEndpoint.enabled)
    _skip(session, WebhookDelivery.endpoint_id.in_(disabled))
    session.execute(
        delete(WebhookDelivery).where(
            WebhookDelivery.client_id.in_(select(WebhookEndpoint.client_id)),
            WebhookDelivery.created_at < now - kept,
            WebhookDelivery.status != _PENDING,
        ),
        execution_options=_UNSYNCED,
    )
