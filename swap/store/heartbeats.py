"""Heartbeats: which processes of the service live."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import Heartbeat

_UNSYNCED = {"synchronize_session": False}


def beat(session: Session, heartbeat: Heartbeat, now: datetime) -> None:
    """Write down that this process lives."""
    found = session.execute(
        update(Heartbeat).where(Heartbeat.instance == heartbeat.instance).values(at=now, stopped_at=None),
        execution_options=_UNSYNCED,
    )
    if found.rowcount:  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult
        return
    insert_new(
        session,
        Heartbeat,
        instance=heartbeat.instance,
        part=heartbeat.part,
        queues=heartbeat.queues,
        host=heartbeat.host,
        pid=heartbeat.pid,
        started_at=heartbeat.started_at,
        at=now,
    )


def end(session: Session, instance: str, now: datetime) -> None:
    """Write down that this process ends as it was told to."""
    session.execute(
        update(Heartbeat).where(Heartbeat.instance == instance).values(stopped_at=now), execution_options=_UNSYNCED
    )


def all_heartbeats(session: Session) -> Sequence[Heartbeat]:
    return session.scalars(select(Heartbeat)).all()


def forget(session: Session, before: datetime) -> None:
    session.execute(delete(Heartbeat).where(Heartbeat.at < before), execution_options=_UNSYNCED)
