"""Conflicts: a later answer differs from what an order's customer was shown or the upstream was sent.

Nothing else in such an answer is believed, until an answer agrees or a person accepts it. The first conflict ends payments
at once; an answer that agrees takes that back. The same one again, a minute later or more, puts the order under review, and
so does money that comes in, or is told of, while it is in doubt where money goes. Only a person ends a review
(`swap.ops.review`). Until then the order is polled and keeps its facts, its public status is the one before the review, and
it cannot be paid.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import structlog

from swap.domain.expiry import ToldExpiry, not_payable
from swap.domain.facts import Facts
from swap.domain.lifecycle import TERMINAL, Status, account
from swap.domain.times import Timing
from swap.domain.transfers import EPOCH
from swap.orders.matching import shown_place
from swap.orders.reply_check import WHERE_IT_GOES, ReplyCheck, told_terms
from swap.store import deposit_places
from swap.store.database import Database
from swap.tables import Order
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

Changes = dict[str, Any]

UNDER_REVIEW, ENDED_BY_HAND = "under_review", "ended_by_hand"
IN_USE = "address_in_use"
_APART = timedelta(seconds=60)

# Nothing is left to stop there. The answer is not believed, but only one that tells of money is for a person.
_ENDED = frozenset({Status.EXPIRED, Status.FAILED, Status.COMPLETED, Status.REFUNDED})
# Reasons of ours to stop payments; what else has stopped them (a rate that ran out, say) is not ours to end.
_REASONS = frozenset(
    {
        "pair_mismatch",
        "destination_mismatch",
        "memo_mismatch",
        "refund_mismatch",
        "amount_mismatch",
        "rate_mode_mismatch",
    }
    | {
        "rate_mismatch",
        "failed_to_create",
        "answer_unreadable",
        "deposit_instrument_mismatch",
        "deposit_address_changed",
        "deposit_memo_changed",
        "deposit_address_invalid",
    }
    | {"deposit_address_missing", "deposit_memo_missing", "unverified", IN_USE, UNDER_REVIEW}
)
# These say that the deposit details themselves are wrong. A person may accept them, but nobody is asked to pay there again.
_NEVER_PAYABLE = frozenset(
    {"deposit_address_changed", "deposit_memo_changed", "deposit_address_invalid", "deposit_address_missing"}
    | {"deposit_memo_missing", "failed_to_create", IN_USE}
)


class Conflicts:
    def __init__(self, database: Database, reply_check: ReplyCheck, timing: Timing) -> None:
        self._database, self._reply_check, self._timing = database, reply_check, timing
        self._apart = timing.shorten(_APART)

    def found(self, order: Order, reply: OrderReply, status: Status | None = None) -> str | None:
        """The conflict between an answer and the order, unless a person has accepted it. `status`: as of which status
        they are compared; by default the order's, or the one before its review."""
        status = status or Status(order.status_before_review or order.status)
        problem = self._reply_check.problem_once_shown(order, reply, status) or self._in_use(order, status)
        return None if problem is None or _is_accepted(order, problem, reply) else problem

    def against(self, order: Order, reply: OrderReply, status: Status) -> str | None:
        """Why this answer is no reason to send an order back to `status`; None when it agrees, and tells enough."""
        problem = self.found(order, reply, status)
        if problem is None and status is Status.AWAITING_DEPOSIT:
            problem = self._reply_check.problem_as_shown(order, reply)
        return None if problem is None or _is_accepted(order, problem, reply) else problem

    def changes(
        self, order: Order, reply: OrderReply, problem: str | None, to: Status, *, deposit_came: bool
    ) -> Changes:
        """What an answer changes because it conflicts with the order (`problem`, as `found`), or agrees with it again. `to`:
        the order's status by what is believed. `deposit_came`: it is the first that tells of a deposit, or of a further
        one."""
        now, status = self._timing.now(), Status(order.status)
        stands, ended = order.status_reason == UNDER_REVIEW, status in _ENDED or to in _ENDED
        if status is Status.NEEDS_REVIEW:
            return {} if problem is None else _conflict(order, problem, now)
        if problem is None:
            if not stands and (ended or order.payable or order.payable_reason != "unverified"):
                return {}
            if deposit_came and order.conflict in WHERE_IT_GOES:
                return self._review(order, order.conflict, to)
            return {} if ended else self._released(order, reply)
        # Another one, while the first still stands, is no agreement.
        first = order.conflict_since if stands or problem == order.conflict else None
        again = first is not None and now - first >= self._apart and not ended
        if again or (deposit_came and (stands or ended or problem in WHERE_IT_GOES)):
            return {**_conflict(order, problem, now), **self._review(order, problem, to)}
        if problem != order.conflict or not (stands or ended):
            log.error("watch.conflict", order_id=order.id, conflict=problem, status=status)
        if ended:
            return _conflict(order, problem, now)
        return {**_conflict(order, problem, now), **_unpayable(order, problem), "status_reason": UNDER_REVIEW}

    def _review(self, order: Order, conflict: str, to: Status) -> Changes:
        log.error("orders.under_review", order_id=order.id, conflict=conflict, status=to)
        return under_review(order, conflict, to)

    def _released(self, order: Order, reply: OrderReply) -> Changes:
        if order.conflict is None and order.payable_reason == "rate_mismatch":
            # Held by its create for a rate that was worse than promised. A better one, told later, is no promise.
            return {}
        status = Status(order.status)
        problem = self.against(order, reply, status)
        if problem is not None:
            return _unpayable(order, problem) | {"status_reason": UNDER_REVIEW}
        return payable_again(order, self._timing.now()) | {"status_reason": None}

    def _in_use(self, order: Order, status: Status) -> str | None:
        """Another order of ours was shown the same place to pay. Places are unique since they are kept in a table of their
        own; orders from before that may share one."""
        if status is not Status.AWAITING_DEPOSIT:
            return None
        with self._database.read() as session:
            taken = deposit_places.taken(session, shown_place(order), excluding=order.id)
        return IN_USE if taken else None


def under_review(order: Order, conflict: str | None, before: Status) -> Changes:
    """The changes of an order that a person has to look at. `before`: the status that its customer goes on seeing."""
    return {
        "status": Status.NEEDS_REVIEW,
        "status_before_review": before,
        "status_reason": UNDER_REVIEW,
        **_unpayable(order, conflict or UNDER_REVIEW),
    }


def ended_by_hand(order: Order, facts: Facts) -> bool:
    """Whether a person has ended the order, and knew of all that has moved until now."""
    return order.status_reason == ENDED_BY_HAND and (account(facts).moved_at or EPOCH) <= order.status_changed_at


def is_settled(order: Order) -> bool:
    """Whether a person looks into the order already, or has ended it, or nothing more is to come in or to go out."""
    by_hand = order.status == Status.NEEDS_REVIEW or order.status_reason == ENDED_BY_HAND
    return by_hand or order.status in TERMINAL


def payable_again(order: Order, now: datetime) -> Changes:
    """The changes of an order once nothing is in conflict any more. Payments that something else has ended stay so: its
    rate may have run out meanwhile, or a person has accepted deposit details that are not what the customer was shown."""
    if order.payable_reason not in _REASONS or (order.accepted_answer or {}).get("never_payable"):
        return {}
    told = ToldExpiry.from_json(order.told_expiry)
    return {"payable": True, "payable_reason": not_payable(told, order.payable_until, now)}


def accepted(order: Order, problem: str, reply: OrderReply, now: datetime) -> Changes:
    """The changes of an order of which a person has accepted what the answer says, until an answer says something else."""
    never = problem in _NEVER_PAYABLE or bool((order.accepted_answer or {}).get("never_payable"))
    answer = {"problem": problem, "told": told_terms(order, reply), "never_payable": never}
    stopped: Changes = {"payable": False, "payable_reason": problem}
    return {"accepted_answer": answer, **(stopped if problem in _NEVER_PAYABLE else payable_again(order, now))}


def _is_accepted(order: Order, problem: str, reply: OrderReply) -> bool:
    answer = order.accepted_answer
    return (
        answer is not None
        and answer["problem"] == problem
        and told_terms(order, reply).items() <= answer["told"].items()
    )


def _conflict(order: Order, problem: str, now: datetime) -> Changes:
    """`conflict_since`: of the first one since the answers agreed, or since it was another one."""
    if problem == order.conflict:
        return {}
    stands = order.status_reason == UNDER_REVIEW and order.conflict_since is not None
    return {"conflict": problem, "conflict_since": order.conflict_since if stands else now}


def _unpayable(order: Order, reason: str) -> Changes:
    """Only an order that awaits its deposit can be paid, and what else has ended its payments stays the reason."""
    if order.status != Status.AWAITING_DEPOSIT or not (order.payable or order.payable_reason in _REASONS):
        return {}
    return {"payable": False, "payable_reason": reason}
