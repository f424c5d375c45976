"""Whether requests can be served, told in time also while a part that is asked hangs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from contextlib import suppress
from datetime import datetime
from threading import Lock

from sqlalchemy.exc import SQLAlchemyError

from swap.infra.queue import JobQueue
from swap.market.catalog import Catalog
from swap.ops.heartbeats import Heartbeats
from swap.store.database import Database
from swap.upstream.access import UpstreamAccess

LOOK_SECONDS = 0.5
"""How long an answer waits for a look at the parts. One that takes longer says that the database is away."""


class Readiness:
    """Thread-safe. One look at a time, on a thread of its own: those who ask meanwhile share it."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        access: UpstreamAccess,
        heartbeats: Heartbeats,
        queue: JobQueue,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._catalog, self._access = database, catalog, access
        self._heartbeats, self._queue, self._clock = heartbeats, queue, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="readiness")
        self._look: Future[dict[str, str]] | None = None
        self._lock = Lock()

    def look(self) -> tuple[bool, dict[str, str]]:
        """Whether this process can serve requests, and the state of each part. Takes at most `LOOK_SECONDS`, and a wait
        for Redis.

        Redis, the upstream, a scheduler or a worker being away does not stop it; the database does, and a catalog that was
        never loaded.
        """
        state = {"database": "away", "catalog": "unknown", "redis": "away", "upstream": "unknown"}
        with self._lock:
            if self._look is None or self._look.done():
                self._look = self._thread.submit(self._of_database)
            look = self._look
        with suppress(TimeoutError, SQLAlchemyError):
            state |= look.result(LOOK_SECONDS)
        if self._queue.ping():
            state["redis"] = "ok"
        return state["database"] == "ok" and state["catalog"] != "never_loaded", state

    def _of_database(self) -> dict[str, str]:
        """Raises SQLAlchemyError."""
        if not self._database.migrated():
            return {"database": "not_migrated"}
        snapshot = self._catalog.snapshot()
        staleness = snapshot.staleness(self._clock())
        state = {"database": "ok", "catalog": "ok" if staleness == "fresh" else staleness}
        if self._access.state != "ok":
            state["upstream"] = self._access.state
        elif self._catalog.refresh_fails():
            state["upstream"] = "away"
        elif snapshot.as_of is not None:
            state["upstream"] = "ok"
        for part in self._heartbeats.parts():
            kind = part.name.partition(" ")[0]
            if kind in ("scheduler", "worker") and state.get(kind) != "silent":
                state[kind] = "silent" if part.missing else "ok"
        return state
