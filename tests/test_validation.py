"""What is checked before an order is made, and before a customer is told where to pay. No upstream, no database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from swap import addresses
from swap.addresses import base58, ripple
from swap.domain.lifecycle import Facts
from swap.market.catalog import Snapshot, key
from swap.orders.reply_check import reply_problem
from swap.orders.validation import (
    Destination,
    InstrumentName,
    OrderRequest,
    PartialRequest,
    examine,
    offline_is_enough,
    sent_form,
)
from swap.tables import InstrumentRow, Order
from swap.upstream.replies import OrderReply
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS
from tests.factories import NOON, order_request
from tests.signed_client import ETH_ADDRESS

X_ADDRESS = "X7gJ5YK8abHf2eTPWPFHAAot8Knck11QGqmQ7a6a3Z8PJvk"
X_ACCOUNT = "rhvh5SrgBL5V8oeV9EpDuVszeJSSCEkbPc"
X_ADDRESS_WITH_ANOTHER_TAG = ripple.pack(base58.decode_check(X_ACCOUNT, base58.RIPPLE)[1:], 1)
X_ADDRESS_WITHOUT_TAG = "X7AcgcsBL6XDcUb289X4mJ8djcdyKaB5hJDWMArnXr61cqZ"
OTHER_XRP_ADDRESS = "rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh"
OTHER_BTC_ADDRESS = "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3"
TOLERANCE = Decimal("0.01")


def instrument(currency: str, network: str, *, precision: int = 8, memo: bool = False, type: str = "crypto") -> Any:
    currency_key, network_key = key(currency, network)
    return InstrumentRow(
        currency_key=currency_key,
        network_key=network_key,
        currency=currency,
        network=network,
        type=type,
        precision=precision,
        requires_memo=memo,
        active=True,
    )


BTC = instrument("BTC", "BTC", precision=11)
XRP = instrument("XRP", "XRP", precision=6, memo=True)
ETH = instrument("ETH", "ERC20")
ODD = instrument("ODD", "Oddnet", memo=True)
EUR = instrument("EUR", "EUR", precision=2, type="fiat")
ALL = (BTC, XRP, ETH, ODD, EUR)
CATALOG = Snapshot(
    as_of=datetime(2026, 1, 1, tzinfo=UTC),
    version=1,
    instruments={(i.currency_key, i.network_key): i for i in ALL},
    pairs=frozenset(
        (a.currency_key, a.network_key, b.currency_key, b.network_key) for a in ALL for b in ALL if a is not b
    )
    - {("eth", "erc20", "btc", "btc")},
)
GOOD = OrderRequest(
    client_order_id="order-1",
    source=InstrumentName("BTC", "BTC"),
    target=InstrumentName("XRP", "XRP"),
    amount=Decimal("0.0125"),
    rate_mode="FLOATING",
    destination=Destination(XRP_ADDRESS, "1234567"),
    refund=Destination(BTC_ADDRESS),
)


def changed_request(**changed: Any) -> OrderRequest:
    """The good request, with other values in some of the fields that its order stores."""
    return order_request(**{**GOOD.stored(), **changed})


def codes_of(request: OrderRequest | PartialRequest) -> dict[str, list[str]]:
    problems = examine(CATALOG, request, NOON).problems
    return {name: [problem.code for problem in those] for name, those in problems.items()}


def codes(**changed: Any) -> dict[str, list[str]]:
    return codes_of(changed_request(**changed))


# --- the request -----------------------------------------------------------------------------------------------------


def test_a_good_request_has_no_problems() -> None:
    assert codes() == {}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"from_currency": "DOGE"}, {"from": ["INSTRUMENT_UNKNOWN"]}),
        ({"to_network": "Ripple"}, {"to": ["INSTRUMENT_UNKNOWN"]}),
        (
            {
                "from_currency": "ETH",
                "from_network": "ERC20",
                "to_currency": "BTC",
                "to_network": "BTC",
                "destination_address": BTC_ADDRESS,
                "destination_memo": None,
                "refund_address": None,
            },
            {"to": ["PAIR_UNAVAILABLE"]},
        ),
        ({"amount": Decimal(0)}, {"amount": ["AMOUNT_NOT_POSITIVE"]}),
        ({"amount": Decimal("0.012345678901")}, {"amount": ["TOO_MANY_DECIMALS"]}),
        ({"destination_address": BTC_ADDRESS}, {"destination_address": ["ADDRESS_INVALID"]}),
        ({"destination_address": XRP_ADDRESS[:-1]}, {"destination_address": ["ADDRESS_INVALID"]}),
        ({"destination_memo": "abc"}, {"destination_memo": ["MEMO_INVALID"]}),
        ({"destination_memo": ""}, {"destination_memo": ["MEMO_INVALID"]}),
        ({"destination_memo": "007"}, {"destination_memo": ["MEMO_INVALID"]}),
        ({"destination_memo": "4294967296"}, {"destination_memo": ["MEMO_INVALID"]}),
        ({"destination_memo": None}, {"destination_memo": ["MEMO_REQUIRED"]}),
        ({"destination_memo_none": True}, {"destination_memo_none": ["MEMO_CONTRADICTION"]}),
        ({"destination_memo": None, "destination_memo_none": True}, {}),
        ({"refund_memo": "1"}, {"refund_memo": ["MEMO_INVALID"]}),
        ({"refund_address": None}, {}),
        ({"refund_address": None, "refund_memo": "1"}, {"refund_address": ["REQUIRED"]}),
        ({"refund_address": XRP_ADDRESS}, {"refund_address": ["ADDRESS_INVALID"]}),
    ],
)
def test_each_problem_is_named_at_its_field(changed: dict[str, Any], found: dict[str, list[str]]) -> None:
    assert codes(**changed) == found


def test_a_memo_on_a_network_without_memos_is_refused() -> None:
    to_eth = {"to_currency": "ETH", "to_network": "ERC20", "destination_address": ETH_ADDRESS}
    assert codes(**to_eth) == {"destination_memo": ["MEMO_INVALID"]}
    assert codes(**to_eth, destination_memo=None) == {}
    assert codes(**to_eth, destination_memo=None, destination_memo_none=True) == {}


def test_an_x_address_is_an_address_and_its_tag() -> None:
    assert codes(destination_address=X_ADDRESS, destination_memo=None) == {}
    assert codes(destination_address=X_ADDRESS, destination_memo="1337") == {}
    verdict = examine(CATALOG, changed_request(destination_address=X_ADDRESS, destination_memo=None), NOON).destination
    assert verdict is not None
    assert (verdict.send_address, verdict.send_memo) == (X_ACCOUNT, "1337")


def test_a_tag_inside_an_x_address_cannot_be_denied_or_replaced() -> None:
    assert codes(destination_address=X_ADDRESS, destination_memo="1") == {"destination_memo": ["MEMO_INVALID"]}
    denied = codes(destination_address=X_ADDRESS, destination_memo=None, destination_memo_none=True)
    assert denied == {"destination_memo_none": ["MEMO_CONTRADICTION"]}


def test_an_x_address_that_says_there_is_no_tag_needs_the_customers_word_for_it() -> None:
    bare = {"destination_address": X_ADDRESS_WITHOUT_TAG, "destination_memo": None}
    assert codes(**bare) == {"destination_memo": ["MEMO_REQUIRED"]}
    assert codes(**bare, destination_memo_none=True) == {}
    assert codes(**{**bare, "destination_memo": "7"}) == {"destination_memo": ["MEMO_INVALID"]}


def test_a_memo_can_only_be_waived_where_an_address_is_whole_without_it() -> None:
    to_odd = {"to_currency": "ODD", "to_network": "Oddnet", "destination_address": "odd1", "destination_memo": None}
    assert codes(**to_odd) == {"destination_memo": ["MEMO_REQUIRED"]}
    assert codes(**to_odd, destination_memo_none=True) == {"destination_memo_none": ["MEMO_NONE_NOT_ALLOWED"]}


def test_an_empty_memo_is_refused_where_no_rule_is_known() -> None:
    to_odd = {"to_currency": "ODD", "to_network": "Oddnet", "destination_address": "odd1"}
    assert codes(**to_odd, destination_memo="") == {"destination_memo": ["MEMO_INVALID"]}
    assert codes(**to_odd, destination_memo="x") == {}


def test_a_refund_where_memos_are_needed_needs_one() -> None:
    from_xrp = {
        "from_currency": "XRP",
        "from_network": "XRP",
        "to_currency": "BTC",
        "to_network": "BTC",
        "amount": Decimal(100),
        "destination_address": BTC_ADDRESS,
        "destination_memo": None,
        "refund_address": XRP_ADDRESS,
    }
    assert codes(**from_xrp) == {"refund_memo": ["MEMO_REQUIRED"]}
    assert codes(**from_xrp, refund_memo="5") == {}
    assert codes(**from_xrp, refund_memo_none=True) == {}
    assert codes(**from_xrp, refund_memo="5", refund_memo_none=True) == {"refund_memo_none": ["MEMO_CONTRADICTION"]}
    assert codes(**{**from_xrp, "refund_address": X_ADDRESS}) == {}
    assert codes(**{**from_xrp, "refund_address": None}, refund_memo_none=True) == {"refund_address": ["REQUIRED"]}


def test_problems_of_all_fields_are_found_at_once() -> None:
    found = codes(
        amount=Decimal("-0.012345678901"),
        destination_address="nowhere",
        destination_memo=None,
        refund_address="nowhere",
    )
    assert found == {
        "amount": ["AMOUNT_NOT_POSITIVE", "TOO_MANY_DECIMALS"],
        "destination_address": ["ADDRESS_INVALID"],
        "destination_memo": ["MEMO_REQUIRED"],
        "refund_address": ["ADDRESS_INVALID"],
    }


def test_a_malformed_field_hides_no_problem_of_the_others() -> None:
    to_xrp, from_nowhere = InstrumentName("XRP", "XRP"), InstrumentName("BTC", "nowhere")
    partial = PartialRequest(source=from_nowhere, target=to_xrp, destination=Destination())
    assert set(examine(CATALOG, partial, NOON).problems) == {"from", "destination_memo"}


def test_of_a_partly_malformed_request_both_sides_are_examined_as_far_as_they_go() -> None:
    btc, xrp = InstrumentName("BTC", "BTC"), InstrumentName("XRP", "XRP")
    bad = Destination("nowhere", memo="", memo_none=True)
    both = {"destination_address": ["ADDRESS_INVALID"], "destination_memo": ["MEMO_INVALID"]}
    both |= {"destination_memo_none": ["MEMO_CONTRADICTION"]}
    refund = {"refund_address": ["ADDRESS_INVALID"], "refund_memo": ["MEMO_INVALID"]}
    refund |= {"refund_memo_none": ["MEMO_CONTRADICTION"]}
    amount = {"amount": ["AMOUNT_NOT_POSITIVE", "TOO_MANY_DECIMALS"]}
    cases: list[tuple[PartialRequest, dict[str, list[str]]]] = [
        (PartialRequest(), {}),
        (PartialRequest(btc, xrp, Decimal("-0.012345678901"), bad, bad), {**amount, **both, **refund}),
        # Without its instrument a side cannot be judged, and the other one still is.
        (PartialRequest(None, xrp, Decimal("-0.012345678901"), bad, bad), both),
        (PartialRequest(btc, None, None, bad, bad), refund),
        (PartialRequest(btc, btc), {"to": ["PAIR_UNAVAILABLE"]}),
        # The address is malformed, the memo is not.
        (PartialRequest(btc, xrp, destination=Destination(memo="")), {"destination_memo": ["MEMO_INVALID"]}),
        (PartialRequest(btc, xrp, refund=Destination(memo="7")), {"refund_address": ["REQUIRED"]}),
        (PartialRequest(btc, xrp, refund=Destination(memo_none=True)), {"refund_address": ["REQUIRED"]}),
        (PartialRequest(btc, xrp, refund=Destination(validation_id="x")), {}),
    ]
    for request, expected in cases:
        assert codes_of(request) == expected, request


def test_an_examination_brings_instruments_and_verdicts_even_where_it_finds_problems() -> None:
    examined = examine(CATALOG, changed_request(amount=Decimal(0), refund_address=X_ACCOUNT), NOON)
    assert set(examined.problems) == {"amount", "refund_address"}
    assert (examined.source, examined.target) == (BTC, XRP)
    assert examined.destination is not None and examined.refund is not None
    assert (examined.destination.status, examined.refund.status) == ("valid", "invalid")
    bare = examine(CATALOG, changed_request(from_currency="DOGE"), NOON)
    assert (bare.source, bare.target, bare.refund) == (None, XRP, None)
    assert examine(CATALOG, changed_request(refund_address=None), NOON).refund is None


def test_each_address_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []
    real = addresses.validate

    def validate(currency: str, network: str, address: str, memo: str | None = None) -> Any:
        judged.append((network, address, memo))
        return real(currency, network, address, memo)

    monkeypatch.setattr(addresses, "validate", validate)
    assert examine(CATALOG, GOOD, NOON).problems == {}
    assert judged == [("XRP", XRP_ADDRESS, "1234567"), ("BTC", BTC_ADDRESS, None)]


def test_what_is_wrong_travels_with_what_a_program_can_use() -> None:
    problems = examine(
        CATALOG, changed_request(amount=Decimal("0.012345678901"), destination_memo="007"), NOON
    ).problems
    assert [problem.to_json() for problem in problems["amount"]] == [
        {
            "code": "TOO_MANY_DECIMALS",
            "message": "BTC on BTC can be sent in steps of 0.00000001: at most 8 digits after the point.",
            "max_decimals": 8,
            "step": "0.00000001",
        }
    ]
    (memo,) = (problem.to_json() for problem in problems["destination_memo"])
    assert (memo["code"], memo["reason"]) == ("MEMO_INVALID", "memo_leading_zero")
    assert set(memo) <= {"code", "message", "reason", "hint"}


def test_an_amount_that_no_wallet_can_send_is_refused_however_fine_the_catalog_is() -> None:
    """The catalog says 11 digits for BTC, and Bitcoin has 8."""
    assert codes(amount=Decimal("0.01250001")) == {}
    assert codes(amount=Decimal("0.012500001")) == {"amount": ["TOO_MANY_DECIMALS"]}
    quoted = PartialRequest(GOOD.source, GOOD.target, Decimal("0.012500001"))
    assert codes_of(quoted) == {"amount": ["TOO_MANY_DECIMALS"]}


def test_a_currency_without_a_minor_unit_is_paid_in_whole_units() -> None:
    yen = instrument("JPY", "JPY", type="fiat")
    snapshot = replace(CATALOG, instruments={**CATALOG.instruments, ("jpy", "jpy"): yen})
    problems = examine(snapshot, PartialRequest(InstrumentName("JPY", "JPY"), None, Decimal("100.5")), NOON).problems
    (amount,) = (problem.to_json() for problem in problems["amount"])
    assert amount["message"] == "JPY on JPY can be sent in whole units only."
    assert (amount["max_decimals"], amount["step"]) == (0, "1")


def test_a_quote_needs_no_destination_and_no_amount() -> None:
    route = PartialRequest(GOOD.source, GOOD.target)
    assert codes_of(route) == {}
    assert codes_of(replace(route, amount=Decimal(0))) == {"amount": ["AMOUNT_NOT_POSITIVE"]}


def test_titles_are_found_in_any_case_and_taken_as_the_catalog_writes_them() -> None:
    examined = examine(
        CATALOG, changed_request(from_currency="btc", from_network="Btc", to_currency="xrp", to_network="XRP"), NOON
    )
    assert examined.problems == {}
    assert examined.source is not None and examined.target is not None
    assert (examined.source.currency, examined.target.network) == ("BTC", "XRP")


def test_an_unknown_network_is_found_out_to_be_unchecked() -> None:
    to_odd = {"to_currency": "ODD", "to_network": "Oddnet", "destination_address": "odd1", "destination_memo": "x"}
    unknown = examine(CATALOG, changed_request(**to_odd), NOON).destination
    assert unknown is not None
    assert (unknown.status, offline_is_enough(ODD, unknown)) == ("unchecked", False)
    good = examine(CATALOG, GOOD, NOON).destination
    assert good is not None
    assert (good.status, offline_is_enough(XRP, good), offline_is_enough(EUR, good)) == ("valid", True, False)


def test_an_order_keeps_its_request_under_the_names_that_stored_orders_have() -> None:
    """Rows of earlier versions are compared with it: a name that changes here makes every repetition a conflict."""
    request = replace(
        GOOD,
        destination=Destination(XRP_ADDRESS, memo_none=True, validation_id="v1"),
        refund=Destination(BTC_ADDRESS, "r", validation_id="v2"),
        quote_id="q",
        user_id="u",
        session_id="s",
        account_id="a",
        search_terms=["Kim@shop.example"],
        metadata={"cart": 1},
    )
    names = {
        "client_order_id": "order-1",
        "amount": "0.0125",
        "rate_mode": "FLOATING",
        "quote_id": "q",
        "from_currency": "BTC",
        "from_network": "BTC",
        "to_currency": "XRP",
        "to_network": "XRP",
        "destination_address": XRP_ADDRESS,
        "destination_memo": None,
        "destination_memo_none": True,
        "refund_address": BTC_ADDRESS,
        "refund_memo": "r",
        "refund_memo_none": False,
        "user_id": "u",
        "session_id": "s",
        "account_id": "a",
        "search_terms": ["Kim@shop.example"],
        "metadata": {"cart": 1},
    }
    assert request.stored() == names
    absent = {"refund_address": None, "refund_memo": None, "refund_memo_none": False}
    assert replace(request, refund=None).stored() == {**names, **absent}
    assert order_request(**names).stored() == names


# --- the answer ------------------------------------------------------------------------------------------------------


def order(**changed: Any) -> Order:
    fields: dict[str, Any] = {
        "from_currency": "BTC",
        "from_network": "BTC",
        "to_currency": "XRP",
        "to_network": "XRP",
        "rate_mode": "FLOATING",
        "amount": Decimal("0.0125"),
        "amount_to_get": Decimal(325),
        "destination_address": XRP_ADDRESS,
        "destination_memo": "1234567",
        "refund_address": BTC_ADDRESS,
    }
    return Order(**{**fields, **changed})


ECHO = OrderReply(
    order_id="90210",
    refs=("90210",),
    deposit_address=OTHER_BTC_ADDRESS,
    from_currency="BTC",
    from_network="BTC",
    to_currency="XRP",
    to_network="XRP",
    rate_mode="FLOATING",
    amount=Decimal("0.0125"),
    amount_to_get=Decimal(325),
    destination_address=XRP_ADDRESS,
    destination_memo="1234567",
    refund_address=BTC_ADDRESS,
)


def problem(reply: OrderReply = ECHO, source: InstrumentRow | None = BTC, **changed: Any) -> str | None:
    return reply_problem(order(**changed), reply, source, TOLERANCE)


def test_an_answer_that_echoes_everything_may_be_paid() -> None:
    assert problem() is None


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"destination_address": OTHER_XRP_ADDRESS}, "destination_mismatch"),
        ({"destination_address": XRP_ADDRESS.lower()}, "destination_mismatch"),
        ({"destination_memo": "1234568"}, "memo_mismatch"),
        ({"refund_address": OTHER_BTC_ADDRESS}, "refund_mismatch"),
        ({"refund_memo": "9"}, "refund_mismatch"),
        ({"amount": Decimal("0.125")}, "amount_mismatch"),
        ({"to_network": "Ripple"}, "pair_mismatch"),
        ({"from_currency": "LTC"}, "pair_mismatch"),
        ({"rate_mode": "FIXED"}, "rate_mode_mismatch"),
        ({"amount_to_get": Decimal("321.74")}, "rate_mismatch"),
        ({"facts": Facts(failed_to_create=True)}, "failed_to_create"),
        ({"deposit_address": XRP_ADDRESS}, "deposit_address_invalid"),
        ({"deposit_address": None}, "deposit_address_missing"),
        ({"deposit_address": None, "payment_link": "https://pay.invalid/1"}, "deposit_address_missing"),
        ({"deposit_memo": "7"}, "deposit_address_invalid"),
        ({"destination_address": None}, "unverified"),
        ({"destination_memo": None}, "unverified"),
        ({"amount": None}, "unverified"),
        ({"from_currency": None}, "unverified"),
        ({"to_network": None}, "unverified"),
        ({"amount_to_get": Decimal("321.75")}, None),
        ({"amount_to_get": Decimal(999)}, None),
        ({"amount_to_get": None}, None),
        ({"refund_address": None}, None),
        ({"amount": Decimal("0.01250")}, None),
        ({"from_network": "btc", "to_currency": "xrp"}, None),
    ],
)
def test_an_answer_that_differs_is_held_for_its_reason(told: dict[str, Any], reason: str | None) -> None:
    assert problem(replace(ECHO, **told)) == reason


def test_a_memo_that_was_never_given_may_not_come_back() -> None:
    assert problem(destination_memo=None) == "memo_mismatch"
    assert problem(replace(ECHO, destination_memo=""), destination_memo=None) is None


def test_a_refund_address_that_was_never_given_may_not_come_back() -> None:
    assert problem(refund_address=None) == "refund_mismatch"


def test_an_address_in_another_spelling_of_its_network_is_the_same() -> None:
    asked: dict[str, Any] = {"to_currency": "ETH", "to_network": "ERC20", "destination_memo": None}
    told: dict[str, Any] = {"to_currency": "ETH", "to_network": "ERC20", "destination_memo": None}
    lower = replace(ECHO, **told, destination_address=ETH_ADDRESS.lower())
    assert problem(lower, **asked, destination_address=ETH_ADDRESS) is None
    other = replace(ECHO, **told, destination_address=ETH_ADDRESS[:-1] + "8")
    assert problem(other, **asked, destination_address=ETH_ADDRESS) == "destination_mismatch"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"destination_address": X_ADDRESS, "destination_memo": None}, None),
        ({"destination_address": X_ADDRESS, "destination_memo": "1337"}, None),
        ({"destination_address": X_ADDRESS, "destination_memo": "1"}, "destination_mismatch"),
        ({"destination_address": X_ADDRESS_WITH_ANOTHER_TAG, "destination_memo": None}, "memo_mismatch"),
        ({"destination_address": X_ADDRESS_WITH_ANOTHER_TAG, "destination_memo": "1337"}, "destination_mismatch"),
    ],
)
def test_an_answer_may_pack_address_and_tag_as_long_as_they_are_ours(told: dict[str, Any], reason: str | None) -> None:
    asked = order(destination_address=X_ACCOUNT, destination_memo="1337")
    assert reply_problem(asked, replace(ECHO, **told), BTC, TOLERANCE) == reason


def test_what_is_packed_or_printed_is_found_as_it_was_sent() -> None:
    assert sent_form(X_ADDRESS) == {"destination_address": X_ACCOUNT, "destination_memo": "1337"}
    assert sent_form(X_ADDRESS_WITHOUT_TAG)["destination_memo"] is None
    for iban in ("DE89 3704 0044 0532 0130 00", "DE89370400440532013000"):
        assert sent_form(iban) == {"destination_address": "DE89370400440532013000"}
    for text in (X_ACCOUNT, BTC_ADDRESS, "", "anything"):
        assert sent_form(text) == {}


def test_what_is_wrong_counts_more_than_what_is_missing() -> None:
    """A later look that fills the gap must not be the first to be believed."""
    short = replace(ECHO, destination_memo=None)
    assert problem(replace(short, amount_to_get=Decimal(1))) == "rate_mismatch"
    assert problem(replace(short, deposit_address=XRP_ADDRESS)) == "deposit_address_invalid"
    assert problem(replace(short, destination_address=None, amount=Decimal(9))) == "amount_mismatch"


def test_a_fixed_order_needs_an_answer_that_says_fixed() -> None:
    assert problem(replace(ECHO, rate_mode="FIXED"), rate_mode="FIXED") is None
    assert problem(replace(ECHO, rate_mode=None), rate_mode="FIXED") == "unverified"
    assert problem(replace(ECHO, rate_mode="FIXED", amount_to_get=None), rate_mode="FIXED") == "unverified"
    assert problem(replace(ECHO, rate_mode=None)) is None


def test_a_source_with_memos_needs_a_deposit_memo() -> None:
    swapped: dict[str, Any] = {"from_currency": "XRP", "from_network": "XRP", "to_currency": "BTC", "to_network": "BTC"}
    places: dict[str, Any] = {"destination_address": BTC_ADDRESS, "destination_memo": None, "refund_address": None}
    reply = replace(ECHO, **swapped, **places, deposit_address=OTHER_XRP_ADDRESS)
    assert problem(reply, XRP, **swapped, **places) == "deposit_memo_missing"
    assert problem(replace(reply, deposit_memo="77"), XRP, **swapped, **places) is None
    # The instrument has left the catalog meanwhile: the network has memos, so one is needed.
    assert problem(reply, None, **swapped, **places) == "deposit_memo_missing"


def test_a_deposit_memo_is_needed_where_catalog_or_rules_say_so() -> None:
    """The catalog may have lost its flag, and then our own rule of the network still stands."""
    swapped: dict[str, Any] = {"from_currency": "XRP", "from_network": "XRP", "to_currency": "BTC", "to_network": "BTC"}
    places: dict[str, Any] = {"destination_address": BTC_ADDRESS, "destination_memo": None, "refund_address": None}
    reply = replace(ECHO, **swapped, **places, deposit_address=OTHER_XRP_ADDRESS)
    assert problem(reply, instrument("XRP", "XRP", memo=False), **swapped, **places) == "deposit_memo_missing"
    # Where no rule is known, the catalog alone decides.
    odd = {**swapped, "from_currency": "ODD", "from_network": "Oddnet"}
    reply = replace(reply, **odd, deposit_address="odd1")
    assert problem(reply, instrument("ODD", "Oddnet"), **odd, **places) is None
    assert problem(reply, instrument("ODD", "Oddnet", memo=True), **odd, **places) == "deposit_memo_missing"
    assert problem(reply, None, **odd, **places) == "deposit_memo_missing"


def test_fiat_is_paid_by_link() -> None:
    told: dict[str, Any] = {"from_currency": "EUR", "from_network": "EUR", "refund_address": None}
    reply = replace(ECHO, **told, deposit_address=None, payment_link="https://pay.invalid/1")
    assert problem(reply, EUR, **told) is None


@pytest.mark.parametrize(
    ("stored", "told", "reason"),
    [
        ({}, {}, None),
        ({}, {"deposit_address": None}, None),
        ({}, {"deposit_address": BTC_ADDRESS}, "deposit_address_changed"),
        ({}, {"deposit_memo": "5"}, "deposit_memo_changed"),
        ({"deposit_address": XRP_ADDRESS}, {"deposit_address": None}, "deposit_address_invalid"),
    ],
)
def test_a_later_look_is_judged_by_what_would_be_shown(
    stored: dict[str, Any], told: dict[str, Any], reason: str | None
) -> None:
    known: dict[str, Any] = {
        "deposit_kind": "address",
        "deposit_address": OTHER_BTC_ADDRESS,
        "deposit_memo": None,
        **stored,
    }
    assert problem(replace(ECHO, **told), **known) == reason


def test_a_deposit_memo_that_is_missing_stays_missing_when_a_look_says_nothing_of_it() -> None:
    swapped: dict[str, Any] = {"from_currency": "XRP", "from_network": "XRP", "to_currency": "BTC", "to_network": "BTC"}
    places: dict[str, Any] = {"destination_address": BTC_ADDRESS, "destination_memo": None, "refund_address": None}
    known: dict[str, Any] = {"deposit_kind": "address", "deposit_address": OTHER_XRP_ADDRESS, "deposit_memo": None}
    look = replace(ECHO, **swapped, **places, deposit_address=None)
    assert problem(look, XRP, **swapped, **places, **known) == "deposit_memo_missing"


@pytest.mark.parametrize("build", [lambda: GOOD.stored(), lambda: replace(GOOD, amount=Decimal("0.01250")).stored()])
def test_equal_amounts_are_stored_in_one_spelling(build: Callable[[], dict[str, Any]]) -> None:
    assert build()["amount"] == "0.0125"
