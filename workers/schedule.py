"""The scheduler: finds what is due in the database and queues jobs for it. Any number may run; leases keep them apart.

When a job cannot be queued, because Redis is away, the scheduler does the work itself on a few threads of its own: an
outage of Redis costs delay, never an order, an event or a delivery.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap.infra.queue import JOBS
from swap.watching.due import BATCH, QUEUED_SECONDS
from swap.wiring import Service
from workers.run import exit_after

log = structlog.get_logger()

_TICK_SECONDS = 1.0
_SHORTEST_TICK = timedelta(seconds=0.05)
_HOUSEKEEPING_SECONDS = 600.0
_CLAIM = 400


class Scheduler:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = ThreadPoolExecutor(service.settings.fallback_threads, thread_name_prefix="fallback")
        # One thread for each task that may hang on the upstream, so that it holds up nothing that need not ask it.
        self._periodic: dict[str, Callable[[], object]] = {
            "refresh": service.catalog.refresh_due,
            "orphans": service.unowned.poll_due,
            "spares": service.spares.search_due,
            "pace": service.throttle.set_due,
            "list": service.list_signal.poll_due,
            "reconcile": service.reconcile.run_due,
        }
        self._periodic_pool = ThreadPoolExecutor(len(self._periodic), thread_name_prefix="periodic")
        # Endpoints that hang must not keep the threads that polls and publishing need.
        self._delivery_pool = ThreadPoolExecutor(1, thread_name_prefix="fallback-deliver")
        self._running: dict[str, bool] = {}
        self._next_housekeeping = 0.0

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
        log.info("scheduler.started")
        tick = self._service.timing.shorten(timedelta(seconds=_TICK_SECONDS), at_least=_SHORTEST_TICK).total_seconds()
        elapsed = 0.0
        while not stop.is_set():
            try:
                self.tick()
                if elapsed >= self._next_housekeeping:
                    self._service.housekeeping.clean()
                    self._next_housekeeping = elapsed + _HOUSEKEEPING_SECONDS
            except SQLAlchemyError as error:
                log.error("scheduler.database_away", error=type(error).__name__)
            except Exception:
                log.exception("scheduler.tick_broke")
            stop.wait(tick)
            elapsed += tick
        self.close()
        log.info("scheduler.stopped")

    def close(self) -> None:
        """Wait for work of our own that has begun."""
        for pool in (self._pool, self._periodic_pool, self._delivery_pool):
            pool.shutdown(wait=True, cancel_futures=True)

    def tick(self) -> None:
        """Start every periodic task, and queue jobs for everything that is due now."""
        service = self._service
        for name, work in self._periodic.items():
            self._background(name, work, self._periodic_pool)
        self._queue_polls()
        unpublished, undelivered = service.feed.has_unpublished(), service.deliverer.has_due()
        if unpublished:
            # Publishing is short and every client waits for it; a slow endpoint may hold up the workers.
            self._background("publish", service.feed.publish)
        if undelivered and not service.queue.enqueue("deliver"):
            self._background("deliver", service.deliverer.deliver_due, self._delivery_pool)

    def _queue_polls(self) -> None:
        service = self._service
        queued, urgent = service.queue.depth("look"), service.queue.depth("resolve")
        if queued is None or urgent is None:
            self._background("look", self._run_one_batch)
            return
        for batch in service.due.claim_urgent((JOBS["resolve"][1] - urgent) * BATCH):
            self._queue_or_run("resolve", batch)
        # Only as many orders as can be polled before their leases run out, at the rate that the upstream allows now.
        affordable = max(2, int(service.throttle.rate() * QUEUED_SECONDS / BATCH))
        room = min(affordable, JOBS["look"][1]) - queued
        if room <= 0:
            return
        for batch in service.due.claim_due(min(_CLAIM, room * BATCH)):
            self._queue_or_run("look", batch)

    def _queue_or_run(self, job: str, batch: list[str]) -> None:
        if not self._service.queue.enqueue(job, batch):
            # Redis went away this moment. One batch is done here; the orders of the others are due again after their lease.
            self._background("look", partial(self._service.due.run_all, batch))

    def _run_one_batch(self) -> None:
        for batch in self._service.due.claim_due(BATCH):
            self._service.due.run_all(batch)

    def _background(self, name: str, work: Callable[[], object], pool: ThreadPoolExecutor | None = None) -> None:
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

        (pool or self._pool).submit(run)
