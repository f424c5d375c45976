"""The scheduler: finds what is due in the database and rings for it. Any number of them may run; leases keep them apart.

When ringing fails, because Redis is away, the scheduler runs the work itself on a few threads of its own: an outage of
Redis costs delay, never an order, an event or a delivery.
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
from swap.push.delivering import KEPT as WEBHOOKS_KEPT
from swap.store import calls, clients, deliveries, endpoints, events, reconciliations
from swap.store import orders as order_rows
from swap.watching.due import BATCH, QUEUED_SECONDS
from swap.wiring import Service
from workers.run import exit_after

log = structlog.get_logger()

_TICK_SECONDS = 1.0
_HOUSEKEEPING_SECONDS = 600.0
_CALLS_KEPT = timedelta(days=90)
_REPORTS_KEPT = timedelta(days=400)
_CLAIM = 400


class Scheduler:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = ThreadPoolExecutor(service.settings.fallback_threads, thread_name_prefix="fallback")
        # One thread each for what may hang on the upstream, so that it holds up nothing that need not ask it.
        self._chores: dict[str, Callable[[], object]] = {
            "refresh": service.catalog.refresh_due,
            "orphans": service.unowned.watch_due,
            "pace": service.throttle.set_due,
            "list": service.list_signal.poll_due,
            "reconcile": service.reconcile.run_due,
        }
        self._chore_pool = ThreadPoolExecutor(len(self._chores), thread_name_prefix="chore")
        # Hanging endpoints must not keep the threads that looks and publishing need.
        self._deliverer = ThreadPoolExecutor(1, thread_name_prefix="fallback-deliver")
        self._own_work: dict[str, bool] = {}
        self._next_housekeeping = 0.0

    def run(self) -> None:
        """Tick until SIGTERM or SIGINT."""
        stop = threading.Event()

        def end(*_: object) -> None:
            if not stop.is_set():
                # From here on, since a tick may be waiting for a database that does not answer.
                exit_after(self._service.settings.drain_seconds)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        log.info("scheduler.started")
        tick = max(0.05, _TICK_SECONDS / float(self._service.settings.time_scale))
        elapsed = 0.0
        while not stop.is_set():
            try:
                self.tick()
                if elapsed >= self._next_housekeeping:
                    self.clean()
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
        for pool in (self._pool, self._chore_pool, self._deliverer):
            pool.shutdown(wait=True, cancel_futures=True)

    def tick(self) -> None:
        """Ring for everything that is due now."""
        service = self._service
        for name, work in self._chores.items():
            self._background(name, work, self._chore_pool)
        self._ring_for_looks()
        with service.database.read() as session:
            unpublished = events.has_unpublished(session)
            undelivered = deliveries.has_due(session, service.clock())
        if unpublished:
            # Publishing is short and everybody waits for it; the workers may be held up by a slow endpoint.
            self._background("publish", service.feed.publish)
        if undelivered and not service.queue.enqueue("deliver"):
            self._background("deliver", service.deliverer.deliver_due, self._deliverer)

    def _ring_for_looks(self) -> None:
        service = self._service
        waiting, urgent = service.queue.depth("look"), service.queue.depth("resolve")
        if waiting is None or urgent is None:
            self._background("look", self._own_looks)
            return
        for batch in service.due.claim_urgent((JOBS["resolve"][1] - urgent) * BATCH):
            self._ring_or_look("resolve", batch)
        # As many as may be asked for while their leases hold, at the rate that the upstream allows now.
        askable = max(2, int(service.throttle.rate() * QUEUED_SECONDS / BATCH))
        room = min(askable, JOBS["look"][1]) - waiting
        if room <= 0:
            return
        for batch in service.due.claim_due(min(_CLAIM, room * BATCH)):
            self._ring_or_look("look", batch)

    def _ring_or_look(self, job: str, batch: list[str]) -> None:
        if not self._service.queue.enqueue(job, batch):
            # Redis went away this moment. One batch is looked at here, the others are due again after their lease.
            self._background("look", partial(self._service.due.run_all, batch))

    def _own_looks(self) -> None:
        for batch in self._service.due.claim_due(BATCH):
            self._service.due.run_all(batch)

    def _background(self, name: str, work: Callable[[], object], pool: ThreadPoolExecutor | None = None) -> None:
        """Run on a thread of our own, one of each kind at a time."""
        if self._own_work.get(name):
            return
        self._own_work[name] = True

        def run() -> None:
            try:
                work()
            except SQLAlchemyError as error:
                log.error("scheduler.database_away", work=name, error=type(error).__name__)
            except Exception:
                log.exception("scheduler.work_broke", work=name)
            finally:
                self._own_work[name] = False

        (pool or self._pool).submit(run)

    def clean(self) -> None:
        """Forget what has served its time: used signatures, quotes, calls, reports and webhook deliveries."""
        moment = self._service.clock()
        with self._service.database.write() as session:
            clients.forget_signatures(session, moment)
            order_rows.forget_quotes(session, moment)
            calls.forget_calls(session, moment - _CALLS_KEPT)
            reconciliations.forget(session, moment - _REPORTS_KEPT)
            endpoints.forget_old_secrets(session, moment)
            deliveries.forget(session, moment, WEBHOOKS_KEPT)
        self._service.feed.forget_old()
