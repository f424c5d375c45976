"""Sweeping up creates that were never settled: orders still being created long after their create must have ended."""

from __future__ import annotations

import structlog

from swap.domain.lifecycle import Status
from swap.domain.times import Timing
from swap.infra.queue import JobQueue
from swap.orders.create import NOT_SENT_KEPT, OrderCreator
from swap.orders.showing import Changes, in_doubt
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order

log = structlog.get_logger()


class Sweeper:
    def __init__(self, database: Database, creator: OrderCreator, queue: JobQueue, timing: Timing) -> None:
        self._database, self._creator, self._queue, self._timing = database, creator, queue, timing

    def sweep(self, order: Order) -> None:
        """Settle a due order, as it was claimed, that is still being created. Either its create was not answered in time,
        because a process died in it or because the client did not repeat a request that never reached the upstream; or it
        was answered, and the process died before acting on the answer."""
        with self._database.read() as session:
            attempts = attempt_rows.attempts_of(session, order.id)
        if self._creator.settle_from_stored_answer(order, attempts):
            return
        with self._database.write() as session:
            attempts = attempt_rows.attempts_of(session, order.id)
            changes: Changes
            last = attempts[-1] if attempts else None
            if last is None or any(attempt.outcome in (None, "unknown", "done") for attempt in attempts):
                log.error("watch.create_swept", order_id=order.id)
                answered = last is not None and last.outcome == "done"
                changes = in_doubt(self._timing, reason="verifying" if answered else "create_in_doubt")
            elif last.outcome == "not_sent":
                kept_until = (last.finished_at or last.sent_at) + self._timing.shorten(NOT_SENT_KEPT)
                if self._timing.now() < kept_until:
                    # Claimed before it was known that nothing was sent, or the process died before acting on that.
                    order_rows.back_off(session, order, kept_until, failures=order.failures, lease=order.lease_token)
                    return
                changes = {
                    "status": Status.FAILED,
                    "status_reason": "create_not_sent",
                    "next_check_at": None,
                }
            else:
                # A process died between writing down that it was refused and acting on that.
                reason = (last.code or "refused").lower()
                changes = {"status": Status.FAILED, "status_reason": reason, "next_check_at": None}
            moved = order_rows.move(
                session, order, changes, at=self._timing.now(), source="sweep", lease=order.lease_token
            )
        if moved is not None:
            self._queue.enqueue("publish")
