"""Webhook endpoints. What is sent to them is in `deliveries`, which says in which order rows are locked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, case, func, literal, or_, select, update
from sqlalchemy.orm import Session

from swap.store.deliveries import skip_waiting
from swap.tables import Client, Utc, WebhookEndpoint, new_id

_UNSYNCED = {"synchronize_session": False}


def add_endpoint(
    session: Session,
    *,
    client_id: str,
    url: str,
    secret_sealed: str,
    types: list[str],
    now: datetime,
    verified_at: datetime | None,
    description: str | None = None,
) -> WebhookEndpoint:
    endpoint = WebhookEndpoint(
        id=new_id("whe"),
        client_id=client_id,
        url=url,
        verified_at=verified_at,
        description=description,
        secret_sealed=secret_sealed,
        types=types,
        enabled=True,
        failures=0,
        created_at=now,
    )
    session.add(endpoint)
    return endpoint


def endpoints_for(session: Session, client_ids: set[str]) -> Sequence[WebhookEndpoint]:
    """Enabled endpoints of these clients whose owners have proved to want what is sent."""
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.client_id.in_(client_ids), WebhookEndpoint.enabled, WebhookEndpoint.verified_at.is_not(None)
    )
    return session.scalars(query).all()


def lock_endpoints_of(session: Session, client_id: str) -> None:
    """Let no other transaction add an endpoint of this client until commit. Orders of the client go on."""
    session.execute(select(Client.id).where(Client.id == client_id).with_for_update(key_share=True))


def endpoints_of(session: Session, client_id: str) -> Sequence[WebhookEndpoint]:
    """The client's endpoints, oldest first, without those it deleted."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.client_id == client_id, WebhookEndpoint.deleted_at.is_(None))
    return session.scalars(query.order_by(WebhookEndpoint.created_at, WebhookEndpoint.id)).all()


def endpoint(session: Session, client_id: str, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint | None:
    """The client's endpoint, unless it was deleted; with `lock`, no other transaction changes it until commit."""
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id,
        WebhookEndpoint.client_id == client_id,
        WebhookEndpoint.deleted_at.is_(None),
    )
    # A lock that is weak enough for the publisher, which only refers to the row.
    return session.scalars(query.with_for_update(key_share=True) if lock else query).one_or_none()


def record_proof(session: Session, endpoint_id: str, url: str, now: datetime) -> bool:
    """Whoever answers at the URL wants what is sent: events go there from now on, and what failed elsewhere is forgotten.
    False when the client wants another URL by now."""
    first = and_(WebhookEndpoint.url == url, WebhookEndpoint.new_url.is_(None), WebhookEndpoint.verified_at.is_(None))
    proved = session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, or_(WebhookEndpoint.new_url == url, first))
        .values(url=url, new_url=None, verified_at=now, failures=0, failing_since=None, held_until=None),
        execution_options=_UNSYNCED,
    )
    return bool(proved.rowcount)  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult


def record_success(session: Session, endpoint_id: str, now: datetime) -> None:
    """A delivery succeeded: the failures before it are forgotten, and a hold that is over."""
    session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.failures > 0)
        .values(
            failures=0,
            failing_since=None,
            # One that was under way when the receiver had enough says nothing about now.
            held_until=case((WebhookEndpoint.held_until <= now, None), else_=WebhookEndpoint.held_until),
        ),
        execution_options=_UNSYNCED,
    )


def record_failure(session: Session, endpoint_id: str, now: datetime) -> datetime | None:
    """Count a failed attempt. Returns when the first failure in a row was; None when the endpoint is disabled."""
    counted = (
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.enabled)
        .values(
            failures=WebhookEndpoint.failures + 1,
            failing_since=func.coalesce(WebhookEndpoint.failing_since, literal(now, Utc())),
        )
        .returning(WebhookEndpoint.failing_since)
    )
    return session.execute(counted, execution_options=_UNSYNCED).scalar_one_or_none()


def hold(session: Session, endpoint_id: str, until: datetime) -> None:
    """Send nothing to the endpoint before `until`; a hold that lasts longer stays."""
    shorter = or_(WebhookEndpoint.held_until.is_(None), WebhookEndpoint.held_until < until)
    session.execute(
        update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, shorter).values(held_until=until),
        execution_options=_UNSYNCED,
    )


def disable(session: Session, endpoint_id: str, reason: str, now: datetime) -> bool:
    """Send nothing more to the endpoint: pending deliveries are skipped. False when it was disabled already."""
    disabled = session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.enabled)
        .values(enabled=False, disabled_at=now, disabled_reason=reason),
        execution_options=_UNSYNCED,
    )
    skip_waiting(session, endpoint_id)
    return bool(disabled.rowcount)  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult


def forget_old_secrets(session: Session, now: datetime) -> None:
    """Drop the secrets whose overlap with the new one is over."""
    session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.old_secret_until <= now)
        .values(old_secret_sealed=None, old_secret_until=None),
        execution_options=_UNSYNCED,
    )
