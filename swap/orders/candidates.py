"""Candidates for an order in doubt: which orders at the upstream may be its own.

An id in an answer to one of its creates names a candidate, and so does the upstream's list. What is believed is the
candidate's own public-info: where all that tells the order apart is told and equal, the candidate is the order's.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS
from swap.domain.times import Timing
from swap.errors import UpstreamError, UpstreamNotFound
from swap.orders.attempts import complete_answer
from swap.orders.matching import confirms, contradicts, could_match, deposit_place, identical
from swap.orders.reply_check import ReplyCheck
from swap.store import attempts as attempt_rows
from swap.store import deposit_places, upstream_ids, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.upstream_ids import Named
from swap.tables import Order, OrderAttempt
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import ListedOrder, OrderReply

log = structlog.get_logger()

# How far apart the two clocks may still be, once the offset is allowed for.
CLOCK_SLACK = timedelta(seconds=2)
_LIST_SHARED_FOR = timedelta(seconds=2)
# After its time limit a call may take this long to be over in fact.
GRACE = timedelta(seconds=2)


class Finding(Enum):
    """What public-info says about a candidate. OURS: it is the order's, and may be shown. HELD: it is the order's, and may
    not be shown as it stands. CANNOT_TELL: it may be the order's. ANOTHERS: it is not. NOT_READ: it may be read later."""

    OURS = auto()
    HELD = auto()
    CANNOT_TELL = auto()
    ANOTHERS = auto()
    NOT_READ = auto()


@dataclass(frozen=True)
class Candidate:
    """An upstream order that may be the one in doubt. `ref`: the id to ask with; `refs`: all known ids; `upstream_key`: of
    the key pair that it was made with; `created_at`: in upstream time, None where that is not known; `named`: by an answer
    to the order's own create, so nobody else's."""

    ref: str
    refs: tuple[str, ...]
    upstream_key: str
    created_at: datetime | None = None
    named: bool = False


@dataclass(frozen=True)
class Found:
    """A candidate, and what was learned about it. `reply`: its public-info, where that was read; `problem`: why it may not
    be shown (`swap.orders.reply_check`)."""

    candidate: Candidate
    finding: Finding
    reply: OrderReply | None = None
    problem: str | None = None

    @property
    def refs(self) -> list[str]:
        """Every id that is known."""
        return list(dict.fromkeys([*self.candidate.refs, *(self.reply.refs if self.reply else ())]))

    @property
    def made_at(self) -> datetime | None:
        return self.candidate.created_at or (self.reply.created_at if self.reply else None)


@dataclass(frozen=True)
class Doubt:
    """An order in doubt, during one step of the resolver.

    `sent`: its attempts that may have reached the upstream; `upstreams`: the clients for the key pairs that made them;
    `until`: the monotonic time at which the step must be over.
    """

    order: Order
    sent: Sequence[OrderAttempt]
    upstreams: Mapping[str, UpstreamClient]
    until: float


def sent_of(attempts: Sequence[OrderAttempt]) -> list[OrderAttempt]:
    """The attempts that may have reached the upstream."""
    return [attempt for attempt in attempts if attempt.outcome != "not_sent"]


def in_flight_until(attempt: OrderAttempt, timing: Timing) -> datetime:
    """When an attempt without an answer is certainly over."""
    return attempt.sent_at + timedelta(seconds=timing.create_timeout) + GRACE


def in_flight(attempt: OrderAttempt, timing: Timing) -> bool:
    return attempt.finished_at is None and timing.now() < in_flight_until(attempt, timing)


def promises(sent: Sequence[OrderAttempt]) -> list[Decimal | None]:
    """What was promised in each of the attempts: an upstream order is compared with the terms of any of them."""
    return [attempt.amount_to_get for attempt in sent]


def made_since(sent: Sequence[OrderAttempt], offset_seconds: float) -> datetime:
    """The earliest time, in the upstream's clock, at which it can have made an order of these attempts."""
    return sent[0].sent_at + timedelta(seconds=offset_seconds) - CLOCK_SLACK


class CandidateSearch:
    def __init__(self, database: Database, reply_check: ReplyCheck, timing: Timing) -> None:
        self._database, self._reply_check, self._timing = database, reply_check, timing
        self._shared_for = timing.shorten(_LIST_SHARED_FOR)
        self._lists: dict[str, tuple[datetime, Sequence[ListedOrder] | None]] = {}
        self._reading = threading.Lock()

    def read_list(self, upstream: UpstreamClient) -> Sequence[ListedOrder] | None:
        """The upstream's list; None when it cannot be read. One read, good or failed, serves all orders in doubt that ask
        within a moment of it."""
        with self._reading:
            read_at, rows = self._lists.get(upstream.public_key, (None, None))
            if read_at is not None and self._timing.now() - read_at < self._shared_for:
                return rows
            try:
                rows = upstream.orders(deadline=self._timing.read_timeout, priority="resolve")
            except UpstreamError as error:
                log.warning("resolver.list_not_read", code=error.code)
                rows = None
            self._lists[upstream.public_key] = self._timing.now(), rows
            return rows

    def all_of(self, doubt: Doubt) -> list[Candidate]:
        """The upstream orders that may be this order's: those that answers named, and listed ones of its route, amount and
        destination, made since its first attempt, that belong to nobody else."""
        named = [
            Candidate(attempt.refs[0], tuple(attempt.refs), attempt.upstream_key, named=True)
            for attempt in doubt.sent
            if attempt.refs
        ]
        listed = [
            Candidate(row.refs[0], row.refs, key, row.created_at)
            for key, upstream in doubt.upstreams.items()
            for row in self._listed(doubt, upstream)
            if not any(is_same(candidate.ref, candidate.refs, row.refs[0], row.refs) for candidate in named)
        ]
        with self._database.read() as session:
            return named + [
                each
                for each in listed
                if not _is_of_others(upstream_ids.named(session, each.ref, each.refs), doubt.order)
            ]

    def _listed(self, doubt: Doubt, upstream: UpstreamClient) -> list[ListedOrder]:
        begin = made_since(doubt.sent, upstream.offset_seconds)
        return [
            row
            for row in self.read_list(upstream) or ()
            if (row.created_at is None or row.created_at >= begin) and could_match(row, doubt.order)
        ]

    def examine(self, doubt: Doubt, candidate: Candidate) -> Found:
        """Whether the candidate is the order's own, by its public-info."""
        order = doubt.order
        reply = self._ask(doubt, candidate)
        if reply is None:
            return Found(candidate, Finding.NOT_READ)
        with self._database.read() as session:
            names = upstream_ids.named(session, reply.primary_ref, [*reply.refs, *candidate.refs])
            if names.of_others(order.id):
                return Found(candidate, Finding.ANOTHERS, reply)
        if candidate.named:
            reply = _with_deposit(reply, doubt.sent, candidate)
        promised = promises(doubt.sent)
        if not candidate.named and contradicts(order, reply, promised):
            return Found(candidate, Finding.ANOTHERS, reply)
        problem = self._reply_check.problem(order, reply, self._reply_check.source_of(order))
        if candidate.named:
            shown = reply.complete and problem is None
        else:
            # Who was not told when it was made cannot say that it was not made long ago.
            shown = reply.complete and confirms(order, reply, promised) and candidate.created_at is not None
            if not shown:
                return Found(candidate, Finding.CANNOT_TELL, reply, problem)
        with self._database.read() as session:
            if deposit_places.taken(session, deposit_place(order, reply), excluding=order.id):
                problem = "address_in_use"
        return Found(candidate, Finding.OURS if shown and problem is None else Finding.HELD, reply, problem)

    def _ask(self, doubt: Doubt, candidate: Candidate) -> OrderReply | None:
        """The candidate's public-info, by any of its ids; None where none of them can be read."""
        order, upstream = doubt.order, doubt.upstreams.get(candidate.upstream_key)
        for ref in dict.fromkeys([candidate.ref, *candidate.refs]):
            left = min(self._timing.read_timeout, doubt.until - self._timing.monotonic())
            if upstream is None or left <= 0:
                break
            try:
                return upstream.order(
                    ref,
                    order.destination_address,
                    order_ref=order.id,
                    deadline=left,
                    priority="resolve",
                    pair=order.pair,
                )
            except UpstreamNotFound as error:
                # Proves nothing: public-info may not know a listed order yet, or may not take this form of id.
                log.info("resolver.candidate_not_readable", order_id=order.id, ref=ref, code=error.code)
            except UpstreamError as error:
                log.info("resolver.candidate_not_readable", order_id=order.id, ref=ref, code=error.code)
                break
        return None


def is_same(one: str, refs: Sequence[str], other: str, others: Sequence[str]) -> bool:
    """Whether these are ids of one upstream order, `one` and `other` being those to ask with. An id in common is not enough:
    the upstream may give all of them one value."""
    return not upstream_ids.cannot_be_one(one, other) and not set(refs).isdisjoint(others)


def _is_of_others(names: Named, order: Order) -> bool:
    """Whether it is another order's, or shown to a customer."""
    return bool(names.of_others(order.id)) or any(row.role == upstream_orders.SHOWN for row in names.rows)


def _with_deposit(reply: OrderReply, sent: Sequence[OrderAttempt], candidate: Candidate) -> OrderReply:
    """Public-info often repeats no deposit details (docs/upstream.md E8): then those of the create's own answer count. Where
    both are told and differ, neither does."""
    answer = next((complete_answer(attempt) for attempt in sent if candidate.ref in attempt.refs), None)
    if answer is None:
        return reply
    told, first = (
        (each.deposit_address, each.deposit_memo or None, each.payment_link if each.deposit_address is None else None)
        for each in (reply, answer)
    )
    address, memo, link = first if told == (None, None, None) or told == first else (None, None, None)
    return replace(reply, deposit_address=address, deposit_memo=memo, payment_link=link)


def newest_first(found: Sequence[Found]) -> list[Found]:
    return sorted(found, key=lambda each: (each.made_at is not None, each.made_at), reverse=True)


def possible_owners(session: Session, order: Order, found: Found) -> list[Order]:
    """The other orders of ours that the upstream order can be meant by. Asked inside the transaction that acts on it, after
    public-info has answered: an order's row is written before its create is sent, so every rival is visible by now."""
    rivals = order_rows.rivals(session, order)
    attempts = attempt_rows.attempts_of_each(session, [rival.id for rival in rivals])
    owners = []
    for rival in rivals:
        waiting = [attempt for attempt in attempts[rival.id] if _is_open(attempt, rival)]
        told_apart = found.reply is not None and contradicts(rival, found.reply, promises(waiting))
        if names_it(attempts[rival.id], found) or (waiting and not told_apart):
            owners.append(rival)
    return owners


def names_it(attempts: Sequence[OrderAttempt], found: Found) -> bool:
    """Whether an answer to one of the attempts names the upstream order."""
    asked_by = found.candidate.ref
    return any(attempt.refs and is_same(attempt.refs[0], attempt.refs, asked_by, found.refs) for attempt in attempts)


def is_no_rivals(session: Session, order: Order, found: Found) -> bool:
    """Whether the upstream order can be meant by no other order of ours, unless that is equal in everything: then each takes
    one."""
    return found.candidate.named or all(
        identical(order, owner) and not names_it(attempt_rows.attempts_of(session, owner.id), found)
        for owner in possible_owners(session, order, found)
    )


def has_twin(session: Session, order: Order) -> bool:
    """Whether an order of ours that is equal in everything may have made an upstream order that is not known yet."""
    twins = {rival.id: rival for rival in order_rows.rivals(session, order) if identical(order, rival)}
    attempts = attempt_rows.attempts_of_each(session, twins)
    return any(_is_open(attempt, twins[id_]) for id_, of_twin in attempts.items() for attempt in of_twin)


def _is_open(attempt: OrderAttempt, order: Order) -> bool:
    """Whether the attempt may have made an upstream order that nobody has recorded yet."""
    return attempt.outcome in (None, "unknown") or (attempt.outcome == "done" and order.status in BEFORE_ADDRESS)
