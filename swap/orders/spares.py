"""Spares: upstream orders of ours that nobody was shown, since another one is shown in their place or the order has ended.

Each is recorded and watched (`swap.watching.unowned`): a deposit on it would be somebody's money. Its place to pay at
belongs to its order as well, so that no other customer is ever sent there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import Facts
from swap.orders.attempts import complete_answer
from swap.orders.candidates import Finding, Found, possible_owners, promises, sent_of
from swap.orders.matching import confirms, contradicts, deposit_place, shown_place
from swap.store import attempts as attempt_rows
from swap.store import deposit_places, upstream_orders
from swap.store import orders as order_rows
from swap.store.upstream_orders import Told
from swap.tables import Order, UpstreamOrder
from swap.upstream.replies import OrderReply

log = structlog.get_logger()


def told(order: Order, upstream_key: str, refs: Sequence[str], reply: OrderReply | None = None) -> Told:
    """What is known of an upstream order that was made for `order`. `refs`: its ids, the one to ask with first, where
    `reply` names none better."""
    return Told(
        primary=(reply.primary_ref if reply is not None else None) or refs[0],
        refs=list(dict.fromkeys([*(reply.refs if reply is not None else ()), *refs])),
        upstream_key=upstream_key,
        destination_address=order.destination_address,
        amount=order.amount,
        deposit_address=reply.deposit_address if reply is not None else None,
        deposit_memo=(reply.deposit_memo or None) if reply is not None else None,
    )


def record_spare(
    session: Session,
    order: Order,
    upstream_key: str,
    refs: Sequence[str],
    now: datetime,
    *,
    reply: OrderReply | None = None,
    candidates: Sequence[str] = (),
) -> bool:
    """Keep an upstream order that `order` made and is not shown, so that it is watched, and claim the place to pay at that
    `reply` tells. `candidates`: more than one order of ours may have made it; then it is nobody's, and its place too. False
    when it is recorded already."""
    if not candidates:
        claim_place(session, order, refs, reply)
    row = upstream_orders.record(
        session,
        told(order, upstream_key, refs, reply),
        now,
        order_id=None if candidates else order.id,
        candidates=candidates,
    )
    if row is not None:
        log.warning("orders.spare", order_id=order.id, refs=list(refs), candidates=list(candidates))
    return row is not None


def record_found(session: Session, order: Order, found: Found, now: datetime) -> bool:
    """`record_spare`, of what a search found: nobody's where another order may be meant as well, and where it is not known
    for the order's. The list says little, and what it fits may even be shown to another customer, by a UUID alone."""
    others = [] if found.candidate.named else [owner.id for owner in possible_owners(session, order, found)]
    certain = found.candidate.named or (
        found.finding in (Finding.OURS, Finding.HELD) and found.problem != "address_in_use" and not others
    )
    if found.candidate.named:
        # Public-info may repeat no place to pay at, or may not be readable: the create's own answer tells it.
        claim_place(session, order, found.refs, stored_answer(session, order, found.refs))
    return record_spare(
        session,
        order,
        found.candidate.upstream_key,
        found.refs,
        now,
        reply=found.reply,
        candidates=() if certain else [order.id, *others],
    )


def give_to_its_maker(session: Session, row: UpstreamOrder, reply: OrderReply) -> None:
    """Make what is nobody's the spare of the one candidate that made it, where public-info tells that by now: all that tells
    orders apart is told, and equal for that one alone, and no other customer pays at its place."""
    fitting = []
    for order in map(partial(order_rows.get, session), row.candidates):
        promised = promises(sent_of(attempt_rows.attempts_of(session, order.id))) if order is not None else []
        if order is not None and not contradicts(order, reply, promised):
            fitting.append((order, promised))
    if len(fitting) != 1 or not reply.complete:
        return
    ((order, promised),) = fitting
    elsewhere = deposit_places.taken(session, deposit_place(order, reply), excluding=order.id)
    if confirms(order, reply, promised) and not elsewhere:
        upstream_orders.give(session, row, order.id)
        claim_place(session, order, reply.refs, reply)


def stored_answer(session: Session, order: Order, refs: Sequence[str]) -> OrderReply | None:
    """The complete answer to one of the order's creates that names one of these ids."""
    attempts = attempt_rows.attempts_of(session, order.id)
    return next((complete_answer(attempt) for attempt in attempts if set(refs).intersection(attempt.refs)), None)


def claim_place(session: Session, order: Order, refs: Sequence[str], reply: OrderReply | None) -> None:
    """No other order may be shown what belongs to a spare of this one. An alarm where one was."""
    place = None if reply is None else deposit_place(order, reply)
    if place is not None and not deposit_places.claim(session, order.id, place):
        other = deposit_places.holder(session, place)
        log.critical("orders.deposit_address_in_use", order_id=order.id, refs=list(refs), other=other)


def move_to_spare(
    session: Session, spare: UpstreamOrder, reply: OrderReply, now: datetime, next_check_at: datetime
) -> bool:
    """Follow a deposit that came to a spare which has the very address its order's customer was shown (an upstream may use
    an address again for one customer): what is write-once is the address, not the upstream's id. The order goes on with the
    spare, and what it was polled by until now becomes the spare, polled at `next_check_at`. False when that is not so."""
    order = None if spare.order_id is None else order_rows.get(session, spare.order_id)
    if order is None or order.deposit_kind is None or Facts.from_json(order.facts).deposit_seen:
        return False
    shown = upstream_orders.shown_of(session, order.id)
    sent = sent_of(attempt_rows.attempts_of(session, order.id))
    if shown is None or contradicts(order, reply, promises(sent)):
        return False
    if deposit_place(order, with_stored_place(spare, reply)) != shown_place(order):
        return False
    changes = {"upstream_order_id": reply.primary_ref or spare.ref, "next_check_at": now}
    moved = order_rows.move(session, order, changes, at=now, source="spare", detail={"refs": list(reply.refs)})
    if moved is None:
        return False
    upstream_orders.swap_shown(session, shown, spare, next_check_at)
    upstream_orders.unite(session, spare, reply.refs)
    log.warning("orders.moved_to_spare", order_id=order.id, refs=list(reply.refs), before=shown.ref)
    return True


def with_stored_place(spare: UpstreamOrder, reply: OrderReply) -> OrderReply:
    """Public-info often repeats no deposit details, or the address without its memo (docs/upstream.md E8): then those that
    are recorded count."""
    address_told = reply.deposit_address not in (None, spare.deposit_address)
    if address_told or reply.deposit_memo is not None or reply.payment_link is not None:
        return reply
    return replace(reply, deposit_address=spare.deposit_address, deposit_memo=spare.deposit_memo)
