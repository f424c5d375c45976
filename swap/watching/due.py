"""Orders that are due: claimed as threads are free for them, and handed to the resolver, the sweeper or the poller."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.times import Timing
from swap.orders.attempts import DATABASE_AWAY, retry_while_database_away
from swap.orders.resolve import Resolver
from swap.orders.sweep import Sweeper
from swap.store import leases, upstream_orders
from swap.store.database import Database
from swap.tables import Order
from swap.watching.poll import Poller

log = structlog.get_logger()

# Orders that one process works on at the same time.
AT_ONCE = 8
# How long one job goes on claiming before it makes room for others; whoever rings asks for the rest. A worker with other
# queues besides is wanted there sooner.
JOB_SECONDS, SHARED_JOB_SECONDS = 5.0, 2.0

# So that two renewals in a row may fail.
_RENEW_SECONDS = leases.LEASE.total_seconds() / 4
# What one step takes of its own, beside the upstream: the database, waited for, and a machine that is slow.
_SLACK_SECONDS = 60.0
# While some are under way: how soon what came due meanwhile is found.
_POLL_SECONDS = 0.5
_GATHER_SECONDS = 0.02
# One claim in five takes the longest overdue of any rank: even under a lasting backlog no order is forgotten.
_BY_AGE_EVERY = 5
# For an order that its step gave no due time, because another process was at it too.
_UNPLANNED = timedelta(seconds=30)
_DATABASE_BACK = timedelta(seconds=5)


class _Work(NamedTuple):
    """A step under way. `until`: when it must be over; `stuck`: that it was not, and the alarm is raised."""

    future: Future[None]
    until: datetime
    stuck: bool = False


class DueOrders:
    """One per process; thread-safe. `threads`: the most orders it ever works on at the same time."""

    def __init__(
        self,
        database: Database,
        poller: Poller,
        resolver: Resolver,
        sweeper: Sweeper,
        timing: Timing,
        threads: int = AT_ONCE,
    ) -> None:
        self._database, self._timing = database, timing
        self._poller, self._resolver, self._sweeper = poller, resolver, sweeper
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="poll")
        # The longest step: a doubt is searched for and created again.
        self._longest = timedelta(seconds=2 * timing.read_timeout + timing.create_timeout + _SLACK_SECONDS)
        # By id and token.
        self._under_way: dict[tuple[str, str], _Work] = {}
        # Of `_under_way` alone, never while the database is waited for: renewing needs it, and cannot wait.
        self._lock = threading.Lock()
        self._claiming = threading.Lock()
        self._claims = itertools.count(1)
        self._closed = threading.Event()
        self._renewing: threading.Thread | None = None

    def count(self, limit: int) -> int:
        """How many orders wait to be claimed; counted up to `limit`."""
        with self._database.read() as session:
            return leases.count_due(session, self._timing.now(), limit)

    def work(self, seconds: float = JOB_SECONDS, at_once: int = AT_ONCE) -> int:
        """Claim what is due and work on it, on as many threads as are free, until nothing is left or that many seconds are
        over. Returns how many orders it claimed.

        What is under way when the time is over goes on by itself: the next call need not wait for it.
        """
        until = self._timing.monotonic() + seconds
        total = 0
        while self._timing.monotonic() < until:
            total += self._start(at_once)
            with self._lock:
                running = {work.future for work in self._under_way.values()}
            if not running:
                break
            _, running = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            if running:
                # A claim after each order that is done would cost the database more than one for a few.
                wait(running, timeout=_GATHER_SECONDS)
        return total

    def _start(self, at_once: int) -> int:
        """Claim no more orders than make `at_once` with those under way, and start on them. Returns how many."""
        with self._claiming:
            free = at_once - len(self._under_way)
            if free <= 0 or not self.count(1):
                return 0
            by_rank = next(self._claims) % _BY_AGE_EVERY != 0
            with self._database.write() as session:
                claimed = leases.claim(session, self._timing.now(), free, by_rank=by_rank)
            until = self._timing.now() + self._longest
            with self._lock:
                for order in claimed:
                    self._under_way[_key(order)] = _Work(self._pool.submit(self._run_safely, order), until)
            if claimed and self._renewing is None:
                self._renewing = threading.Thread(target=self._renew_until_closed, name="leases", daemon=True)
                self._renewing.start()
        return len(claimed)

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._closed.set()

    def _renew_until_closed(self) -> None:
        while not self._closed.wait(_RENEW_SECONDS):
            self.renew()

    def renew(self) -> None:
        """Renew the leases of all orders under way. When that fails they run out, unless the next time is soon enough.

        A step that takes longer than any can is stuck: it is not renewed, so that another process takes the order up.
        """
        now = self._timing.now()
        with self._lock:
            held = {key for key, work in self._under_way.items() if now < work.until}
            stuck = [key for key, work in self._under_way.items() if key not in held and not work.stuck]
            for key in stuck:
                self._under_way[key] = self._under_way[key]._replace(stuck=True)
        for order_id, _ in stuck:
            log.critical("watch.step_stuck", order_id=order_id, seconds=self._longest.total_seconds())
        if not held:
            return
        try:
            with self._database.write() as session:
                leases.renew(session, held, now)
        except SQLAlchemyError as error:
            log.warning("watch.leases_not_renewed", error=type(error).__name__, orders=len(held))

    def _run_safely(self, order: Order) -> None:
        try:
            self.run(order)
        except Exception as error:
            log.exception("watch.look_broke", order_id=order.id)
            try:
                for again in retry_while_database_away():
                    with again:
                        self._hand_back(order, error)
            except Exception:
                # The database is away for longer. The lease runs out by itself.
                log.exception("watch.not_backed_off", order_id=order.id)
        finally:
            with self._lock:
                del self._under_way[_key(order)]

    def _hand_back(self, order: Order, error: Exception) -> None:
        """A poison order backs off like an order for which the upstream does not answer. An order that was leased when the
        database went away is due again soon."""
        now = self._timing.now()
        with self._database.write() as session:
            if not isinstance(error, DATABASE_AWAY):
                self._poller.back_off(session, order, broke=True)
            leases.release(session, order, now + _DATABASE_BACK)

    def run(self, order: Order) -> None:
        """Resolve an order in doubt, sweep up one that is still being created, poll any other; `order` as it was claimed."""
        if order.status not in BEFORE_ADDRESS:
            refs: Sequence[str] = ()
            # After a failure as well: the upstream may know the order by one form of id and not by another.
            if order.upstream_order_id is None or order.failures:
                with self._database.read() as session:
                    refs = upstream_orders.shown_refs(session, order.id)
            self._poller.poll(order, refs)
            return
        if order.status == Status.IN_DOUBT:
            self._resolver.resolve(order)
        else:
            self._sweeper.sweep(order)
        with self._database.write() as session:
            leases.release(session, order, self._timing.now() + _UNPLANNED)


def _key(order: Order) -> tuple[str, str]:
    assert order.lease_token is not None, "claimed"
    return order.id, order.lease_token
