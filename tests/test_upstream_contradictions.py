"""One test for each contradiction of docs/upstream.md section 7, and for the traps of section 6 that are the client's."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from swap.errors import (
    AmountRefused,
    AuthFailed,
    Blocked,
    Malformed,
    OutcomeUnknown,
    PairRefused,
    RateModeRefused,
    UpstreamNotFound,
)
from swap.upstream import decode
from swap.upstream.replies import AddressVerdict, CreateRequest, RateRequest
from tests.scripted_upstream import LISTED, NOW, ORDER, PUBLIC, RATE, SECRET, Seen, asking, reply

pytestmark = pytest.mark.server

CREATE = CreateRequest(
    from_currency="BTC",
    from_network="BTC",
    to_currency="XRP",
    to_network="XRP",
    amount=Decimal("0.0125"),
    destination_address="rExampleDestination",
    destination_memo="0012345",
    rate_mode="FIXED",
)

INSTRUMENT: dict[str, Any] = {
    "currencyTitle": "USDT",
    "networkTitle": "TRC20",
    "slug": "usdttrc20",
    "instrumentType": "crypto",
    "fullName": "Tether TRC20",
    "currencyFriendlyTitle": "Tether",
    "precisionDecimals": 6,
    "requiresMemo": False,
    "bestChangeName": "USDTTRC20",
    "contractAddress": "TExampleContract",
    "currencyLogoLink": "https://host.example/assets/coins/usdt.svg",
}

PAIR: dict[str, Any] = {
    "instrumentFromCurrencyTitle": "BTC",
    "instrumentFromNetworkTitle": "BTC",
    "instrumentToCurrencyTitle": "USDT",
    "instrumentToNetworkTitle": "TRC20",
}

BTC_USDT = RateRequest("BTC", "BTC", "USDT", "TRC20")


def verifies(seen: Seen, text: bytes) -> bool:
    """Whether the request is signed over `text`; worked out here, not by the code under test."""
    signed = seen.headers["x-api-timestamp"].encode() + text + PUBLIC.encode()
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    return seen.headers["x-api-public-key"] == PUBLIC and seen.headers["x-api-signature"] == expected


def test_c1_public_reads_go_unsigned() -> None:
    with asking(reply(200, [INSTRUMENT]), reply(200, RATE)) as (client, server, _):
        client.instruments()
        client.rate(BTC_USDT)
        assert [seen.signed for seen in server.seen] == [False, False]


def test_c2_the_list_is_read_from_the_public_path() -> None:
    with asking(reply(200, [LISTED])) as (client, server, _):
        assert [order.order_id for order in client.orders()] == ["90210"]
        assert (server.last.path, server.last.raw_query) == ("/api/v2/orders/public", "")
        assert verifies(server.last, b"")


@pytest.mark.parametrize("refusal", [reply(403, "<html>no</html>"), reply(404, {"message": "Cannot POST"})])
def test_c3_validation_falls_back_from_the_signed_v2_path_to_the_open_v1_path(refusal: Any) -> None:
    with asking(refusal, reply(201, True)) as (client, server, _):
        assert client.validate_address("XRP", "XRP", "rX", "12") == AddressVerdict(True)
        assert [seen.path for seen in server.seen] == [
            "/api/v2/instruments/public/validate-address",
            "/api/v1/instruments/public/validate-address",
        ]
        assert [seen.signed for seen in server.seen] == [True, False]
        assert server.seen[0].body == b'{"currencyTitle":"XRP","networkTitle":"XRP","address":"rX","memo":"12"}'
        assert verifies(server.seen[0], server.seen[0].body)


def test_c3_all_forms_blocked_is_blocked() -> None:
    with asking(reply(403, "<html>blocked</html>"), reply(404)) as (client, server, _):
        with pytest.raises(Blocked):
            client.validate_address("BTC", "BTC", "bc1q")
        assert len(server.seen) == 2
        assert "memo" not in server.seen[0].json


@pytest.mark.parametrize("status", [400, 406, 422])
def test_c4_too_small_is_told_by_code_and_message_not_by_status(status: int) -> None:
    body = {
        "status": "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL",
        "message": "Amount Too Small",
        "data": {"details": {"field": "claimedDepositAmount", "value": "0.0001", "expected": "0.0008"}},
    }
    with asking(reply(status, body), reply(status, body)) as (client, _, _):
        with pytest.raises(AmountRefused) as rate:
            client.rate(replace(BTC_USDT, amount=Decimal("0.0001")))
        with pytest.raises(AmountRefused) as create:
            client.create_order(replace(CREATE, amount=Decimal("0.0001")))
    for refused in (rate.value, create.value):
        assert (refused.side, refused.bound, refused.code) == ("min", Decimal("0.0008"), "AMOUNT_BELOW_MINIMUM")


def test_c4_422_can_also_mean_an_unsupported_pair() -> None:
    with asking(reply(422, {"message": "pair not supported"})) as (client, _, _), pytest.raises(PairRefused):
        client.rate(replace(BTC_USDT, amount=Decimal(1)))


def test_c5_timestamps_are_sent_in_milliseconds() -> None:
    with asking(reply(200, [])) as (client, server, _):
        client.orders()
        assert server.last.headers["x-api-timestamp"] == str(int(NOW * 1000))


@pytest.mark.parametrize(
    "told", [1760000000000, "1760000000000", "2025-10-09T08:53:20.000Z", "2025-10-09T10:53:20+02:00"]
)
def test_c6_rate_times_are_read_from_both_forms_and_sent_back_as_iso(told: object) -> None:
    rate = decode.read_rate({**RATE, "updatedAt": told}, with_amount=True)
    assert rate.updated_at == datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC)
    assert rate.claimed()["updatedAt"] == "2025-10-09T08:53:20.000Z"


@pytest.mark.parametrize(
    ("told", "number", "primary"),
    [
        (90210, "90210", "90210"),
        ("90210", "90210", "90210"),
        ("5f0c8c6e-7d0e-4b61-93a4-0a0b0c0d0e0f", None, "5f0c8c6e-7d0e-4b61-93a4-0a0b0c0d0e0f"),
        (2**70, str(2**70), str(2**70)),
    ],
)
def test_c7_order_ids_are_text_whatever_they_came_as(told: object, number: str | None, primary: str) -> None:
    order = decode.read_order({**ORDER, "orderId": told})
    assert (order.order_id, order.primary_ref, order.refs[0]) == (number, primary, primary)


def test_c8_memos_are_text_both_ways() -> None:
    with asking(reply(201, {**ORDER, "destinationAddressMemo": 12345})) as (client, server, _):
        assert client.create_order(CREATE).destination_memo == "12345"
        assert server.last.json["destinationAddressMemo"] == "0012345"


@pytest.mark.parametrize("name", ["currencyFriendlyTitle", "okexCurrencyFriendlyTitle"])
def test_c9_the_friendly_title_is_read_from_either_name(name: str) -> None:
    row = {"currencyTitle": "ADA", "networkTitle": "ADA", name: "Cardano", "fullName": "Cardano (native)"}
    (instrument,) = decode.read_instruments([row])
    assert instrument.name == "Cardano"


def test_c10_a_look_sends_both_parameters_unsigned() -> None:
    with asking(reply(200, ORDER)) as (client, server, _):
        client.order("90210", "rExampleDestination")
        assert server.last.path == "/api/v2/orders/public-info"
        assert server.last.query == {"orderId": "90210", "destinationAddress": "rExampleDestination"}
        assert not server.last.signed


def test_c10_an_order_that_is_not_found_is_asked_for_in_one_form() -> None:
    with asking(reply(404)) as (client, server, _):
        with pytest.raises(UpstreamNotFound):
            client.order("90210", "rExampleDestination")
        assert len(server.seen) == 1


def events_of(*kinds: str) -> dict[str, Any]:
    events = [{"kind": kind, "createdAt": f"2025-10-09T09:0{minute}:00.000Z"} for minute, kind in enumerate(kinds)]
    return {**ORDER, "orderEvents": events}


def test_c11_deposit_registered_is_handed_on_as_told() -> None:
    facts = decode.read_order(events_of("CREATION_END", "DEPOSIT_REGISTERED")).facts
    assert {event.kind for event in facts.events} == {"CREATION_END", "DEPOSIT_REGISTERED"}


def test_c12_an_aml_freeze_is_a_fact_and_neither_an_error_nor_a_failure() -> None:
    facts = decode.read_order(events_of("DEPOSIT_REGISTERED", "AMLBOT_AML_FROZEN_BY_LIQUIDITY_PROVIDER")).facts
    assert "AMLBOT_AML_FROZEN_BY_LIQUIDITY_PROVIDER" in {event.kind for event in facts.events}
    assert not facts.failed_to_create


def test_c13_no_request_that_is_signed_has_a_query() -> None:
    steps = (
        *(reply(200, [INSTRUMENT]), reply(200, [PAIR]), reply(200, RATE), reply(200, True)),
        *(reply(200, ORDER), reply(200, [LISTED]), reply(201, ORDER)),
    )
    with asking(*steps) as (client, server, _):
        client.instruments()
        client.pairs()
        client.rate(BTC_USDT)
        client.validate_address("BTC", "BTC", "bc1q")
        client.order("90210", "rExampleDestination")
        client.orders()
        client.create_order(CREATE)
    signed = [seen for seen in server.seen if seen.signed]
    assert [seen.path.rpartition("/")[2] for seen in signed] == ["validate-address", "public", "create"]
    for seen in signed:
        assert seen.raw_query == ""
        assert verifies(seen, seen.body)


def test_c14_a_deposit_address_is_a_string_or_an_object() -> None:
    plain_text = decode.read_order({**ORDER, "depositAddress": "bc1qplain", "depositAddressMemo": "77"})
    assert (plain_text.deposit_address, plain_text.deposit_memo, plain_text.complete) == ("bc1qplain", "77", True)
    nested = decode.read_order(ORDER)
    assert (nested.deposit_address, nested.deposit_memo, nested.complete) == ("bc1qexampledeposit", None, True)


@pytest.mark.parametrize("rules", [None, {}, {"minAmount": "0.0009", "maxAmount": "0"}, "none"])
def test_c15_deposit_rules_may_be_null_and_the_general_limits_win(rules: object) -> None:
    rate = decode.read_rate({**RATE, "depositRules": rules}, with_amount=True)
    assert (rate.min_amount, rate.max_amount) == (Decimal("0.0008"), Decimal("2.5"))


def test_c15_deposit_rules_serve_where_there_are_no_general_limits() -> None:
    body = {key: value for key, value in RATE.items() if not key.startswith("general")}
    rate = decode.read_rate(body, with_amount=True)
    assert (rate.min_amount, rate.max_amount) == (Decimal("0.0009"), None)


@pytest.mark.parametrize(
    ("body", "bound"),
    [
        ({"data": {"details": {"expected": "2", "expectedGeneral": "1"}}}, "1"),
        ({"data": {"details": {"expected": 2}}}, "2"),
        ({"data": {"details": {"expected": 2.5, "expectedGeneral": None}}}, "2.5"),
        ({"details": {"expectedGeneral": "3"}}, "3"),
        ({"data": {"expected": "4"}}, "4"),
        ({"expected": "5"}, "5"),
        ({"message": "Amount Too Small, expected: 0.0008"}, "0.0008"),
    ],
)
def test_c16_the_general_bound_is_preferred_and_looked_for_everywhere(body: dict[str, Any], bound: str) -> None:
    with asking(reply(422, {"message": "Amount Too Small", **body})) as (client, _, _):
        with pytest.raises(AmountRefused) as refused:
            client.rate(replace(BTC_USDT, amount=Decimal("0.0001")))
        assert refused.value.bound == Decimal(bound)


@pytest.mark.parametrize("spelled", ["fixed", "FIXED", "Fixed"])
def test_c17_the_mode_is_sent_in_upper_case_and_compared_without_case(spelled: str) -> None:
    with asking(reply(200, {**RATE, "rateMode": spelled})) as (client, server, _):
        assert client.rate(replace(BTC_USDT, amount=Decimal("0.0125"), mode="FIXED")).rate_mode == "FIXED"
        assert server.last.query["rateMode"] == "FIXED"


def test_c18_titles_travel_as_given_and_are_never_derived() -> None:
    told = {name: value for name, value in RATE.items() if not name.startswith(("instrument", "amountToGive"))}
    with asking(reply(200, told)) as (client, server, _):
        client.rate(RateRequest("XRP", "Ripple", "DOT", "Asset Hub(Polkadot)"))
        assert server.last.query["instrumentFromNetworkTitle"] == "Ripple"
        assert server.last.query["instrumentToNetworkTitle"] == "Asset Hub(Polkadot)"
        assert "+" not in server.last.raw_query


def test_c19_the_currency_of_the_amount_is_always_sent() -> None:
    with asking(reply(200, RATE), reply(200, RATE)) as (client, server, _):
        client.rate(replace(BTC_USDT, amount=Decimal("0.0125"), markup=Decimal("0.3"), referrer_id="aff_1"))
        client.rate(BTC_USDT)
    assert server.seen[0].query == {
        "instrumentFromCurrencyTitle": "BTC",
        "instrumentFromNetworkTitle": "BTC",
        "instrumentToCurrencyTitle": "USDT",
        "instrumentToNetworkTitle": "TRC20",
        "claimedDepositAmountCurrency": "BTC",
        "claimedDepositAmount": "0.0125",
        "rateMode": "FLOATING",
        "markup": "0.3",
        "referrerId": "aff_1",
        "exchangeType": "crypto",
    }
    assert server.seen[1].query["claimedDepositAmountCurrency"] == "BTC"
    assert "claimedDepositAmount" not in server.seen[1].query


def test_c20_all_withdrawals_are_kept() -> None:
    withdrawals = [
        {"createdAt": "2025-10-09T09:20:00.000Z", "amount": "261.9", "txId": "second"},
        {"createdAt": "2025-10-09T09:10:00.000Z", "amount": "1", "txId": "first"},
        {"createdAt": "2025-10-09T09:30:00.000Z", "amount": "2", "txId": ""},
    ]
    facts = decode.read_order({**ORDER, "withdrawals": withdrawals}).facts
    assert {transfer.tx_id for transfer in facts.transfers} == {"first", "second", None}


@pytest.mark.parametrize("legacy", [12, "QX-0001234", "8d0f4a52-1111-4c3e-9a55-0123456789ab"])
def test_c21_a_legacy_id_is_opaque_text_and_never_the_number(legacy: object) -> None:
    order = decode.read_order({"legacyOrderId": legacy, "depositAddress": "bc1q"})
    assert (order.order_id, order.refs, order.primary_ref) == (None, (str(legacy),), str(legacy))


@pytest.mark.parametrize(
    "body",
    [
        {"status": "ERR_X", "message": "Amount Too Big"},
        {"error": {"code": "ERR_X", "message": "Amount Too Big"}},
        {"error": "Amount Too Big"},
        {"message": ["Amount Too Big"]},
    ],
)
def test_c22_both_error_bodies_are_read(body: dict[str, Any]) -> None:
    with asking(reply(422, body)) as (client, _, _):
        with pytest.raises(AmountRefused) as refused:
            client.rate(replace(BTC_USDT, amount=Decimal(9)))
        assert refused.value.side == "max"


def test_c23_403_means_auth_only_when_the_text_says_so() -> None:
    page = reply(403, "<html>bad signature of an attack</html>")
    steps = (reply(401, {}), reply(403, {"message": "signature rejected"}), reply(403, {"message": "forbidden"}), page)
    with asking(*steps) as (client, _, _):
        for expected in (AuthFailed, AuthFailed, Blocked, Blocked):
            with pytest.raises(expected):
                client.orders()


# --- traps -----------------------------------------------------------------------------------------------------------


def test_t1_every_call_names_its_agent() -> None:
    with asking(reply(200, [INSTRUMENT]), reply(201, ORDER)) as (client, server, _):
        client.instruments()
        client.create_order(CREATE)
        for seen in server.seen:
            assert seen.headers["user-agent"].startswith("Mozilla/5.0")
            assert seen.headers["accept"] == "application/json"


def test_t4_every_id_form_is_kept_once_in_order() -> None:
    body = {
        **ORDER,
        "orderId": "5f0c8c6e-uuid",
        "uuid": "5f0c8c6e-uuid",
        "id": "opaque",
        "reference": "ref-1",
        "depositAddress": {"orderId": 90210, "depositAddress": "bc1q"},
    }
    order = decode.read_order(body)
    assert order.refs == ("5f0c8c6e-uuid", ORDER["legacyOrderId"], "opaque", "ref-1", "90210")
    assert (order.order_id, order.primary_ref) == ("90210", "90210")


def test_t4_a_number_beside_an_order_id_of_another_form_is_not_the_one_to_ask_with() -> None:
    uuid = "5f0c8c6e-7d0e-4b61-93a4-0a0b0c0d0e0f"
    order = decode.read_order({**ORDER, "orderId": uuid, "id": 1})
    assert (order.order_id, order.primary_ref) == (None, uuid)
    assert "1" in order.refs
    assert decode.read_order({**ORDER, "orderId": None, "id": 90210}).primary_ref == "90210"
    (listed,) = decode.read_orders([{**LISTED, "orderId": uuid, "id": 1}])
    assert (listed.order_id, listed.refs) == (None, (uuid, "1"))


def test_t4_an_answer_about_another_order_is_not_taken() -> None:
    with asking(reply(200, ORDER), reply(200, ORDER), reply(200, ORDER)) as (client, _, _):
        with pytest.raises(Malformed, match="another order"):
            client.order("90211", "rExampleDestination")
        with pytest.raises(Malformed, match="another order"):
            client.order("5f0c8c6e-uuid", "rOther")
        assert client.order("5f0c8c6e-uuid", "rExampleDestination").order_id == "90210"


def test_t7_titles_keep_the_upstreams_spelling() -> None:
    rows = [
        {**INSTRUMENT, "currencyTitle": "AVAX", "networkTitle": "AVAX C-Chain"},
        {**INSTRUMENT, "currencyTitle": "avax", "networkTitle": "AVAX C-CHAIN"},
        {**INSTRUMENT, "currencyTitle": "DOT", "networkTitle": "Asset Hub(Polkadot)"},
    ]
    found = decode.read_instruments(rows)
    assert [(each.currency, each.network) for each in found] == [
        ("AVAX", "AVAX C-Chain"),
        ("DOT", "Asset Hub(Polkadot)"),
    ]


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("0.0125", "0.0125"),
        (12, "12"),
        (Decimal("12.50"), "12.50"),
        ("1e-7", "1E-7"),
        ("-1", None),
        ("0", None),
        (0, None),
        ("", None),
        ("NaN", None),
        ("Infinity", None),
        ("1e999999", None),
        (True, None),
        (None, None),
        ("12,5", None),
        ({}, None),
    ],
)
def test_t9_amounts_are_read_from_text_or_number_and_only_when_positive(told: object, read: str | None) -> None:
    order = decode.read_order({**ORDER, "amountToGet": told})
    assert order.amount_to_get == (None if read is None else Decimal(read))


def test_t9_amounts_are_sent_in_plain_notation() -> None:
    request = CreateRequest("BTC", "BTC", "XRP", "XRP", Decimal("1E-7"), "r", network_fee=Decimal("0E-8"))
    assert request.body()["claimedDepositAmount"] == "0.0000001"
    assert request.body()["claimedNetworkFee"] == "0"


def test_t10_a_markup_without_a_referrer_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="referrer"):
        CreateRequest("BTC", "BTC", "XRP", "XRP", Decimal(1), "r", markup=Decimal(0))


MALFORMED: list[tuple[str, Any]] = [
    ("nothing", reply(200)),
    ("no content", reply(204)),
    ("truncated JSON", reply(200, b'[{"orderId":1,"x')),
    ("NaN", reply(200, b'[{"orderId":1,"amountToGet":NaN}]')),
    ("HTML", reply(200, "<html>welcome</html>")),
    ("the wrong shape", reply(200, {"hello": "world"})),
    ("a redirect", reply(302, None, Location="/elsewhere")),
    ("deep nesting", reply(200, b"[" * 200_000)),
    ("no UTF-8", reply(200, b'["\xff"]')),
]


@pytest.mark.parametrize(("name", "step"), MALFORMED)
def test_t11_a_malformed_success_is_malformed_on_every_read(name: str, step: Any) -> None:
    with asking(*[step] * 6) as (client, server, world):
        for ask in (
            client.instruments,
            client.orders,
            client.pairs,
            lambda: client.rate(replace(BTC_USDT, amount=Decimal(1))),
            lambda: client.order("1", "r"),
            lambda: client.validate_address("BTC", "BTC", "bc1q"),
        ):
            with pytest.raises(Malformed):
                ask()
        assert len(server.seen) == 6, "a malformed answer is not asked for again"
        assert {call.outcome for call in world.calls} == {"UPSTREAM_MALFORMED"}


@pytest.mark.parametrize(
    "step",
    [
        *[step for _, step in MALFORMED],
        reply(201, {**ORDER, "depositAddress": None}),
        reply(201, {"depositAddress": "bc1qexampledeposit", "destinationAddress": "r"}),
        reply(201, True),
    ],
)
def test_t11_a_malformed_success_leaves_a_create_unknown(step: Any) -> None:
    with asking(step) as (client, _, _), pytest.raises(OutcomeUnknown):
        client.create_order(CREATE)


def test_t11_an_empty_catalog_and_rows_without_ids_are_malformed() -> None:
    with asking(reply(200, []), reply(200, []), reply(200, [LISTED, {"state": "created"}])) as (client, _, _):
        for ask in (client.instruments, client.pairs, client.orders):
            with pytest.raises(Malformed):
                ask()


def test_t12_a_rate_in_another_mode_is_refused_before_anyone_uses_it() -> None:
    with asking(reply(200, RATE)) as (client, _, _), pytest.raises(RateModeRefused):
        client.rate(replace(BTC_USDT, amount=Decimal("0.0125"), mode="FIXED"))
    without = decode.read_rate({**RATE, "rateMode": None}, with_amount=True)
    assert without.require_mode("FLOATING") is without
    with pytest.raises(RateModeRefused):
        without.require_mode("FIXED")


@pytest.mark.parametrize("status", [200, 201])
def test_t14_200_and_201_are_both_success_on_every_post(status: int) -> None:
    steps = (reply(status, True), reply(status, ORDER))
    with asking(*steps) as (client, _, _):
        assert client.validate_address("BTC", "BTC", "bc1q").valid
        assert client.create_order(CREATE).complete
