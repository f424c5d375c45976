"""The order as callers see it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from swap.domain.lifecycle import PUBLIC, Facts, Status, Transfer, UpstreamEvent
from swap.store.serializers import VOLATILE, order_view, same_view
from tests.factories import NOON, order_row

FIELDS = (
    *("id", "client_order_id", "status", "status_reason", "funds", "final", "sequence", "from", "to", "rate_mode"),
    *("amount", "amount_to_get", "destination", "refund", "deposit", "confirmations_required", "deposits"),
    *("withdrawals", "action_required", "upstream_order_id", "user_id", "session_id", "account_id"),
    *("search_terms", "metadata", "as_of", "next_check_at", "created_at", "updated_at"),
)
PAID = Facts(transfers=(Transfer("deposit", Decimal("0.0125"), "tx", NOON, confirmations=1),))


def view(**changed: Any) -> dict[str, Any]:
    return order_view(order_row("cli_1", **changed))


def test_the_fields_are_the_contracts_in_its_order() -> None:
    assert tuple(view()) == FIELDS
    assert tuple(view()["deposit"]) == (
        *("kind", "address", "memo", "amount", "network", "payable", "payable_reason", "payable_until", "uri"),
    )


def test_amounts_are_decimal_strings_in_plain_notation_and_times_are_utc_with_milliseconds() -> None:
    facts = Facts(
        transfers=(
            Transfer("deposit", Decimal("1E-18"), "in", NOON, confirmations=0),
            Transfer("withdrawal", Decimal("1E+3"), "out", None),
        )
    )
    shown = view(amount=Decimal("1E-7"), amount_to_get=Decimal("12345678.10"), facts=facts.to_json())
    assert (shown["amount"], shown["amount_to_get"]) == ("0.0000001", "12345678.1")
    assert shown["deposit"]["amount"] == "0.0000001"
    assert shown["deposits"] == [
        {"amount": "0.000000000000000001", "tx_id": "in", "at": "2025-10-09T12:00:00.000Z", "confirmations": 0}
    ]
    assert shown["withdrawals"] == [{"amount": "1000", "tx_id": "out", "at": None}]
    assert shown["created_at"] == shown["as_of"] == "2025-10-09T12:00:00.000Z"


@pytest.mark.parametrize("status", Status)
def test_every_status_can_be_shown_by_a_public_name_with_a_word_for_the_money(status: Status) -> None:
    shown = view(status=status)
    assert shown["status"] in PUBLIC
    assert shown["funds"]
    assert isinstance(shown["final"], bool)


def test_a_review_hides_behind_the_status_before_it() -> None:
    shown = view(status="needs_review", status_before_review="confirming", facts=PAID.to_json())
    assert (shown["status"], shown["funds"]) == ("confirming", "seen_on_chain")
    assert (shown["deposit"]["payable"], shown["deposit"]["payable_reason"]) == (False, "under_review")


@pytest.mark.parametrize("reason", ["unverified", "pair_mismatch", "deposit_address_changed"])
def test_what_was_shown_stays_visible_when_it_may_not_be_paid(reason: str) -> None:
    """Whoever has paid already must find what they paid to."""
    shown = view(payable=False, payable_reason=reason, deposit_memo="77")["deposit"]
    assert (shown["address"], shown["memo"]) == (order_row("shop").deposit_address, "77")
    assert (shown["payable"], shown["payable_reason"], shown["uri"]) == (False, reason, None)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("awaiting_deposit", None),
        ("confirming", "deposit_received"),
        ("sending", "deposit_received"),
        ("expired", "expired"),
        ("failed", "failed"),
        ("refunded", "refunded"),
        ("completed", "completed"),
    ],
)
def test_only_an_order_that_awaits_its_deposit_is_payable(status: str, reason: str | None) -> None:
    shown = view(status=status)["deposit"]
    assert (shown["payable"], shown["payable_reason"]) == (reason is None, reason)
    assert shown["address"], "where the money went stays visible"


def test_there_is_no_deposit_before_there_are_details() -> None:
    assert view(status="creating", deposit_kind=None, deposit_address=None, payable=False)["deposit"] is None


def test_a_payment_link_stands_where_an_address_would() -> None:
    shown = view(deposit_kind="payment_link", deposit_address=None, deposit_link="https://pay.example/1")["deposit"]
    assert (shown["kind"], shown["address"]) == ("payment_link", "https://pay.example/1")


def test_an_action_is_asked_for_only_while_the_order_is_on_hold() -> None:
    asked = {"action_url": "https://kyc.example/1", "action_since": NOON}
    assert view(status="on_hold", **asked)["action_required"] == {
        "kind": "kyc",
        "url": "https://kyc.example/1",
        "since": "2025-10-09T12:00:00.000Z",
    }
    assert view(status="exchanging", **asked)["action_required"] is None
    assert view(status="on_hold")["action_required"] is None


@pytest.mark.parametrize(
    ("status", "facts", "watched", "final"),
    [
        ("expired", Facts(), True, False),
        ("expired", Facts(), False, True),
        ("failed", Facts(), False, True),
        ("failed", PAID, False, False),
        ("completed", PAID, True, True),
        ("refunded", PAID, False, True),
        ("confirming", PAID, True, False),
    ],
)
def test_final_says_whether_the_customer_may_stop_waiting(
    status: str, facts: Facts, watched: bool, final: bool
) -> None:
    assert view(status=status, facts=facts.to_json(), next_check_at=NOON if watched else None)["final"] is final


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"as_of": NOON + timedelta(hours=1)}, True),
        ({"next_check_at": NOON + timedelta(hours=1)}, True),
        ({"updated_at": NOON + timedelta(hours=1), "sequence": 7, "version": 9, "failures": 3}, True),
        ({"facts": Facts(events=frozenset({UpstreamEvent("CREATION_END", NOON)})).to_json()}, True),
        ({"facts": PAID.to_json()}, False),
        ({"status": "confirming"}, False),
        ({"status_reason": "reversal"}, False),
        ({"payable": False, "payable_reason": "unverified"}, False),
        ({"upstream_order_id": "90210"}, False),
        ({"confirmations_required": 3}, False),
        ({"amount_to_get": Decimal(1)}, False),
    ],
)
def test_what_counts_as_a_change_of_the_public_view(changed: dict[str, Any], same: bool) -> None:
    one = {"id": "ord_1", "client_order_id": "a"}
    assert same_view(view(**one), view(**one, **changed)) is same


def test_what_is_volatile_is_a_field() -> None:
    assert set(VOLATILE) <= set(FIELDS)
