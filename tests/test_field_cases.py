"""Inputs that services of the kind got wrong in the field: each with what is right, and whose rule that is."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from swap import addresses
from swap.addresses import Verdict
from swap.domain import fiat, money
from swap.domain.decimal_places import sendable_places

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "field_cases.json").read_text())


def of(*kinds: str) -> pytest.MarkDecorator:
    chosen = [pytest.param(case, id=case["what"]) for case in CASES if case["kind"] in kinds]
    return pytest.mark.parametrize("case", chosen)


def must_be(verdict: Verdict, case: dict[str, Any]) -> None:
    assert (verdict.status, verdict.reason) == (case["status"], case.get("reason")), case["rule"]
    assert case.get("hint", "") in (verdict.hint or ""), verdict.hint
    if "warning" in case:
        assert case["warning"] in verdict.warnings


@of("address", "memo")
def test_a_destination_from_the_field_is_judged_by_its_rule(case: dict[str, Any]) -> None:
    must_be(addresses.validate(case["currency"], case["network"], case["address"], case.get("memo")), case)


@of("account")
def test_a_bank_account_from_the_field_is_judged_by_its_rule(case: dict[str, Any]) -> None:
    must_be(fiat.validate(case["currency"], case["account"]), case)


@of("amount")
def test_an_amount_from_the_field_is_taken_only_where_it_can_be_sent(case: dict[str, Any]) -> None:
    places = sendable_places(case["currency"], case["network"], case["catalog_precision"], is_fiat=False)
    fits = money.decimals(Decimal(case["amount"])) <= places
    assert fits == ("step" not in case), case["rule"]
    if not fits:
        assert Decimal(1).scaleb(-places) == Decimal(case["step"])


def test_every_case_is_of_a_kind_that_is_tested_and_names_its_rule() -> None:
    assert {case["kind"] for case in CASES} == {"address", "memo", "account", "amount"}
    assert all(case["rule"] for case in CASES)


@pytest.mark.parametrize(
    ("currency", "network", "proposed"),
    [
        ("TON", "Gramchain", "TON"),
        ("USDT", "TRON Mainnet", "TRC20"),
        ("ABC", "Stellar Network", "XLM"),
        ("HYDRA", "Hydragon", None),
        ("ABC", "BTC or not", None),
        ("ABC", "x" * 500, None),
    ],
)
def test_a_title_without_rules_is_given_a_proposal_where_one_network_is_meant(
    currency: str, network: str, proposed: str | None
) -> None:
    assert addresses.network_code(currency, network) is None, "a proposal is never followed"
    assert addresses.proposal(currency, network) == proposed
