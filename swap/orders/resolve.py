"""Resolving orders in doubt: did the create reach the upstream, and which order there is ours?

No customer can have paid, since no deposit address was shown; so there is time to be sure. The upstream keeps no id of
ours (docs/upstream.md T5): what speaks is its list of orders, and public-info of each candidate in it. An order in doubt
ends in one of four ways: *adopted*; *created again*, once it is proved that the first create never arrived; *unconfirmed*
after ten minutes; and an upstream order that may be ours but was not proved to be is recorded as *unowned*. The upstream
key must belong to this service alone, or the orders of another program would look like ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.times import Timing, from_iso, iso
from swap.errors import ServiceError, UpstreamError
from swap.orders.candidates import (
    CLOCK_SLACK,
    READS,
    AttemptTimes,
    Candidate,
    CandidateSearch,
    Doubt,
    Finding,
    Listing,
    named_by,
)
from swap.orders.create import OrderCreator
from swap.orders.matching import confirms, deposit_place, identical
from swap.store import orders as order_rows
from swap.store import unowned
from swap.store.database import Database
from swap.tables import Order, OrderAttempt
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

GIVE_UP = timedelta(minutes=10)
OLD_ENOUGH = timedelta(minutes=5)


class Resolver:
    """`upstreams`: a client for each key pair that may have made orders; an attempt is resolved with its own."""

    def __init__(
        self,
        database: Database,
        upstreams: Mapping[str, UpstreamClient],
        creator: OrderCreator,
        timing: Timing,
        *,
        terms_stand: Callable[[Order], bool],
    ) -> None:
        self._database, self._upstreams, self._creator = database, upstreams, creator
        self._timing, self._terms_stand = timing, terms_stand
        # All that one step reads. A create it may lead to comes on top (see `swap.watching.due.LEASE`).
        self._step_seconds = 2 * timing.read_timeout + 5
        self._times = AttemptTimes(timing)
        self._search = CandidateSearch(database, self._times, timing)
        timeout, apart = self._times.timeout, self._times.reads_apart
        self._old_enough = timing.shorten(OLD_ENOUGH, at_least=timeout + 3 * apart)
        self._give_up = timing.shorten(GIVE_UP, at_least=timeout + 6 * apart)

    def resolve(self, order_id: str) -> None:
        """Take a step with an order in doubt, and set when the next one is due. Any other order is left alone."""
        try:
            self._step(order_id)
        except UpstreamError as error:
            log.warning("resolver.not_now", order_id=order_id, code=error.code)
            self._again(order_id)

    def _step(self, order_id: str) -> None:
        until = self._timing.monotonic() + self._step_seconds
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
            if order is None or order.status != Status.IN_DOUBT:
                return
            attempts = order_rows.attempts_of(session, order_id)
        if self._creator.settle_from_stored_answer(order, attempts):
            return
        last = attempts[-1]
        first = next((attempt for attempt in attempts if attempt.outcome != "not_sent"), None)
        if first is None:
            # The order was swept into doubt before it was known that nothing was sent, and then the process died.
            self._create_again(order, attempts)
            return
        if self._times.in_flight(last):
            self._again(order_id, self._times.in_flight_until(last))
            return
        upstream = self._upstreams.get(last.upstream_key)
        if upstream is None:
            # Processes get a new key pair one after the other: another process may have it already.
            log.error("resolver.key_unknown", order_id=order_id, upstream_key=last.upstream_key)
            if self._timing.now() - last.sent_at < self._give_up:
                self._again(order_id)
            else:
                self._finish_unconfirmed(order, last, named_by(attempts))
            return
        self._resolve_with(Doubt(order, attempts, first, last, upstream, until))

    def _resolve_with(self, doubt: Doubt) -> None:
        order, last = doubt.order, doubt.last
        listing = self._search.read_list(doubt.upstream)
        unproved: list[Candidate] = []
        all_read = listing is not None
        for candidate in [*named_by(doubt.attempts), *self._search.in_list(doubt, listing)]:
            finding, reply = self._search.examine(doubt, candidate)
            if finding is Finding.OURS and reply is not None and self._adopt(order, last, reply, candidate):
                return
            if finding is not Finding.ANOTHERS:
                unproved.append(candidate)
                all_read &= finding is not Finding.NOT_READ

        # A list that shows nothing that may be ours can be one of those that prove the order absent.
        without_it = None if unproved else listing
        if without_it is not None and self._proves_absence(doubt, without_it):
            self._create_again(order, doubt.attempts)
            return
        age = self._timing.now() - last.sent_at
        # An order does not end while the list or a candidate cannot be read: what they show has to be recorded as unowned,
        # or it would never be watched. Nor does it end in the middle of a proof, since the resolver may have been away for
        # most of the ten minutes. After twenty it ends in any case.
        may_end = all_read and not (without_it is not None and last.absent_reads)
        if age >= 2 * self._give_up or (age >= self._give_up and may_end):
            self._finish_unconfirmed(order, last, unproved)
        else:
            self._again(order.id)

    def create_again_if_promised(self, order: Order, attempts: Sequence[OrderAttempt]) -> bool:
        """Go on with an order that was to be created again when the upstream could not be reached: its caller was told to
        wait, not to ask again. False, and nothing done, when none of its attempts was ever sent: then no caller was."""
        if all(attempt.outcome == "not_sent" for attempt in attempts):
            return False
        self._create_again(order, attempts)
        return True

    # --- adopting ----------------------------------------------------------------------------------------------------

    def _adopt(self, order: Order, last: OrderAttempt, reply: OrderReply, candidate: Candidate) -> bool:
        evidence = {
            "source": "resolver",
            "adopted": reply.primary_ref,
            "refs": list(reply.refs),
            "found_by": "list" if candidate.from_list else "answer",
            "created_at": None if reply.created_at is None else iso(reply.created_at),
        }

        def allowed(session: Session, current: Order) -> bool:
            return self._no_rival(session, current, reply, last, candidate)

        order = self._creator.adopt(order.id, reply, evidence, last.number, allowed)
        if order.status == Status.IN_DOUBT:
            return False
        log.info("resolver.adopted", order_id=order.id, upstream_order_id=reply.primary_ref)
        return True

    def _no_rival(
        self, session: Session, order: Order, reply: OrderReply, last: OrderAttempt, candidate: Candidate
    ) -> bool:
        """Whether the upstream order can belong to no other order of ours. Asked inside the adopting transaction, after
        public-info has answered: an order's row is written before its create is sent, so every rival is visible by now."""
        if order_rows.place_taken(session, deposit_place(order, reply), excluding=order.id):
            return False
        rivals = [
            (rival, [attempt for attempt in order_rows.attempts_of(session, rival.id) if attempt.outcome != "not_sent"])
            for rival in order_rows.rivals(session, order)
        ]
        rivals = [(rival, sent) for rival, sent in rivals if sent]
        # A written answer is about to be acted upon, and may name this upstream order by another of its ids.
        if any(
            self._times.in_flight(sent[-1]) or (sent[-1].outcome == "done" and rival.status in BEFORE_ADDRESS)
            for rival, sent in rivals
        ):
            return False
        if not rivals:
            return True
        if not confirms(order, reply):
            return False
        if not candidate.from_list or reply.created_at is None:
            return True
        # Identical orders can be distinguished by time only: each may adopt an upstream order made after its own create and
        # before the next identical one's. If it adopted a later one, its own upstream order would fall outside the other's
        # window and be left unwatched. Creates sent within a second of each other cannot be distinguished, and need not be.
        offset = timedelta(seconds=self._upstreams[last.upstream_key].offset_seconds)
        return not any(
            last.sent_at + CLOCK_SLACK / 2 < attempt.sent_at
            and attempt.sent_at + offset - CLOCK_SLACK <= reply.created_at
            for rival, sent in rivals
            if rival.status in BEFORE_ADDRESS and identical(order, rival)
            for attempt in sent
        )

    # --- absence -----------------------------------------------------------------------------------------------------

    def _proves_absence(self, doubt: Doubt, listing: Listing) -> bool:
        """Record that this list does not show the order, if it would have to. True at the third such list, each far enough
        from the one before."""
        last, apart = doubt.last, self._times.reads_apart
        # At the third list, thirty seconds have passed since the call was over: time enough for a create to be carried out
        # late and to be listed late.
        if not doubt.upstream.offset_known or listing.began < self._times.over_at(last) + apart:
            return False
        offset = timedelta(seconds=doubt.upstream.offset_seconds)
        window_end = (last.finished_at or last.sent_at + self._times.timeout) + offset + CLOCK_SLACK
        if not listing.proves_absence(window_end, last.sent_at, self._old_enough):
            return False
        reads = [from_iso(text) for text in last.absent_reads]
        if not reads or listing.began - reads[-1] >= apart:
            last.absent_reads = [iso(read) for read in [*reads, listing.began]]
            with self._database.write() as session:
                order_rows.finish_attempt(session, doubt.order.id, last.number, absent_reads=last.absent_reads)
        return len(last.absent_reads) >= READS

    def _create_again(self, order: Order, attempts: Sequence[OrderAttempt]) -> None:
        """The create is proved never to have arrived: send one more, if what was promised still stands. Only one more: if
        the second is not answered either, the order ends."""
        sent = [attempt for attempt in attempts if attempt.outcome != "not_sent"]
        absent = sent[-1] if sent else attempts[-1]
        evidence = {"source": "resolver", "proved_absent": absent.number, "reads": absent.absent_reads}
        if len(sent) > 1 or not self._terms_stand(order):
            # A complete answer that leads here named an address, or an id, of another order.
            reason = "address_in_use" if absent.outcome == "done" else "create_absent"
            self._creator.fail_in_doubt(order.id, reason, evidence, attempts[-1].number)
            log.info("resolver.absent", order_id=order.id)
            return
        try:
            again = self._creator.create_again(order, evidence)
        except ServiceError as error:
            log.info("resolver.created_again", order_id=order.id, ended=error.code)
        else:
            if again is not None:
                log.info("resolver.created_again", order_id=order.id, ended=again.status)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _finish_unconfirmed(self, order: Order, last: OrderAttempt, unproved: Sequence[Candidate]) -> None:
        """End the order without a decision. The candidates are recorded first: if they were lost, what may be the customer's
        order would never be watched."""
        now = self._timing.now()
        with self._database.write() as session:
            for candidate in unproved:
                unowned.add(
                    session,
                    ref=candidate.ref,
                    refs=candidate.refs,
                    upstream_key=last.upstream_key,
                    destination_address=order.destination_address,
                    amount=order.amount,
                    order_id=order.id,
                    now=now,
                )
        refs = [candidate.ref for candidate in unproved]
        evidence = {"source": "resolver", "code": "CREATE_UNCONFIRMED", "candidates": refs}
        order = self._creator.fail_in_doubt(order.id, "create_unconfirmed", evidence, last.number)
        log.error("resolver.unconfirmed", order_id=order.id, status=order.status, candidates=refs)

    def _again(self, order_id: str, at: datetime | None = None) -> None:
        with self._database.write() as session:
            order = order_rows.get(session, order_id)
            if order is not None and order.status == Status.IN_DOUBT:
                at = at or self._timing.now() + self._times.reads_apart
                order_rows.back_off(session, order, at, failures=order.failures)
