"""Polling one order: ask the upstream, merge what it says into the facts, and take the order through the one door.

An answer that is older than what is known changes nothing (`Facts.merge`). What the facts mean is decided by
`lifecycle.next_status`. What would move an order backwards changes nothing either and is journalled, so that support can
answer "why did it not change". A poll that brings no answer still lets time pass: an order expires, and stops being
payable, whether the upstream speaks or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap.domain import expiry
from swap.domain.expiry import ToldExpiry
from swap.domain.lifecycle import Decision, Facts, Status, account, expires_by_age, next_status, review_due, says_ended
from swap.domain.schedules import UNHEARD, PollState, failure_delay, next_poll
from swap.domain.times import Timing
from swap.errors import OrderExpired, OutOfDescriptors, RateLimited, UpstreamError, UpstreamNotFound
from swap.infra.queue import JobQueue
from swap.orders.conflicts import ENDED_BY_HAND, Conflicts, ended_by_hand, is_settled, under_review
from swap.orders.fixed_rate import rate_ends_at
from swap.orders.showing import is_at_its_place
from swap.orders.spares import told as told_of
from swap.store import events, leases, upstream_ids, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.upstream_ids import Named
from swap.tables import Order, UpstreamOrder
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import OrderReply
from swap.watching import list_signal
from swap.watching.steps import (
    deposits_told,
    differs,
    evidence_of,
    record_call,
    steps_of,
    walk,
    warn_of_deposit,
    write_journal,
)
from swap.watching.throttle import PollThrottle

log = structlog.get_logger()

_ALERT_AFTER = 5
_SOON = timedelta(seconds=5)
# How long an order is put off at most, unless its polls are further apart by plan: time moves it meanwhile.
_LONGEST_PUT_OFF = timedelta(minutes=5)
# By then polls are an hour apart: once a day.
_REMIND_EVERY = 24
# Once in a row of failures, of which some may be of other kinds.
_OF_ANOTHER = "journal.answer_of_another"

Changes = dict[str, Any]


def poll_seconds(timing: Timing) -> float:
    """How long one poll may take: the client tries a read twice, with a pause."""
    return 2 * timing.read_timeout + 5


class _Overtaken(Exception):
    """Another process moved the order meanwhile, has its lease now, or gave an id in the answer to another order."""


class Poller:
    def __init__(
        self,
        database: Database,
        upstream: UpstreamClient,
        conflicts: Conflicts,
        throttle: PollThrottle,
        queue: JobQueue,
        timing: Timing,
    ) -> None:
        self._database, self._upstream, self._conflicts = database, upstream, conflicts
        self._throttle, self._queue, self._timing = throttle, queue, timing

    def poll(self, order: Order, refs: Sequence[str]) -> None:
        """Ask the upstream about an order, by its number where it is known, else by its ids `refs` in turn, and act on the
        answer. `order`: as it was claimed; what is learned counts only while its lease is held."""
        ref = order.upstream_order_id or next(iter(refs), None)
        if ref is None:
            if order.failures == 0:
                log.error("watch.no_upstream_id", order_id=order.id)
            with self._database.write() as session:
                self.back_off(session, order)
            return
        asked_at = self._timing.now()
        reply: OrderReply | None = None
        try:
            reply = self._upstream.order(
                ref,
                order.destination_address,
                order_ref=order.id,
                deadline=poll_seconds(self._timing),
                pair=order.pair,
                also=refs,
            )
        except OrderExpired:
            pass
        except UpstreamError as error:
            if isinstance(error, RateLimited | OutOfDescriptors) or error.cause == "breaker":
                self._put_off(order, getattr(error, "retry_after", None))
                return
            log.warning(
                "watch.look_failed", order_id=order.id, code=error.code, not_found=isinstance(error, UpstreamNotFound)
            )
            with self._database.write() as session:
                self.back_off(session, order, unknown=isinstance(error, UpstreamNotFound))
            return
        self._apply(order, reply, asked_at)

    def _put_off(self, order: Order, retry_after: float | None) -> None:
        """The upstream was not asked, for reasons that have nothing to do with the order."""
        now = self._timing.now()
        pause = self._timing.shorten(timedelta(seconds=self._timing.rng.uniform(1, 10)))
        planned = self._interval(order, Status(order.status), now)
        put_off = min(timedelta(seconds=retry_after or 1.0), max(planned or _LONGEST_PUT_OFF, _LONGEST_PUT_OFF))
        poll_at = _not_after_the_end(order, Status(order.status), now, put_off + pause)
        # Nobody failed, so no failure is counted; but as many looks were missed as were planned in the time.
        missed = order.failures if planned is None else int((now - _last_seen(order)) / planned)
        changes = self._by_time(order, now, missed)
        with self._database.write() as session:
            _postpone(session, order, changes, poll_at, order.failures, now, held=True)

    # --- what an answer means ----------------------------------------------------------------------------------------

    def _apply(self, order: Order, reply: OrderReply | None, asked_at: datetime) -> None:
        """`reply`: None when the upstream said that the order has expired. One in conflict with the order is not believed:
        what it says is no fact, and its ids are not the order's."""
        now, offset = self._timing.now(), self._upstream.offset_seconds
        status, known = Status(order.status), Facts.from_json(order.facts)
        problem = None if reply is None else self._conflicts.found(order, reply)
        facts, told, decision = self._weigh(order, known, reply, problem, asked_at)
        if reply is not None and problem is None and status is not decision.status is Status.AWAITING_DEPOSIT:
            # It would be paid again: everything has to agree that a payer relies on.
            problem = self._conflicts.found(order, reply, Status.AWAITING_DEPOSIT)
            facts, told, decision = self._weigh(order, known, reply, problem, asked_at)
        believed = reply if problem is None else None
        told_before = ToldExpiry.from_json(order.told_expiry)
        always = {
            "as_of": now if problem is None else order.as_of,
            "failures": 0,
            "facts": facts.to_json(),
            "told_expiry": told.to_json(),
            "next_check_at": self._next_poll_at(order, decision.status, now, facts=facts, told=told),
        }
        from_reply = _changes_from(order, believed) if believed is not None else {}
        before = _last_weighed(order)
        without_news = next_status(status, known, before, created_at=order.created_at, told=told_before)
        came, further = deposits_told(order, known, reply)
        conflict: Changes = {}
        if reply is not None:
            conflict = self._conflicts.changes(order, reply, problem, decision.status, deposit_came=came or further)
        if conflict.get("status", decision.status) is Status.AWAITING_DEPOSIT:
            ends_at = order.payable_until
            if believed is not None:
                from_reply["payable_until"] = ends_at = rate_ends_at(order, believed, offset, now)
            if conflict.get("payable", order.payable):
                conflict["payable_reason"] = expiry.not_payable(told, ends_at, now)
        if decision.review == "uncovered" != without_news.review and not ended_by_hand(order, facts):
            conflict |= under_review(order, None, decision.status)
        late = decision.late_deposit or facts.counted > max(1, known.counted)
        steps = steps_of(order, decision, facts, always | from_reply, conflict, late=late, now=now)

        try:
            with self._database.write() as session:
                shown, names = _named(session, order, reply, now)
                if reply is not None and self._is_of_another(session, order, shown, names, reply):
                    return
                # Before anything else counts: of two polls whose answers name one upstream order, one gets it.
                if believed is not None and not names.all_of(shown) and _claim(session, order, believed, now):
                    raise _Overtaken
                moved = walk(session, order, steps, evidence_of(decision, believed), now)
                if moved is None:
                    raise _Overtaken
                if came and (status is Status.FAILED or moved.status == Status.NEEDS_REVIEW):
                    warn_of_deposit(session, moved, status, now)
                write_journal(session, moved, decision, without_news, now)
                if reply is not None and (
                    facts != known or decision.status is not status or differs(order, from_reply | conflict)
                ):
                    record_call(session, order, reply, asked_at, now)
                if facts.events != known.events:
                    new = [event for event in facts.events if event not in known.events]
                    list_signal.record_hit(session, order, new, asked_at, offset)
        except _Overtaken:
            # A poll only adds, so the next one finds all of it again.
            with self._database.write() as session:
                leases.release(session, order, now + _SOON)
                leases.bring_forward(session, [order.id], now + _SOON)
            return
        if moved.sequence != order.sequence:
            self._queue.enqueue("publish")

    def _weigh(
        self, order: Order, known: Facts, reply: OrderReply | None, problem: str | None, asked_at: datetime
    ) -> tuple[Facts, ToldExpiry, Decision]:
        """What is known with this answer, unless it is in conflict with the order, and what that means. Of an order that a
        person has ended nothing follows from what that person knew."""
        facts = known if reply is None or problem is not None else known.merge(reply.facts)
        told = ToldExpiry.from_json(order.told_expiry)
        told = self._told(order, told, facts.signs > known.signs, reply, asked_at)
        status = Status(order.status)
        decision = next_status(status, facts, self._timing.now(), created_at=order.created_at, told=told)
        if order.status_reason == ENDED_BY_HAND and facts.signs <= known.signs:
            decision = replace(decision, status=status, reason=None, late_deposit=False)
        return facts, told, decision

    def _told(
        self, order: Order, told: ToldExpiry, deposit_news: bool, reply: OrderReply | None, asked_at: datetime
    ) -> ToldExpiry:
        """What is to be held of an expiry after this look. An answer that contradicts the order, or whose own word is one
        of an end, takes nothing back."""
        apart = self._timing.shorten(expiry.APART)
        if reply is None:
            return told.told(asked_at, apart)
        if deposit_news:
            return told.after_deposit()
        if told.since is None or says_ended(reply.state):
            return told
        # It would be paid again: everything has to agree that a payer relies on.
        conflict = self._conflicts.found(order, reply, Status.AWAITING_DEPOSIT)
        return told if conflict is not None else told.good(asked_at, apart)

    def _is_of_another(
        self, session: Session, order: Order, shown: UpstreamOrder | None, names: Named, reply: OrderReply
    ) -> bool:
        """Whether the answer is about another upstream order than the one that is shown. Then nothing in it is believed, and
        if it stays so, a person has to look: nobody would see that the customer has paid."""
        if not names.another_than_shown(order.id, shown) or is_at_its_place(order, shown, names, reply):
            return False
        others, now = names.of_others(order.id), self._timing.now()
        refs = sorted(others or names.known or names.refs)
        log.error("watch.answer_of_another", order_id=order.id, refs=refs)
        detail = {"source": "look", "refs": refs, "owner": others.get(refs[0])}
        if events.happened_at(session, order.id, _OF_ANOTHER, since=_last_seen(order)) is None:
            events.add_event(session, order, _OF_ANOTHER, at=now, detail=detail)
        elif order.failures + 1 >= _ALERT_AFTER and not is_settled(order):
            changes = under_review(order, None, Status(order.status))
            order = order_rows.move(session, order, changes, at=now, source="look", detail=detail) or order
        self.back_off(session, order)
        return True

    # --- when there is no answer, and when the next poll is due ------------------------------------------------------

    def _interval(
        self, order: Order, status: Status, now: datetime, failures: int = 0, facts: Facts | None = None
    ) -> timedelta | None:
        changed_at = now if status != order.status else order.status_changed_at
        ledger = account(facts or Facts.from_json(order.facts))
        # An order that ended without its money having gone anywhere is not over either.
        left = ledger.left if status in (Status.FAILED, Status.EXPIRED) else ledger.remaining
        state = PollState(status, now - order.created_at, now - changed_at, failures, money_left=left is not None)
        return next_poll(state, self._timing, self._throttle.slowdown())

    def _next_poll_at(
        self,
        order: Order,
        status: Status,
        now: datetime,
        *,
        failures: int = 0,
        facts: Facts | None = None,
        told: ToldExpiry | None = None,
    ) -> datetime | None:
        wait = self._interval(order, status, now, failures, facts)
        if wait is None:
            return None
        # What waits for a second look gets it as soon as that counts, however rare looks are by plan.
        second = None if told is None else told.second_look_at(self._timing.shorten(expiry.APART))
        if second is not None and second > now:
            wait = min(wait, second - now + self._timing.shorten(_SOON))
        return _not_after_the_end(order, status, now, wait)

    def _by_time(self, order: Order, now: datetime, missed: int) -> Changes:
        """What time alone does to an order whose look brought no answer. `missed`: such looks in a row."""
        status, facts = Status(order.status), Facts.from_json(order.facts)
        if expires_by_age(status, facts, now, created_at=order.created_at):
            return {"status": Status.EXPIRED, "status_reason": "local_expiry"}
        due, before = (review_due(status, facts, at, created_at=order.created_at) for at in (now, _last_weighed(order)))
        if due == "uncovered" != before and not ended_by_hand(order, facts):
            log.error("watch.review", order_id=order.id, status=status, reason=due)
            return under_review(order, None, status)
        if status is not Status.AWAITING_DEPOSIT or not order.payable:
            return {}
        reason = expiry.not_payable(ToldExpiry.from_json(order.told_expiry), order.payable_until, now)
        unseen_for = self._timing.shorten(expiry.UNSEEN_FOR)
        if reason is None and missed >= expiry.MISSED_LOOKS and now - _last_seen(order) >= unseen_for:
            reason = "unverified"
        # Only an answer makes an order payable again.
        return {} if reason in (None, order.payable_reason) else {"payable_reason": reason}

    def back_off(self, session: Session, order: Order, *, broke: bool = False, unknown: bool = False) -> None:
        """Poll again later, twice as late with each failure in a row, and raise the alarm after five. `broke`: by an
        error of our own; `unknown`: the upstream said that it knows no such order. A watch ends on no other failure."""
        now = self._timing.now()
        failures = order.failures + 1
        try:
            changes = self._by_time(order, now, failures)
            status = Status(changes.get("status", order.status))
            poll_at = self._next_poll_at(order, status, now, failures=failures)
            if poll_at is None and not unknown:
                poll_at = now + self._timing.shorten(UNHEARD)
        except Exception:
            # A row that cannot be read may be what broke the poll. Then the order is watched as if it held money.
            log.exception("watch.facts_unreadable", order_id=order.id)
            changes, poll_at = {}, now + failure_delay(failures, self._timing)
        if failures == _ALERT_AFTER or failures % _REMIND_EVERY == 0:
            if broke:
                log.critical("watch.order_breaks", order_id=order.id, failures=failures)
            else:
                log.error("watch.order_not_readable", order_id=order.id, failures=failures)
        _postpone(session, order, changes, poll_at, failures, now)


def _named(
    session: Session, order: Order, reply: OrderReply | None, now: datetime
) -> tuple[UpstreamOrder | None, Named]:
    """The upstream order that the customer was shown, and what the answer names."""
    if reply is None:
        return None, Named((), {})
    shown = upstream_orders.shown_of(session, order.id)
    names = upstream_ids.named(session, reply.primary_ref, reply.refs, about=shown)
    upstream_ids.keep_shared(session, names, now)
    return shown, names


def _claim(session: Session, order: Order, reply: OrderReply, now: datetime) -> set[str]:
    """Give the shown upstream order the ids that are new. Returns those that another order was quicker to get."""
    return upstream_orders.show(session, order, told_of(order, order.upstream_key, reply.refs, reply), now)


def _last_seen(order: Order) -> datetime:
    """When the upstream last said something about the order."""
    return order.as_of or order.created_at


def _not_after_the_end(order: Order, status: Status, now: datetime, wait: timedelta) -> datetime:
    """After that wait, but no later than the end of a fixed rate: whoever may pay until then is to be told when it has
    come."""
    ends = order.payable_until if status is Status.AWAITING_DEPOSIT else None
    return now + wait if ends is None or ends <= now else min(now + wait, ends)


def _last_weighed(order: Order) -> datetime:
    """When it was last known of the order whether a person should look into it. Whoever has moved it since has looked."""
    return max(order.as_of or order.updated_at, order.status_changed_at)


def _postpone(
    session: Session,
    order: Order,
    changes: Changes,
    poll_at: datetime | None,
    failures: int,
    now: datetime,
    held: bool = False,
) -> None:
    """Set the next poll after one without an answer, and what time changed meanwhile. `held`: nobody polls it sooner, even
    if asked to."""
    held_until = poll_at if held else None
    if changes or poll_at is None:
        # The end of a watch can make the order final, which is a public event as well.
        changes = changes | {"next_check_at": poll_at, "failures": failures, "leased_until": held_until}
        detail = {"reason": "uncovered"} if changes.get("status") is Status.NEEDS_REVIEW else None
        order_rows.move(session, order, changes, at=now, source="time", detail=detail, lease=order.lease_token)
    else:
        order_rows.back_off(session, order, poll_at, failures=failures, lease=order.lease_token, held_until=held_until)


def _changes_from(order: Order, reply: OrderReply) -> Changes:
    """What the answer changes besides the facts and whether the order may be paid: the upstream's state and id."""
    changes: Changes = {}
    if reply.state or reply.status:
        changes["upstream_state"] = reply.state or reply.status
    if reply.order_id is not None and reply.order_id != order.upstream_order_id:
        # The list knows the numeric id; a create may have answered with a UUID alone (docs/upstream.md T4).
        changes["upstream_order_id"] = reply.order_id
    return changes
