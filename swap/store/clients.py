"""Clients, their API keys, the signatures they have used, and the record of what was done about them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from swap.domain.order_limits import OrderLimit
from swap.store.database import insert_new
from swap.tables import ApiKey, AuditEntry, Client, UsedSignature, new_id


def client_named(session: Session, name: str, weight_per_minute: int, now: datetime) -> Client:
    """The client with this name, created when there is none yet."""
    insert_new(session, Client, id=new_id("cli"), name=name, weight_per_minute=weight_per_minute, created_at=now)
    return session.scalars(select(Client).where(Client.name == name)).one()


def find_client(session: Session, name_or_id: str, *, lock: bool = False) -> Client | None:
    """The client with this name or id; with `lock`, nobody else who asks for that reads or changes it until commit."""
    query = select(Client).where(or_(Client.name == name_or_id, Client.id == name_or_id))
    # A lock that is weak enough for orders, which only refer to the row.
    return session.scalars(query.with_for_update(key_share=True) if lock else query).one_or_none()


def order_limits(session: Session, client_id: str, *, lock: bool = False) -> tuple[OrderLimit, ...]:
    """How much the client may order; `lock` as in `find_client`."""
    query = select(Client.order_limits).where(Client.id == client_id)
    return order_limits_in(session.scalars(query.with_for_update(key_share=True) if lock else query).one())


def order_limits_in(column: list[Any]) -> tuple[OrderLimit, ...]:
    return tuple(OrderLimit.from_json(each) for each in column)


def all_clients(session: Session) -> Sequence[Client]:
    return session.scalars(select(Client).order_by(Client.name)).all()


def all_keys(session: Session) -> Sequence[tuple[ApiKey, Client]]:
    """Every key with its client, by client and age; those that are no longer good too."""
    query = select(ApiKey, Client).join(Client, Client.id == ApiKey.client_id)
    return [(row[0], row[1]) for row in session.execute(query.order_by(Client.name, ApiKey.created_at))]


def live_key(session: Session, key: str, now: datetime) -> tuple[ApiKey, Client] | None:
    """The key with its client, unless it is unknown, revoked or expired."""
    query = select(ApiKey, Client).join(Client, Client.id == ApiKey.client_id)
    row = session.execute(query.where(ApiKey.key == key, _is_live(now))).one_or_none()
    return None if row is None else (row[0], row[1])


def live_keys(session: Session, keys: Collection[str], now: datetime) -> set[str]:
    """Which of these keys are known, not revoked and not expired."""
    return set(session.scalars(select(ApiKey.key).where(ApiKey.key.in_(keys), _is_live(now))))


def publishable_keys(session: Session, now: datetime) -> Sequence[ApiKey]:
    """Every publishable key that is not revoked and not expired."""
    return session.scalars(select(ApiKey).where(ApiKey.secret_sealed.is_(None), _is_live(now))).all()


def _is_live(now: datetime) -> ColumnElement[bool]:
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))


def note_use(session: Session, key: str, came_from: str | None, at: datetime) -> None:
    """The key was used then, from there."""
    session.execute(update(ApiKey).where(ApiKey.key == key).values(last_used_at=at, last_used_from=came_from))


def spend_signature(session: Session, signature: str, expires_at: datetime) -> bool:
    """Mark the signature as used. False when it was used before."""
    return insert_new(session, UsedSignature, signature=signature, expires_at=expires_at)


def forget_signatures(session: Session, before: datetime) -> None:
    session.execute(delete(UsedSignature).where(UsedSignature.expires_at < before))


def write_audit(
    session: Session,
    actor: str,
    act: str,
    subject: str,
    at: datetime,
    *,
    address: str | None = None,
    reason: str | None = None,
    **detail: Any,
) -> None:
    """Write down an administrative act, in the transaction that carries it out."""
    session.add(
        AuditEntry(
            id=new_id("aud"),
            at=at,
            actor=actor,
            address=address,
            act=act,
            subject=subject,
            reason=reason,
            detail=detail,
        )
    )


def audit_entries(session: Session, limit: int, subject: str | None = None) -> Sequence[AuditEntry]:
    """The newest acts, the newest first; of one key, client or endpoint where told."""
    query = select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.id.desc()).limit(limit)
    return session.scalars(query if subject is None else query.where(AuditEntry.subject == subject)).all()
