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

from swap.domain.lifecycle import BEFORE_ADDRESS
from swap.domain.times import Timing
from swap.errors import UpstreamError
from swap.orders.candidates import Candidate, Finding, Found, has_twin, is_no_rivals, made_since, sent_of
from swap.orders.matching import could_match
from swap.store import orders as order_rows
from swap.store import periodic, unowned
from swap.store.database import Database
from swap.tables import Order
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import ListedOrder

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
_MAY_SHOW_UP = timedelta(minutes=15)
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
    new = unowned.add(
        session,
        ref=found.candidate.ref,
        refs=found.refs,
        upstream_key=upstream_key,
        destination_address=order.destination_address,
        amount=order.amount,
        order_id=order.id if _is_its_spare(session, order, found) else None,
        now=now,
        deposit=(None, None) if found.reply is None else (found.reply.deposit_address, found.reply.deposit_memo),
    )
    if new:
        log.warning("orders.spare", order_id=order.id, refs=found.refs)


def _is_its_spare(session: Session, order: Order, found: Found) -> bool:
    return found.candidate.named or (is_no_rivals(session, order, found) and not has_twin(session, order))


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
            fitting = [order for order in doubted if could_match(row, order)]
            # What one of them still looks for is not to be taken from it.
            if known.isdisjoint(row.refs) and not any(order.status in BEFORE_ADDRESS for order in fitting):
                self._record(upstream, row, fitting)

    def _record(self, upstream: UpstreamClient, row: ListedOrder, fitting: Sequence[Order]) -> None:
        found = Found(Candidate(row.refs[0], row.refs, row.created_at), Finding.NOT_READ)
        for order in fitting:
            with self._database.write() as session:
                sent = sent_of(order_rows.attempts_of(session, order.id))
                if row.created_at is None or row.created_at >= made_since(sent, upstream.offset_seconds):
                    record_spare(session, order, upstream.public_key, found, self._timing.now())
