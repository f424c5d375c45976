"""Forgetting what has served its time: signatures, secrets, journalled calls, reports, deliveries, old events.

Each of these is a task, and a transaction, of its own: one that fails undoes no other, and waits for its own next time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap.domain.times import Timing
from swap.ops.heartbeats import KEPT as HEARTBEATS_KEPT
from swap.push import delivering
from swap.push.feed import Feed
from swap.store import (
    calls,
    clients,
    deliveries,
    deposit_places,
    endpoints,
    heartbeats,
    periodic,
    reconciliations,
)
from swap.store.database import Database

log = structlog.get_logger()

EVERY = timedelta(minutes=10)
AFTER_FAILURE = timedelta(hours=1)

_CALLS_KEPT = timedelta(days=90)
_REPORTS_KEPT = timedelta(days=400)

# Each is given a session and the time.
_STEPS: dict[str, Callable[..., object]] = {
    "signatures": clients.forget_signatures,
    "places": lambda session, now: deposit_places.free_unwatched(session),
    "calls": lambda session, now: calls.forget_calls(session, now - _CALLS_KEPT),
    "reports": lambda session, now: reconciliations.forget(session, now - _REPORTS_KEPT),
    "secrets": endpoints.forget_old_secrets,
    "deliveries": lambda session, now: deliveries.forget(session, now, delivering.KEPT),
    "heartbeats": lambda session, now: heartbeats.forget(session, now - HEARTBEATS_KEPT),
}


class Housekeeping:
    def __init__(self, database: Database, feed: Feed, timing: Timing) -> None:
        self._database, self._feed, self._timing = database, feed, timing

    def clean_due(self) -> None:
        """Delete what is not needed any more. Orders are never deleted; events only as `Feed.forget_old` says.

        One process does it for all, each step every ten minutes, one that failed after an hour: what is too much for the
        database now would be so again at once.
        """
        tasks = {f"forget {name}": name for name in (*_STEPS, "events")}
        for task in periodic.due_of(self._database, tasks, self._timing.now()):
            now = self._timing.now()
            if not periodic.take(self._database, task, now, now + EVERY):
                continue
            try:
                self._do(tasks[task], now)
            except SQLAlchemyError as error:
                log.error("housekeeping.failed", step=tasks[task], error=type(error).__name__)
                with self._database.write() as session:
                    periodic.reschedule(session, task, self._timing.now() + AFTER_FAILURE)

    def _do(self, name: str, now: datetime) -> None:
        if name == "events":
            self._feed.forget_old()
            return
        with self._database.write() as session:
            _STEPS[name](session, now)
