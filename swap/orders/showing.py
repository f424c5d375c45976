"""What an answer makes of an order that waits for one: a customer is shown where to pay, or nothing, and it is in doubt."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap.domain.expiry import ToldExpiry, not_payable
from swap.domain.lifecycle import Status
from swap.domain.schedules import PollState, next_poll
from swap.domain.times import Timing
from swap.orders.fixed_rate import rate_ends_at
from swap.orders.matching import deposit_place, shown_place
from swap.store import deposit_places, upstream_ids
from swap.store.upstream_ids import Named
from swap.tables import Order, UpstreamOrder
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

Changes = dict[str, Any]

# When an order in doubt is looked for first.
FIRST_LOOK = timedelta(seconds=2)


def accepted(order: Order, reply: OrderReply, problem: str | None, offset_seconds: float, timing: Timing) -> Changes:
    """The changes of an order that got this complete answer. `problem`: why it may not be shown
    (`swap.orders.reply_check`); `offset_seconds`: between the upstream's clock and ours."""
    if problem is not None:
        # Nobody is shown a place to pay at that is in question. The resolver reads again, and creates again.
        log.error("orders.held", order_id=order.id, reason=problem, upstream_order_id=reply.primary_ref)
        return still_in_doubt(order, timing, reason="verifying")
    now = timing.now()
    wait = next_poll(PollState(Status.AWAITING_DEPOSIT), timing)
    ends_at = rate_ends_at(order, reply, offset_seconds, now)
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


def in_doubt(timing: Timing, after: timedelta = FIRST_LOOK, *, reason: str = "create_in_doubt") -> Changes:
    """The changes of an order whose create may or may not have made something, or made what may not be shown (`reason`:
    verifying). No customer was told where to pay; the resolver takes the order up `after` that time."""
    return {
        "status": Status.IN_DOUBT,
        "status_reason": reason,
        "next_check_at": timing.now() + timing.shorten(after),
        "failures": 0,
    }


def still_in_doubt(
    order: Order, timing: Timing, after: timedelta = FIRST_LOOK, *, reason: str = "create_in_doubt"
) -> Changes:
    """`in_doubt`, for an order that may be so already: then it keeps its reason, since creating again is no news."""
    return in_doubt(timing, after, reason=order.status_reason or reason)


def belongs_elsewhere(session: Session, order: Order, reply: OrderReply) -> bool:
    """Whether an id in the answer, or the place to pay at, belongs to another order of ours."""
    names = upstream_ids.named(session, reply.primary_ref, reply.refs)
    return bool(names.of_others(order.id)) or deposit_places.taken(
        session, deposit_place(order, reply), excluding=order.id
    )


def is_at_its_place(order: Order, shown: UpstreamOrder | None, names: Named, reply: OrderReply) -> bool:
    """Whether it is known for nobody's, and tells the very place where the customer of `order` pays: it is the order's, of
    which only another form of id was known."""
    nobodys = bool(names.rows) and all(row.order_id is None for row in names.rows)
    same_form = shown is None or any(upstream_ids.cannot_be_one(shown.ref, ref) for ref in names.refs)
    return nobodys and not same_form and deposit_place(order, reply) == shown_place(order) is not None
