"""Resolving orders in doubt: did the create reach the upstream, and which order there is ours?

Nobody can have paid, since no deposit address was shown; so there is time to be sure. The upstream keeps no id of ours
(docs/upstream.md T5): what speaks is its list of orders, and public-info of each candidate in it. Four ends: *adopted*,
*created again* once it is proved that the first create never arrived, *unconfirmed* after ten minutes, and what was
found but could not be proved to be ours becomes an *orphan*. The upstream key must belong to this service alone, or
strangers' orders would look like ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.times import Timing, iso
from swap.errors import OrderExpired, ServiceError, UpstreamError
from swap.orders.create import OrderCreator
from swap.orders.matching import confirms, contradicts, could_match, identical
from swap.store import orders as order_rows
from swap.store import orphans
from swap.store.database import Database
from swap.tables import Order, OrderAttempt
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import ListedOrder, OrderReply

log = structlog.get_logger()

GIVE_UP = timedelta(minutes=10)
OLD_ENOUGH = timedelta(minutes=5)
READS_APART = timedelta(seconds=10)
READS = 3

# How far apart the clocks may still be, once the offset is allowed for.
_CLOCK_SLACK = timedelta(seconds=2)
# What lies outside an attempt's time by less than this may yet be its order, by the clock of a machine that is not well:
# it is not adopted, but neither is the order absent.
_DOUBTFUL = timedelta(seconds=5)
_LIST_SHARED = timedelta(seconds=2)

Finding = Literal["ours", "another's", "cannot tell", "not read"]


@dataclass(frozen=True)
class Listing:
    """One full read of the upstream's list. `began`: our clock before it was asked; everything older than that, and not
    delayed on its way into the list, is in it."""

    rows: Sequence[ListedOrder]
    began: datetime

    def proves_absence(self, window_end: datetime, sent_at: datetime, old_enough: timedelta) -> bool:
        """Whether an order of that attempt would have to be in it: the list reaches past the attempt (it shows a newer
        order of ours), or the attempt is so old that no list lags that much. Times in upstream time but `began`."""
        newest = max((row.created_at for row in self.rows if row.created_at is not None), default=None)
        return (newest is not None and newest > window_end) or self.began - sent_at > old_enough


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
        # A step has this long for everything it reads; a create it may lead to comes on top (see swap.watching.due.LEASE).
        self._step_seconds, self._read_seconds = 2 * timing.read_timeout + 5, timing.read_timeout
        self._database, self._upstreams, self._creator = database, upstreams, creator
        self._timing, self._terms_stand = timing, terms_stand
        self._listings: dict[str, tuple[datetime, Listing | None]] = {}
        self._reading = threading.Lock()
        self._timeout = timedelta(seconds=timing.create_timeout)
        # No delay is scaled below the longest call it guards and two seconds more.
        guarded = timedelta(seconds=timing.read_timeout + 2)
        self._apart = timing.shorten(READS_APART, at_least=min(READS_APART, guarded))
        self._old_enough = timing.shorten(OLD_ENOUGH, at_least=self._timeout + 3 * self._apart)
        self._give_up = timing.shorten(GIVE_UP, at_least=self._timeout + 6 * self._apart)

    def resolve(self, order_id: str) -> None:
        """Take a step with an order in doubt, and set when the next one is due. Nothing happens to any other order."""
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
        if self.settled_from_stored_answer(order, attempts):
            return
        last = attempts[-1]
        first = next((attempt for attempt in attempts if attempt.outcome != "not_sent"), None)
        if first is None:
            # Swept into doubt before it was known that nothing was sent, and then we died.
            self._create_again(order, attempts)
            return
        if self._in_flight(last):
            self._again(order_id, last.sent_at + self._timeout + timedelta(seconds=2))
            return
        known = [ref for attempt in attempts for ref in attempt.refs]
        upstream = self._upstreams.get(last.upstream_key)
        if upstream is None:
            # Processes get a new key one after the other: somebody else may have it.
            log.error("resolver.key_unknown", order_id=order_id, upstream_key=last.upstream_key)
            if self._timing.now() - last.sent_at < self._give_up:
                self._again(order_id)
            else:
                self._finish_unconfirmed(order, last, known)
            return
        listing = self._list(upstream)
        candidates = self._candidates(order, first, last, listing, upstream)
        unproved: list[ListedOrder | str] = []
        all_read = listing is not None
        for candidate in [*known, *candidates]:
            finding, reply = self._examine(order, first, last, candidate, upstream, until)
            if finding == "ours" and reply is not None and self._adopt(order, last, reply, candidate):
                return
            if finding != "another's":
                unproved.append(candidate)
                all_read &= finding != "not read"

        # Nothing unproved is in the list: it may be on the way to prove that the order is not there.
        proving = listing is not None and not unproved
        if proving and listing is not None and self._absent(order, last, listing, upstream):
            self._create_again(order, attempts)
            return
        age = self._timing.now() - last.sent_at
        # Not without a list: what it shows must become an orphan, or nobody would ever look at it. Nor before everything was
        # read, or in the middle of a proof: we may have been away for most of the time.
        undecided = all_read and not (proving and last.absent_reads)
        if age >= 2 * self._give_up or (age >= self._give_up and undecided):
            self._finish_unconfirmed(order, last, unproved)
        else:
            self._again(order_id)

    def create_again_if_promised(self, order: Order, attempts: Sequence[OrderAttempt]) -> bool:
        """Go on with an order that was to be created again when the upstream could not be reached. Whoever placed it was
        told to wait, not to ask again. False when all its attempts are of that kind: then nobody was."""
        if all(attempt.outcome == "not_sent" for attempt in attempts):
            return False
        self._create_again(order, attempts)
        return True

    def settled_from_stored_answer(self, order: Order, attempts: Sequence[OrderAttempt]) -> bool:
        """Whether the order could be settled from an answer that is in its attempts already; see `OrderCreator`."""
        return self._creator.settle_from_stored_answer(order, attempts)

    # --- candidates --------------------------------------------------------------------------------------------------

    def _list(self, upstream: UpstreamClient) -> Listing | None:
        """The upstream's list; one read, good or failed, serves all orders in doubt that come within a moment of it."""
        with self._reading:
            read = self._listings.get(upstream.public_key)
            if read is not None and self._timing.now() - read[0] < _LIST_SHARED:
                return read[1]
            listing: Listing | None
            began = self._timing.now()
            try:
                listing = Listing(upstream.orders(deadline=self._read_seconds, priority="resolve"), began)
            except UpstreamError as error:
                log.warning("resolver.list_not_read", code=error.code)
                listing = None
            self._listings[upstream.public_key] = self._timing.now(), listing
            return listing

    def _candidates(
        self,
        order: Order,
        first: OrderAttempt,
        last: OrderAttempt,
        listing: Listing | None,
        upstream: UpstreamClient,
    ) -> list[ListedOrder]:
        """Listed orders that may be the order's: of its pair, made about the time of its attempts, owned by nobody, and
        different in nothing that the list tells. What the list leaves out (it knows nulls) is no difference."""
        if listing is None:
            return []
        # Where the offset is in doubt, rather one too many: what is left out here would count as absent.
        begin, _ = self._window(first, last, min(0.0, upstream.offset_seconds))
        _, end = self._window(first, last, max(0.0, upstream.offset_seconds))
        about = begin - _DOUBTFUL, end + _DOUBTFUL
        candidates = [
            row
            for row in listing.rows
            if (row.created_at is None or _inside(row.created_at, about)) and could_match(row, order)
        ]
        with self._database.read() as session:
            taken = order_rows.owned_refs(session, [ref for row in candidates for ref in row.refs])
        return [row for row in candidates if not taken.intersection(row.refs)]

    def _examine(
        self,
        order: Order,
        first: OrderAttempt,
        last: OrderAttempt,
        candidate: ListedOrder | str,
        upstream: UpstreamClient,
        until: float,
    ) -> tuple[Finding, OrderReply | None]:
        """Whether the candidate is the order's own, by its public-info."""
        listed = () if isinstance(candidate, str) else candidate.refs
        ref = candidate if isinstance(candidate, str) else candidate.refs[0]
        left = min(self._read_seconds, until - self._timing.monotonic())
        if left <= 0:
            return "not read", None
        try:
            reply = upstream.order(
                ref, order.destination_address, order_ref=order.id, deadline=left, priority="resolve"
            )
        except UpstreamError as error:
            # Also a 404: a row of the list whose order is on its way, or an id that public-info does not take.
            log.info("resolver.candidate_not_readable", order_id=order.id, ref=ref, code=error.code)
            # One that has expired is never read again.
            return ("cannot tell" if isinstance(error, OrderExpired) else "not read"), None
        with self._database.read() as session:
            if order_rows.owned_refs(session, {*reply.refs, *listed}, excluding=order.id):
                return "another's", None
            if order_rows.deposit_owned(session, reply.deposit_address, reply.deposit_memo, excluding=order.id):
                return "another's", None
        # What is told otherwise is a rival's, or a stranger's that must not be: either way it proves no absence. Without
        # deposit details it is ours, perhaps, but nobody could be told where to pay.
        window = self._window(first, last, upstream.offset_seconds)
        in_time = isinstance(candidate, str) or (
            candidate.created_at is not None and _inside(candidate.created_at, window)
        )
        ours = reply.complete and in_time and not contradicts(order, reply)
        return ("ours" if ours else "cannot tell"), reply

    def _in_flight(self, attempt: OrderAttempt) -> bool:
        return attempt.finished_at is None and self._timing.now() < attempt.sent_at + self._timeout + timedelta(
            seconds=2
        )

    def _window(self, first: OrderAttempt, last: OrderAttempt, offset_seconds: float) -> tuple[datetime, datetime]:
        """When the upstream may have made an order of these attempts, in its own time. It may take a create up after we have
        given up waiting; what it made later than the reads that would prove it absent is somebody else's."""
        offset = timedelta(seconds=offset_seconds)
        end = self._over(last) + READS * self._apart
        return first.sent_at + offset - _CLOCK_SLACK, end + offset + _CLOCK_SLACK

    def _over(self, attempt: OrderAttempt) -> datetime:
        """When the attempt's call was over; it may have waited for its turn, and failed long before its limit."""
        limit = attempt.sent_at + self._timeout
        return limit if attempt.finished_at is None else max(limit, attempt.finished_at)

    def _nobody_elses(
        self, session: Session, order: Order, reply: OrderReply, last: OrderAttempt, found_by_list: bool
    ) -> bool:
        """Asked inside the adopting transaction, after public-info has answered: a rival writes its row down before its
        create is sent, so one whose order this could be is visible by now."""
        if order_rows.deposit_owned(session, reply.deposit_address, reply.deposit_memo, excluding=order.id):
            return False
        rivals = [
            (rival, [attempt for attempt in order_rows.attempts_of(session, rival.id) if attempt.outcome != "not_sent"])
            for rival in orphans.rivals(session, order)
        ]
        rivals = [(rival, sent) for rival, sent in rivals if sent]
        # An answer that was written down is about to be acted upon, and may name this order by another of its ids.
        if any(
            self._in_flight(sent[-1]) or (sent[-1].outcome == "done" and rival.status in BEFORE_ADDRESS)
            for rival, sent in rivals
        ):
            return False
        if not rivals:
            return True
        if not confirms(order, reply):
            return False
        if not found_by_list or reply.created_at is None:
            return True
        # Among orders that are equal in everything each takes what was made after its own create and before the next
        # one's. Took it the next one's, its own might lie before the other's time, and then nobody would ever look at it;
        # not so where both were sent at nearly the same time.
        offset = timedelta(seconds=self._upstreams[last.upstream_key].offset_seconds)
        return not any(
            last.sent_at + _CLOCK_SLACK / 2 < attempt.sent_at
            and attempt.sent_at + offset - _CLOCK_SLACK <= reply.created_at
            for rival, sent in rivals
            if rival.status in BEFORE_ADDRESS and identical(order, rival)
            for attempt in sent
        )

    def _adopt(self, order: Order, last: OrderAttempt, reply: OrderReply, candidate: ListedOrder | str) -> bool:
        found_by_list = not isinstance(candidate, str)
        evidence = {
            "source": "resolver",
            "adopted": reply.primary_ref,
            "refs": list(reply.refs),
            "found_by": "list" if found_by_list else "answer",
            "created_at": None if reply.created_at is None else iso(reply.created_at),
        }
        settled = self._creator.adopt(
            order.id,
            reply,
            evidence,
            last.number,
            lambda session, now: self._nobody_elses(session, now, reply, last, found_by_list),
        )
        if settled.status == Status.IN_DOUBT:
            return False
        log.info("resolver.adopted", order_id=order.id, upstream_order_id=reply.primary_ref)
        return True

    # --- absence -----------------------------------------------------------------------------------------------------

    def _absent(self, order: Order, last: OrderAttempt, listing: Listing, upstream: UpstreamClient) -> bool:
        """Note that this list does not show the order, if it would have to; True at the third, apart enough."""
        # With the third read thirty seconds have passed since the call was over: time to be taken up late, and listed late.
        if not upstream.offset_known or listing.began < self._over(last) + self._apart:
            return False
        offset = timedelta(seconds=upstream.offset_seconds)
        window_end = (last.finished_at or last.sent_at + self._timeout) + offset + _CLOCK_SLACK
        if not listing.proves_absence(window_end, last.sent_at, self._old_enough):
            return False
        reads = [datetime.fromisoformat(text) for text in last.absent_reads]
        if not reads or listing.began - reads[-1] >= self._apart:
            last.absent_reads = [iso(read) for read in [*reads, listing.began]]
            with self._database.write() as session:
                order_rows.finish_attempt(session, order.id, last.number, absent_reads=last.absent_reads)
        return len(last.absent_reads) >= READS

    def _create_again(self, order: Order, attempts: Sequence[OrderAttempt]) -> None:
        """The create is proved never to have arrived: one more, if what was promised still stands. Only once: a second
        one that nobody answers ends with the order."""
        unanswered = [attempt for attempt in attempts if attempt.outcome != "not_sent"]
        absent = unanswered[-1] if unanswered else attempts[-1]
        evidence = {"source": "resolver", "proved_absent": absent.number, "reads": absent.absent_reads}
        if len(unanswered) > 1 or not self._terms_stand(order):
            failed = {"status": Status.FAILED, "status_reason": "create_absent", "next_check_at": None}
            self._creator.settle(order.id, lambda _: failed, evidence, attempt=attempts[-1].number)
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

    def _finish_unconfirmed(self, order: Order, last: OrderAttempt, unproved: Sequence[ListedOrder | str]) -> None:
        """Ten minutes are over. The orphans first: were they lost, nobody would watch what may be the customer's order."""
        now = self._timing.now()
        with self._database.write() as session:
            for candidate in unproved:
                refs = [candidate] if isinstance(candidate, str) else list(candidate.refs)
                orphans.add_orphan(
                    session,
                    ref=refs[0],
                    refs=refs,
                    upstream_key=last.upstream_key,
                    destination_address=order.destination_address,
                    amount=order.amount,
                    order_id=order.id,
                    now=now,
                )
        failed = {"status": Status.FAILED, "status_reason": "create_unconfirmed", "next_check_at": None}
        refs_found = [_ref_of(candidate) for candidate in unproved]
        detail = {"source": "resolver", "code": "CREATE_UNCONFIRMED", "candidates": refs_found}
        settled = self._creator.settle(order.id, lambda _: failed, detail, attempt=last.number)
        log.error("resolver.unconfirmed", order_id=order.id, status=settled.status, candidates=refs_found)

    def _again(self, order_id: str, at: datetime | None = None) -> None:
        with self._database.write() as session:
            order = order_rows.get(session, order_id)
            if order is not None and order.status == Status.IN_DOUBT:
                order_rows.back_off(session, order, at or self._timing.now() + self._apart, failures=order.failures)


def _inside(moment: datetime, window: tuple[datetime, datetime]) -> bool:
    return window[0] <= moment <= window[1]


def _ref_of(candidate: ListedOrder | str) -> Any:
    return candidate if isinstance(candidate, str) else candidate.refs[0]
