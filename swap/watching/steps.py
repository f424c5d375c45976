"""The moves of one poll: what it changes, cut into the steps that each are an event of their own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from swap.domain.lifecycle import Decision, Facts, Status
from swap.store import orders as order_rows
from swap.tables import Order

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
    if facts.kyc_link not in (None, order.action_url):
        action = {"action_url": facts.kyc_link, "action_since": now}
    required = bool(action) and decision.status is Status.ON_HOLD

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


def evidence_of(decision: Decision, news: Facts) -> dict[str, Any]:
    newest = max(news.events, key=lambda e: e.at, default=None)
    evidence: dict[str, Any] = {}
    if newest is not None:
        evidence["newest_kind"] = newest.kind
    if decision.reason:
        evidence["reason"] = decision.reason
    return evidence
