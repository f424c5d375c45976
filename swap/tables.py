"""Rows. No behaviour; two column types of our own, Money and Utc, because the databases' own lose digits or zones.

The database is the truth: due times, leases, deliveries and history are rows here; Redis only wakes people up.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import uuid_utils
from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy import DateTime as SaDateTime
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

from swap.money import plain


class Money(TypeDecorator[Decimal]):
    """A Decimal without loss: NUMERIC on PostgreSQL, TEXT in plain notation on SQLite, whose own NUMERIC goes through
    floats (12345678.123456789012345678 came back changed). Compare amounts in Python, not in SQL."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Numeric() if dialect.name == "postgresql" else String())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if not isinstance(value, Decimal):
            raise TypeError(f"money is Decimal, not {type(value).__name__}")
        text = plain(value)  # refuses NaN and infinities, which PostgreSQL would keep
        return value if dialect.name == "postgresql" else text

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Utc(TypeDecorator[datetime]):
    """An aware UTC time, cut to milliseconds: timestamptz on PostgreSQL, sortable ISO-8601 text on SQLite."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(SaDateTime(timezone=True) if dialect.name == "postgresql" else String(24))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times are aware; this one has no zone")
        value = value.astimezone(UTC)
        value = value.replace(microsecond=value.microsecond // 1000 * 1000)
        return value if dialect.name == "postgresql" else iso(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.astimezone(UTC)


def iso(moment: datetime) -> str:
    """ISO-8601 in UTC with milliseconds and `Z`, the one form in which times leave the service."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id(prefix: str) -> str:
    """An opaque id such as `ord_019a...`; UUIDv7 underneath, so that rows made together lie together."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


Json = JSON().with_variant(JSONB(), "postgresql")


class Row(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Utc, Decimal: Money, dict[str, Any]: Json, list[Any]: Json, str: Text}  # noqa: RUF012


# --- who calls ------------------------------------------------------------------------------------------------------


class Client(Row):
    """A product backend. Orders, idempotency, webhooks and limits belong to the client, not to one of its keys."""

    __tablename__ = "clients"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]


class ApiKey(Row):
    """`secret_sealed` is encrypted under SWAP_SECRET_KEYS: checking an HMAC needs the secret itself, not a hash."""

    __tablename__ = "api_keys"
    key: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"))
    name: Mapped[str]
    secret_sealed: Mapped[str]
    scopes: Mapped[list[Any]]
    weight_per_minute: Mapped[int]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class UsedSignature(Row):
    """A signature works once on a call that changes something; kept until its window has passed."""

    __tablename__ = "used_signatures"
    signature: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


# --- the catalog ----------------------------------------------------------------------------------------------------


class InstrumentRow(Row):
    """`currency` and `network` are the upstream's titles verbatim; the keys are their case-folded forms (T7)."""

    __tablename__ = "instruments"
    currency_key: Mapped[str] = mapped_column(primary_key=True)
    network_key: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str]
    network: Mapped[str]
    type: Mapped[str]
    name: Mapped[str | None]
    slug: Mapped[str | None]
    precision: Mapped[int]
    requires_memo: Mapped[bool]
    contract_address: Mapped[str | None]
    logo_url: Mapped[str | None]
    active: Mapped[bool]


class PairRow(Row):
    """A directed pair. Limits and fixed rate are learned from the rates we read; null until then."""

    __tablename__ = "pairs"
    from_currency_key: Mapped[str] = mapped_column(primary_key=True)
    from_network_key: Mapped[str] = mapped_column(primary_key=True)
    to_currency_key: Mapped[str] = mapped_column(primary_key=True)
    to_network_key: Mapped[str] = mapped_column(primary_key=True)
    active: Mapped[bool]
    min_amount: Mapped[Decimal | None]
    max_amount: Mapped[Decimal | None]
    fixed_rate: Mapped[bool | None]
    limits_as_of: Mapped[datetime | None]


class CatalogState(Row):
    """One row. `version` rises with every change of instruments or pairs; `next_refresh_at` is the refresher's lease."""

    __tablename__ = "catalog_state"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]
    fetched_at: Mapped[datetime | None]
    next_refresh_at: Mapped[datetime]
    failures: Mapped[int]
    last_error: Mapped[str | None]


# --- orders ---------------------------------------------------------------------------------------------------------


class Order(Row):
    """One swap. `version` rises with every write; `sequence` with every public event. Deposit details are write-once.

    `request` is the caller's request as validated (it settles `client_order_id`); `rate` is what was quoted (the claimed
    public rate sent upstream); `facts` is `lifecycle.Facts` as JSON: all the upstream has told about this order so far.
    """

    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"))
    client_order_id: Mapped[str]
    request: Mapped[dict[str, Any]]
    version: Mapped[int]
    sequence: Mapped[int]

    status: Mapped[str]
    status_reason: Mapped[str | None]
    status_before_review: Mapped[str | None]
    status_changed_at: Mapped[datetime]

    from_currency: Mapped[str]
    from_network: Mapped[str]
    to_currency: Mapped[str]
    to_network: Mapped[str]
    rate_mode: Mapped[str]
    amount: Mapped[Decimal]
    amount_to_get: Mapped[Decimal | None]
    rate: Mapped[dict[str, Any]]
    network_fee: Mapped[Decimal | None]
    referrer_id: Mapped[str | None]
    markup: Mapped[Decimal | None]

    destination_address: Mapped[str]
    destination_memo: Mapped[str | None]
    refund_address: Mapped[str | None]
    refund_memo: Mapped[str | None]

    user_id: Mapped[str | None]
    session_id: Mapped[str | None]
    account_id: Mapped[str | None]
    order_metadata: Mapped[dict[str, Any]] = mapped_column("metadata")

    upstream_key: Mapped[str]
    upstream_order_id: Mapped[str | None] = mapped_column(index=True)
    upstream_state: Mapped[str | None]
    deposit_kind: Mapped[str | None]
    deposit_address: Mapped[str | None] = mapped_column(index=True)
    deposit_memo: Mapped[str | None]
    deposit_link: Mapped[str | None]
    payable: Mapped[bool]
    payable_reason: Mapped[str | None]
    payable_until: Mapped[datetime | None]
    confirmations_required: Mapped[int | None]

    facts: Mapped[dict[str, Any]]
    action_url: Mapped[str | None]
    action_since: Mapped[datetime | None]

    failures: Mapped[int]
    as_of: Mapped[datetime | None]
    next_check_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("client_id", "client_order_id"),
        Index("ix_orders_client_id_created_at_id", "client_id", "created_at", "id"),
        Index("ix_orders_next_check_at", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
        Index("ix_orders_destination_address", "destination_address"),
    )


class OrderAttempt(Row):
    """One try at the upstream's create, written before the call. `outcome`: null while it runs or when we died in it, then
    done, refused, not_sent or unknown. `refs`: every id form the answer held; `answer`: the answer, redacted.
    `absent_reads`: when the upstream's list was read and would have had to show the order, but did not."""

    __tablename__ = "order_attempts"
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    upstream_key: Mapped[str]
    sent_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    code: Mapped[str | None]
    cause: Mapped[str | None]
    http_status: Mapped[int | None]
    refs: Mapped[list[Any]]
    answer: Mapped[str | None]
    absent_reads: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")


class UpstreamRef(Row):
    """Every id form the upstream ever used for an order of ours. The primary key is the proof of ownership."""

    __tablename__ = "upstream_refs"
    ref: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), index=True)


class Orphan(Row):
    """An order at the upstream that belongs to none of ours, or could not be proved to. `ref`: the id to ask with;
    `refs`: all known; `order_id`: ours that may have made it; `deposit_seen_at`: money came in on it: somebody must act."""

    __tablename__ = "orphans"
    ref: Mapped[str] = mapped_column(primary_key=True)
    refs: Mapped[list[Any]]
    upstream_key: Mapped[str]
    destination_address: Mapped[str | None]
    amount: Mapped[Decimal | None]
    order_id: Mapped[str | None]
    seen_at: Mapped[datetime]
    deposit_seen_at: Mapped[datetime | None]
    next_check_at: Mapped[datetime | None] = mapped_column(index=True)


class TransferRow(Row):
    """Deposits and payouts by transaction id, for looking orders up. Derived from `Order.facts` in the same write."""

    __tablename__ = "transfers"
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    direction: Mapped[str]
    amount: Mapped[Decimal | None]
    tx_id: Mapped[str | None] = mapped_column(index=True)
    confirmations: Mapped[int | None]
    at: Mapped[datetime | None]


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


class SpentQuote(Row):
    """A quote makes one order. Kept until the quote would have expired anyway."""

    __tablename__ = "spent_quotes"
    quote: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class UpstreamCall(Row):
    """Every create, every non-2xx and every look that changed something. Bodies redacted, at most 4 kB."""

    __tablename__ = "upstream_calls"
    id: Mapped[str] = mapped_column(primary_key=True)
    order_ref: Mapped[str | None] = mapped_column(index=True)
    at: Mapped[datetime] = mapped_column(index=True)
    endpoint: Mapped[str]
    method: Mapped[str]
    attempt: Mapped[int]
    status: Mapped[int | None]
    ms: Mapped[int]
    outcome: Mapped[str]
    request_id: Mapped[str | None]
    request_body: Mapped[str | None]
    response_body: Mapped[str | None]


# --- telling the product --------------------------------------------------------------------------------------------


class FeedHead(Row):
    """One row, locked by whoever publishes. `epoch` is drawn when the database is made, so that cursors of another life
    of the database are recognised."""

    __tablename__ = "feed_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[str]


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
