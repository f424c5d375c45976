"""POST /v1/addresses/validate: the offline verdict, as the API tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swap.wiring import Service
from tests.calls import Calls
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS, Clock, Shop, new_shop, serve

X_ADDRESS = "X7gJ5YK8abHf2eTPWPFHAAot8Knck11QGqmQ7a6a3Z8PJvk"


@pytest.fixture
def calls(shop: Shop, api_url: str, clock: Clock) -> Calls:
    return Calls(shop, api_url, clock)


def ask(calls: Calls, currency: str, network: str, address: object, **rest: object) -> dict[str, Any]:
    content = {"currency": currency, "network": network, "address": address, **rest}
    return calls.post("/v1/addresses/validate", content).data


def test_a_good_address_is_valid_and_its_memo_explained(calls: Calls) -> None:
    found = ask(calls, "xrp", "XRP", XRP_ADDRESS, memo="7")
    assert (found["status"], found["valid"], found["normalised"]) == ("valid", True, XRP_ADDRESS)
    assert found["memo"] == {
        "name": "destination tag",
        "required": True,
        "allowed": True,
        "format": "A whole number from 0 to 4294967295, digits only, no leading zero.",
    }


def test_a_bad_one_is_told_its_field_and_reason(calls: Calls) -> None:
    found = ask(calls, "XRP", "XRP", BTC_ADDRESS)
    assert (found["status"], found["valid"], found["field"]) == ("invalid", False, "address")
    assert found["reason"] and found["message"]
    assert ask(calls, "XRP", "XRP", XRP_ADDRESS, memo="x")["field"] == "memo"
    assert ask(calls, "BTC", "BTC", BTC_ADDRESS, memo="x")["field"] == "memo"
    assert ask(calls, "BTC", "BTC", "")["reason"] == "empty"


def test_a_tag_inside_the_address_needs_no_other(calls: Calls) -> None:
    found = ask(calls, "XRP", "XRP", X_ADDRESS)
    assert (found["embedded_memo"], found["memo"]["required"]) == ("1337", False)


def test_a_network_without_a_rule_is_unchecked(calls: Calls) -> None:
    found = ask(calls, "EUR", "EUR", "anything at all")
    assert (found["status"], found["valid"]) == ("unchecked", None)


def test_what_is_no_request_is_refused_with_every_problem(calls: Calls) -> None:
    answer = calls.post("/v1/addresses/validate", {"currency": "BTC", "address": 5, "extra": 1})
    assert answer.status == 422
    assert answer.codes == {"network": ["REQUIRED"], "address": ["INVALID"], "extra": ["UNKNOWN_FIELD"]}
    answer = calls.post("/v1/addresses/validate", {"currency": "BTC", "network": "Mars", "address": "x"})
    assert (answer.status, answer.codes) == (422, {"network": ["INSTRUMENT_UNKNOWN"]})


def test_nothing_is_unknown_before_the_catalog_is_there(clock: Clock, other_service: Callable[..., Service]) -> None:
    empty = other_service()
    url, stop = serve(empty)
    try:
        calls = Calls(new_shop(empty, url, clock, "early"), url, clock)
        answer = calls.post("/v1/addresses/validate", {"currency": "BTC", "network": "BTC", "address": BTC_ADDRESS})
    finally:
        stop()
    assert (answer.status, answer.error["code"]) == (503, "CATALOG_NOT_READY")
