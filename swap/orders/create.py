"""One create at the upstream: sent once, its answer written down in any case, and the order settled by it.

Four outcomes. *Done* is checked and the order goes on; *refused* ends it; *not sent* leaves it for the same request to try
again; *unknown* puts it in doubt, for the upstream has no key that would let us ask twice (docs/upstream.md T5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap import addresses
from swap.domain import invoices
from swap.domain.expiry import ToldExpiry, not_payable
from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.money import plain
from swap.domain.schedules import PollState, next_poll
from swap.domain.times import Timing
from swap.errors import (
    AddressRefused,
    AmountRefused,
    ConfigurationError,
    InvoiceExpired,
    MemoRefused,
    NotSent,
    OrderRefused,
    OutcomeUnknown,
    PairRefused,
    RateModeRefused,
    TryAgainLater,
    UpstreamRefused,
)
from swap.infra.queue import JobQueue
from swap.market.quotes import Terms
from swap.orders.attempts import complete_answer, last_complete_answer, record_answer
from swap.orders.destination import DestinationCheck
from swap.orders.fixed_rate import rate_ends_at
from swap.orders.matching import deposit_place
from swap.orders.reply_check import ReplyCheck
from swap.orders.settle import FIRST_LOOK, Changes, Settlement, Settler, in_doubt
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import InstrumentRow, Order, OrderAttempt
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import CreateRequest, OrderReply

log = structlog.get_logger()

# All that one `POST /v1/orders` may take: reads of the upstream first, the create last.
TOTAL_SECONDS = 30.0
NOT_SENT_KEPT = timedelta(minutes=10)
# Sooner where the resolver tries again: the rate that was promised is good for minutes only.
_TRY_AGAIN = timedelta(seconds=10)
_SWEPT_AFTER_SECONDS = 5.0


@dataclass(frozen=True)
class CreateOptions:
    """What the operator decided about creates. Markup in percent.

    Raises ConfigurationError for a markup without referrer: it would break only once an order was written down.
    """

    upstream_key: str
    referrer_id: str | None
    markup: Decimal | None
    max_at_once: int

    def __post_init__(self) -> None:
        if self.markup is not None and not self.referrer_id:
            raise ConfigurationError(["UPSTREAM_MARKUP needs UPSTREAM_REFERRER_ID (docs/upstream.md T10)"])


class OrderCreator:
    def __init__(
        self,
        database: Database,
        upstream: UpstreamClient,
        reply_check: ReplyCheck,
        queue: JobQueue,
        destinations: DestinationCheck,
        options: CreateOptions,
        timing: Timing,
    ) -> None:
        self._database, self._upstream, self._reply_check = database, upstream, reply_check
        self._queue, self._destinations, self._options, self._timing = queue, destinations, options, timing
        self._settler = Settler(database, queue, timing)

    # --- one attempt -------------------------------------------------------------------------------------------------

    def send(self, order: Order, number: int, left: float) -> Order:
        """Send the create that attempt `number` announced, and return the order as it is after the answer.

        `left`: seconds until the caller must have an answer. Raises OrderRefused (the order is kept as failed) and
        TryAgainLater (certainly not sent).
        """
        deadline = min(self._timing.create_timeout, left)
        try:
            _require_payable_destination(order, self._timing.now())
            reply = self._upstream.create_order(
                _create_request(order), order_ref=order.id, attempt=number, deadline=deadline
            )
        except UpstreamRefused as error:
            refused = self._refused(order, number, error)
            if refused.status != Status.FAILED:
                return refused
            raise _refusal(error, refused) from error
        except NotSent as error:
            raise self._not_sent(order, number, error) from error
        except OutcomeUnknown as error:
            return self._unknown(order, number, error)
        record_answer(self._database, order.id, number, "done", self._timing.now(), reply=reply)
        return self._settler.settle(
            order.id, Settlement(self._accepting(order, reply), {"attempt": number}, reply=reply)
        )

    def _refused(self, order: Order, number: int, error: UpstreamRefused) -> Order:
        record_answer(self._database, order.id, number, "refused", self._timing.now(), error=error)
        made = self._may_have_been_made(order.id, number)

        def ended(current: Order) -> Changes:
            # What an earlier create may have made is looked for first; then the order ends with this refusal.
            if made:
                return _still_in_doubt(current, self._timing)
            return {"status": Status.FAILED, "status_reason": error.code.lower(), "next_check_at": None}

        order = self._settler.settle(order.id, Settlement(ended, {"code": error.code}, attempt=number))
        if isinstance(error, AddressRefused | MemoRefused):
            self._destinations.create_refused(order, error)
        return order

    def _not_sent(self, order: Order, number: int, error: NotSent) -> TryAgainLater:
        """Nothing was sent: keep the order `creating`, so that the caller can try again. Where an earlier create may have
        made something, it stays in doubt, and the resolver tries again.

        If a sweep has moved it to `in_doubt` meanwhile, take it back: every attempt is known to have made nothing.
        """
        record_answer(self._database, order.id, number, "not_sent", self._timing.now(), error=error)
        # Keys, an IP list or a firewall are in the way of every order until an operator does something about them.
        log.error("orders.create_not_sent", order_id=order.id, attempt=number, cause=error.cause, status=error.status)
        made = self._may_have_been_made(order.id, number)

        def kept(current: Order) -> Changes:
            if made:
                return _still_in_doubt(current, self._timing, _TRY_AGAIN)
            return {
                "status": Status.CREATING,
                "status_reason": None,
                "next_check_at": self._timing.now() + self._timing.shorten(NOT_SENT_KEPT),
            }

        detail = {"code": error.code, "cause": error.cause}
        self._settler.settle(order.id, Settlement(kept, detail, attempt=number))
        return TryAgainLater(
            "The upstream could not be reached; no order was made there. Send the same request again.",
            code="UPSTREAM_NOT_REACHED",
            # Well before the order is given up, however long the upstream asked us to wait.
            retry_after=min(300, max(1, round(error.retry_after or 5))),
            order_id=order.id,
        )

    def _may_have_been_made(self, order_id: str, number: int) -> bool:
        """Whether an attempt before this one was not answered, or with what may not be shown."""
        with self._database.read() as session:
            return any(
                attempt.number < number and attempt.outcome in (None, "unknown", "done")
                for attempt in order_rows.attempts_of(session, order_id)
            )

    def _unknown(self, order: Order, number: int, error: OutcomeUnknown) -> Order:
        log.error("orders.create_in_doubt", order_id=order.id, attempt=number, cause=error.cause, status=error.status)
        now = self._timing.now()
        record_answer(self._database, order.id, number, "unknown", now, error=error, reply=error.found)
        detail = {"code": error.code, "cause": error.cause}
        return self._settler.settle(
            order.id, Settlement(lambda current: _still_in_doubt(current, self._timing), detail)
        )

    def sweep_due_at(self) -> datetime:
        """When a create that is sent now is swept up if it is never answered because this process died: later than the
        longest call that it guards."""
        return self._timing.now() + timedelta(seconds=self._timing.create_timeout + _SWEPT_AFTER_SECONDS)

    # --- an order whose create is over -------------------------------------------------------------------------------

    def adopt(
        self,
        order_id: str,
        reply: OrderReply,
        evidence: dict[str, Any],
        attempt: int,
        allowed: Callable[[Session, Order], bool],
    ) -> Order:
        """Give an order in doubt the upstream order that was proved to be its own, as if the create had just answered.

        `attempt`: the order's last one when that was proved; `allowed` is asked once more inside the transaction.
        """
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
        assert order is not None
        return self._settler.settle(
            order_id, Settlement(self._accepting(order, reply), evidence, reply, attempt, allowed)
        )

    def settle_from_stored_answer(self, order: Order, attempts: Sequence[OrderAttempt]) -> bool:
        """Settle an order from the complete answer that one of its `attempts` holds: a process died between writing the
        answer down and acting on it. False when there is none, or when it may not be shown."""
        answer = last_complete_answer(attempts)
        if answer is None:
            return False
        attempt, reply = answer
        if self._reply_check.problem(order, reply, self._reply_check.source_of(order)) is not None:
            return False
        accept = self._accepting(order, reply)

        def changes(current: Order) -> Changes:
            # The answer may be old: the order is polled at once, before anybody has paid.
            return {**accept(current), "as_of": attempt.finished_at, "next_check_at": self._timing.now()}

        detail = {"source": "answer", "attempt": attempt.number}
        is_its_own = lambda session, current: not _belongs_elsewhere(session, current, reply)  # noqa: E731
        order = self._settler.settle(order.id, Settlement(changes, detail, reply, allowed=is_its_own))
        if order.status in BEFORE_ADDRESS:
            return False
        log.warning("orders.settled_by_answer", order_id=order.id, attempt=attempt.number, status=order.status)
        return True

    def belongs_elsewhere(self, order: Order, attempt: OrderAttempt) -> bool:
        """Whether the attempt was answered with an upstream order, or a place to pay at, of another order of ours."""
        reply = complete_answer(attempt)
        if reply is None:
            return False
        with self._database.read() as session:
            return _belongs_elsewhere(session, order, reply)

    def create_again(
        self, order: Order, attempts: Sequence[OrderAttempt], terms: Terms, evidence: dict[str, Any]
    ) -> Order | None:
        """Create again, on these terms, what was not found, if the lease that `order` was claimed with is still held. No
        public event: `status_reason` stays as it is. None when another process changed the order first or has it now, or
        when one of its `attempts` was answered after all.

        Raises as `send`.
        """
        changes = {
            "status": Status.CREATING,
            "next_check_at": self.sweep_due_at(),
            "upstream_key": self._options.upstream_key,
            "rate": terms.claimed,
            "network_fee": terms.network_fee,
        }
        now = self._timing.now()
        with self._database.write() as session:
            moved = order_rows.move(
                session, order, changes, at=now, source="resolver", detail=evidence, lease=order.lease_token
            )
            if moved is None or _outcomes(order_rows.attempts_of(session, order.id)) != _outcomes(attempts):
                session.rollback()
                return None
            number = order_rows.start_attempt(session, moved, now, amount_to_get=terms.amount_to_get)
        return self.send(moved, number, self._timing.create_timeout)

    def fail_in_doubt(self, order: Order, reason: str, evidence: dict[str, Any], attempt: int) -> Order:
        """End an order whose create stayed without an answer, if `attempt` is still its last one and the lease that
        `order` was claimed with is still held."""
        failed = {"status": Status.FAILED, "status_reason": reason, "next_check_at": None}
        is_held = lambda _, current: current.lease_token == order.lease_token  # noqa: E731
        return self._settler.settle(order.id, Settlement(lambda _: failed, evidence, attempt=attempt, allowed=is_held))

    def fail(self, order: Order, reason: str) -> Order | None:
        """End an order whose create certainly never reached the upstream and cannot be tried again. None when another
        process changed the order first, perhaps with the next attempt."""
        changes = {"status": Status.FAILED, "status_reason": reason, "next_check_at": None}
        with self._database.write() as session:
            moved = order_rows.move(session, order, changes, at=self._timing.now(), source="api")
        if moved is not None:
            self._queue.enqueue("publish")
        return moved

    # --- an answer that makes the order payable ----------------------------------------------------------------------

    def _accepting(self, order: Order, reply: OrderReply) -> Callable[[Order], Changes]:
        source = self._reply_check.source_of(order)
        return lambda current: self._accepted(current, reply, source)

    def _accepted(self, order: Order, reply: OrderReply, source: InstrumentRow | None) -> Changes:
        problem = self._reply_check.problem(order, reply, source)
        if problem is not None:
            # Nobody is shown a place to pay at that is in question. The resolver reads again, and creates again.
            log.error("orders.held", order_id=order.id, reason=problem, upstream_order_id=reply.primary_ref)
            return _still_in_doubt(order, self._timing, reason="verifying")
        now = self._timing.now()
        wait = next_poll(PollState(Status.AWAITING_DEPOSIT), self._timing)
        ends_at = rate_ends_at(order, reply, self._upstream.offset_seconds, now)
        return {
            "status": Status.AWAITING_DEPOSIT,
            "status_reason": None,
            "upstream_order_id": reply.primary_ref,
            "upstream_state": reply.state or reply.status,
            "deposit_kind": "address" if reply.deposit_address is not None else "payment_link",
            "deposit_address": reply.deposit_address,
            "deposit_memo": reply.deposit_memo or None,
            "deposit_link": reply.payment_link if reply.deposit_address is None else None,
            "payable": True,
            "payable_reason": not_payable(ToldExpiry(), ends_at, now),
            "payable_until": ends_at,
            "confirmations_required": reply.confirmations or order.confirmations_required,
            "amount_to_get": reply.amount_to_get or order.amount_to_get,
            "facts": reply.facts.to_json(),
            "as_of": now,
            "next_check_at": None if wait is None else now + wait,
            "failures": 0,
        }


def _require_payable_destination(order: Order, now: datetime) -> None:
    """Raises InvoiceExpired when the order waited for this attempt for so long that its invoice can no longer be paid."""
    invoice = addresses.validate(order.to_currency, order.to_network, order.destination_address).invoice
    if invoice is not None and not invoices.is_in_time(invoice, now):
        raise InvoiceExpired(addresses.MESSAGES["invoice_expired"], cause="validation")


def _outcomes(attempts: Sequence[OrderAttempt]) -> list[str | None]:
    return [attempt.outcome for attempt in attempts]


def _still_in_doubt(
    order: Order, timing: Timing, after: timedelta = FIRST_LOOK, *, reason: str = "create_in_doubt"
) -> Changes:
    """`in_doubt`, for an order that may be so already: then it keeps its reason, since creating again is no news."""
    return in_doubt(timing, after, reason=order.status_reason or reason)


def _belongs_elsewhere(session: Session, order: Order, reply: OrderReply) -> bool:
    """Whether an id in the answer, or the place to pay at, belongs to another order of ours."""
    place = deposit_place(order, reply)
    return bool(order_rows.owned_refs(session, reply.refs, excluding=order.id)) or order_rows.place_taken(
        session, place, excluding=order.id
    )


def _create_request(order: Order) -> CreateRequest:
    return CreateRequest(
        from_currency=order.from_currency,
        from_network=order.from_network,
        to_currency=order.to_currency,
        to_network=order.to_network,
        amount=order.amount,
        destination_address=order.destination_address,
        destination_memo=order.destination_memo,
        refund_address=order.refund_address,
        refund_memo=order.refund_memo,
        rate_mode=order.rate_mode,  # type: ignore[arg-type] # the column holds RateMode's two words
        claimed_rate=order.rate,
        network_fee=order.network_fee,
        markup=order.markup,
        referrer_id=order.referrer_id,
    )


_REFUSED_FIELDS: tuple[tuple[type[UpstreamRefused], str], ...] = (
    (AddressRefused, "destination_address"),
    (InvoiceExpired, "destination_address"),
    (MemoRefused, "destination_memo"),
    (AmountRefused, "amount"),
    (PairRefused, "to"),
    (RateModeRefused, "rate_mode"),
)


def _refusal(error: UpstreamRefused, order: Order) -> OrderRefused:
    name = next((name for kind, name in _REFUSED_FIELDS if isinstance(error, kind)), "request")
    problem: dict[str, Any] = {"code": error.code, "message": "The upstream refused it."}
    if isinstance(error, InvoiceExpired):
        problem["message"] = error.message
    if isinstance(error, AmountRefused) and error.bound is not None and error.side is not None:
        problem[error.side] = plain(error.bound)
        least = "is at least" if error.side == "min" else "is at most"
        problem["message"] = f"The amount the upstream takes {least} {plain(error.bound)} {order.from_currency}."
    return OrderRefused(
        "The upstream refused this order; it is kept as failed. Correct it and use a new client_order_id.",
        code=error.code,
        order_id=order.id,
        fields={name: [problem]},
    )
