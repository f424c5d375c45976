"""An order under review, the way back, and the end of an order by hand (docs/operations.md, "An order under review")."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from swap.domain.expiry import ToldExpiry
from swap.domain.facts import Facts, Kind
from swap.domain.lifecycle import Status, can_move, next_status, public_name
from swap.domain.times import Timing, iso
from swap.errors import Conflict
from swap.ops.by_hand import Act, ByHand, Changes
from swap.orders.attempts import complete_answer
from swap.orders.conflicts import ENDED_BY_HAND, Conflicts, accepted, payable_again, under_review
from swap.orders.matching import shown_place
from swap.orders.reply_check import told_terms
from swap.orders.spares import record_spare
from swap.store import attempts as attempt_rows
from swap.store import deposit_places, events, upstream_ids, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import OrderReply


class Review:
    def __init__(
        self, database: Database, upstream: UpstreamClient, conflicts: Conflicts, by_hand: ByHand, timing: Timing
    ) -> None:
        self._database, self._upstream, self._conflicts = database, upstream, conflicts
        self._by_hand, self._timing = by_hand, timing

    def listed(self) -> list[dict[str, Any]]:
        """The orders under review, those that wait longest first."""
        with self._database.read() as session:
            return [
                {
                    "order_id": order.id,
                    "status": public_name(Status(order.status), Status(order.status_before_review or Status.ON_HOLD)),
                    "conflict": order.conflict,
                    "since": iso(order.status_changed_at),
                    "deposit_seen": Facts.from_json(order.facts).deposit_seen,
                }
                for order in order_rows.under_review(session)
            ]

    def begin(self, order_id: str, act: Act) -> dict[str, Any]:
        """Put an order under review: it cannot be paid, and only a person moves it on.

        Raises NotFound, and Conflict (ORDER_STATE_FORBIDS) when no customer was shown where to pay, or it is over.
        """

        def plan(order: Order) -> Changes:
            _require_move(order, Status.NEEDS_REVIEW)
            # It is watched again, if it was no longer.
            due = {} if order.next_check_at is not None else {"next_check_at": self._timing.now()}
            return under_review(order, None, Status(order.status)) | due

        def beside(session: Session, order: Order) -> None:
            place = shown_place(order)
            if place is not None:
                deposit_places.claim(session, order.id, place)

        return self._by_hand.carry_out(order_id, "review", act, plan, beside=beside)

    def release(self, order_id: str, act: Act, *, accept: bool = False) -> dict[str, Any]:
        """End a review after reading the upstream again: the order goes on where the facts say it is, and may be paid if it
        still awaits its deposit. `accept`: even if the answer differs from the order; it counts as agreed from now on, until
        it says something else again. An order whose deposit details are in question is not payable even so.

        Raises NotFound, Conflict (ORDER_STATE_FORBIDS, UPSTREAM_DISAGREES), and UpstreamError where there is no answer.
        """
        order = self._by_hand.load(order_id)
        _require_review(order)
        reply = self._ask(order)

        def plan(order: Order) -> Changes:
            _require_review(order)
            return self._released(order, reply, accept=accept)

        return self._by_hand.carry_out(order_id, "release", act, plan, told_terms(order, reply))

    def end(self, order_id: str, to: Status, act: Act, *, despite_record: bool = False) -> dict[str, Any]:
        """End an order: as failed or expired where nothing was ever paid, as completed or refunded where the record shows
        that. It is polled on for as long as an order that ended so by itself. `despite_record`: a person knows better than
        the record of an order under review, whose upstream may say nothing any more; only as expired it never ends once
        something was paid.

        Raises NotFound, and Conflict (ORDER_STATE_FORBIDS, RECORD_FORBIDS).
        """

        def plan(order: Order) -> Changes:
            _require_move(order, to)
            if not (despite_record and order.status == Status.NEEDS_REVIEW and to is not Status.EXPIRED):
                _require_record(order, to, told_of_money=self._told_of_money(order))
            return {
                "status": to,
                "status_before_review": None,
                "status_reason": ENDED_BY_HAND,
                "conflict": None,
                "conflict_since": None,
                "failures": 0,
                **({"told_expiry": ToldExpiry.by_hand(self._timing.now()).to_json()} if to is Status.EXPIRED else {}),
                # Nobody can have paid to what nobody was shown. Else the next poll finds its own distance.
                "next_check_at": None if order.deposit_kind is None else self._timing.now(),
            }

        detail: dict[str, Any] = {"despite_record": True} if despite_record else {}
        return self._by_hand.carry_out(order_id, "end", act, plan, beside=self._keep_what_was_made, **detail)

    def _told_of_money(self, order: Order) -> bool:
        """Whether an answer told of a deposit that was not believed: that is no proof that nothing was paid."""
        with self._database.read() as session:
            return events.happened_at(session, order.id, events.UNEXPECTED_DEPOSIT) is not None

    def _keep_what_was_made(self, session: Session, order: Order) -> None:
        """Nothing was shown, but the answers to the creates may name upstream orders. Those are watched on as spares."""
        if order.deposit_kind is not None:
            return
        for attempt in attempt_rows.attempts_of(session, order.id):
            if attempt.refs:
                reply = complete_answer(attempt)
                record_spare(session, order, attempt.upstream_key, attempt.refs, self._timing.now(), reply=reply)

    def _ask(self, order: Order) -> OrderReply:
        with self._database.read() as session:
            refs = upstream_orders.shown_refs(session, order.id)
        ref = order.upstream_order_id or next(iter(refs), None)
        if ref is None:
            raise Conflict("The order has no upstream id to ask with.", code="ORDER_STATE_FORBIDS")
        reply = self._upstream.order(
            ref,
            order.destination_address,
            order_ref=order.id,
            priority="read",
            deadline=self._timing.read_timeout,
            also=refs,
        )
        with self._database.read() as session:
            shown = upstream_orders.shown_of(session, order.id)
            names = upstream_ids.named(session, reply.primary_ref, reply.refs, about=shown)
        if names.another_than_shown(order.id, shown):
            raise Conflict(
                "The upstream's answer is about another upstream order. Ask again.",
                code="UPSTREAM_DISAGREES",
                refs=list(names.refs),
            )
        return reply

    def _released(self, order: Order, reply: OrderReply, *, accept: bool) -> Changes:
        now = self._timing.now()
        before = Status(order.status_before_review or Status.AWAITING_DEPOSIT)
        facts = Facts.from_json(order.facts).merge(reply.facts)
        decision = next_status(
            before, facts, now, created_at=order.created_at, told=ToldExpiry.from_json(order.told_expiry)
        )
        as_of = decision.status if decision.status is Status.AWAITING_DEPOSIT else before
        problem = self._conflicts.against(order, reply, as_of)
        if problem is not None and not accept:
            raise Conflict(
                f"The upstream still disagrees with the order: {problem}. Its answer can be accepted explicitly.",
                code="UPSTREAM_DISAGREES",
                conflict=problem,
                upstream=told_terms(order, reply),
            )
        return {
            "status": decision.status,
            "status_before_review": None,
            "status_reason": decision.reason,
            **(payable_again(order, now) if problem is None else accepted(order, problem, reply, now)),
            "conflict": None,
            "conflict_since": None,
            "facts": facts.to_json(),
            "as_of": now,
            "failures": 0,
            # The next poll finds its own distance.
            "next_check_at": now,
        }


def _require_move(order: Order, to: Status) -> None:
    if (order.deposit_kind is None and to is Status.NEEDS_REVIEW) or not can_move(Status(order.status), to):
        raise Conflict(
            f"There is no way from {order.status} to {to} for this order.",
            code="ORDER_STATE_FORBIDS",
            status=order.status,
        )


def _require_record(order: Order, to: Status, *, told_of_money: bool) -> None:
    facts = Facts.from_json(order.facts)
    paid = facts.deposit_seen or told_of_money
    shows = {
        Status.COMPLETED: facts.completed or any(payout.tx_id for payout in facts.withdrawals),
        Status.REFUNDED: any(Kind.of(event.kind) is Kind.REFUND_COMPLETED for event in facts.events),
    }.get(to, not paid)
    if not shows:
        what = "Money came in" if paid else "Nothing was paid"
        raise Conflict(
            f"{what}, by the record: the order did not end as {to}.", code="RECORD_FORBIDS", status=order.status
        )


def _require_review(order: Order) -> None:
    if order.status != Status.NEEDS_REVIEW:
        raise Conflict(
            f"The order is not under review, but {order.status}.", code="ORDER_STATE_FORBIDS", status=order.status
        )
