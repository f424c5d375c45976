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
from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.money import plain
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
from swap.orders.attempts import last_complete_answer, record_answer
from swap.orders.destination import DestinationCheck
from swap.orders.reply_check import ReplyCheck
from swap.orders.settle import Settlement, Settler
from swap.orders.showing import Changes, accepted, belongs_elsewhere, still_in_doubt
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order, OrderAttempt
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

    def send(self, order: Order, number: int, sent_at: datetime, left: float) -> Order:
        """Send the create that attempt `number` announced, and return the order as it is after the answer.

        `sent_at`: as the attempt says: by then and the create's time limit the call is over, however long a slow database
        took to write that down, so nobody creates again beside it. `left`: seconds until the caller must have an answer.
        Raises OrderRefused (the order is kept as failed) and TryAgainLater (certainly not sent).
        """
        since = max(0.0, (self._timing.now() - sent_at).total_seconds())
        deadline = min(self._timing.create_timeout - since, left)
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
        settlement = Settlement(self._accepting(order, reply), {"attempt": number}, reply, order.upstream_key)
        return self._settler.settle(order.id, settlement)

    def _refused(self, order: Order, number: int, error: UpstreamRefused) -> Order:
        record_answer(self._database, order.id, number, "refused", self._timing.now(), error=error)
        made = self._may_have_been_made(order.id, number)

        def ended(current: Order) -> Changes:
            # What an earlier create may have made is looked for first; then the order ends with this refusal.
            if made:
                return still_in_doubt(current, self._timing)
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
                return still_in_doubt(current, self._timing, _TRY_AGAIN)
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
                for attempt in attempt_rows.attempts_of(session, order_id)
            )

    def _unknown(self, order: Order, number: int, error: OutcomeUnknown) -> Order:
        log.error("orders.create_in_doubt", order_id=order.id, attempt=number, cause=error.cause, status=error.status)
        now = self._timing.now()
        record_answer(self._database, order.id, number, "unknown", now, error=error, reply=error.found)
        detail = {"code": error.code, "cause": error.cause}
        # What it names is recorded, if the order has gone on without it.
        found = error.found if isinstance(error.found, OrderReply) and error.found.refs else None
        in_doubt = lambda current: still_in_doubt(current, self._timing)  # noqa: E731
        return self._settler.settle(order.id, Settlement(in_doubt, detail, found, order.upstream_key))

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
        upstream_key: str,
        also: Sequence[str] = (),
    ) -> Order:
        """Give an order in doubt the upstream order that was proved to be its own, as if the create had just answered.

        `attempt`: the order's last one when that was proved; `allowed` is asked once more inside the transaction;
        `upstream_key`, `also`: as in a Settlement.
        """
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
        assert order is not None
        return self._settler.settle(
            order_id, Settlement(self._accepting(order, reply), evidence, reply, upstream_key, also, attempt, allowed)
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
        is_its_own = lambda session, current: not belongs_elsewhere(session, current, reply)  # noqa: E731
        settlement = Settlement(changes, detail, reply, attempt.upstream_key, allowed=is_its_own)
        order = self._settler.settle(order.id, settlement)
        if order.status in BEFORE_ADDRESS:
            return False
        log.warning("orders.settled_by_answer", order_id=order.id, attempt=attempt.number, status=order.status)
        return True

    def create_again(
        self,
        order: Order,
        attempts: Sequence[OrderAttempt],
        terms: Terms,
        evidence: dict[str, Any],
        hold_back: Callable[[Session], timedelta | None],
    ) -> Order | timedelta | None:
        """Create again, on these terms, what was not found, if the lease that `order` was claimed with is still held. No
        public event: `status_reason` stays as it is. None when another process changed the order first or has it now, or
        when one of its `attempts` was answered after all; a time when it has to wait for so long (`hold_back`, asked in the
        transaction that starts the attempt).

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
            if moved is None or _outcomes(attempt_rows.attempts_of(session, order.id)) != _outcomes(attempts):
                session.rollback()
                return None
            pause = hold_back(session)
            if pause is not None:
                session.rollback()
                return pause
            number = attempt_rows.start_attempt(session, moved, now, amount_to_get=terms.amount_to_get)
        return self.send(moved, number, now, self._timing.create_timeout)

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

    def _accepting(self, order: Order, reply: OrderReply) -> Callable[[Order], Changes]:
        source = self._reply_check.source_of(order)
        offset = self._upstream.offset_seconds
        problem_of = self._reply_check.problem
        return lambda current: accepted(current, reply, problem_of(current, reply, source), offset, self._timing)


def _require_payable_destination(order: Order, now: datetime) -> None:
    """Raises InvoiceExpired when the order waited for this attempt for so long that its invoice can no longer be paid."""
    invoice = addresses.validate(order.to_currency, order.to_network, order.destination_address).invoice
    if invoice is not None and not invoices.is_in_time(invoice, now):
        raise InvoiceExpired(addresses.MESSAGES["invoice_expired"], cause="validation")


def _outcomes(attempts: Sequence[OrderAttempt]) -> list[str | None]:
    return [attempt.outcome for attempt in attempts]


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
