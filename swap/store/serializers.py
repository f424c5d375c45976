"""The order as callers see it: one function for every answer, event and webhook."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from swap.domain import lifecycle
from swap.domain.expiry import ToldExpiry, not_payable
from swap.domain.lifecycle import Facts, Status, Transfer
from swap.domain.money import plain
from swap.domain.payment_uri import payment_uri
from swap.domain.times import iso
from swap.tables import Order, WebhookDelivery, WebhookEndpoint

# Fields that may change without an event: the public view counts as unchanged.
VOLATILE = ("sequence", "as_of", "next_check_at", "updated_at")

# Why a deposit address that was shown must not be paid to any more, by the order's status.
_PAID_OR_PAST = {
    Status.EXPIRED: "expired",
    Status.FAILED: "failed",
    Status.REFUNDED: "refunded",
    Status.COMPLETED: "completed",
    Status.NEEDS_REVIEW: "under_review",
}


def order_view(order: Order) -> dict[str, Any]:
    """The order as callers see it. Amounts are decimal strings, times ISO-8601 UTC with milliseconds."""
    status = Status(order.status)
    public = lifecycle.public_name(status, _before_review(order))
    facts = Facts.from_json(order.facts)
    left = lifecycle.account(facts).remaining
    money = lifecycle.whereabouts(status, facts, _before_review(order))
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "status": public,
        "status_reason": order.status_reason,
        "funds": lifecycle.funds(money, facts.deposit_seen, _before_review(order), left=left),
        "final": lifecycle.is_final(status, facts.deposit_seen, order.next_check_at is not None, left=left),
        "sequence": order.sequence,
        "from": {"currency": order.from_currency, "network": order.from_network},
        "to": {"currency": order.to_currency, "network": order.to_network},
        "rate_mode": order.rate_mode,
        "amount": plain(order.amount),
        "amount_to_get": _amount(order.amount_to_get),
        "destination": _end(
            order.destination_address, order.destination_memo, order.request.get("destination_address")
        ),
        "refund": _end(order.refund_address, order.refund_memo, order.request.get("refund_address")),
        "deposit": _deposit(order, status, facts.deposit_seen),
        "confirmations_required": order.confirmations_required,
        "deposits": [
            {**_transfer(t), "confirmations": t.confirmations} for t in facts.transfers if t.direction == "deposit"
        ],
        "withdrawals": [_transfer(t) for t in facts.transfers if t.direction == "withdrawal"],
        "action_required": {"kind": "kyc", "url": order.action_url, "since": _time(order.action_since)}
        if order.action_url and public is Status.ON_HOLD
        else None,
        "upstream_order_id": order.upstream_order_id,
        "user_id": order.user_id,
        "session_id": order.session_id,
        "account_id": order.account_id,
        "search_terms": order.request.get("search_terms") or [],
        "metadata": order.order_metadata,
        "as_of": _time(order.as_of or order.updated_at),
        "next_check_at": _time(order.next_check_at),
        "created_at": iso(order.created_at),
        "updated_at": iso(order.updated_at),
    }


def view_at(order: Order, now: datetime) -> dict[str, Any]:
    """The order as a caller who asks at this moment sees it: a fixed rate ends by the clock, even if no worker was there to
    write that down."""
    view = order_view(order)
    deposit = view["deposit"]
    if deposit is not None and deposit["payable"] and not_payable(ToldExpiry(), order.payable_until, now):
        view["deposit"] = {**deposit, "payable": False, "payable_reason": "fixed_rate_ended", "uri": None}
    return view


# What the holder of a tracking token sees. A list of what is shown, so that a new field stays hidden until it is added here.
_TRACKED = (
    *(
        "id",
        "status",
        "status_reason",
        "funds",
        "final",
        "sequence",
        "from",
        "to",
        "rate_mode",
        "amount",
        "amount_to_get",
    ),
    *("destination", "refund", "deposit", "confirmations_required", "deposits", "withdrawals", "action_required"),
    *("as_of", "next_check_at", "created_at", "updated_at"),
)


def tracked_view(view: dict[str, Any]) -> dict[str, Any]:
    """The order without what is only between client and service: the client's names for order, user, session and account,
    its search terms and metadata, and the upstream's id."""
    return {name: view[name] for name in _TRACKED if name in view}


def same_view(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a caller would see no difference but the volatile fields."""
    return all(one[name] == other[name] for name in one if name not in VOLATILE)


def delivery_view(delivery: WebhookDelivery) -> dict[str, Any]:
    """A delivery as support and the API see it."""
    return {
        "id": delivery.id,
        "endpoint_id": delivery.endpoint_id,
        "type": delivery.type,
        "event_id": delivery.event_id,
        "order_id": delivery.order_id,
        "sequence": delivery.sequence,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "response_status": delivery.response_status,
        "response_excerpt": delivery.response_excerpt,
        "error": delivery.error,
        "duration_ms": delivery.duration_ms,
        "next_attempt_at": _time(delivery.next_attempt_at),
        "delivered_at": _time(delivery.delivered_at),
        "created_at": iso(delivery.created_at),
    }


def endpoint_view(endpoint: WebhookEndpoint, now: datetime) -> dict[str, Any]:
    """A webhook endpoint as its client sees it; never with a secret."""
    until = endpoint.old_secret_until
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "new_url": endpoint.new_url,
        "verified_at": _time(endpoint.verified_at),
        "types": endpoint.types,
        "description": endpoint.description,
        "enabled": endpoint.enabled,
        "disabled_at": _time(endpoint.disabled_at),
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": _time(endpoint.failing_since),
        "old_secret_until": iso(until) if until is not None and now < until else None,
        "created_at": iso(endpoint.created_at),
    }


def _deposit(order: Order, status: Status, deposit_seen: bool) -> dict[str, Any] | None:
    if order.deposit_kind is None:
        return None
    waiting = status is Status.AWAITING_DEPOSIT
    payable = order.payable and waiting and order.payable_reason is None
    # What was shown once stays, payable or not: whoever has paid already must find what they paid to.
    reason = order.payable_reason if waiting or not order.payable else None
    if not payable and reason is None:
        unpaid = status is Status.ON_HOLD and not deposit_seen
        reason = "on_hold" if unpaid else _PAID_OR_PAST.get(status, "deposit_received")
    address = order.deposit_address if payable else None
    return {
        "kind": order.deposit_kind,
        "address": order.deposit_address or order.deposit_link,
        "memo": order.deposit_memo,
        "amount": plain(order.amount),
        "network": order.from_network,
        "payable": payable,
        "payable_reason": reason,
        "payable_until": _time(order.payable_until),
        "uri": None
        if address is None
        else payment_uri(order.from_currency, order.from_network, address, order.amount, order.deposit_memo),
    }


def _end(address: str | None, memo: str | None, given: str | None) -> dict[str, Any]:
    """As it was sent to the upstream; `given` only where the caller wrote it in another form, such as an X-address."""
    end: dict[str, Any] = {"address": address, "memo": memo}
    if given is not None and given != address:
        end["given"] = given
    return end


def _before_review(order: Order) -> Status | None:
    return Status(order.status_before_review) if order.status_before_review else None


def _transfer(transfer: Transfer) -> dict[str, Any]:
    return {"amount": _amount(transfer.amount), "tx_id": transfer.tx_id, "at": _time(transfer.at)}


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)
