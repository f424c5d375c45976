"""Telling the product: events, their place in the feed, webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from swap.tables.columns import Row


class OrderEvent(Row):
    """Timeline, outbox and feed at once. Public events have a `sequence` per order, and a `position` in the feed once
    published; the others are the journal for support. `order`: the public order as it was at this event."""

    __tablename__ = "order_events"
    id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    client_id: Mapped[str]
    sequence: Mapped[int | None]
    position: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    type: Mapped[str]
    order: Mapped[dict[str, Any] | None]
    detail: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("order_id", "sequence"),
        Index("ix_order_events_order_id_id", "order_id", "id"),
        Index("ix_order_events_client_id_position", "client_id", "position"),
        Index(
            "ix_order_events_unpublished",
            "id",
            postgresql_where=text("position IS NULL AND sequence IS NOT NULL"),
            sqlite_where=text("position IS NULL AND sequence IS NOT NULL"),
        ),
    )


class FeedHead(Row):
    """One row, locked by whoever publishes. `epoch` is drawn when the database is made, so that cursors of another life
    of the database are recognised. `floor`: events at this position and below are older than the feed goes back."""

    __tablename__ = "feed_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[str]
    floor: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class WebhookEndpoint(Row):
    __tablename__ = "webhook_endpoints"
    id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), index=True)
    url: Mapped[str]
    secret_sealed: Mapped[str]
    types: Mapped[list[Any]]
    enabled: Mapped[bool]
    created_at: Mapped[datetime]


class WebhookDelivery(Row):
    """One event for one endpoint. `status`: pending, delivered or failed. `next_attempt_at` is due time and lease."""

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_id: Mapped[str] = mapped_column(ForeignKey("order_events.id"))
    order_id: Mapped[str] = mapped_column(index=True)
    sequence: Mapped[int]
    status: Mapped[str]
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    response_excerpt: Mapped[str | None]
    error: Mapped[str | None]
    duration_ms: Mapped[int | None]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index("ix_webhook_deliveries_endpoint_id_order_id_sequence", "endpoint_id", "order_id", "sequence"),
        Index(
            "ix_webhook_deliveries_due",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
            sqlite_where=text("status = 'pending'"),
        ),
    )
