"""Resolving orders in doubt: an order whose create was not answered, or whose answer may not be shown as it stands.

Nobody pays into what nobody was shown, so a doubt need not be proved, only bounded. The upstream is searched for the order
a few times (`swap.orders.candidates`); what is found, and told and equal in all that tells the order apart, is adopted.
What is not found is created again, within bounds (`swap.orders.bounds`), and what shows up later is a spare
(`swap.orders.spares`). The upstream key must belong to this service alone, or the orders of another program would look
like ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import Status
from swap.domain.times import Timing, iso
from swap.errors import ServiceError, TryAgainLater, UpstreamError
from swap.market.quotes import Terms
from swap.orders.attempts import complete_answer
from swap.orders.bounds import SpareBounds
from swap.orders.candidates import (
    CandidateSearch,
    Doubt,
    Finding,
    Found,
    has_twin,
    in_flight,
    in_flight_until,
    is_no_rivals,
    is_same,
    newest_first,
    sent_of,
)
from swap.orders.create import OrderCreator
from swap.orders.matching import deposit_place
from swap.orders.showing import belongs_elsewhere
from swap.orders.spares import record_found
from swap.store import attempts as attempt_rows
from swap.store import deposit_places, events
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order, OrderAttempt
from swap.upstream.client import UpstreamClient

log = structlog.get_logger()

# After the create was sent: when to look for the order, when to create it again, and when to end it. Later looks are
# LOOK_EVERY apart.
LOOKS = (timedelta(seconds=2), timedelta(seconds=8), timedelta(seconds=20))
CREATE_AGAIN = timedelta(seconds=22)
LOOK_EVERY = timedelta(seconds=30)
GIVE_UP = timedelta(minutes=10)
# Longer by this where something is found that could not be read: it may well be the order's; and where creates are left, for
# an outage or a bound alone has kept those from being sent. And from when somebody looks at a doubt again that had been
# due for so long that nobody can have been there.
LONGER = timedelta(minutes=5)
_RESUMED = "journal.resumed"


class Resolver:
    """`upstreams`: a client for each key pair that may have made orders; an attempt is resolved with its own. `renew`: the
    terms on which an order may be created again, None while there are none (`swap.market.quotes.Quotes.renewed`)."""

    def __init__(
        self,
        database: Database,
        upstreams: Mapping[str, UpstreamClient],
        search: CandidateSearch,
        creator: OrderCreator,
        bounds: SpareBounds,
        renew: Callable[[Order], Terms | None],
        timing: Timing,
    ) -> None:
        self._database, self._upstreams, self._search, self._creator = database, upstreams, search, creator
        self._bounds, self._renew, self._timing = bounds, renew, timing
        # All that one step reads. A create it may lead to comes on top.
        self._step_seconds = 2 * timing.read_timeout + 5

    def resolve(self, claimed: Order) -> None:
        """Take a step with an order in doubt, and set when the next one is due. Any other order is left alone.

        `claimed`: the order with its lease. It may be created again, ended or put off only while that lease is held:
        otherwise whoever holds it now does the same, and two creates would be sent.
        """
        until = self._timing.monotonic() + self._step_seconds
        with self._database.read() as session:
            order = order_rows.get(session, claimed.id)
            if order is None or order.status != Status.IN_DOUBT or order.lease_token != claimed.lease_token:
                return
            attempts = attempt_rows.attempts_of(session, order.id)
        if self._creator.settle_from_stored_answer(order, attempts):
            return
        sent = sent_of(attempts)
        if not sent:
            # It was swept into doubt before it was known that nothing was sent, and then the process died.
            self._go_on(order, attempts, [])
            return
        last = sent[-1]
        if in_flight(last, self._timing):
            self._again(order, in_flight_until(last, self._timing))
            return
        upstreams = {key: self._upstreams[key] for key in {each.upstream_key for each in sent} & self._upstreams.keys()}
        if last.upstream_key not in upstreams:
            # Processes get a new key pair one after the other: another process may have it already.
            log.error("resolver.key_unknown", order_id=order.id, upstream_key=last.upstream_key)
            if self._timing.now() < self._clock_of(last) + self._timing.shorten(GIVE_UP):
                self._again(order, self._timing.now() + self._timing.shorten(LOOK_EVERY))
            else:
                self._fail(order, attempts, "create_unconfirmed", [])
            return
        found = self._look(Doubt(order, sent, upstreams, until))
        if self._adopt_one(order, attempts, found):
            return
        with self._database.read() as session:
            # What could not be shown after all was written down, and is a change of the order.
            current = order_rows.get(session, order.id)
        if current is not None and current.status == Status.IN_DOUBT and current.lease_token == order.lease_token:
            self._go_on(current, attempts, found)

    def _look(self, doubt: Doubt) -> list[Found]:
        """The upstream orders that may be this one's, with what their public-info says."""
        found: list[Found] = []
        for candidate in self._search.all_of(doubt):
            each = self._search.examine(doubt, candidate)
            if each.finding is Finding.ANOTHERS:
                continue
            # An answer may name the upstream order by one id, and the list by another.
            same = next(
                (other for other in found if is_same(each.candidate.ref, each.refs, other.candidate.ref, other.refs)),
                None,
            )
            if same is not None and same.finding is Finding.NOT_READ:
                found.remove(same)
            if same is None or same.finding is Finding.NOT_READ:
                found.append(each)
        return found

    # --- adopting ----------------------------------------------------------------------------------------------------

    def _adopt_one(self, order: Order, attempts: Sequence[OrderAttempt], found: Sequence[Found]) -> bool:
        """Show the newest upstream order that is the order's own and may be shown; where an equal order of ours takes one as
        well, the oldest, which may be too old for the other. The rest become spares."""
        ours = newest_first([each for each in found if each.finding is Finding.OURS])
        with self._database.read() as session:
            ours = [each for each in ours if is_no_rivals(session, order, each)]
            if ours and has_twin(session, order):
                ours.reverse()
        for each in ours:
            # First, so that none is lost if this process dies in between.
            self._record_spares(order, [other for other in found if other.refs != each.refs])
            if self._adopt(order, attempts, each):
                return True
        return False

    def _adopt(self, order: Order, attempts: Sequence[OrderAttempt], found: Found) -> bool:
        reply = found.reply
        assert reply is not None
        evidence = {
            "source": "resolver",
            "adopted": reply.primary_ref,
            "refs": list(reply.refs),
            "found_by": "answer" if found.candidate.named else "list",
            "created_at": None if found.made_at is None else iso(found.made_at),
        }
        order = self._creator.adopt(
            order.id,
            reply,
            evidence,
            attempts[-1].number,
            lambda session, current: is_no_rivals(session, current, found),
            found.candidate.upstream_key,
            found.candidate.refs,
        )
        if order.status == Status.IN_DOUBT:
            return False
        log.info("resolver.adopted", order_id=order.id, upstream_order_id=reply.primary_ref)
        return True

    # --- creating again, and the end ---------------------------------------------------------------------------------

    def _go_on(self, order: Order, attempts: Sequence[OrderAttempt], found: Sequence[Found]) -> None:
        """Nothing could be adopted: create the order again when its time has come, look again, or end it."""
        now, sent = self._timing.now(), sent_of(attempts)
        last = sent[-1] if sent else attempts[-1]
        with self._database.read() as session:
            clashes, elsewhere = _clashes(session, order, sent, found), _elsewhere(session, order, sent)
        if len(clashes) >= self._bounds.limits.attempts:
            log.critical("orders.address_in_use", order_id=order.id, refs=last.refs)
            self._fail(order, attempts, "address_in_use", found)
            return
        # An answer that is another order's, or none that was sent, leaves nothing to look for.
        start = self._clock_of(last)
        again_at = now if not sent or last.number in elsewhere else start + self._timing.shorten(CREATE_AGAIN)
        give_up_at = self._give_up_at(order, start, now)
        creates_left = len(sent) < self._bounds.limits.attempts
        longer = self._timing.shorten(LONGER)
        try_until = max(give_up_at, start + self._timing.shorten(GIVE_UP) + longer) if sent else give_up_at
        # What could not even be sent since is tried until then; a resolver that was away for so long tries once.
        may_try = now < try_until or attempts[-1] is last
        reason, next_at = "create_unconfirmed", self._next_look(start, now)
        if last.outcome == "refused":
            reason = (last.code or "refused").lower()
        elif now >= again_at and may_try and creates_left:
            obstacle = self._create_again(order, attempts, found, again_at)
            if obstacle is None:
                return
            reason, next_at = obstacle
        unread = any(each.finding is Finding.NOT_READ for each in found)
        if unread:
            give_up_at += longer
        if creates_left and reason == "create_unconfirmed":
            give_up_at = max(give_up_at, try_until)
        if now >= give_up_at:
            self._fail(order, attempts, reason, found)
        else:
            self._again(order, next_at)

    def _give_up_at(self, order: Order, start: datetime, now: datetime) -> datetime:
        """When the order fails if nothing changes. Where nobody could look for a long time it is given some more, once: what
        keeps it waiting just then, such as a bound or a rate that cannot be read, must not end it at once."""
        planned = start + self._timing.shorten(GIVE_UP)
        if now < planned:
            return planned
        with self._database.write() as session:
            resumed_at = events.happened_at(session, order.id, _RESUMED)
            if resumed_at is None and order.next_check_at and now - order.next_check_at > self._timing.shorten(LONGER):
                events.add_event(session, order, _RESUMED, at=now, detail={"due_since": iso(order.next_check_at)})
                resumed_at = now
        return planned if resumed_at is None else max(planned, resumed_at + self._timing.shorten(LONGER))

    def _create_again(
        self, order: Order, attempts: Sequence[OrderAttempt], found: Sequence[Found], due_since: datetime
    ) -> tuple[str, datetime] | None:
        """Send the create once more. Returns None when that was done; else what the order ends with if nothing changes, and
        when to try again."""
        later = self._timing.now() + self._timing.shorten(LOOK_EVERY)
        with self._database.read() as session:
            pause = self._bounds.hold_back(session, order, due_since)
        if pause is not None:
            return "create_unconfirmed", self._timing.now() + pause
        try:
            terms = self._renew(order)
        except (TryAgainLater, UpstreamError) as error:
            log.info("resolver.no_terms", order_id=order.id, code=error.code)
            return "create_unconfirmed", later
        if terms is None:
            return "quote_expired", later
        self._record_spares(order, found)
        evidence: dict[str, Any] = {"source": "resolver", "not_found": attempts[-1].number}
        alone = lambda session: self._bounds.hold_back_alone(session, order, due_since)  # noqa: E731
        try:
            again = self._creator.create_again(order, attempts, terms, evidence, alone)
        except ServiceError as error:
            log.info("resolver.created_again", order_id=order.id, ended=error.code)
            return None
        if isinstance(again, timedelta):
            return "create_unconfirmed", self._timing.now() + again
        if again is not None:
            log.info("resolver.created_again", order_id=order.id, ended=again.status)
        return None

    def _fail(self, order: Order, attempts: Sequence[OrderAttempt], reason: str, found: Sequence[Found]) -> None:
        self._record_spares(order, found)
        evidence = {"source": "resolver", "code": reason.upper(), "candidates": [each.candidate.ref for each in found]}
        order = self._creator.fail_in_doubt(order, reason, evidence, attempts[-1].number)
        log.error("resolver.unconfirmed", order_id=order.id, status=order.status, reason=reason)

    def _record_spares(self, order: Order, found: Sequence[Found]) -> None:
        for each in found:
            # A transaction each: whoever wants to adopt one of them waits for no other.
            with self._database.write() as session:
                record_found(session, order, each, self._timing.now())

    # --- when --------------------------------------------------------------------------------------------------------

    def _clock_of(self, attempt: OrderAttempt) -> datetime:
        """When the attempt was sent. A call takes its time at any scale, so there the clock starts as long before its end as
        a call of the same scale would have begun."""
        over = attempt.finished_at or in_flight_until(attempt, self._timing)
        return max(attempt.sent_at, over - self._timing.shorten(timedelta(seconds=self._timing.create_timeout)))

    def _next_look(self, start: datetime, now: datetime) -> datetime:
        planned = (start + self._timing.shorten(after) for after in (*LOOKS, CREATE_AGAIN))
        return next((at for at in planned if at > now), now + self._timing.shorten(LOOK_EVERY))

    def _again(self, order: Order, at: datetime) -> None:
        with self._database.write() as session:
            current = order_rows.get(session, order.id)
            if current is not None and current.status == Status.IN_DOUBT:
                order_rows.back_off(session, current, at, failures=current.failures, lease=order.lease_token)


def _clashes(
    session: Session, order: Order, sent: Sequence[OrderAttempt], found: Sequence[Found]
) -> dict[int | None, str | None]:
    """The attempts that made what is paid where another order is, and the place. One that was not answered is known by what
    was found of it, as None: only where the place is another one than those answered."""
    clashes: dict[int | None, str | None] = {}
    for attempt in sent:
        reply = complete_answer(attempt)
        place = None if reply is None else deposit_place(order, reply)
        if deposit_places.taken(session, place, excluding=order.id):
            clashes[attempt.number] = place
    for each in found:
        place = None if each.reply is None else deposit_place(order, each.reply)
        if each.problem == "address_in_use" and not each.candidate.named and place not in clashes.values():
            clashes[None] = place
    return clashes


def _elsewhere(session: Session, order: Order, sent: Sequence[OrderAttempt]) -> set[int]:
    """The attempts that were answered with what is another order's, by its ids or its place."""
    answers = {attempt.number: complete_answer(attempt) for attempt in sent}
    return {n for n, reply in answers.items() if reply is not None and belongs_elsewhere(session, order, reply)}
