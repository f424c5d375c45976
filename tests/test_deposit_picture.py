"""GET /v1/orders/{id}/deposit.svg: where to pay, as a picture."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import Any

import segno

from swap.web.deposit_svg import deposit_svg
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS, Clock, look, new_shop
from tests.faults import Faults, dropping, spoiling
from tests.signed_client import ETH, ETH_ADDRESS, EUR, USDT, XRP, Answer, Calls

TRON = "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"


def picture(calls: Calls, order: dict[str, Any]) -> Answer:
    return calls.get(f"/v1/orders/{order['id']}/deposit.svg")


def code_of(svg: str) -> str:
    """The drawing of the code alone."""
    found = re.search(r' d="([^"]+)"', svg)
    assert found is not None
    return found[1]


def drawn(text: str) -> str:
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(out, kind="svg")
    return code_of(out.getvalue().decode())


def words(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_code_holds_the_uri_and_the_words_say_the_rest(calls: Calls) -> None:
    order = calls.order().data
    deposit = order["deposit"]
    assert deposit["uri"] == f"bitcoin:{deposit['address']}?amount=0.0125"
    answer = picture(calls, order)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/svg+xml")
    assert code_of(answer.text) == drawn(deposit["uri"]) != drawn(deposit["address"])
    said = words(answer.text)
    assert "0.0125 BTC on BTC" in said
    assert deposit["address"] in "".join(said)
    assert not [row for row in said if "without it" in row]


def test_a_memo_is_in_the_code_where_the_scheme_has_a_word_for_it_and_in_the_words_always(calls: Calls) -> None:
    to_eth = {"to": ETH, "destination_address": ETH_ADDRESS, "destination_memo": ..., "refund_address": ...}
    order = calls.order(**{"from": XRP}, amount="100", **to_eth).data
    deposit = order["deposit"]
    assert deposit["uri"] == f"xrpl://{deposit['address']}?amount=100&dt={deposit['memo']}"
    svg = picture(calls, order).text
    assert code_of(svg) == drawn(deposit["uri"])
    said = words(svg)
    assert said[said.index(deposit["memo"]) - 1] == "Destination tag (without it the payment is lost)"
    ton = {"currency": "TON", "network": "TON"}
    order = calls.order(**{"from": ton}, client_order_id="ton", amount="100", **to_eth).data
    deposit = order["deposit"]
    assert (deposit["uri"], deposit["memo"] is None) == (None, False)
    svg = picture(calls, order).text
    assert code_of(svg) == drawn(deposit["address"])
    assert deposit["memo"] in "".join(words(svg))


def test_a_token_has_its_bare_address_in_the_code(calls: Calls) -> None:
    order = calls.order(**{"from": USDT}, amount="100", refund_address=TRON).data
    assert order["deposit"]["uri"] is None
    assert code_of(picture(calls, order).text) == drawn(order["deposit"]["address"])


def test_a_link_to_pay_at_can_be_scanned(calls: Calls) -> None:
    to_btc = {"to": {"currency": "BTC", "network": "BTC"}, "destination_address": BTC_ADDRESS, "destination_memo": ...}
    order = calls.order(**{"from": EUR}, amount="500", refund_address=..., **to_btc).data
    assert order["deposit"]["uri"] is None
    assert code_of(picture(calls, order).text) == drawn(order["deposit"]["address"])


def test_a_picture_is_kept_by_nobody_unasked_and_runs_nothing(calls: Calls) -> None:
    order = calls.order().data
    answer = picture(calls, order)
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    again = calls.get(f"/v1/orders/{order['id']}/deposit.svg", If_None_Match=answer.headers["ETag"])
    assert (again.status, again.text) == (304, "")


def test_what_must_not_be_paid_has_no_picture(service: Service, calls: Calls, faults: Faults, clock: Clock) -> None:
    faults["create"] = spoiling(lambda answer: answer["depositAddress"].update(depositAddress="bc1qnowhere"))
    held = calls.order(client_order_id="held").data
    answer = picture(calls, held)
    assert (answer.status, answer.error["code"]) == (409, "DEPOSIT_NOT_PAYABLE")
    assert answer.details == {"retry": "same_request", "payable_reason": "verifying"}
    assert held["deposit"] is None
    faults["create"] = dropping
    doubtful = picture(calls, calls.order(client_order_id="doubtful").data)
    assert (doubtful.status, doubtful.details["retry"]) == (409, "same_request")
    assert doubtful.details["payable_reason"] == "create_in_doubt"
    del faults["create"]
    paid = calls.order(client_order_id="paid").data
    clock.advance(600)
    look(service, paid["id"])
    late = calls.get(f"/v1/orders/{paid['id']}").data
    assert late["status"] != "awaiting_deposit" and late["deposit"]["uri"] is None
    assert picture(calls, paid).status == 409


def test_a_picture_is_for_the_orders_owner(service: Service, calls: Calls, api_url: str, clock: Clock) -> None:
    order = calls.order().data
    other = Calls(new_shop(service, api_url, clock, "other"), api_url, clock)
    for answer in (picture(other, order), picture(calls, {"id": "ord_of_nobody"})):
        assert (answer.status, answer.error["code"]) == (404, "ORDER_NOT_FOUND")
    narrow = Calls(new_shop(service, api_url, clock, "narrow", scopes=["catalog"]), api_url, clock)
    assert picture(narrow, order).status == 403


def test_whatever_a_memo_holds_the_picture_stays_one() -> None:
    deposit = {
        "kind": "address",
        "address": "x" * 500,
        "memo": "<script>alert(1)</script>&\x07\n" + "é" * 80,
        "amount": "1",
        "network": "A<B>",
        "uri": None,
    }
    order = {"id": "ord_1", "from": {"currency": "C&D", "network": "A<B>"}, "deposit": deposit}
    svg = deposit_svg(order).decode()
    said = words(svg)
    assert "1 C&D on A<B>" in said
    assert "<script>" in "".join(said) and "<script" not in svg
    assert max(map(len, said)) <= 40
    assert XRP_ADDRESS not in svg
    long = {**deposit, "kind": "payment_link", "address": "https://pay.example/" + "x" * 4000}
    assert "https://pay.example/" in "".join(words(deposit_svg({**order, "deposit": long}).decode()))
