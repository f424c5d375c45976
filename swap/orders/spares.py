"""Spares: upstream orders of ours that nobody was shown, since another one is shown in their place or the order has ended.

Creating again what was not found costs an unpaid upstream order and no more, as long as a sick upstream is not flooded with
them (`SpareBounds`), and as long as each is known: what shows up late is found in the list (`SpareSearch`) and watched
(`swap.watching.unowned`), since a deposit on it would be somebody's money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS, Facts
from swap.domain.times import Timing
from swap.errors import UpstreamError
from swap.orders.candidates import Candidate, Finding, Found, has_twin, is_no_rivals, made_since, promises, sent_of
from swap.orders.matching import contradicts, could_match, deposit_place, shown_place
from swap.store import orders as order_rows
from swap.store import periodic, unowned
from swap.store.database import Database
from swap.tables import Order, UnownedOrder
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import ListedOrder, OrderReply

log = structlog.get_logger()

_HOUR = timedelta(hours=1)
_SHARE = 0.05

# A pair is sick while more than this share of its creates stay unanswered.
_SICK_WITHIN = timedelta(minutes=10)
_SICK_SHARE = 0.75
_SICK_FROM = 10
_SICK_PAIRS = 3
_PROBE_EVERY = timedelta(seconds=30)
# Doubts that had to wait go on one at a time.
_RESUME_EVERY = timedelta(seconds=1)

# The list is read for what shows up in it late as long as an attempt without an answer is younger than this.
_MAY_SHOW_UP = timedelta(hours=1)
_LEFT_TO_DOUBTS = timedelta(minutes=5)
_SEARCH_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class SpareLimits:
    """`attempts`: SWAP_CREATE_ATTEMPTS, creates of one order that were sent; `spares`: SWAP_SPARE_LIMIT, creates that were
    sent again and not answered, of one upstream key in an hour, where five in a hundred of its creates are not more."""

    attempts: int
    spares: int


class SpareBounds:
    def __init__(self, limits: SpareLimits, timing: Timing) -> None:
        self.limits, self._timing = limits, timing

    def hold_back(self, session: Session, order: Order, due_since: datetime) -> timedelta | None:
        """How long creating `order` again has to wait, or None when it may go on now. `due_since`: when it should have been
        created again; one that has waited longer than a moment goes on in turn. A bound that is reached is an alarm."""
        now, key = self._timing.now(), order.upstream_key
        hour = order_rows.creates_since(session, key, now - self._timing.shorten(_HOUR))
        if hour.unanswered_again >= max(self.limits.spares, ceil(hour.sent * _SHARE)):
            log.critical("resolver.spare_limit_reached", upstream_key=key, unanswered=hour.unanswered_again)
            return self._pause(_PROBE_EVERY)
        sick = self._sick_pairs(session, key, now)
        pair = (order.from_currency, order.from_network, order.to_currency, order.to_network)
        last = hour.last_again
        if (pair in sick or len(sick) >= _SICK_PAIRS) and not self._is_past(last, now, _PROBE_EVERY):
            log.critical("resolver.upstream_sick", pairs=sorted("/".join(pair) for pair in sick), order_id=order.id)
            return self._pause(_PROBE_EVERY)
        waited = now - due_since > self._timing.shorten(_PROBE_EVERY) / 2
        if waited and not self._is_past(last, now, _RESUME_EVERY):
            return self._pause(_RESUME_EVERY)
        return None

    def _sick_pairs(self, session: Session, key: str, now: datetime) -> set[tuple[str, ...]]:
        since = now - self._timing.shorten(_SICK_WITHIN)
        return {
            pair
            for pair, (sent, unanswered) in order_rows.unanswered_by_pair(session, key, since).items()
            if sent >= _SICK_FROM and unanswered > sent * _SICK_SHARE
        }

    def _is_past(self, last: datetime | None, now: datetime, wait: timedelta) -> bool:
        return last is None or now - last >= self._timing.shorten(wait)

    def _pause(self, wait: timedelta) -> timedelta:
        return self._timing.shorten(wait) * self._timing.rng.uniform(0.5, 1.5)


def record_spare(session: Session, order: Order, upstream_key: str, found: Found, now: datetime) -> None:
    """Keep an upstream order that `order` may have made and is not shown, so that it is watched: as its spare, or as
    nobody's where another order may be meant as well."""
    its_own = found.candidate.named or (is_no_rivals(session, order, found) and not has_twin(session, order))
    new = unowned.add(
        session,
        ref=found.candidate.ref,
        refs=found.refs,
        upstream_key=upstream_key,
        destination_address=order.destination_address,
        amount=order.amount,
        order_id=order.id if its_own else None,
        now=now,
        deposit=(None, None) if found.reply is None else (found.reply.deposit_address, found.reply.deposit_memo),
    )
    place = None if found.reply is None else deposit_place(order, found.reply)
    if its_own and place is not None:
        # No other order may be shown what belongs to a spare of this one.
        order_rows.claim_place(session, order.id, place)
    if new:
        log.warning("orders.spare", order_id=order.id, refs=found.refs)


def move_to_spare(
    session: Session, spare: UnownedOrder, reply: OrderReply, now: datetime, next_check_at: datetime
) -> bool:
    """Follow a deposit that came to a spare which has the very address its order's customer was shown (an upstream may use
    an address again for one customer): what is write-once is the address, not the upstream's id. The order goes on with the
    spare, and what it was polled by until now becomes the spare, polled at `next_check_at`. False when that is not so."""
    order = None if spare.order_id is None else order_rows.get(session, spare.order_id)
    if order is None or order.deposit_kind is None or Facts.from_json(order.facts).deposit_seen:
        return False
    sent = sent_of(order_rows.attempts_of(session, order.id))
    if deposit_place(order, reply) != shown_place(order) or contradicts(order, reply, promises(sent)):
        return False
    before, refs = order.upstream_order_id, order_rows.refs_of(session, order.id)
    changes = {"upstream_order_id": reply.primary_ref, "next_check_at": now}
    moved = order_rows.move(session, order, changes, at=now, source="spare", detail={"refs": list(reply.refs)})
    if moved is None:
        return False
    order_rows.release_refs(session, order.id)
    unowned.adopt(session, reply.refs)
    order_rows.claim_refs(session, order.id, {*spare.refs, *reply.refs})
    unowned.add(
        session,
        ref=before or refs[0],
        refs=refs,
        upstream_key=spare.upstream_key,
        destination_address=order.destination_address,
        amount=order.amount,
        order_id=order.id,
        now=now,
        deposit=(order.deposit_address, order.deposit_memo),
        next_check_at=next_check_at,
    )
    log.warning("orders.moved_to_spare", order_id=order.id, refs=list(reply.refs), before=before)
    return True


class SpareSearch:
    """`upstreams`: a client for each key pair that may have made orders."""

    def __init__(self, database: Database, upstreams: Mapping[str, UpstreamClient], timing: Timing) -> None:
        self._database, self._upstreams, self._timing = database, upstreams, timing

    def search_due(self) -> None:
        """Once a minute, by one process: read the list for each key with a young create that was not answered, and record
        what it shows of orders that have gone on without it."""
        now = self._timing.now()
        if not periodic.take(self._database, "spares", now, now + self._timing.shorten(_SEARCH_EVERY)):
            return
        since = now - self._timing.shorten(_MAY_SHOW_UP)
        for key, upstream in self._upstreams.items():
            with self._database.read() as session:
                doubted = order_rows.unanswered_since(session, key, since)
            if doubted:
                self._search(upstream, doubted)

    def _search(self, upstream: UpstreamClient, doubted: Sequence[Order]) -> None:
        try:
            rows = upstream.orders(deadline=self._timing.read_timeout, priority="resolve")
        except UpstreamError as error:
            log.warning("spares.list_not_read", code=error.code)
            return
        refs = {ref for row in rows for ref in row.refs}
        with self._database.read() as session:
            known = order_rows.owned_refs(session, refs) | unowned.known_refs(session)
        for row in rows:
            if known.isdisjoint(row.refs):
                self._record(upstream, row, [order for order in doubted if could_match(row, order)])

    def _record(self, upstream: UpstreamClient, row: ListedOrder, fitting: Sequence[Order]) -> None:
        # What one of them may be waiting for is left to it for a while; adopted later, it is nobody's no more.
        age = timedelta.max if row.created_at is None else upstream.upstream_now() - row.created_at
        if any(order.status in BEFORE_ADDRESS for order in fitting) and age < self._timing.shorten(_LEFT_TO_DOUBTS):
            return
        found = Found(Candidate(row.refs[0], row.refs, row.created_at), Finding.NOT_READ)
        for order in fitting:
            with self._database.write() as session:
                sent = sent_of(order_rows.attempts_of(session, order.id))
                if not sent or _may_be_shown(session, order):
                    continue
                if row.created_at is None or row.created_at >= made_since(sent, upstream.offset_seconds):
                    record_spare(session, order, upstream.public_key, found, self._timing.now())


def _may_be_shown(session: Session, order: Order) -> bool:
    """Whether an order alike is shown an upstream order of which only a UUID is known so far: the list knows that by its
    number alone (docs/upstream.md T4), so a listed order may be the very one. Its next poll tells."""
    return any(
        each.upstream_order_id is not None and not each.upstream_order_id.isdigit()
        for each in (order, *order_rows.rivals(session, order))
    )
