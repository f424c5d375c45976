"""Webhook endpoints and deliveries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, exists, select, update
from sqlalchemy.orm import Session, aliased

from swap.store.database import insert_new
from swap.tables import OrderEvent, WebhookDelivery, WebhookEndpoint, new_id


def add_endpoint(
    session: Session, *, client_id: str, url: str, secret_sealed: str, types: list[str], now: datetime
) -> WebhookEndpoint:
    endpoint = WebhookEndpoint(
        id=new_id("whe"),
        client_id=client_id,
        url=url,
        secret_sealed=secret_sealed,
        types=types,
        enabled=True,
        created_at=now,
    )
    session.add(endpoint)
    return endpoint


def endpoints_for(session: Session, client_ids: set[str]) -> Sequence[WebhookEndpoint]:
    """Enabled endpoints of these clients."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.client_id.in_(client_ids), WebhookEndpoint.enabled)
    return session.scalars(query).all()


def add_delivery(session: Session, endpoint: WebhookEndpoint, event: OrderEvent, now: datetime) -> None:
    insert_new(
        session,
        WebhookDelivery,
        id=new_id("whd"),
        endpoint_id=endpoint.id,
        event_id=event.id,
        order_id=event.order_id,
        sequence=event.sequence,
        status="pending",
        attempts=0,
        next_attempt_at=now,
        created_at=now,
    )


def has_due(session: Session, now: datetime) -> bool:
    return session.scalar(_due(now).limit(1)) is not None


def claim_due(
    session: Session, now: datetime, lease: timedelta, limit: int, *, but_not: Collection[str] = ()
) -> Sequence[tuple[str, str]]:
    """Lease due deliveries, longest overdue first: (id, endpoint) pairs. `but_not`: endpoints to leave alone."""
    # A CTE for the same reason as in `store.orders.claim_due`.
    due = (
        _due(now)
        .where(WebhookDelivery.endpoint_id.not_in(but_not))
        .order_by(WebhookDelivery.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
        .cte("due")
    )
    claimed = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(select(due.c.id)))
        .values(next_attempt_at=now + lease)
        .returning(WebhookDelivery.id, WebhookDelivery.endpoint_id)
    )
    rows = session.execute(claimed, execution_options={"synchronize_session": False})
    return [(row[0], row[1]) for row in rows]


def _due(now: datetime) -> Select[str]:
    """Pending, due, its endpoint enabled, and the same order's earlier deliveries to that endpoint settled."""
    elder = aliased(WebhookDelivery)
    blocked = exists().where(
        and_(
            elder.endpoint_id == WebhookDelivery.endpoint_id,
            elder.order_id == WebhookDelivery.order_id,
            elder.sequence < WebhookDelivery.sequence,
            elder.status == "pending",
        )
    )
    return (
        select(WebhookDelivery.id)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(
            WebhookDelivery.status == "pending",
            WebhookDelivery.next_attempt_at <= now,
            WebhookEndpoint.enabled,
            ~blocked,
        )
    )


def to_send(session: Session, delivery_id: str) -> tuple[WebhookDelivery, WebhookEndpoint, OrderEvent] | None:
    query = (
        select(WebhookDelivery, WebhookEndpoint, OrderEvent)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .join(OrderEvent, OrderEvent.id == WebhookDelivery.event_id)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.status == "pending")
    )
    row = session.execute(query).one_or_none()
    return None if row is None else (row[0], row[1], row[2])


def record(session: Session, delivery: WebhookDelivery, **values: Any) -> bool:
    """Write the result of an attempt. False, and nothing written, when another worker recorded one meanwhile."""
    counted = session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery.id, WebhookDelivery.attempts == delivery.attempts)
        .values(attempts=delivery.attempts + 1, **values),
        execution_options={"synchronize_session": False},
    )
    return bool(counted.rowcount)  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult


def deliveries_of(session: Session, order_id: str) -> Sequence[WebhookDelivery]:
    query = select(WebhookDelivery).where(WebhookDelivery.order_id == order_id)
    return session.scalars(query.order_by(WebhookDelivery.sequence, WebhookDelivery.endpoint_id)).all()
