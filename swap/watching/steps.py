"""The moves of one poll: what it changes, cut into the steps that each are an event of their own, and what is journalled
beside them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap.domain.lifecycle import Decision, Facts, Status, public_name
from swap.orders.conflicts import ended_by_hand
from swap.store import calls, events
from swap.store import orders as order_rows
from swap.tables import Order
from swap.upstream.journal import excerpt
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

Changes = dict[str, Any]


def steps_of(
    order: Order, decision: Decision, facts: Facts, changes: Changes, conflict: Changes, *, late: bool, now: datetime
) -> list[tuple[Changes, str | None]]:
    """The moves of one poll, in order: changes and, where it is not the status that changes, the type of event.

    A late deposit and a demand on the customer are news of their own, and an endpoint may have asked for these types
    alone. So where the status changes in the same poll, they get an event before and after that of the status. What a
    conflict makes of the order (`swap.orders.conflicts`) goes above what the facts make of it.
    """
    to_status: Changes = {}
    if decision.status != order.status:
        to_status = {"status": decision.status, "status_reason": decision.reason}
    to_status |= conflict
    action: Changes = {}
    begins = decision.status is Status.ON_HOLD != order.status
    is_held = public_name(decision.status, _before_review(order)) is Status.ON_HOLD
    # Under review no caller sees it: then it is for the first poll after that, which tells of it.
    is_seen = is_held or decision.status is not Status.NEEDS_REVIEW
    if facts.kyc_link is not None and is_seen and (begins or facts.kyc_link != order.action_url):
        action = {"action_url": facts.kyc_link, "action_since": now}
    elif begins and order.action_url is not None:
        # The form of an earlier hold is not asked for again.
        to_status |= {"action_url": None, "action_since": None}
    required = bool(action) and is_held

    steps: list[tuple[Changes, str | None]] = []
    if late:
        reason = {"status_reason": "late_deposit"} if decision.late_deposit else {}
        steps.append((changes | reason, "order.late_deposit"))
        changes = {}
    if required and to_status:
        steps.append((changes | to_status, None))
        steps.append((action, "order.action_required"))
    elif rest := changes | to_status | action:
        steps.append((rest, "order.action_required" if required else None))
    return steps


def _before_review(order: Order) -> Status | None:
    return Status(order.status_before_review) if order.status_before_review else None


def walk(
    session: Session,
    order: Order,
    steps: Sequence[tuple[Changes, str | None]],
    evidence: dict[str, Any],
    now: datetime,
) -> Order | None:
    """Take the order through the door, step by step. None when another process was first. That can only happen at the
    first step: after it, the row is ours until the end of the transaction."""
    for changes, type_ in steps:
        moved = order_rows.move(
            session, order, changes, at=now, source="look", detail=evidence, type=type_, lease=order.lease_token
        )
        if moved is None:
            return None
        order = moved
    return order


def differs(order: Order, changes: Changes) -> bool:
    return any(getattr(order, name) != value for name, value in changes.items())


def deposits_told(order: Order, known: Facts, reply: OrderReply | None) -> tuple[bool, bool]:
    """Whether an answer, believed or not, tells of the first deposit, and of a further one. What a person knew who has ended
    the order since is no news."""
    told = known if reply is None else known.merge(reply.facts)
    if ended_by_hand(order, told):
        return False, False
    return told.deposit_seen and not known.deposit_seen, told.counted > max(1, known.counted)


def evidence_of(decision: Decision, reply: OrderReply | None) -> dict[str, Any]:
    """For the event: what moved the order. `reply`: the answer, if it is believed."""
    newest = max(reply.facts.events if reply is not None else (), key=lambda e: e.at, default=None)
    evidence: dict[str, Any] = {}
    if newest is not None:
        evidence["newest_kind"] = newest.kind
    if decision.reason:
        evidence["reason"] = decision.reason
    return evidence


def warn_of_deposit(session: Session, order: Order, status: Status, now: datetime) -> None:
    """Once: an answer that is not believed tells of its deposit at every poll."""
    if not events.happened_at(session, order.id, events.UNEXPECTED_DEPOSIT):
        log.critical("watch.unexpected_deposit", order_id=order.id, status=status)
        events.add_event(session, order, events.UNEXPECTED_DEPOSIT, at=now, detail={"status": status})


def write_journal(session: Session, order: Order, decision: Decision, without_news: Decision, now: datetime) -> None:
    """Write down what the answer says and the order does not follow; once, when it is new: `without_news` is what was
    to be decided before this poll."""
    unknown = [kind for kind in decision.unknown_kinds if kind not in without_news.unknown_kinds]
    if unknown:
        log.error("watch.unknown_kinds", order_id=order.id, kinds=unknown)
        events.add_event(session, order, events.UNKNOWN_KINDS, at=now, detail={"kinds": unknown})
    if decision.refused is not None and decision.refused != without_news.refused:
        detail = {"source": "look", "refused": decision.refused, "status": order.status}
        events.add_event(session, order, "journal.refused", at=now, detail=detail)
    if decision.review not in (None, without_news.review):
        log.error("watch.review", order_id=order.id, status=order.status, reason=decision.review)
        detail = {"status": order.status, "reason": decision.review}
        events.add_event(session, order, "journal.review", at=now, detail=detail)


def record_call(session: Session, order: Order, reply: OrderReply, asked_at: datetime, answered_at: datetime) -> None:
    calls.add_call(
        session,
        order_ref=order.id,
        at=asked_at,
        endpoint="order",
        method="GET",
        attempt=1,
        status=200,
        ms=round((answered_at - asked_at).total_seconds() * 1000),
        outcome="OK",
        response_body=excerpt(reply.raw),
    )
