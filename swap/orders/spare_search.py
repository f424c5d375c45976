"""Looking for upstream orders that show up late: of creates that were not answered, and whose orders have gone on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import BEFORE_ADDRESS
from swap.domain.times import Timing
from swap.errors import UpstreamError
from swap.orders.attempts import complete_answer
from swap.orders.candidates import CLOCK_SLACK, Candidate, Finding, Found, made_since, sent_of
from swap.orders.matching import could_match
from swap.orders.spares import record_found, record_spare
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.store import periodic, upstream_ids
from swap.store.database import Database
from swap.tables import Order, OrderAttempt
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import ListedOrder

log = structlog.get_logger()

# The list is read for what shows up in it late as long as an attempt without an answer is younger than this.
_MAY_SHOW_UP = timedelta(hours=1)
_LEFT_TO_DOUBTS = timedelta(minutes=5)
_SEARCH_EVERY = timedelta(minutes=1)


class SpareSearch:
    """`upstreams`: a client for each key pair that may have made orders."""

    def __init__(self, database: Database, upstreams: Mapping[str, UpstreamClient], timing: Timing) -> None:
        self._database, self._upstreams, self._timing = database, upstreams, timing

    def search_due(self) -> None:
        """Once a minute, by one process: record what young answers name of orders that have gone on without it, even under
        a key that this process does not have; and read the list for each key with a young create that was not answered, and
        record what it shows of such orders."""
        now = self._timing.now()
        if not periodic.take(self._database, "spares", now, now + self._timing.shorten(_SEARCH_EVERY)):
            return
        since = now - self._timing.shorten(_MAY_SHOW_UP)
        with self._database.read() as session:
            named = attempt_rows.named_since(session, since)
            roles = upstream_ids.roles(session, [(attempt.refs[0], attempt.refs[:1]) for attempt in named])
        for attempt, role in zip(named, roles, strict=True):
            if role is None:
                self._record_named(attempt)
        for key, upstream in self._upstreams.items():
            with self._database.read() as session:
                doubted = attempt_rows.unshown_since(session, key, since)
            if doubted:
                self._search(upstream, doubted)

    def _record_named(self, attempt: OrderAttempt) -> None:
        """A process died between writing the answer down and acting on it, or another order's ids stood in it besides."""
        with self._database.write() as session:
            order = order_rows.get(session, attempt.order_id)
            if order is not None:
                reply = complete_answer(attempt)
                record_spare(session, order, attempt.upstream_key, attempt.refs, self._timing.now(), reply=reply)

    def _search(self, upstream: UpstreamClient, doubted: Sequence[Order]) -> None:
        try:
            rows = upstream.orders(deadline=self._timing.read_timeout, priority="resolve")
        except UpstreamError as error:
            log.warning("spares.list_not_read", code=error.code)
            return
        with self._database.read() as session:
            roles = upstream_ids.roles(session, [(row.order_id, row.refs) for row in rows])
        late = []
        for row, role in zip(rows, roles, strict=True):
            fitting = [] if role is not None else [order for order in doubted if could_match(row, order)]
            if fitting and not self._is_left_to_doubts(upstream, row, fitting):
                late.append((row, fitting))
        for row, fitting in late:
            # A transaction each: whoever wants to adopt one of them waits for no other.
            with self._database.write() as session:
                self._record(session, upstream, row, fitting)

    def _is_left_to_doubts(self, upstream: UpstreamClient, row: ListedOrder, fitting: Sequence[Order]) -> bool:
        """What one of them may be waiting for is left to it for a while; adopted later, it is nobody's no more."""
        age = timedelta.max if row.created_at is None else upstream.upstream_now() - row.created_at
        waiting = any(order.status in BEFORE_ADDRESS for order in fitting)
        return waiting and age < self._timing.shorten(_LEFT_TO_DOUBTS)

    def _record(self, session: Session, upstream: UpstreamClient, row: ListedOrder, fitting: Sequence[Order]) -> None:
        candidate = Candidate(row.refs[0], row.refs, upstream.public_key, row.created_at)
        for order in fitting:
            sent = sent_of(attempt_rows.attempts_of(session, order.id))
            if not sent or _may_be_shown(session, order, row, upstream.offset_seconds):
                continue
            if row.created_at is None or row.created_at >= made_since(sent, upstream.offset_seconds):
                # The others that may have made it are its candidates.
                record_found(session, order, Found(candidate, Finding.NOT_READ), self._timing.now())
                return


def _may_be_shown(session: Session, order: Order, row: ListedOrder, offset_seconds: float) -> bool:
    """Whether the listed order may be the very one that an order alike is shown, of which only a UUID is known so far: the
    list knows that by its number alone (docs/upstream.md T4). It was made while the create that named it was under way."""
    alike = [order, *order_rows.rivals(session, order)]
    unnumbered = {each.id: each for each in alike if each.upstream_order_id and not each.upstream_order_id.isdigit()}
    for id_, attempts in attempt_rows.attempts_of_each(session, unnumbered).items():
        named = [attempt for attempt in attempts if unnumbered[id_].upstream_order_id in attempt.refs]
        if row.created_at is None or not named:
            return True
        made_at = row.created_at - timedelta(seconds=offset_seconds)
        for attempt in named:
            if attempt.sent_at - CLOCK_SLACK <= made_at <= (attempt.finished_at or made_at) + CLOCK_SLACK:
                return True
    return False
