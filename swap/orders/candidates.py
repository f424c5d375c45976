"""Candidates for an order in doubt: which orders at the upstream may be its own, and what public-info says about each.

What speaks for a candidate is the upstream's list of orders, or an id in an incomplete answer to the create; and in either
case its own public-info.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

import structlog

from swap.domain.times import Timing
from swap.errors import OrderExpired, UpstreamError
from swap.orders.matching import contradicts, could_match, deposit_place
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order, OrderAttempt
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import ListedOrder, OrderReply

log = structlog.get_logger()

READS_APART = timedelta(seconds=10)
READS = 3

# How far apart the clocks may still be, once the offset is allowed for.
CLOCK_SLACK = timedelta(seconds=2)
# An upstream order that was made outside an attempt's time by less than this may be the attempt's after all, if a clock is
# wrong: it is not adopted, but neither does it count as absent.
_DOUBTFUL = timedelta(seconds=5)
_LIST_SHARED_FOR = timedelta(seconds=2)
# After its time limit a call may take this long to be over in fact.
_GRACE = timedelta(seconds=2)


class Finding(Enum):
    """What public-info says about a candidate. ANOTHERS: another order of ours owns it. NOT_READ: it may be read later."""

    OURS = auto()
    ANOTHERS = auto()
    CANNOT_TELL = auto()
    NOT_READ = auto()


@dataclass(frozen=True)
class Candidate:
    """An upstream order that may be the one in doubt. `ref`: the id to ask with; `refs`: all known ids; `created_at`: in
    upstream time, None where that is not known; `from_list`: found in the list, not named by an answer to the create."""

    ref: str
    refs: tuple[str, ...]
    created_at: datetime | None
    from_list: bool

    @classmethod
    def listed(cls, row: ListedOrder) -> Candidate:
        return cls(row.refs[0], row.refs, row.created_at, from_list=True)

    @classmethod
    def named(cls, ref: str) -> Candidate:
        return cls(ref, (ref,), None, from_list=False)


@dataclass(frozen=True)
class Listing:
    """One full read of the upstream's list. `began`: our clock before it was asked for; it contains every order that is
    older than that and was not delayed on its way into the list."""

    rows: Sequence[ListedOrder]
    began: datetime

    def proves_absence(self, window_end: datetime, sent_at: datetime, old_enough: timedelta) -> bool:
        """Whether an order of the attempt sent at `sent_at` would have to be in it: the list shows a newer order of ours
        (later than `window_end`, in upstream time), or the attempt is so old that no list lags that much."""
        newest = max((row.created_at for row in self.rows if row.created_at is not None), default=None)
        return (newest is not None and newest > window_end) or self.began - sent_at > old_enough


@dataclass(frozen=True)
class Doubt:
    """An order in doubt, during one step of the resolver.

    `first`: its first attempt that may have reached the upstream; `last`: its last one; `upstream`: the client for the key
    pair that made the last one; `until`: the monotonic time at which the step must be over.
    """

    order: Order
    attempts: Sequence[OrderAttempt]
    first: OrderAttempt
    last: OrderAttempt
    upstream: UpstreamClient
    until: float


def named_by(attempts: Sequence[OrderAttempt]) -> list[Candidate]:
    """The upstream orders that the answers to these attempts named, complete or not."""
    return [Candidate.named(ref) for attempt in attempts for ref in attempt.refs]


class AttemptTimes:
    """When the upstream may have carried out a create that it did not answer. In our time, unless said otherwise."""

    def __init__(self, timing: Timing) -> None:
        self._now = timing.now
        self.timeout = timedelta(seconds=timing.create_timeout)
        # Reads are no closer than the longest call they wait for and two seconds more.
        self.reads_apart = timing.shorten(
            READS_APART, at_least=min(READS_APART, timedelta(seconds=timing.read_timeout + 2))
        )

    def in_flight_until(self, attempt: OrderAttempt) -> datetime:
        """When an attempt without an answer is certainly over."""
        return attempt.sent_at + self.timeout + _GRACE

    def in_flight(self, attempt: OrderAttempt) -> bool:
        return attempt.finished_at is None and self._now() < self.in_flight_until(attempt)

    def over_at(self, attempt: OrderAttempt) -> datetime:
        """When the attempt's call was over. It may have waited for its turn, or have failed long before its limit."""
        limit = attempt.sent_at + self.timeout
        return limit if attempt.finished_at is None else max(limit, attempt.finished_at)

    def window(self, first: OrderAttempt, last: OrderAttempt, offset_seconds: float) -> tuple[datetime, datetime]:
        """When the upstream may have made an order of these attempts, in its own time. It may carry out a create after we
        have given up waiting. What it made later than the reads that would prove the order absent is not this order's."""
        offset = timedelta(seconds=offset_seconds)
        end = self.over_at(last) + READS * self.reads_apart
        return first.sent_at + offset - CLOCK_SLACK, end + offset + CLOCK_SLACK


class CandidateSearch:
    def __init__(self, database: Database, times: AttemptTimes, timing: Timing) -> None:
        self._database, self._times, self._timing = database, times, timing
        self._listings: dict[str, tuple[datetime, Listing | None]] = {}
        self._reading = threading.Lock()

    def read_list(self, upstream: UpstreamClient) -> Listing | None:
        """The upstream's list; None when it cannot be read. One read, good or failed, serves all orders in doubt that ask
        within a moment of it."""
        with self._reading:
            cached = self._listings.get(upstream.public_key)
            if cached is not None and self._timing.now() - cached[0] < _LIST_SHARED_FOR:
                return cached[1]
            listing: Listing | None
            began = self._timing.now()
            try:
                listing = Listing(upstream.orders(deadline=self._timing.read_timeout, priority="resolve"), began)
            except UpstreamError as error:
                log.warning("resolver.list_not_read", code=error.code)
                listing = None
            self._listings[upstream.public_key] = self._timing.now(), listing
            return listing

    def in_list(self, doubt: Doubt, listing: Listing | None) -> list[Candidate]:
        """Listed orders that may be the order's: of its pair, made about the time of its attempts, owned by no order of
        ours, and different in nothing that the list says. What the list leaves out (it knows nulls) is no difference."""
        if listing is None:
            return []
        # Where the offset is in doubt, better a candidate too many: what is left out here would count as absent.
        offset = doubt.upstream.offset_seconds
        begin, _ = self._times.window(doubt.first, doubt.last, min(0.0, offset))
        _, end = self._times.window(doubt.first, doubt.last, max(0.0, offset))
        around = begin - _DOUBTFUL, end + _DOUBTFUL
        rows = [
            row
            for row in listing.rows
            if (row.created_at is None or _inside(row.created_at, around)) and could_match(row, doubt.order)
        ]
        with self._database.read() as session:
            taken = order_rows.owned_refs(session, [ref for row in rows for ref in row.refs])
        return [Candidate.listed(row) for row in rows if not taken.intersection(row.refs)]

    def examine(self, doubt: Doubt, candidate: Candidate) -> tuple[Finding, OrderReply | None]:
        """Whether the candidate is the order's own, by its public-info; and that answer, where there is one to adopt."""
        order = doubt.order
        left = min(self._timing.read_timeout, doubt.until - self._timing.monotonic())
        if left <= 0:
            return Finding.NOT_READ, None
        try:
            reply = doubt.upstream.order(
                candidate.ref, order.destination_address, order_ref=order.id, deadline=left, priority="resolve"
            )
        except UpstreamError as error:
            # Even a 404 proves nothing: public-info may not know a listed order yet, or may not take this form of id.
            log.info("resolver.candidate_not_readable", order_id=order.id, ref=candidate.ref, code=error.code)
            # An order that has expired will never be readable again.
            return (Finding.CANNOT_TELL if isinstance(error, OrderExpired) else Finding.NOT_READ), None
        listed_refs = candidate.refs if candidate.from_list else ()
        with self._database.read() as session:
            if order_rows.owned_refs(session, {*reply.refs, *listed_refs}, excluding=order.id):
                return Finding.ANOTHERS, None
            if order_rows.place_taken(session, deposit_place(order, reply), excluding=order.id):
                return Finding.ANOTHERS, None
        # An answer that contradicts the order is a rival's, or that of a stranger who must not use this key. Neither proves
        # an absence. An answer without deposit details may be ours, but names no place to pay to.
        window = self._times.window(doubt.first, doubt.last, doubt.upstream.offset_seconds)
        in_time = not candidate.from_list or (
            candidate.created_at is not None and _inside(candidate.created_at, window)
        )
        ours = reply.complete and in_time and not contradicts(order, reply)
        return (Finding.OURS if ours else Finding.CANNOT_TELL), reply


def _inside(moment: datetime, window: tuple[datetime, datetime]) -> bool:
    return window[0] <= moment <= window[1]
