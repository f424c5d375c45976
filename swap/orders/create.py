"""One create at the upstream: sent once, and its answer written down whatever it was.

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

from swap.domain.lifecycle import BEFORE_ADDRESS, Status
from swap.domain.money import plain
from swap.domain.schedules import PollState, next_poll
from swap.domain.times import Timing
from swap.errors import (
    AddressRefused,
    AmountRefused,
    ConfigurationError,
    MemoRefused,
    NotSent,
    OrderRefused,
    OutcomeUnknown,
    PairRefused,
    RateModeRefused,
    TryAgainLater,
    UpstreamError,
    UpstreamRefused,
)
from swap.infra.queue import JobQueue
from swap.orders.attempts import last_complete_answer, record_answer, retry_while_database_away
from swap.orders.destination import DestinationCheck
from swap.orders.reply_check import ReplyCheck
from swap.store import orders as order_rows
from swap.store import orphans
from swap.store.database import Database
from swap.tables import InstrumentRow, Order, OrderAttempt
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import CreateRequest, OrderReply

log = structlog.get_logger()

# All that one `POST /v1/orders` may take: reads of the upstream first, the create last.
TOTAL_SECONDS = 30.0
NOT_SENT_KEPT = timedelta(minutes=10)
# Sooner where the resolver asks again: the rate that was promised is good for minutes only.
_AGAIN = timedelta(seconds=20)
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

    def send(self, order: Order, number: int, left: float, kept: timedelta = NOT_SENT_KEPT) -> Order:
        """Send the create that attempt `number` announced, and return the order as it is after the answer.

        `left`: seconds until the caller must have an answer; `kept`: how long the order waits for another attempt when
        this one is not sent. Raises OrderRefused (the order is kept as failed) and TryAgainLater (certainly
        not sent).
        """
        request = CreateRequest(
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
        try:
            reply = self._upstream.create_order(
                request, order_ref=order.id, attempt=number, deadline=min(self._timing.create_timeout, left)
            )
        except UpstreamRefused as error:
            self._record(order.id, number, "refused", error=error)
            failed = {"status": Status.FAILED, "status_reason": error.code.lower(), "next_check_at": None}
            settled = self.settle(order.id, lambda _: failed, {"code": error.code})
            if isinstance(error, AddressRefused | MemoRefused):
                self._destinations.create_refused(settled, error)
            raise _refusal(error, settled) from error
        except NotSent as error:
            self._record(order.id, number, "not_sent", error=error)
            # Keys, an IP list or a firewall stand in everybody's way until a person does something about them.
            log.error(
                "orders.create_not_sent", order_id=order.id, attempt=number, cause=error.cause, status=error.status
            )
            self._keep(order.id, number, error, kept)
            raise TryAgainLater(
                "The upstream could not be reached; no order was made there. Send the same request again.",
                code="UPSTREAM_NOT_REACHED",
                # Well before the order is given up, whatever the upstream asked for.
                retry_after=min(300, max(1, round(error.retry_after or 5))),
                order_id=order.id,
            ) from error
        except OutcomeUnknown as error:
            log.error(
                "orders.create_in_doubt", order_id=order.id, attempt=number, cause=error.cause, status=error.status
            )
            self._record(order.id, number, "unknown", error=error, reply=error.found)
            detail = {"code": error.code, "cause": error.cause}
            return self.settle(order.id, lambda _: in_doubt(self._timing.now()), detail)
        self._record(order.id, number, "done", reply=reply)
        return self.settle(order.id, self._accepting(order, reply), {"attempt": number}, reply)

    def adopt(
        self,
        order_id: str,
        reply: OrderReply,
        evidence: dict[str, Any],
        attempt: int,
        allowed: Callable[[Session, Order], bool],
    ) -> Order:
        """Give an order in doubt the upstream order that was proved to be its own, as if the create had just answered.

        `attempt`: its last one when that was proved; `allowed` is asked once more inside the transaction.
        """
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
        assert order is not None
        return self.settle(order_id, self._accepting(order, reply), evidence, reply, attempt, allowed)

    def settle_from_stored_answer(self, order: Order, attempts: Sequence[OrderAttempt]) -> bool:
        """Settle an order from the complete answer that one of its `attempts` holds: we died between writing it down and
        acting on it. False when there is none, or it does not settle the order: an id in it is another order's."""
        found = last_complete_answer(attempts)
        if found is None:
            return False
        attempt, reply = found
        accept = self._accepting(order, reply)

        def as_it_was(current: Order) -> dict[str, Any]:
            # Who knows how long ago that was: the order is looked at before anybody has paid.
            return {**accept(current), "as_of": attempt.finished_at, "next_check_at": self._timing.now()}

        def unowned(session: Session, current: Order) -> bool:
            return not order_rows.owned_refs(
                session, reply.refs, excluding=current.id
            ) and not order_rows.deposit_owned(session, reply.deposit_address, reply.deposit_memo, excluding=current.id)

        evidence = {"source": "answer", "attempt": attempt.number}
        settled = self.settle(order.id, as_it_was, evidence, reply, allowed=unowned)
        if settled.status in BEFORE_ADDRESS:
            return False
        log.warning("orders.settled_by_answer", order_id=order.id, attempt=attempt.number, status=settled.status)
        return True

    def create_again(self, order: Order, evidence: dict[str, Any]) -> Order | None:
        """Create again what was proved never to have arrived. None when somebody else was first.

        Raises as `send`.
        """
        changes = {
            "status": Status.CREATING,
            "status_reason": None,
            "next_check_at": self.sweep_due_at(),
            "upstream_key": self._options.upstream_key,
        }
        with self._database.write() as session:
            leased = order_rows.move(session, order, changes, at=self._timing.now(), source="resolver", detail=evidence)
            if leased is None:
                return None
            number = order_rows.start_attempt(session, order.id, self._options.upstream_key, self._timing.now())
        # Whoever placed the order was told to wait: nobody but the resolver may ever ask again.
        return self.send(leased, number, self._timing.create_timeout, kept=_AGAIN)

    def sweep_due_at(self) -> datetime:
        """When a create that is sent now and never answered, because we died in it, is swept up: past the longest call
        it guards."""
        return self._timing.now() + timedelta(seconds=self._timing.create_timeout + _SWEPT_AFTER_SECONDS)

    def fail(self, order: Order, reason: str) -> Order | None:
        """End an order whose create certainly never reached the upstream and cannot be tried again. None when somebody
        else was first, with the next attempt perhaps: then the order is theirs."""
        changes = {"status": Status.FAILED, "status_reason": reason, "next_check_at": None}
        with self._database.write() as session:
            moved = order_rows.move(session, order, changes, at=self._timing.now(), source="api")
        if moved is not None:
            self._queue.enqueue("publish")
        return moved

    def _keep(self, order_id: str, number: int, error: NotSent, kept: timedelta) -> None:
        """Leave the order for the same request to try again, or for the resolver where `kept` is short. Out of doubt as
        well, where it was swept before we came to say so: every attempt before this one was not sent, or proved absent by
        the resolver."""
        keep = {
            "status": Status.CREATING,
            "status_reason": None,
            "next_check_at": self._timing.now() + self._timing.shorten(kept),
        }
        detail = {"code": error.code, "cause": error.cause}
        self.settle(order_id, lambda _: keep, detail, attempt=number)

    def _accepting(self, order: Order, reply: OrderReply) -> Callable[[Order], dict[str, Any]]:
        source = self._reply_check.source_of(order)
        return lambda current: self._accepted(current, reply, source)

    def _accepted(self, order: Order, reply: OrderReply, source: InstrumentRow | None) -> dict[str, Any]:
        problem = self._reply_check.problem(order, reply, source)
        if problem is not None:
            log.error("orders.held", order_id=order.id, reason=problem, upstream_order_id=reply.primary_ref)
        now = self._timing.now()
        wait = next_poll(PollState(Status.AWAITING_DEPOSIT), self._timing)
        # A held order keeps what was quoted: a later look is measured against that, not against what is in question.
        told = reply.amount_to_get if problem is None else None
        return {
            "status": Status.AWAITING_DEPOSIT,
            "status_reason": None if problem is None else "under_review",
            "upstream_order_id": reply.primary_ref,
            "upstream_state": reply.state or reply.status,
            "deposit_kind": "address" if reply.deposit_address is not None else "payment_link",
            "deposit_address": reply.deposit_address,
            "deposit_memo": reply.deposit_memo or None,
            "deposit_link": reply.payment_link if reply.deposit_address is None else None,
            "payable": problem is None,
            "payable_reason": problem,
            "confirmations_required": reply.confirmations or order.confirmations_required,
            "amount_to_get": told or order.amount_to_get,
            "facts": reply.facts.to_json(),
            "as_of": now,
            "next_check_at": None if wait is None else now + wait,
            "failures": 0,
        }

    def _record(
        self, order_id: str, number: int, outcome: str, *, error: UpstreamError | None = None, reply: Any = None
    ) -> None:
        record_answer(self._database, order_id, number, outcome, self._timing.now(), error=error, reply=reply)

    def settle(
        self,
        order_id: str,
        change: Callable[[Order], dict[str, Any]],
        detail: dict[str, Any],
        reply: OrderReply | None = None,
        attempt: int | None = None,
        allowed: Callable[[Session, Order], bool] | None = None,
    ) -> Order:
        """Take the order through the door while it is still being created; insist for 10 s while the database is away.

        Somebody else may have swept it into doubt meanwhile: then the answer is applied to what it is now, and when it
        has gone further it is left alone. With `attempt`, also when that is no longer the last one;
        with `allowed`, also when that says no.
        """
        for again in retry_while_database_away():
            with again:
                for _ in range(5):
                    settled = self._settle(order_id, change, detail, reply, attempt, allowed)
                    if settled is not None:
                        return settled
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
        assert order is not None
        log.error("orders.not_settled", order_id=order_id, status=order.status)
        return order

    def _settle(
        self,
        order_id: str,
        change: Callable[[Order], dict[str, Any]],
        detail: dict[str, Any],
        reply: OrderReply | None,
        attempt: int | None,
        allowed: Callable[[Session, Order], bool] | None,
    ) -> Order | None:
        """One try; None when the order was changed under our hands."""
        with self._database.write() as session:
            order = order_rows.get(session, order_id)
            assert order is not None
            if order.status not in (Status.CREATING, Status.IN_DOUBT):
                if reply is not None and not set(reply.refs).intersection(order_rows.refs_of(session, order_id)):
                    # Nobody was shown its deposit address, so no money is lost; but nobody watches it either.
                    log.critical("orders.answer_too_late", order_id=order_id, status=order.status, refs=reply.refs)
                    orphans.add_orphan(
                        session,
                        ref=reply.primary_ref or reply.refs[0],
                        refs=reply.refs,
                        upstream_key=order.upstream_key,
                        destination_address=order.destination_address,
                        amount=order.amount,
                        order_id=order_id,
                        now=self._timing.now(),
                    )
                return order
            if attempt is not None and order_rows.attempts_of(session, order_id)[-1].number != attempt:
                return order
            if allowed is not None and not allowed(session, order):
                return order
            changes = change(order)
            if reply is not None:
                taken = order_rows.claim_refs(session, order_id, reply.refs)
                if taken:
                    log.error("orders.upstream_id_taken", order_id=order_id, refs=sorted(taken))
                    changes, detail = in_doubt(self._timing.now()), {**detail, "refs_taken": sorted(taken)}
                else:
                    orphans.adopt(session, reply.refs)
            moved = order_rows.move(session, order, changes, at=self._timing.now(), source="api", detail=detail)
            if moved is None:
                # Nor may the ids stay: whoever was first has made up their mind about them.
                session.rollback()
        if moved is not None:
            self._queue.enqueue("publish")
        return moved


def in_doubt(now: datetime) -> dict[str, Any]:
    """The changes of an order whose create may or may not have reached the upstream. Nobody was told where to pay; the
    resolver looks into it at once."""
    return {
        "status": Status.IN_DOUBT,
        "status_reason": "create_in_doubt",
        "next_check_at": now + timedelta(seconds=1),
        "failures": 0,
    }


_REFUSED_FIELDS: tuple[tuple[type[UpstreamRefused], str], ...] = (
    (AddressRefused, "destination_address"),
    (MemoRefused, "destination_memo"),
    (AmountRefused, "amount"),
    (PairRefused, "to"),
    (RateModeRefused, "rate_mode"),
)


def _refusal(error: UpstreamRefused, order: Order) -> OrderRefused:
    name = next((name for kind, name in _REFUSED_FIELDS if isinstance(error, kind)), "request")
    problem: dict[str, Any] = {"code": error.code, "message": "The upstream refused it."}
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
