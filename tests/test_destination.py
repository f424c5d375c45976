"""Our verdict on a destination, the upstream's, and what happens when they differ. Over HTTP, with the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import pytest
import structlog
from sqlalchemy import select

from swap.orders.destination import _MOST_PREVIEWS
from swap.sandbox.world import World
from swap.tables import Disagreement, Order
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS, Clock, Shop, look, new_shop
from tests.faults import HTML_403, Faults, Holding, answering, dropping
from tests.servers import served
from tests.signed_client import ETH_ADDRESS, EUR, XRP, Answer, Calls, body

X_ADDRESS = "X7gJ5YK8abHf2eTPWPFHAAot8Knck11QGqmQ7a6a3Z8PJvk"
X_ACCOUNT, X_TAG = "rhvh5SrgBL5V8oeV9EpDuVszeJSSCEkbPc", "1337"
LEGACY_LTC = "3CDJNfdWX8m2NwuGUV3nhXHXEeLygMXoAj"
WIF = "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617"
IBAN = "DE89370400440532013000"
YES, NO = answering(200, b"true"), answering(200, b"false")


def ask(calls: Calls, currency: str, network: str, address: str, **rest: object) -> dict[str, Any]:
    content = {"currency": currency, "network": network, "address": address, **rest}
    return calls.post("/v1/addresses/validate", content).data


def words(found: dict[str, Any]) -> tuple[str, str, str]:
    return found["status"], found["offline"]["status"], found["upstream"]["status"]


def counted(service: Service) -> dict[tuple[str, str, str, str], int]:
    with service.database.read() as session:
        return {(d.network, d.kind, d.field, d.reason): d.count for d in session.scalars(select(Disagreement))}


@pytest.fixture
def elsewhere(other_service: Callable[..., Service], shop: Shop, clock: Clock) -> Iterator[Calls]:
    """The same shop at another process, which remembers no answers of the upstream."""
    with served(other_service()) as url:
        yield Calls(shop, url, clock)


# --- both verdicts ---------------------------------------------------------------------------------------------------


def test_both_verdicts_are_told_with_their_time(calls: Calls, clock: Clock) -> None:
    found = ask(calls, "BTC", "BTC", BTC_ADDRESS)
    assert words(found) == ("valid", "valid", "valid")
    assert found["orderable"] is True
    assert found["offline"]["as_of"].endswith("Z") and found["upstream"]["as_of"].endswith("Z")
    assert found["send"] == {"address": BTC_ADDRESS, "memo": None}


def test_the_upstream_may_turn_valid_into_invalid_and_never_the_reverse(calls: Calls, faults: Faults) -> None:
    faults["validate"] = answering(200, {"valid": False, "message": "sanctioned"})
    found = ask(calls, "BTC", "BTC", BTC_ADDRESS)
    assert words(found) == ("invalid", "valid", "invalid")
    assert (found["field"], found["reason"], found["orderable"]) == ("address", "upstream_refused", False)
    assert "sanctioned" in found["message"] and found["upstream"]["reason"] == "sanctioned"
    faults["validate"] = YES
    found = ask(calls, "LTC", "LTC", LEGACY_LTC)
    assert words(found) == ("invalid", "invalid", "valid")
    assert (found["reason"], found["orderable"], found["validation_id"]) == ("legacy_form", False, None)


def test_a_memo_the_upstream_refuses_is_the_memos_problem(calls: Calls, faults: Faults) -> None:
    refusal = {"status": "ERR_HTTP", "message": "Http Exception", "data": {"memo": "not accepted"}}
    faults["validate"] = answering(400, refusal)
    found = ask(calls, "XRP", "XRP", XRP_ADDRESS, memo="7")
    assert (found["field"], found["memo"]["status"], found["orderable"]) == ("memo", "invalid", False)
    assert found["problems"]["memo"][0]["code"] == "MEMO_REFUSED"


@pytest.mark.parametrize("away", [answering(403, HTML_403), answering(503), answering(200, {"hello": 1})])
def test_where_the_upstream_cannot_be_asked_our_valid_is_enough_but_not_for_an_account(
    calls: Calls, faults: Faults, away: Any
) -> None:
    faults["validate"] = away
    coin = ask(calls, "BTC", "BTC", BTC_ADDRESS)
    assert (words(coin), coin["orderable"]) == (("valid", "valid", "unavailable"), True)
    assert (coin["upstream"]["as_of"], coin["validation_id"]) == (None, None)
    account = ask(calls, "EUR", "EUR", IBAN)
    assert (words(account), account["orderable"]) == (("unchecked", "valid", "unavailable"), False)
    unknown = ask(calls, "EUR", "EUR", "an account of some kind")
    assert (words(unknown), unknown["valid"]) == (("unchecked", "unchecked", "unavailable"), None)
    assert unknown["orderable"] is False and "needs its yes" in unknown["message"]


def test_the_upstreams_yes_is_enough_for_what_we_have_no_rule_for(calls: Calls, faults: Faults) -> None:
    faults["validate"] = YES
    found = ask(calls, "EUR", "EUR", "an account of some kind")
    assert (words(found), found["orderable"]) == (("valid", "unchecked", "valid"), True)
    assert found["validation_id"] is not None


@pytest.mark.parametrize("text", [WIF, "4111 1111 1111 1111", "", " " + BTC_ADDRESS, "a" * 64, "x" * 4000])
def test_what_may_be_a_secret_or_is_no_address_never_leaves_us(calls: Calls, faults: Faults, text: str) -> None:
    found = ask(calls, "BTC", "BTC", text)
    assert words(found) == ("invalid", "invalid", "not_asked")
    assert faults.seen["validate"] == 0


def test_a_mistyped_address_is_asked_about_and_a_mistyped_key_is_not(calls: Calls, faults: Faults) -> None:
    assert words(ask(calls, "XRP", "XRP", XRP_ADDRESS[:-1] + "x")) == ("invalid", "invalid", "invalid")
    asked = faults.seen["validate"]
    assert asked > 0
    for key in (WIF[:-1] + "8", "L" + WIF[1:], "sEdTM1uX8pu2do5XvTnutH6HsouMaM3"):
        ask(calls, "LTC", "LTC", key)
        ask(calls, "XRP", "XRP", key)
    assert faults.seen["validate"] == asked


# --- remembered ------------------------------------------------------------------------------------------------------


def test_a_clear_answer_is_remembered_for_five_minutes(calls: Calls, faults: Faults, clock: Clock) -> None:
    first = ask(calls, "BTC", "BTC", BTC_ADDRESS)
    clock.advance(290)
    again = ask(calls, "btc", "BTC", BTC_ADDRESS)
    assert (faults.seen["validate"], again["upstream"]["as_of"]) == (1, first["upstream"]["as_of"])
    clock.advance(20)
    assert ask(calls, "BTC", "BTC", BTC_ADDRESS)["upstream"]["as_of"] != first["upstream"]["as_of"]
    assert faults.seen["validate"] == 2


def test_another_memo_is_another_question(calls: Calls, faults: Faults) -> None:
    for memo in ("1", "2", "1"):
        ask(calls, "XRP", "XRP", XRP_ADDRESS, memo=memo)
    assert faults.seen["validate"] == 2


def test_no_answer_is_not_remembered(calls: Calls, faults: Faults) -> None:
    faults["validate"] = answering(200, {"hello": 1})
    assert words(ask(calls, "BTC", "BTC", BTC_ADDRESS))[2] == "unavailable"
    del faults["validate"]
    assert words(ask(calls, "BTC", "BTC", BTC_ADDRESS))[2] == "valid"


def test_an_order_uses_what_was_asked_a_moment_ago(calls: Calls, faults: Faults) -> None:
    ask(calls, "XRP", "XRP", XRP_ADDRESS, memo="1234567")
    assert calls.order(refund_address=...).status == 201
    assert faults.seen["validate"] == 1


# --- disagreement drill ----------------------------------------------------------------------------------------------


def test_drill_the_upstream_refuses_what_we_call_valid(service: Service, calls: Calls, faults: Faults) -> None:
    faults["validate"] = NO
    with structlog.testing.capture_logs() as logs:
        answer = calls.order(refund_address=...)
        assert calls.order(refund_address=...).status == 422
    assert (answer.status, answer.codes) == (422, {"destination_address": ["ADDRESS_REFUSED"]})
    assert counted(service) == {("XRP", "upstream_refused", "address", ""): 1}, "remembered, so counted once"
    (event,) = [line for line in logs if line["event"] == "gate.disagreement"]
    assert (event["network"], event["kind"], len(event["address_hash"])) == ("XRP", "upstream_refused", 16)
    assert XRP_ADDRESS not in str(logs)
    with service.database.read() as session:
        assert session.scalars(select(Order)).all() == []


def test_drill_the_upstream_accepts_what_we_call_invalid(service: Service, calls: Calls, faults: Faults) -> None:
    faults["validate"] = YES
    with structlog.testing.capture_logs() as logs:
        assert ask(calls, "LTC", "LTC", LEGACY_LTC)["status"] == "invalid"
        assert ask(calls, "XRP", "XRP", XRP_ADDRESS, memo="007")["status"] == "invalid"
    order = calls.order(to={"currency": "LTC", "network": "LTC"}, destination_address=LEGACY_LTC, destination_memo=...)
    assert (order.status, order.codes) == (422, {"destination_address": ["ADDRESS_INVALID"]})
    assert counted(service) == {
        ("LTC", "upstream_accepted", "address", "legacy_form"): 1,
        ("XRP", "upstream_accepted", "memo", "memo_leading_zero"): 1,
    }
    assert LEGACY_LTC not in str(logs)


def test_drill_the_create_refuses_what_both_called_valid(service: Service, calls: Calls, faults: Faults) -> None:
    refusal = {"status": "ERR_HTTP", "message": "Http Exception", "data": {"address": "not payable"}}
    faults["create"] = answering(400, refusal)
    for number in range(2):
        answer = calls.order(client_order_id=f"order-{number}")
        assert (answer.status, answer.codes) == (422, {"destination_address": ["ADDRESS_REFUSED"]})
        record = service.support.record(answer.details["order_id"])
        (journal,) = [e for e in record["events"] if e["type"] == "journal.gate_disagreement"]
        assert (journal["detail"]["kind"], journal["sequence"]) == ("create_refused", None)
        assert journal["detail"]["address_hash"] not in XRP_ADDRESS
    assert counted(service) == {("XRP", "create_refused", "address", ""): 2}


def test_agreement_is_no_disagreement(service: Service, calls: Calls) -> None:
    assert calls.order().status == 201
    ask(calls, "EUR", "EUR", "anything at all")
    ask(calls, "XRP", "XRP", XRP_ADDRESS[:-1] + "x")
    assert counted(service) == {}


# --- orders ----------------------------------------------------------------------------------------------------------


def test_an_orders_record_says_what_the_destination_check_knew(service: Service, calls: Calls, faults: Faults) -> None:
    first = calls.order(client_order_id="asked").data["id"]
    faults["validate"] = answering(403, HTML_403)
    second = calls.order(client_order_id="blocked", destination_memo="8").data["id"]
    seen = [service.support.record(i)["events"][0]["detail"]["gate"]["destination"] for i in (first, second)]
    assert [(s["offline"], s["upstream"]) for s in seen] == [("valid", "valid"), ("valid", "unavailable")]


def test_an_account_is_not_paid_to_while_the_upstream_cannot_be_asked(calls: Calls, faults: Faults) -> None:
    faults["validate"] = answering(403, HTML_403)
    answer = calls.order(to=EUR, destination_address=IBAN, destination_memo=...)
    assert (answer.status, answer.error["code"], answer.details["retry"]) == (
        503,
        "UPSTREAM_UNAVAILABLE",
        "same_request",
    )


def test_a_check_that_is_firewalled_stops_no_creates(service: Service, calls: Calls, faults: Faults) -> None:
    """Ten refusals in a row would open the breaker, were they counted with the rest."""
    faults["validate"] = answering(403, HTML_403)
    for number in range(10):
        ask(calls, "XRP", "XRP", XRP_ADDRESS, memo=str(number))
    assert service.upstream_access.state == "ok"
    assert calls.order().status == 201
    assert faults.seen["validate"] < 20, "its own breaker is open: nobody waits for it"


def test_a_hanging_check_costs_an_order_seconds_and_not_its_create(
    calls: Calls, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.orders.destination.CHECK_SECONDS", 0.3)
    holding = Holding(before=True)
    faults["validate"] = holding
    try:
        assert calls.order().status == 201
    finally:
        holding.let_go()


def away(service: Service) -> None:
    for _ in range(5):
        service.upstream_access._breaker.after("UPSTREAM_UNREACHABLE")
    assert service.upstream_access.state == "away"


def test_while_the_whole_upstream_is_away_no_order_is_begun(
    service: Service, calls: Calls, shop: Shop, faults: Faults
) -> None:
    quote = shop.api.quote(("BTC", "BTC"), ("XRP", "XRP"), "0.0125")
    faults["validate"] = answering(503)
    away(service)
    answer = calls.order(quote_id=quote["quote_id"])
    assert (answer.status, answer.error["code"], answer.details["retry"]) == (
        503,
        "UPSTREAM_UNAVAILABLE",
        "same_request",
    )
    assert words(ask(calls, "BTC", "BTC", BTC_ADDRESS))[2] == "unavailable"
    with service.database.read() as session:
        assert session.scalars(select(Order)).all() == []
    assert faults.seen["create"] == 0


def test_the_check_of_an_order_finds_out_that_the_upstream_is_back(service: Service, calls: Calls, shop: Shop) -> None:
    """A preview does not: it leaves the probe to those who have something to do."""
    quote = shop.api.quote(("BTC", "BTC"), ("XRP", "XRP"), "0.0125")
    away(service)
    service.upstream_access._breaker._opens_at = 0.0  # the pause is over
    assert words(ask(calls, "BTC", "BTC", BTC_ADDRESS))[2] == "unavailable"
    before = service.upstream_access.state
    assert calls.order(quote_id=quote["quote_id"]).status == 201
    assert (before, service.upstream_access.state) == ("away", "ok")


# --- frontends -------------------------------------------------------------------------------------------------------


def test_no_room_means_unavailable_and_not_waiting(service: Service, calls: Calls, faults: Faults) -> None:
    room = service.destinations._room
    with ExitStack() as others:
        for number in range(_MOST_PREVIEWS):
            others.enter_context(room.place(f"other {number}", 0))
        found = ask(calls, "BTC", "BTC", BTC_ADDRESS)
    assert (words(found), faults.seen["validate"]) == (("valid", "valid", "unavailable"), 0)


def test_beyond_their_share_previews_are_answered_at_once_without_the_upstream(
    other_service: Callable[..., Service], shop: Shop, clock: Clock, faults: Faults
) -> None:
    small = other_service(upstream_rps=Decimal("0.5"))
    with served(small) as url:
        calls = Calls(shop, url, clock)
        found = [ask(calls, "XRP", "XRP", XRP_ADDRESS, memo=str(number))["upstream"]["status"] for number in range(6)]
    assert found.count("unavailable") >= 4
    assert faults.seen["validate"] <= 2


# --- validation ids --------------------------------------------------------------------------------------------------


def validated(calls: Calls, *destination: str, **rest: Any) -> str:
    found = ask(calls, *destination, **rest)
    assert found["validation_id"] is not None, found
    return str(found["validation_id"])


def test_a_validation_id_spares_the_second_question(calls: Calls, elsewhere: Calls, faults: Faults) -> None:
    destination = validated(calls, "XRP", "XRP", XRP_ADDRESS, memo="1234567")
    refund = validated(calls, "BTC", "BTC", BTC_ADDRESS)
    assert faults.seen["validate"] == 2
    ids = {"destination_validation_id": destination, "refund_validation_id": refund}
    assert elsewhere.order(**ids).status == 201
    assert faults.seen["validate"] == 2
    assert elsewhere.order(**ids).status == 200
    assert elsewhere.order().status == 200, "an id is no part of what was ordered"
    assert elsewhere.order(client_order_id="order-2").status == 201
    assert faults.seen["validate"] == 4


def test_an_x_address_and_its_parts_are_one_validation(calls: Calls, elsewhere: Calls, faults: Faults) -> None:
    packed = validated(calls, "XRP", "XRP", X_ADDRESS)
    answer = elsewhere.order(
        destination_address=X_ACCOUNT, destination_memo=X_TAG, refund_address=..., destination_validation_id=packed
    )
    assert (answer.status, faults.seen["validate"]) == (201, 1)


def test_a_validation_id_is_good_for_one_destination_of_one_client(
    service: Service, calls: Calls, shop: Shop, api_url: str, clock: Clock, subtests: pytest.Subtests
) -> None:
    name = "destination_validation_id"
    good = validated(calls, "XRP", "XRP", XRP_ADDRESS, memo="1234567")
    tampered = good[:9] + ("A" if good[9] != "A" else "B") + good[10:]
    stranger = Calls(new_shop(service, api_url, clock, "stranger"), api_url, clock)
    to_eth = {
        "to": {"currency": "ETH", "network": "ERC20"},
        "destination_address": ETH_ADDRESS,
        "destination_memo": ...,
    }
    wrong: list[tuple[str, Answer, str]] = [
        ("another memo", calls.order(destination_memo="7", **{name: good}), "VALIDATION_MISMATCH"),
        ("another address", calls.order(destination_address=X_ACCOUNT, **{name: good}), "VALIDATION_MISMATCH"),
        ("another network", calls.order(**to_eth, **{name: good}), "VALIDATION_MISMATCH"),
        ("another client", stranger.order(**{name: good}), "VALIDATION_MISMATCH"),
        ("a made up one", calls.order(**{name: "abc"}), "VALIDATION_INVALID"),
        (
            "a tampered one",
            calls.order(**{name: tampered}),
            "VALIDATION_INVALID",
        ),
    ]
    for what, answer, code in wrong:
        with subtests.test(what):
            assert (answer.status, answer.codes) == (422, {name: [code]})
    clock.advance(601)
    assert service.catalog.refresh()
    assert calls.order(**{name: good}).codes == {name: ["VALIDATION_EXPIRED"]}
    assert calls.order().status == 201


def test_a_validation_id_without_its_address_is_a_mistake(calls: Calls) -> None:
    good = validated(calls, "BTC", "BTC", BTC_ADDRESS)
    answer = calls.order(refund_address=..., refund_validation_id=good)
    assert (answer.status, answer.codes) == (422, {"refund_validation_id": ["VALIDATION_MISMATCH"]})


def test_a_validation_id_excuses_nothing_else(calls: Calls) -> None:
    """Valid, and validated, without the tag that an order needs."""
    bare = validated(calls, "XRP", "XRP", XRP_ADDRESS)
    answer = calls.order(destination_memo=..., destination_validation_id=bare)
    assert (answer.status, answer.codes) == (422, {"destination_memo": ["MEMO_REQUIRED"]})
    waived = calls.order(destination_memo=..., destination_memo_none=True, destination_validation_id=bare)
    assert waived.status == 201


# --- packed addresses ------------------------------------------------------------------------------------------------


def test_an_x_address_is_sent_as_its_parts_and_both_forms_are_shown(calls: Calls, world: World, faults: Faults) -> None:
    answer = calls.order(destination_address=X_ADDRESS, destination_memo=...)
    assert answer.status == 201
    assert answer.data["destination"] == {"address": X_ACCOUNT, "memo": X_TAG, "given": X_ADDRESS}
    assert answer.data["refund"] == {"address": BTC_ADDRESS, "memo": None}
    assert (world.orders()[0].destination, world.orders()[0].destination_memo) == (X_ACCOUNT, X_TAG)
    assert (faults.sent[0]["destinationAddress"], faults.sent[0]["destinationAddressMemo"]) == (X_ACCOUNT, X_TAG)


def test_the_same_x_address_again_is_the_same_order(calls: Calls, world: World) -> None:
    first = calls.order(destination_address=X_ADDRESS, destination_memo=...)
    again = calls.order(destination_address=X_ADDRESS, destination_memo=...)
    assert (again.status, again.data) == (200, first.data)
    parts = calls.order(destination_address=X_ACCOUNT, destination_memo=X_TAG)
    assert (parts.status, parts.details["different"]) == (409, ["destination_address", "destination_memo"])
    assert len(world.orders()) == 1


def test_orders_are_found_by_either_form(calls: Calls) -> None:
    order = calls.order(destination_address=X_ADDRESS, destination_memo=...).data
    calls.order(client_order_id="another tag", destination_address=X_ACCOUNT, destination_memo="5")
    assert [o["id"] for o in calls.get(f"/v1/orders?destination_address={X_ADDRESS}").data["orders"]] == [order["id"]]
    assert len(calls.get(f"/v1/orders?destination_address={X_ACCOUNT}").data["orders"]) == 2


def test_an_m_address_is_sent_as_its_parts_also_for_a_refund(calls: Calls, world: World) -> None:
    account = "GAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPSABOV"
    packed = "MAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPSAAAAAEPXD6YEZO4WE"
    stellar = {"currency": "XLM", "network": "XLM"}
    order = calls.order(to=stellar, destination_address=packed, destination_memo=...)
    assert order.data["destination"] == {"address": account, "memo": "1234567890123", "given": packed}
    refunded = calls.order(
        **{"client_order_id": "refund", "from": stellar, "to": body()["from"]},
        amount="1000",
        destination_address=BTC_ADDRESS,
        destination_memo=...,
        refund_address=packed,
    )
    assert refunded.data["refund"] == {"address": account, "memo": "1234567890123", "given": packed}
    assert [o.refund_memo for o in world.orders()] == [None, "1234567890123"]


def test_a_packed_order_in_doubt_is_found_again(
    service: Service, calls: Calls, world: World, faults: Faults, clock: Clock
) -> None:
    """The create arrives, its answer does not; list and public-info know only the classic form."""
    faults["create"] = dropping
    answer = calls.order(destination_address=X_ADDRESS, destination_memo=...)
    assert answer.status == 202
    del faults["create"]
    order_id = answer.data["id"]
    for _ in range(6):
        clock.advance(20)
        look(service, order_id)
    found = calls.get(f"/v1/orders/{order_id}").data
    assert found["upstream_order_id"] == str(world.orders()[0].number)
    assert found["destination"]["given"] == X_ADDRESS
    assert len(world.orders()) == 1


def test_a_refund_memo_can_be_waived(calls: Calls, world: World) -> None:
    route: dict[str, Any] = {"from": XRP, "to": {"currency": "ETH", "network": "ERC20"}, "amount": "100"}
    route |= {"destination_address": ETH_ADDRESS, "destination_memo": ..., "refund_address": XRP_ADDRESS}
    assert calls.order(**route).codes == {"refund_memo": ["MEMO_REQUIRED"]}
    answer = calls.order(**route, refund_memo_none=True)
    assert (answer.status, answer.data["refund"]) == (201, {"address": XRP_ADDRESS, "memo": None})
    assert world.orders()[0].refund_memo is None
    assert calls.order(**route, refund_memo_none=True).status == 200
