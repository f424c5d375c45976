"""The scheduler: finds what is due in the database and rings for it. Any number may run.

A ring carries nothing: the worker that hears it claims what it can start on. Where a ring cannot be heard, because Redis is
away or no worker lives or finishes jobs, the scheduler does the work itself, on threads that do not ring: that costs delay,
never an order, an event or a delivery.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap.infra.queue import JOBS, PUSH, WATCH, JobQueue
from swap.push import delivering
from swap.watching.due import AT_ONCE, JOB_SECONDS
from swap.wiring import Service
from workers.run import exit_after

log = structlog.get_logger()

_TICK_SECONDS = 1.0
_SHORTEST_TICK = timedelta(seconds=0.05)
# A ring after which nobody finishes a job for this long is not heard.
_PATIENCE = timedelta(seconds=15)


class Bell:
    """Rings for one job, and notices when nobody does it: a worker that dies of every job takes them all, and shows
    that it lives as often as it is started. `seconds`: how long one job may keep a worker."""

    def __init__(self, queue: JobQueue, job: str, seconds: float, clock: Callable[[], datetime]) -> None:
        self._queue, self._job, self._clock = queue, job, clock
        self._patience = _PATIENCE + timedelta(seconds=seconds)
        self._finished: int | None = None
        self._rung_at: datetime | None = None
        self._heard = True

    def ring(self, wanted: int) -> bool:
        """Have `wanted` jobs wait for workers, as far as the queue takes them; those that wait already count. False when
        nobody hears it: Redis is away, or no job was finished for too long after a ring. To be called at every tick,
        wanted or not."""
        waiting, finished, now = self._queue.depth(self._job), self._queue.finished(self._job), self._clock()
        if waiting is None or finished is None:
            return False
        if finished != self._finished:
            self._finished, self._rung_at = finished, None
        if not wanted:
            # What is under a lease is not due, so this may be the work of one that died of it.
            return self._heard
        self._rung_at = self._rung_at or now
        while waiting < wanted and self._queue.enqueue(self._job):
            waiting += 1
        heard = now - self._rung_at < self._patience
        if self._heard and not heard:
            log.error("bell.not_heard", job=self._job, since=self._rung_at.isoformat())
        self._heard = heard
        return heard


class Scheduler:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._looks = Bell(service.queue, "look", JOB_SECONDS, service.clock)
        self._deliveries = Bell(service.queue, "deliver", delivering.JOB_SECONDS, service.clock)
        # One thread for each task that may hang, on the upstream or the database, so that it holds up nothing else.
        self._periodic: dict[str, Callable[[], object]] = {
            "refresh": service.catalog.refresh_due,
            "orphans": service.unowned.poll_due,
            "spares": service.spares.search_due,
            "pace": service.throttle.set_due,
            "list": service.list_signal.poll_due,
            "reconcile": service.reconcile.run_due,
            "housekeeping": service.housekeeping.clean_due,
        }
        # The workers' work, when nobody hears the bell; `DueOrders` and `Deliverer` have threads of their own for each row.
        self._own: dict[str, Callable[[], object]] = {
            "look": partial(service.due.work, JOB_SECONDS, service.settings.fallback_threads),
            "publish": service.feed.publish,
            "deliver": service.deliverer.deliver_due,
        }
        self._pool = ThreadPoolExecutor(len(self._periodic) + len(self._own), thread_name_prefix="background")
        self._running: dict[str, bool] = {}

    def run(self) -> None:
        """Tick until SIGTERM or SIGINT."""
        stop = threading.Event()

        def end(*_: object) -> None:
            if not stop.is_set():
                # Counted from the signal, since a tick may be waiting for a database that does not answer.
                exit_after(self._service.settings.drain_seconds)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        pulse = self._service.heartbeats.start("scheduler")
        log.info("scheduler.started")
        tick = self._service.timing.shorten(timedelta(seconds=_TICK_SECONDS), at_least=_SHORTEST_TICK).total_seconds()
        while not stop.is_set():
            try:
                self.tick()
            except SQLAlchemyError as error:
                log.error("scheduler.database_away", error=type(error).__name__)
            except Exception:
                log.exception("scheduler.tick_broke")
            stop.wait(tick)
        pulse.stop()
        self.close()
        log.info("scheduler.stopped")

    def close(self) -> None:
        """Wait for work of our own that has begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def tick(self) -> None:
        """Start every periodic task, and ring for everything that is due now."""
        service = self._service
        for name, work in self._periodic.items():
            self._background(name, work)
        polls = service.due.count(AT_ONCE * JOBS["look"][1])
        unpublished, undelivered = service.feed.has_unpublished(), service.deliverer.has_due()
        # As many rings as workers find work enough. They carry nothing, so those for the rest need not wait in line.
        if not (self._looks.ring(-(-polls // AT_ONCE)) and service.heartbeats.alive(f"worker {WATCH}")) and polls:
            self._background("look", self._own["look"])
        if unpublished:
            # Publishing is short and every client waits for it; a slow endpoint may hold up the workers.
            self._background("publish", self._own["publish"])
        if not (self._deliveries.ring(int(undelivered)) and service.heartbeats.alive(f"worker {PUSH}")) and undelivered:
            self._background("deliver", self._own["deliver"])

    def _background(self, name: str, work: Callable[[], object]) -> None:
        """Run on a thread of our own, one of each name at a time."""
        if self._running.get(name):
            return
        self._running[name] = True

        def run() -> None:
            try:
                work()
            except SQLAlchemyError as error:
                log.error("scheduler.database_away", work=name, error=type(error).__name__)
            except Exception:
                log.exception("scheduler.work_broke", work=name)
            finally:
                self._running[name] = False

        self._pool.submit(run)
