"""Heartbeats: every process shows every few seconds that it lives, and all can see which parts are silent.

A heartbeat says that a process runs and reaches the database. That a worker does its jobs too is seen by whoever rings
for it (`workers.schedule`).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap.infra.queue import PUSH, WATCH
from swap.store import heartbeats as rows
from swap.store import periodic
from swap.store.database import Database
from swap.tables import Heartbeat, new_id

log = structlog.get_logger()

SILENT_AFTER = timedelta(seconds=15)
"""Without a heartbeat for this long a process counts as dead. Real seconds, whatever SWAP_TIME_SCALE says."""

KEPT = timedelta(days=1)

_EVERY_SECONDS, _LAST_SECONDS = 5.0, 1.0
_ALARM_EVERY = timedelta(minutes=1)
# What the service cannot do without, and how long an installation has to start it.
_NEEDED = ("scheduler", f"worker {WATCH}", f"worker {PUSH}")
_STARTING = timedelta(minutes=1)


@dataclass(frozen=True)
class PartState:
    """A part of the service: api, scheduler, stream, or `worker` with its queue. `alive`: its processes that show they
    live; `silent`: those that stopped doing so within the last day, untold; `last_at`: the newest heartbeat of any."""

    name: str
    alive: int
    silent: int
    last_at: datetime | None

    @property
    def missing(self) -> bool:
        """Whether none of it lives although one should."""
        return not self.alive and (self.name in _NEEDED or self.silent > 0)


class Heartbeats:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def parts(self) -> list[PartState]:
        """Every part that is needed or has been seen within a day."""
        with self._database.read() as session:
            return _parts(rows.all_heartbeats(session), self._clock())

    def alive(self, name: str) -> bool:
        """Whether any process of the part lives; `name` as in PartState."""
        return any(part.name == name and part.alive for part in self.parts())

    def start(self, part: str, queues: Sequence[str] = ()) -> Pulse:
        """Show from now on, on a thread of its own, that this process lives."""
        now = self._clock()
        host, pid = socket.gethostname(), os.getpid()
        beating = Heartbeat(
            instance=new_id(part), part=part, queues=sorted(queues), host=host, pid=pid, started_at=now, at=now
        )
        return Pulse(self, beating)

    def beat(self, heartbeat: Heartbeat) -> None:
        with self._database.write() as session:
            rows.beat(session, heartbeat, self._clock())

    def end(self, heartbeat: Heartbeat) -> None:
        with self._database.write() as session:
            rows.end(session, heartbeat.instance, self._clock())

    def raise_alarm(self) -> None:
        """Log every part of which no process lives, once a minute; one process does it for all."""
        now = self._clock()
        if not periodic.take(self._database, "silence", now, now + _ALARM_EVERY):
            return
        with self._database.read() as session:
            found = rows.all_heartbeats(session)
        living = [each for each in found if _lives(each, now)]
        starting = bool(living) and all(now - each.started_at < _STARTING for each in living)
        for part in _parts(found, now):
            if part.missing and not (starting and part.last_at is None):
                last_at = None if part.last_at is None else part.last_at.isoformat()
                log.error("part.silent", silent=part.name, last_at=last_at)


class Pulse:
    """The thread that shows that a process lives, until it is stopped."""

    def __init__(self, heartbeats: Heartbeats, heartbeat: Heartbeat) -> None:
        self._heartbeats, self._heartbeat = heartbeats, heartbeat
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Say that this process ends as it was told to, so that nobody misses it; as far as that can be said within a
        moment, since the database may be away."""
        self._stopped.set()
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        self._safely(self._beat)
        while not self._stopped.wait(_EVERY_SECONDS):
            self._safely(self._beat)
        self._safely(lambda: self._heartbeats.end(self._heartbeat))

    def _beat(self) -> None:
        self._heartbeats.beat(self._heartbeat)
        self._heartbeats.raise_alarm()

    def _safely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except SQLAlchemyError as error:
            log.warning("heartbeat.database_away", error=type(error).__name__)
        except Exception:
            log.exception("heartbeat.broke")


def _parts(found: Iterable[Heartbeat], now: datetime) -> list[PartState]:
    by_name: dict[str, list[Heartbeat]] = {name: [] for name in _NEEDED}
    for heartbeat in found:
        if now - heartbeat.at < KEPT:
            for name in _names(heartbeat):
                by_name.setdefault(name, []).append(heartbeat)
    return [
        PartState(
            name,
            alive=sum(_lives(each, now) for each in of),
            silent=sum(each.stopped_at is None and not _lives(each, now) for each in of),
            last_at=max((each.at for each in of), default=None),
        )
        for name, of in sorted(by_name.items())
    ]


def _names(heartbeat: Heartbeat) -> list[str]:
    return [f"{heartbeat.part} {queue}" for queue in heartbeat.queues] or [heartbeat.part]


def _lives(heartbeat: Heartbeat, now: datetime) -> bool:
    return heartbeat.stopped_at is None and now - heartbeat.at < SILENT_AFTER
