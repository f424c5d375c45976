"""Who calls the API: clients, their keys, the signatures they have used, and what was done about them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from swap.tables.columns import Row


class Client(Row):
    """A product backend. Orders, idempotency, webhooks and limits belong to the client, not to one of its keys.

    `order_limits`: a `swap.domain.order_limits.OrderLimit` as JSON for each currency that has one. In this row, not in a
    table of their own: they come with the key that a request is checked with, and cost no query where there are none.
    """

    __tablename__ = "clients"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    weight_per_minute: Mapped[int] = mapped_column(server_default="6000")
    order_limits: Mapped[list[Any]] = mapped_column(server_default="[]")
    created_at: Mapped[datetime]


class ApiKey(Row):
    """`secret_sealed` is encrypted under SWAP_SECRET_KEYS: checking an HMAC needs the secret itself, not a hash. None makes
    it a publishable key, which has `origins` that it may be used from, and a `weight_per_minute` of its own.

    `allowed_from`: networks (CIDR) that it may be used from; empty for all. `last_used_at` is up to a minute behind,
    `last_used_from` an address, or the origin of a page.
    """

    __tablename__ = "api_keys"
    key: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), index=True)
    name: Mapped[str]
    secret_sealed: Mapped[str | None]
    scopes: Mapped[list[Any]]
    allowed_from: Mapped[list[Any]] = mapped_column(server_default="[]")
    origins: Mapped[list[Any]] = mapped_column(server_default="[]")
    weight_per_minute: Mapped[int | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    last_used_from: Mapped[str | None]


class UsedSignature(Row):
    """A signature works once on a call that changes something; kept until its window has passed."""

    __tablename__ = "used_signatures"
    signature: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class AuditEntry(Row):
    """An administrative act: who did what to whom, from where and why. Never changed, never deleted."""

    __tablename__ = "audit"
    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str]
    address: Mapped[str | None]
    act: Mapped[str]
    subject: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str | None]
    detail: Mapped[dict[str, Any]]


class BlockedAddress(Row):
    """`address`: the account, in the spelling that all spellings of it have in common; blocked on every network, since one
    key often owns it on several. `currency` and `network` are those that it was named for."""

    __tablename__ = "blocked_addresses"
    address: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str]
    network: Mapped[str]
    reason: Mapped[str]
    blocked_by: Mapped[str]
    blocked_at: Mapped[datetime]
