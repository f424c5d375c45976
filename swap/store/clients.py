"""Clients, their API keys, and the signatures they have used."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import ApiKey, Client, UsedSignature, new_id


def client_named(session: Session, name: str, now: datetime) -> Client:
    """The client with this name, created when there is none yet."""
    insert_new(session, Client, id=new_id("cli"), name=name, created_at=now)
    return session.scalars(select(Client).where(Client.name == name)).one()


def live_key(session: Session, key: str) -> ApiKey | None:
    """The key, unless it is unknown or revoked."""
    return session.scalars(select(ApiKey).where(ApiKey.key == key, ApiKey.revoked_at.is_(None))).one_or_none()


def live_keys(session: Session, keys: Collection[str]) -> set[str]:
    """Which of these keys are known and not revoked."""
    return set(session.scalars(select(ApiKey.key).where(ApiKey.key.in_(keys), ApiKey.revoked_at.is_(None))))


def spend_signature(session: Session, signature: str, expires_at: datetime) -> bool:
    """Mark the signature as used. False when it was used before."""
    return insert_new(session, UsedSignature, signature=signature, expires_at=expires_at)


def forget_signatures(session: Session, before: datetime) -> None:
    session.execute(delete(UsedSignature).where(UsedSignature.expires_at < before))
