"""Watching orders: claim what is due, ask the upstream, merge what it says, and take the order through the one door.

A look only ever adds facts. What the facts mean is `lifecycle.next_status`; what would move an order backwards changes
nothing and is journalled, so that support can answer "why did it not change".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap.domain import schedules
from swap.domain.lifecycle import Decision, Facts, Status, next_status
from swap.domain.times import Timing
from swap.errors import OrderExpired, RateLimited, UpstreamError, UpstreamNotFound
from swap.infra.queue import JobQueue
from swap.orders.matching import deposit_change
from swap.orders.reply_check import ReplyCheck
from swap.store import calls, events
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order
from swap.upstream.client import UpstreamClient
from swap.upstream.journal import excerpt
from swap.upstream.replies import OrderReply
from swap.watching import list_signal
from swap.watching.throttle import PollThrottle

log = structlog.get_logger()

_ALERT_AFTER = 5
# By then a look is an hour apart from the next: once a day.
_REMIND_EVERY = 24


def poll_seconds(timing: Timing) -> float:
    """How long one poll may take: the client tries a read twice, with a pause."""
    return 2 * timing.read_timeout + 5


class Poller:
    def __init__(
        self,
        database: Database,
        upstream: UpstreamClient,
        reply_check: ReplyCheck,
        throttle: PollThrottle,
        queue: JobQueue,
        timing: Timing,
    ) -> None:
        self._database, self._upstream, self._reply_check = database, upstream, reply_check
        self._throttle, self._queue, self._timing = throttle, queue, timing

    def poll(self, order: Order, refs: Sequence[str]) -> None:
        """Ask the upstream about an order, by its number where it is known, else by any of its ids `refs`, and act on the
        answer."""
        ref = order.upstream_order_id or next(iter(refs), None)
        if ref is None:
            log.error("watch.no_upstream_id", order_id=order.id)
            return
        asked_at = self._timing.now()
        try:
            reply: OrderReply | None = self._upstream.order(
                ref, order.destination_address, order_ref=order.id, deadline=poll_seconds(self._timing)
            )
            told = reply.facts if reply is not None else Facts()
        except OrderExpired:
            reply, told = None, Facts(expired_seen=(self._timing.now(),))
        except UpstreamError as error:
            if isinstance(error, RateLimited) or error.cause == "breaker":
                self._put_off(order, getattr(error, "retry_after", None))
                return
            log.warning(
                "watch.look_failed", order_id=order.id, code=error.code, not_found=isinstance(error, UpstreamNotFound)
            )
            with self._database.write() as session:
                self.back_off(session, order)
            return
        self._apply(order, reply, told, asked_at)

    def _put_off(self, order: Order, retry_after: float | None) -> None:
        """The look did not take place, for reasons that have nothing to do with the order."""
        wait = (retry_after or 1.0) + self._timing.rng.uniform(1, 10) / float(self._timing.scale)
        with self._database.write() as session:
            order_rows.back_off(session, order, self._timing.now() + timedelta(seconds=wait), failures=order.failures)

    # --- what a look means -------------------------------------------------------------------------------------------

    def _apply(self, order: Order, reply: OrderReply | None, told: Facts, asked_at: datetime) -> None:
        now = self._timing.now()
        status = Status(order.status)
        known = Facts.from_json(order.facts)
        facts = known.merge(told)
        decision = next_status(status, facts, now, created_at=order.created_at)
        looked = {
            "as_of": now,
            "failures": 0,
            "facts": facts.to_json(),
            "next_check_at": self._next(order, decision.status, facts, now),
        }
        news = self._told(order, reply) if reply is not None else {}
        late = decision.late_deposit or (decision.second_deposit and len(known.deposits) < 2)
        steps = _steps(order, decision, facts, looked | news, late=late, now=now)

        with self._database.write() as session:
            if reply is not None and self._is_of_another(session, order, reply):
                return
            moved = _walk(session, order, steps, _evidence(decision, told), now)
            if moved is None:
                # Somebody else looked or acted meanwhile. A look only adds, so the next one will see it all again.
                order_rows.reschedule(session, order.id, now + timedelta(seconds=5), failures=order.failures)
                return
            if reply is not None:
                order_rows.claim_refs(session, order.id, reply.refs)
            before = next_status(status, known, now, created_at=order.created_at)
            self._journal(session, moved, decision, before)
            if reply is not None and (facts != known or decision.status is not status or _differs(order, news)):
                self._keep_call(session, order, reply, asked_at, now)
            if facts.events != known.events:
                new = [event for event in facts.events if event not in known.events]
                list_signal.count(session, order, new, asked_at, self._upstream.offset_seconds)
        if moved.sequence != order.sequence:
            self._queue.enqueue("publish")

    def _is_of_another(self, session: Session, order: Order, reply: OrderReply) -> bool:
        """Whether the answer names itself by any id of another order of ours. Then nothing in it may be believed."""
        refs = sorted(order_rows.owned_refs(session, reply.refs, excluding=order.id))
        if not refs:
            return False
        log.error("watch.answer_of_another", order_id=order.id, refs=refs)
        if order.failures == 0:
            detail = {"source": "look", "refs": refs, "owner": order_rows.owner_of(session, refs[0])}
            events.add_event(session, order, "journal.answer_of_another", at=self._timing.now(), detail=detail)
        self.back_off(session, order)
        return True

    def _told(self, order: Order, reply: OrderReply) -> dict[str, Any]:
        """What the answer says besides the facts: the upstream's words and ids, and whether the order may be paid."""
        changes: dict[str, Any] = {}
        if reply.state or reply.status:
            changes["upstream_state"] = reply.state or reply.status
        if reply.order_id is not None and reply.order_id != order.upstream_order_id:
            # The numeric id is the one the list knows; a create may have answered with a UUID alone (T4).
            changes["upstream_order_id"] = reply.order_id
        unverified = not order.payable and order.payable_reason == "unverified"
        if order.status != Status.AWAITING_DEPOSIT or not (order.payable or unverified):
            return changes
        problem = deposit_change(order, reply)
        if problem is not None:
            log.error("watch.deposit_details_changed", order_id=order.id, reason=problem)
            changes |= {"payable": False, "payable_reason": problem, "status_reason": "under_review"}
        elif unverified:
            # What would be shown is what the create said; a look need not repeat it, but it has to pass all the same.
            shown = replace(reply, deposit_address=order.deposit_address, deposit_memo=order.deposit_memo)
            problem = self._reply_check.problem(order, shown, self._reply_check.source_of(order))
            reason = None if problem is None else "under_review"
            changes |= {"payable": problem is None, "payable_reason": problem, "status_reason": reason}
        return changes

    def _journal(self, session: Session, order: Order, decision: Decision, before: Decision) -> None:
        """What the look said and the order did not follow; written once, when it was first said: `before` is what was
        to be decided without this look."""
        now = self._timing.now()
        unknown = [kind for kind in decision.unknown_kinds if kind not in before.unknown_kinds]
        if unknown:
            log.error("watch.unknown_kinds", order_id=order.id, kinds=unknown)
            events.add_event(session, order, events.UNKNOWN_KINDS, at=now, detail={"kinds": unknown})
        if decision.refused is not None and decision.refused != before.refused:
            detail = {"source": "look", "refused": decision.refused, "status": order.status}
            events.add_event(session, order, "journal.refused", at=now, detail=detail)
        if decision.review and not before.review:
            log.error("watch.review", order_id=order.id, status=order.status)
            events.add_event(session, order, "journal.review", at=now, detail={"status": order.status})

    @staticmethod
    def _keep_call(
        session: Session, order: Order, reply: OrderReply, asked_at: datetime, answered_at: datetime
    ) -> None:
        calls.add_call(
            session,
            order_ref=order.id,
            at=asked_at,
            endpoint="order",
            method="GET",
            attempt=1,
            status=200,
            ms=round((answered_at - asked_at).total_seconds() * 1000),
            outcome="OK",
            response_body=excerpt(reply.raw),
        )

    def _next(self, order: Order, status: Status, facts: Facts, now: datetime) -> datetime | None:
        changed_at = now if status != order.status else order.status_changed_at
        wait = schedules.next_poll(
            status,
            age=now - order.created_at,
            since_change=now - changed_at,
            deposit_seen=facts.deposit_seen,
            failures=0,
            rng=self._timing.rng,
            scale=self._timing.scale,
            pace=self._throttle.pace(),
        )
        return None if wait is None else now + wait

    def back_off(self, session: Session, order: Order) -> None:
        """Look again later, twice as late with each failure in a row, and raise the alarm after five."""
        now = self._timing.now()
        failures = order.failures + 1
        try:
            deposit_seen = Facts.from_json(order.facts).deposit_seen
        except Exception:
            # Facts that cannot be read may be what broke the look. Then it is watched as if there were money in it.
            log.exception("watch.facts_unreadable", order_id=order.id)
            deposit_seen = True
        wait = schedules.next_poll(
            Status(order.status),
            age=now - order.created_at,
            since_change=now - order.status_changed_at,
            deposit_seen=deposit_seen,
            failures=failures,
            rng=self._timing.rng,
            scale=self._timing.scale,
            pace=self._throttle.pace(),
        )
        if failures == _ALERT_AFTER or failures % _REMIND_EVERY == 0:
            log.error("watch.order_not_readable", order_id=order.id, failures=failures)
        if wait is not None:
            order_rows.back_off(session, order, now + wait, failures=failures)
        else:
            # The watch ends here, and that can make the order final: everybody is told.
            changes = {"next_check_at": None, "failures": failures}
            order_rows.move(session, order, changes, at=now, source="look")


def _steps(
    order: Order, decision: Decision, facts: Facts, looked: dict[str, Any], *, late: bool, now: datetime
) -> list[tuple[dict[str, Any], str | None]]:
    """The moves of one look, in order: changes and, where it is not the status that changes, the type of event.

    A late deposit and a demand on the customer are news of their own, and an endpoint may have asked for these types
    alone; so where the status changes in the same look, they get an event before and after that of the status."""
    turn: dict[str, Any] = {}
    if decision.status != order.status:
        turn = {"status": decision.status, "status_reason": decision.reason}
    asked: dict[str, Any] = {}
    if facts.kyc_link != order.action_url:
        asked = {"action_url": facts.kyc_link, "action_since": now}
    shown = bool(asked) and facts.kyc_link is not None and decision.status is Status.ON_HOLD

    steps: list[tuple[dict[str, Any], str | None]] = []
    if late:
        reason = {"status_reason": "late_deposit"} if decision.late_deposit else {}
        steps.append((looked | reason, "order.late_deposit"))
        looked = {}
    if shown and turn:
        steps.append((looked | turn, None))
        steps.append((asked, "order.action_required"))
    elif rest := looked | turn | asked:
        steps.append((rest, "order.action_required" if shown else None))
    return steps


def _walk(
    session: Session,
    order: Order,
    steps: Sequence[tuple[dict[str, Any], str | None]],
    evidence: dict[str, Any],
    now: datetime,
) -> Order | None:
    """Take the order through the door, step by step. None when somebody else was first: after the first step nobody can
    be, the row is ours until the end of the transaction."""
    for changes, type_ in steps:
        moved = order_rows.move(session, order, changes, at=now, source="look", detail=evidence, type=type_)
        if moved is None:
            return None
        order = moved
    return order


def _differs(order: Order, changes: dict[str, Any]) -> bool:
    return any(getattr(order, name) != value for name, value in changes.items())


def _evidence(decision: Decision, told: Facts) -> dict[str, Any]:
    newest = max(told.events, key=lambda e: e.at, default=None)
    evidence: dict[str, Any] = {}
    if newest is not None:
        evidence["newest_kind"] = newest.kind
    if decision.reason:
        evidence["reason"] = decision.reason
    return evidence
