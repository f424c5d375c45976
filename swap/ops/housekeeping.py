"""Forgetting what has served its time: signatures, secrets, journalled calls, reports, deliveries, old events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from swap.push import delivering
from swap.push.feed import Feed
from swap.store import calls, clients, deliveries, endpoints, reconciliations
from swap.store import orders as order_rows
from swap.store.database import Database

_CALLS_KEPT = timedelta(days=90)
_REPORTS_KEPT = timedelta(days=400)


class Housekeeping:
    def __init__(self, database: Database, feed: Feed, clock: Callable[[], datetime]) -> None:
        self._database, self._feed, self._clock = database, feed, clock

    def clean(self) -> None:
        """Delete what is not needed any more. Orders are never deleted; events only as `Feed.forget_old` says. Safe to run
        in several processes at once."""
        now = self._clock()
        with self._database.write() as session:
            clients.forget_signatures(session, now)
            order_rows.free_places(session)
            calls.forget_calls(session, now - _CALLS_KEPT)
            reconciliations.forget(session, now - _REPORTS_KEPT)
            endpoints.forget_old_secrets(session, now)
            deliveries.forget(session, now, delivering.KEPT)
        self._feed.forget_old()
