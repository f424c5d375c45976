"""Orders that are due: claimed in batches for the workers, and handed to the resolver, the sweeper or the poller."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import structlog

from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.times import Timing
from swap.orders.attempts import DATABASE_AWAY, retry_while_database_away
from swap.orders.resolve import Resolver
from swap.orders.sweep import Sweeper
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.watching.poll import Poller, poll_seconds

log = structlog.get_logger()

# Done together, each order on a thread of its own: a batch takes no longer than its slowest order.
BATCH = 8
# How long a claim holds, at SWAP_TIME_SCALE 1; never shorter than the work that it guards and its wait in the queue.
LEASE = timedelta(seconds=60)
QUEUED_SECONDS = 10.0


class DueOrders:
    def __init__(
        self, database: Database, poller: Poller, resolver: Resolver, sweeper: Sweeper, timing: Timing
    ) -> None:
        work = poll_seconds(timing) + timing.create_timeout + QUEUED_SECONDS + 2
        self._lease = timing.shorten(LEASE, at_least=timedelta(seconds=work))
        self._database, self._timing = database, timing
        self._poller, self._resolver, self._sweeper = poller, resolver, sweeper

    def claim_urgent(self, limit: int) -> list[list[str]]:
        """Lease due creates and orders in doubt; batches of ids, one for each job."""
        if limit <= 0:
            return []
        with self._database.read() as session:
            if not order_rows.has_due(session, self._timing.now()):
                return []
        with self._database.write() as session:
            return _batches(order_rows.claim_due(session, self._timing.now(), self._lease, limit, urgent=True))

    def claim_due(self, limit: int) -> list[list[str]]:
        """Lease due orders; batches of ids, one for each job."""
        with self._database.read() as session:
            if not order_rows.has_due(session, self._timing.now()):
                return []
        with self._database.write() as session:
            # A fifth goes to the longest overdue of any rank: even under a lasting backlog no order is forgotten.
            by_age = limit // 5
            ids = list(order_rows.claim_due(session, self._timing.now(), self._lease, limit - by_age, by_rank=True))
            if by_age:
                ids += order_rows.claim_due(session, self._timing.now(), self._lease, by_age, by_rank=False)
        return _batches(ids)

    def run_all(self, order_ids: Sequence[str]) -> None:
        """Do what is due for a batch of leased orders, several at once. An order that fails never stops the others."""
        with ThreadPoolExecutor(BATCH, thread_name_prefix="poll") as pool:
            list(pool.map(self._run_safely, order_ids))

    def _run_safely(self, order_id: str) -> None:
        try:
            self.run(order_id)
        except Exception as error:
            log.exception("watch.look_broke", order_id=order_id)
            try:
                for again in retry_while_database_away():
                    with again:
                        self._hand_back(order_id, error)
            except Exception:
                # The database is away for longer. The lease runs out by itself.
                log.exception("watch.not_backed_off", order_id=order_id)

    def _hand_back(self, order_id: str, error: Exception) -> None:
        """A poison order backs off like an order for which the upstream does not answer. An order that was leased when the
        database went away is due again soon."""
        with self._database.write() as session:
            order = order_rows.get(session, order_id)
            if order is None:
                return
            if isinstance(error, DATABASE_AWAY):
                order_rows.reschedule(
                    session, order_id, self._timing.now() + timedelta(seconds=5), failures=order.failures
                )
            else:
                self._poller.back_off(session, order, broke=True)

    def run(self, order_id: str) -> None:
        """Resolve an order in doubt, sweep up one that is still being created, poll any other that is watched."""
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
            if order is None or order.next_check_at is None:
                return
            refs = order_rows.refs_of(session, order_id)
        if order.status == Status.IN_DOUBT:
            self._resolver.resolve(order_id)
        elif order.status in BEFORE_ADDRESS:
            self._sweeper.sweep(order)
        else:
            self._poller.poll(order, refs)


def _batches(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
