"""Periodic tasks: work that one process does for the whole fleet, at intervals."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from swap.store.database import Database, insert_new
from swap.tables import PeriodicTask


def take(database: Database, name: str, now: datetime, until: datetime) -> bool:
    """Take the task if it is due: True for exactly one of the processes that ask. No process gets it again before
    `until`, so a process that dies with the task delays it until then."""
    with database.read() as session:
        # Read first, so that the many calls that come too early write nothing.
        due_at = session.scalar(select(PeriodicTask.next_at).where(PeriodicTask.name == name))
    if due_at is not None and due_at > now:
        return False
    with database.write() as session:
        if insert_new(session, PeriodicTask, name=name, next_at=until):
            return True
        taken = session.execute(
            update(PeriodicTask).where(PeriodicTask.name == name, PeriodicTask.next_at <= now).values(next_at=until),
            execution_options={"synchronize_session": False},
        )
        return bool(taken.rowcount)  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult


def due_of(database: Database, names: Iterable[str], now: datetime) -> list[str]:
    """Which of these tasks are due, in their order."""
    names = list(names)
    with database.read() as session:
        waiting = session.scalars(
            select(PeriodicTask.name).where(PeriodicTask.name.in_(names), PeriodicTask.next_at > now)
        ).all()
    return [name for name in names if name not in waiting]


def reschedule(session: Session, name: str, at: datetime) -> None:
    """Make the task due at that time, sooner or later than it was taken for."""
    if not insert_new(session, PeriodicTask, name=name, next_at=at):
        session.execute(
            update(PeriodicTask).where(PeriodicTask.name == name).values(next_at=at),
            execution_options={"synchronize_session": False},
        )
