"""Watching orders: claim what is due, ask the upstream, merge what it says, and take the order through the one door.

A look only ever adds facts. What the facts mean is `lifecycle.next_status`; what would move an order backwards changes
nothing and is journalled, so that support can answer "why did it not change".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap import addresses, cadence, doorbell
from swap.answers import DATABASE_AWAY, insisting
from swap.bell import Bell
from swap.catalog import Catalog
from swap.checks import reply_problem
from swap.creates import NOT_SENT_KEPT, in_doubt
from swap.errors import NotFound, OrderExpired, RateLimited, UpstreamError
from swap.lifecycle import BEFORE_ADDRESS, Decision, Facts, Status, next_status
from swap.pace import Pacer
from swap.resolver import Resolver
from swap.store import calls, events
from swap.store import orders as rows
from swap.store.database import Database
from swap.tables import Order
from swap.upstream.client import UpstreamClient
from swap.upstream.journal import excerpt
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

# Looked at together, each on a thread of its own: a batch takes no longer than its slowest look.
BATCH = 8
_ALERT_AFTER = 5
# By then a look is an hour apart from the next: once a day.
_REMIND_EVERY = 24
# How long a claim holds, at SWAP_TIME_SCALE 1; never shorter than the work it guards, its wait in the queue included.
LEASE = timedelta(seconds=60)
QUEUED_SECONDS = 10.0


class Watch:
    def __init__(
        self,
        database: Database,
        upstream: UpstreamClient,
        catalog: Catalog,
        resolver: Resolver,
        pacer: Pacer,
        bell: Bell,
        clock: Callable[[], datetime],
        rng: Random,
        *,
        rate_tolerance: Decimal,
        read_timeout: float,
        create_timeout: float,
        scale: Decimal,
    ) -> None:
        self._look_seconds = 2 * read_timeout + 5
        work = self._look_seconds + create_timeout + QUEUED_SECONDS + 2
        self._lease = max(LEASE / float(scale), timedelta(seconds=work))
        self._database, self._upstream, self._catalog = database, upstream, catalog
        self._resolver, self._pacer = resolver, pacer
        self._bell, self._clock, self._rng = bell, clock, rng
        self._rate_tolerance, self._scale = rate_tolerance, scale

    def claim_urgent(self, limit: int) -> list[list[str]]:
        """Lease due creates and doubts; batches of ids for one job each."""
        if limit <= 0:
            return []
        with self._database.read() as session:
            if not rows.has_due(session, self._clock()):
                return []
        with self._database.write() as session:
            return _batches(rows.claim_due(session, self._clock(), self._lease, limit, urgent=True))

    def claim_due(self, limit: int) -> list[list[str]]:
        """Lease due orders; batches of ids for one job each."""
        with self._database.read() as session:
            if not rows.has_due(session, self._clock()):
                return []
        with self._database.write() as session:
            # A fifth goes to those that wait longest whatever their lane: under a lasting backlog nobody is forgotten.
            fair = limit // 5
            ids = list(rows.claim_due(session, self._clock(), self._lease, limit - fair, by_lane=True))
            if fair:
                ids += rows.claim_due(session, self._clock(), self._lease, fair, by_lane=False)
        return _batches(ids)

    def check_all(self, order_ids: Sequence[str]) -> None:
        """Look at a batch of leased orders, several at once. One that fails never stops the others."""
        with ThreadPoolExecutor(BATCH, thread_name_prefix="look") as pool:
            list(pool.map(self._check_safely, order_ids))

    def _check_safely(self, order_id: str) -> None:
        try:
            self.check(order_id)
        except Exception as error:
            log.exception("watch.look_broke", order_id=order_id)
            try:
                for again in insisting():
                    with again:
                        self._hand_back(order_id, error)
            except Exception:
                # The database is away for longer. The lease runs out by itself.
                log.exception("watch.not_backed_off", order_id=order_id)

    def _hand_back(self, order_id: str, error: Exception) -> None:
        """A poison order backs off like one the upstream does not answer for; one that was leased while the database was
        away is looked at soon."""
        with self._database.write() as session:
            order = rows.get(session, order_id)
            if order is None:
                return
            if isinstance(error, DATABASE_AWAY):
                rows.reschedule(session, order_id, self._clock() + timedelta(seconds=5), failures=order.failures)
            else:
                self._failed(session, order)

    def check(self, order_id: str) -> None:
        """Look at one order."""
        with self._database.read() as session:
            order = rows.get(session, order_id)
            if order is None or order.next_check_at is None:
                return
            refs = rows.refs_of(session, order_id)
        if order.status == Status.IN_DOUBT:
            self._resolver.resolve(order_id)
            return
        if order.status in BEFORE_ADDRESS:
            self._sweep(order)
            return
        ref = order.upstream_order_id or next(iter(refs), None)
        if ref is None:
            log.error("watch.no_upstream_id", order_id=order_id)
            return
        asked_at = self._clock()
        try:
            reply: OrderReply | None = self._upstream.order(
                ref, order.destination_address, order_ref=order.id, deadline=self._look_seconds
            )
            told = reply.facts if reply is not None else Facts()
        except OrderExpired:
            reply, told = None, Facts(expired_seen=(self._clock(),))
        except UpstreamError as error:
            if isinstance(error, RateLimited) or error.cause == "breaker":
                self._put_off(order, getattr(error, "retry_after", None))
                return
            log.warning("watch.look_failed", order_id=order_id, code=error.code, not_found=isinstance(error, NotFound))
            with self._database.write() as session:
                self._failed(session, order)
            return
        self._apply(order, reply, told, asked_at)

    def _put_off(self, order: Order, retry_after: float | None) -> None:
        """The look did not take place, for reasons that have nothing to do with the order."""
        wait = (retry_after or 1.0) + self._rng.uniform(1, 10) / float(self._scale)
        with self._database.write() as session:
            rows.back_off(session, order, self._clock() + timedelta(seconds=wait), failures=order.failures)

    # --- what a look means -------------------------------------------------------------------------------------------

    def _apply(self, order: Order, reply: OrderReply | None, told: Facts, asked_at: datetime) -> None:
        now = self._clock()
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
                rows.reschedule(session, order.id, now + timedelta(seconds=5), failures=order.failures)
                return
            if reply is not None:
                rows.own_refs(session, order.id, reply.refs)
            before = next_status(status, known, now, created_at=order.created_at)
            self._journal(session, moved, decision, before)
            if reply is not None and (facts != known or decision.status is not status or _differs(order, news)):
                self._keep_call(session, order, reply, asked_at, now)
            if facts.events != known.events:
                new = [event for event in facts.events if event not in known.events]
                doorbell.count(session, order, new, asked_at, self._upstream.offset_seconds)
        if moved.sequence != order.sequence:
            self._bell.ring("publish")

    def _is_of_another(self, session: Session, order: Order, reply: OrderReply) -> bool:
        """Whether the answer names itself by any id of another order of ours. Then nothing in it may be believed."""
        refs = sorted(rows.owned(session, reply.refs, but_by=order.id))
        if not refs:
            return False
        log.error("watch.answer_of_another", order_id=order.id, refs=refs)
        if order.failures == 0:
            detail = {"source": "look", "refs": refs, "owner": rows.owner_of(session, refs[0])}
            events.add_event(session, order, "journal.answer_of_another", at=self._clock(), detail=detail)
        self._failed(session, order)
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
        problem = _deposit_problem(order, reply)
        if problem is not None:
            log.error("watch.deposit_details_changed", order_id=order.id, reason=problem)
            changes |= {"payable": False, "payable_reason": problem, "status_reason": "under_review"}
        elif unverified:
            # What would be shown is what the create said; a look need not repeat it, but it has to pass all the same.
            shown = replace(reply, deposit_address=order.deposit_address, deposit_memo=order.deposit_memo)
            source = self._catalog.snapshot().instrument(order.from_currency, order.from_network)
            problem = reply_problem(order, shown, source, self._rate_tolerance)
            reason = None if problem is None else "under_review"
            changes |= {"payable": problem is None, "payable_reason": problem, "status_reason": reason}
        return changes

    def _journal(self, session: Session, order: Order, decision: Decision, before: Decision) -> None:
        """What the look said and the order did not follow; written once, when it was first said: `before` is what was
        to be decided without this look."""
        now = self._clock()
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
        wait = cadence.next_look(
            status,
            age=now - order.created_at,
            since_change=now - changed_at,
            deposit_seen=facts.deposit_seen,
            failures=0,
            rng=self._rng,
            scale=self._scale,
            pace=self._pacer.pace(),
        )
        return None if wait is None else now + wait

    def _failed(self, session: Session, order: Order) -> None:
        """Look again later, twice as late with each failure in a row, and raise the alarm after five."""
        now = self._clock()
        failures = order.failures + 1
        try:
            deposit_seen = Facts.from_json(order.facts).deposit_seen
        except Exception:
            # Facts that cannot be read may be what broke the look. Then it is watched as if there were money in it.
            log.exception("watch.facts_unreadable", order_id=order.id)
            deposit_seen = True
        wait = cadence.next_look(
            Status(order.status),
            age=now - order.created_at,
            since_change=now - order.status_changed_at,
            deposit_seen=deposit_seen,
            failures=failures,
            rng=self._rng,
            scale=self._scale,
            pace=self._pacer.pace(),
        )
        if failures == _ALERT_AFTER or failures % _REMIND_EVERY == 0:
            log.error("watch.order_not_readable", order_id=order.id, failures=failures)
        if wait is not None:
            rows.back_off(session, order, now + wait, failures=failures)
        else:
            # The watch ends here, and that can make the order final: everybody is told.
            changes = {"next_check_at": None, "failures": failures}
            rows.move(session, order, changes, at=now, source="look")

    # --- creates that were never settled -----------------------------------------------------------------------------

    def _sweep(self, order: Order) -> None:
        """A due order that is still being created: its create was not answered in time, because we died in it or because
        nobody repeated a request that never reached the upstream; or it was, and we died before acting on the answer."""
        with self._database.read() as session:
            attempts = rows.attempts_of(session, order.id)
        if self._resolver.settled_by_answer(order, attempts):
            return
        if attempts and attempts[-1].outcome == "not_sent" and self._resolver.create_again_if_promised(order, attempts):
            return
        with self._database.write() as session:
            attempts = rows.attempts_of(session, order.id)
            last = attempts[-1] if attempts else None
            if last is not None and last.outcome == "not_sent":
                kept_until = (last.finished_at or last.sent_at) + NOT_SENT_KEPT / float(self._scale)
                if self._clock() < kept_until:
                    # Claimed before it was known that nothing was sent, or we died before acting on that.
                    rows.reschedule(session, order.id, kept_until, failures=order.failures)
                    return
                changes: dict[str, Any] = {
                    "status": Status.FAILED,
                    "status_reason": "create_not_sent",
                    "next_check_at": None,
                }
            elif last is not None and last.outcome == "refused":
                # We died between writing the answer down and acting on it.
                reason = (last.code or "refused").lower()
                changes = {"status": Status.FAILED, "status_reason": reason, "next_check_at": None}
            else:
                log.error("watch.create_swept", order_id=order.id)
                changes = in_doubt(self._clock())
            moved = rows.move(session, order, changes, at=self._clock(), source="sweep")
        if moved is not None:
            self._bell.ring("publish")


def _batches(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]


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
        moved = rows.move(session, order, changes, at=now, source="look", detail=evidence, type=type_)
        if moved is None:
            return None
        order = moved
    return order


def _deposit_problem(order: Order, reply: OrderReply) -> str | None:
    """Why what a later answer tells must end payments to what was shown; None when it tells the same or nothing."""
    if reply.deposit_address is not None and not _same_address(order, reply.deposit_address):
        return "deposit_address_changed"
    if reply.deposit_memo is not None and reply.deposit_memo != order.deposit_memo:
        return "deposit_memo_changed"
    return None


def _same_address(order: Order, told: str) -> bool:
    """Equal, or two spellings of one address: a checksum in capitals, say."""
    if order.deposit_address is None or told == order.deposit_address:
        return told == order.deposit_address
    one, other = (
        addresses.validate(order.from_currency, order.from_network, text, None)
        for text in (order.deposit_address, told)
    )
    return (
        one.normalised is not None and one.normalised == other.normalised and one.embedded_memo == other.embedded_memo
    )


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
