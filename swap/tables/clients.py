"""Who calls the API: clients, their keys, and the signatures they have used."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from swap.tables.columns import Row


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
