"""Chores: periodic work that one process does for the whole fleet."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import Chore


def is_due(session: Session, name: str, now: datetime) -> bool:
    """Whether it is worth trying to claim it: a read, so that the many who ask write nothing."""
    at = session.scalar(select(Chore.next_at).where(Chore.name == name))
    return at is None or at <= now


def claim(session: Session, name: str, now: datetime, until: datetime) -> bool:
    """Take the chore if it is due, and leave it alone until then. False when another process has it or it is not due."""
    if insert_new(session, Chore, name=name, next_at=until):
        return True
    claimed = session.execute(
        update(Chore).where(Chore.name == name, Chore.next_at <= now).values(next_at=until),
        execution_options={"synchronize_session": False},
    )
    return bool(claimed.rowcount)  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult


def reschedule(session: Session, name: str, at: datetime) -> None:
    """Have the chore done again at that time, sooner or later than was claimed."""
    session.execute(
        update(Chore).where(Chore.name == name).values(next_at=at), execution_options={"synchronize_session": False}
    )
