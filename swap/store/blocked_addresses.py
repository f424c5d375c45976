"""Addresses that no order may pay out or refund to."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import BlockedAddress


def block(session: Session, blocked: BlockedAddress) -> bool:
    """False when it is blocked already; then nothing changes."""
    columns = BlockedAddress.__table__.columns.keys()
    return insert_new(session, BlockedAddress, **{name: getattr(blocked, name) for name in columns})


def unblock(session: Session, address: str) -> bool:
    """False when it was not blocked."""
    gone = delete(BlockedAddress).where(BlockedAddress.address == address).returning(BlockedAddress.address)
    return session.scalar(gone) is not None


def blocked_of(session: Session, addresses: Collection[str]) -> set[str]:
    """Which of these are blocked."""
    return set(session.scalars(select(BlockedAddress.address).where(BlockedAddress.address.in_(addresses))))


def all_blocked(session: Session) -> Sequence[BlockedAddress]:
    """Every one, the newest first."""
    return session.scalars(select(BlockedAddress).order_by(BlockedAddress.blocked_at.desc())).all()
