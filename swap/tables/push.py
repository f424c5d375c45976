"""What clients are sent: events, their place in the feed, webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from swap.tables.columns import Row


class OrderEvent(Row):
    """Timeline, outbox and feed at once. A public event has a `sequence` per order, and a `position` in the feed once it is
    published. Events without `sequence` are the journal, for support. `order`: the public order as it was at this event."""

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
    """One row, locked by the publisher. `epoch` is drawn when the database is created, so that cursors of another life of
    the database are recognised. `floor`: events at this position and below are older than the feed goes back."""

    __tablename__ = "feed_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[str]
    floor: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class WebhookEndpoint(Row):
    """`secret_sealed` signs; `old_secret_sealed` signs too until `old_secret_until`. `failures`: failed attempts in a row,
    `failing_since`: when the first of them was; both are cleared by a success. `held_until`: nothing is sent before that,
    since the receiver has too much to do; then one delivery at a time until a success clears it. `verified_at`: when whoever
    answers at `url` proved to want this, None while nobody did; `new_url`: where the client wants its events once that is
    proved too. A deleted endpoint stays,
    disabled and without its secrets, because its deliveries show support what was sent where."""

    __tablename__ = "webhook_endpoints"
    id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), index=True)
    url: Mapped[str]
    new_url: Mapped[str | None]
    verified_at: Mapped[datetime | None]
    description: Mapped[str | None]
    secret_sealed: Mapped[str]
    old_secret_sealed: Mapped[str | None]
    old_secret_until: Mapped[datetime | None]
    types: Mapped[list[Any]]
    enabled: Mapped[bool]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    failing_since: Mapped[datetime | None]
    held_until: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class WebhookDelivery(Row):
    """One event for one endpoint; or, without an event, a `message` of our own: the body's `data`.

    `status`: pending, delivered, failed (given up) or skipped (its endpoint was disabled). `next_attempt_at`: when it is
    due; `leased_until`: until then one worker has it. `attempts`: in all; `tries`: since it was created or last redelivered,
    which is its place in the retry schedule."""

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    type: Mapped[str]
    event_id: Mapped[str | None] = mapped_column(ForeignKey("order_events.id"))
    order_id: Mapped[str | None] = mapped_column(index=True)
    sequence: Mapped[int | None]
    message: Mapped[dict[str, Any] | None]
    status: Mapped[str]
    attempts: Mapped[int]
    tries: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    leased_until: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    response_excerpt: Mapped[str | None]
    error: Mapped[str | None]
    duration_ms: Mapped[int | None]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index("ix_webhook_deliveries_client_id_created_at", "client_id", "created_at"),
        Index(
            "ix_webhook_deliveries_given_up",
            "client_id",
            "created_at",
            postgresql_where=text("status IN ('failed', 'skipped')"),
            sqlite_where=text("status IN ('failed', 'skipped')"),
        ),
        Index(
            "ix_webhook_deliveries_due",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
            sqlite_where=text("status = 'pending'"),
        ),
        # Without it PostgreSQL searches all deliveries of the endpoint for the earlier ones of the same order.
        Index(
            "ix_webhook_deliveries_line",
            "endpoint_id",
            "order_id",
            "sequence",
            postgresql_where=text("status = 'pending'"),
            sqlite_where=text("status = 'pending'"),
        ),
        Index(
            "ix_webhook_deliveries_in_flight",
            "endpoint_id",
            postgresql_where=text("leased_until IS NOT NULL"),
            sqlite_where=text("leased_until IS NOT NULL"),
        ),
    )
