"""Which answer belongs to which question: interim answers, answers nobody asked for, and answers that repeat another
question than the one that was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from swap.errors import AmountRefused, Malformed, OrderExpired, OutcomeUnknown, UpstreamNotFound
from swap.infra.webhook_http import post
from swap.upstream.replies import CreateRequest, RateRequest
from tests.scripted_upstream import ORDER, RATE, Step, World, asking, raw, reply, serving

pytestmark = pytest.mark.server

EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
CREATE = CreateRequest("BTC", "BTC", "XRP", "XRP", Decimal("0.0125"), "rExampleDestination")


def asked(amount: str = "0.0125") -> RateRequest:
    return RateRequest("BTC", "BTC", "USDT", "TRC20", Decimal(amount))


def rate(amount: str = "0.0125", **fields: Any) -> Step:
    return reply(200, {**RATE, "amountToGive": amount, **fields})


def after(interim: bytes, step: Step) -> Step:
    def answer(handler: Any) -> None:
        handler.wfile.write(interim)
        handler.wfile.flush()
        step(handler)

    return answer


def twice(step: Step, sent: threading.Event | None = None) -> Step:
    def answer(handler: Any) -> None:
        step(handler)
        step(handler)
        if sent is not None:
            sent.set()

    return answer


# --- interim answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interim", [EARLY_HINTS, b"HTTP/1.1 102 Processing\r\n\r\n", EARLY_HINTS * 3])
def test_an_interim_answer_is_not_the_answer(interim: bytes) -> None:
    with asking(after(interim, rate("0.01")), rate("0.02"), rate("0.03")) as (client, server, _):
        assert [client.rate(asked(amount)).amount_to_give for amount in ("0.01", "0.02", "0.03")] == [
            Decimal("0.01"),
            Decimal("0.02"),
            Decimal("0.03"),
        ]
        assert len({seen.connection for seen in server.seen}) == 1


def test_a_final_answer_that_comes_after_a_while_is_waited_for() -> None:
    hinted = threading.Event()

    def slowly(handler: Any) -> None:
        handler.wfile.write(EARLY_HINTS)
        handler.wfile.flush()
        hinted.wait(0.2)
        rate()(handler)

    with asking(slowly) as (client, _, _):
        assert client.rate(asked()).amount_to_give == Decimal("0.0125")


def test_a_create_behind_an_interim_answer_is_done() -> None:
    with asking(after(EARLY_HINTS, reply(201, ORDER))) as (client, _, _):
        assert client.create_order(CREATE).order_id == "90210"


@pytest.mark.parametrize("interim", [EARLY_HINTS * 40, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"])
def test_interim_answers_without_a_final_one_leave_a_create_unknown(interim: bytes) -> None:
    with asking(raw(interim)) as (client, _, _), pytest.raises(OutcomeUnknown):
        client.create_order(CREATE)


def test_a_webhook_behind_an_interim_answer_is_delivered() -> None:
    with serving(after(EARLY_HINTS, reply(204))) as server:
        sent = post(f"{server.url}/hook", b"{}", {}, limit=5.0, allow_private=True)
    assert (sent.status, sent.error) == (204, None)


# --- what nobody asked for -------------------------------------------------------------------------------------------


def test_a_connection_that_carried_an_answer_too_many_is_not_used_again() -> None:
    with asking(twice(rate("0.01")), rate("0.02")) as (client, server, _):
        client.rate(asked("0.01"))
        assert client.rate(asked("0.02")).amount_to_give == Decimal("0.02")
        assert len({seen.connection for seen in server.seen}) == 2


def test_a_connection_on_which_bytes_wait_is_not_used_again() -> None:
    late = threading.Event()

    def and_later_another(handler: Any) -> None:
        rate("0.01")(handler)
        handler.wfile.flush()
        answered.wait(5)
        rate("0.01")(handler)
        late.set()

    answered = threading.Event()
    with asking(and_later_another, rate("0.02")) as (client, server, _):
        client.rate(asked("0.01"))
        answered.set()
        assert late.wait(5)
        assert client.rate(asked("0.02")).amount_to_give == Decimal("0.02")
        assert len({seen.connection for seen in server.seen}) == 2


@pytest.mark.parametrize("status", [204, 404, 408, 422, 503])
def test_only_a_plain_success_keeps_its_connection(status: int) -> None:
    with asking(reply(status, {"message": "no"}), *[rate() for _ in range(3)]) as (client, server, _):
        for _ in range(3):
            try:
                client.rate(asked())
            except Exception as refused:
                assert status in (204, 404, 422), refused
        first, *others = [seen.connection for seen in server.seen]
        assert first not in others
        assert len(set(others)) == 1


def test_over_tls_an_answer_too_many_is_noticed_as_well(certificate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
    both = threading.Event()
    with serving(twice(rate("0.01"), both), rate("0.02"), rate("0.03"), tls=context) as server:
        client = World().client(server.url)
        amounts = []
        for amount in ("0.01", "0.02", "0.03"):
            amounts.append(str(client.rate(asked(amount)).amount_to_give))
            assert both.wait(5)
        client.close()
        connections = [seen.connection for seen in server.seen]
    assert amounts == ["0.01", "0.02", "0.03"]
    assert connections[0] != connections[1] == connections[2]


def test_an_address_is_never_judged_by_an_answer_that_was_there_before() -> None:
    with asking(*[reply(200, True) for _ in range(3)]) as (client, server, _):
        for address in ("good1", "bad1", "bad2"):
            client.validate_address("BTC", "BTC", address)
        assert len({seen.connection for seen in server.seen}) == 3


# --- what an answer repeats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        {"amountToGive": "0.01"},
        {"amountToGive": 0.01},
        {"amountToGive": None, "claimedDepositAmount": "0.01"},
        {"amountToGiveCurrencyTitle": "USDT"},
        {"instrumentFrom": {"currencyTitle": "LTC", "networkTitle": "LTC"}},
        {"instrumentTo": {"currencyTitle": "USDT", "networkTitle": "ERC20"}},
        {"instrumentTo": None, "instrumentToNetworkTitle": "ERC20"},
    ],
)
def test_a_rate_for_another_question_is_malformed(told: dict[str, Any]) -> None:
    with asking(reply(200, {**RATE, **told})) as (client, _, _), pytest.raises(Malformed, match="about"):
        client.rate(asked())


@pytest.mark.parametrize(
    "told",
    [
        {"amountToGive": "0.01250"},
        {"amountToGive": None, "amountToGiveCurrencyTitle": None},
        {"amountToGive": "-1"},
        {"amountToGiveCurrencyTitle": "btc"},
        {"instrumentFrom": None, "instrumentTo": None},
        {"instrumentFrom": {"currencyTitle": "btc", "networkTitle": "btc"}},
    ],
)
def test_a_rate_that_repeats_the_question_otherwise_spelled_or_not_at_all_is_good(told: dict[str, Any]) -> None:
    with asking(reply(200, {**RATE, **told})) as (client, _, _):
        assert client.rate(asked()).amount_to_get == Decimal("811.42")


def test_a_rate_without_an_amount_may_name_any() -> None:
    with asking(rate("1")) as (client, _, _):
        assert client.rate(replace(asked(), amount=None)).min_amount == Decimal("0.0008")


def refusal(value: str) -> dict[str, Any]:
    details = {"field": "claimedDepositAmount", "value": value, "expected": "0.0200"}
    return {
        "status": "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL",
        "message": "Amount Too Small",
        "data": {"details": details},
    }


def test_a_refusal_of_another_amount_refuses_nothing() -> None:
    with asking(reply(422, refusal("0.0001")), reply(422, refusal("0.0125"))) as (client, _, _):
        with pytest.raises(Malformed):
            client.rate(asked())
        with pytest.raises(AmountRefused):
            client.rate(asked())


def test_a_create_is_not_refused_by_the_refusal_of_another() -> None:
    with asking(reply(422, refusal("0.0001")), reply(422, refusal("0.0125"))) as (client, _, _):
        with pytest.raises(OutcomeUnknown):
            client.create_order(CREATE)
        with pytest.raises(AmountRefused):
            client.create_order(CREATE)


@pytest.mark.parametrize(
    ("asked_by", "named", "other"),
    [
        ("90210", {"orderId": 90210}, False),
        ("90210", {"orderId": 90211}, True),
        ("90210", {"data": {"orderId": "90211"}}, True),
        ("90210", {"legacyOrderId": "8d0f"}, False),
        ("8d0f", {"legacyOrderId": "8d0f", "orderId": 1}, False),
        ("8d0f", {"legacyOrderId": "8d10"}, True),
        ("8d0f", {"orderId": 1}, False),
        ("90210", {"destinationAddress": "rAnother"}, True),
        ("90210", {"id": "request-7"}, False),
    ],
)
@pytest.mark.parametrize(("status", "meaning"), [(410, OrderExpired), (404, UpstreamNotFound)])
def test_an_order_is_not_ended_by_an_answer_about_another(
    asked_by: str, named: dict[str, Any], other: bool, status: int, meaning: type[Exception]
) -> None:
    expected = Malformed if other else meaning
    with asking(reply(status, {"message": "no", **named})) as (client, _, _), pytest.raises(expected):
        client.order(asked_by, "rExampleDestination")


def test_a_verdict_on_another_address_is_none() -> None:
    told: Callable[[str], dict[str, Any]] = lambda address: {"valid": True, "address": address}  # noqa: E731
    with asking(reply(200, told("bad1")), reply(200, told("GOOD1"))) as (client, _, _):
        with pytest.raises(Malformed):
            client.validate_address("BTC", "BTC", "good1")
        assert client.validate_address("BTC", "BTC", "good1").valid


def test_after_an_answer_to_another_question_no_connection_is_used_again() -> None:
    with asking(rate("0.01"), rate("0.01"), rate("0.02")) as (client, server, _):
        client.rate(asked("0.01"))
        with pytest.raises(Malformed):
            client.rate(asked("0.02"))
        client.rate(asked("0.02"))
        first, second, third = [seen.connection for seen in server.seen]
        assert first == second != third
