"""POST /v1/addresses/validate: the verdicts, as the API tells them. What happens between them is in test_gate.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS, Clock, new_shop
from tests.servers import served
from tests.signed_client import Calls

X_ADDRESS = "X7gJ5YK8abHf2eTPWPFHAAot8Knck11QGqmQ7a6a3Z8PJvk"


def ask(calls: Calls, currency: str, network: str, address: object, **rest: object) -> dict[str, Any]:
    content = {"currency": currency, "network": network, "address": address, **rest}
    return calls.post("/v1/addresses/validate", content).data


def test_a_good_address_is_valid_and_its_memo_explained(calls: Calls) -> None:
    found = ask(calls, "xrp", "XRP", XRP_ADDRESS, memo="7")
    assert (found["status"], found["valid"], found["normalised"]) == ("valid", True, XRP_ADDRESS)
    assert found["memo"] == {
        "name": "destination tag",
        "status": "given",
        "required": True,
        "may_be_waived": True,
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
    assert (found["embedded_memo"], found["memo"]["required"], found["memo"]["status"]) == ("1337", False, "in_address")
    assert found["send"] == {"address": "rhvh5SrgBL5V8oeV9EpDuVszeJSSCEkbPc", "memo": "1337"}
    assert found["orderable"] is True


def test_another_tag_than_the_one_inside_is_refused(calls: Calls) -> None:
    found = ask(calls, "XRP", "XRP", X_ADDRESS, memo="1")
    assert (found["status"], found["field"], found["reason"]) == ("invalid", "memo", "memo_conflict")
    assert (found["orderable"], found["memo"]["status"], found["validation_id"]) == (False, "invalid", None)


def test_a_missing_tag_cannot_be_overlooked(calls: Calls) -> None:
    found = ask(calls, "XRP", "XRP", XRP_ADDRESS)
    assert (found["status"], found["orderable"]) == ("valid", False)
    assert (found["memo"]["status"], found["memo"]["required"], found["field"]) == ("missing", True, "memo")
    assert found["problems"]["memo"][0]["code"] == "MEMO_REQUIRED"
    assert found["message"].startswith("XRP on XRP needs a destination tag")


def test_a_tag_can_be_waived_and_then_must_not_be_given(calls: Calls) -> None:
    found = ask(calls, "XRP", "XRP", XRP_ADDRESS, memo_none=True)
    assert (found["orderable"], found["memo"]["status"]) == (True, "waived")
    both = ask(calls, "XRP", "XRP", XRP_ADDRESS, memo="7", memo_none=True)
    assert (both["orderable"], both["problems"]["memo_none"][0]["code"]) == (False, "MEMO_CONTRADICTION")


def test_an_address_that_needs_no_memo_says_so(calls: Calls) -> None:
    found = ask(calls, "BTC", "BTC", BTC_ADDRESS)
    assert (found["orderable"], found["memo"]["status"], found["memo"]["allowed"]) == (True, "not_needed", False)


def test_an_address_of_another_network_is_named_as_one(calls: Calls) -> None:
    found = ask(calls, "LTC", "LTC", BTC_ADDRESS)
    assert (found["status"], found["reason"], found["hint"]) == (
        "invalid",
        "other_network",
        "This is a Bitcoin address.",
    )


def test_what_is_no_request_is_refused_with_every_problem(calls: Calls) -> None:
    answer = calls.post("/v1/addresses/validate", {"currency": "BTC", "address": 5, "extra": 1})
    assert answer.status == 422
    assert answer.codes == {"network": ["REQUIRED"], "address": ["INVALID"], "extra": ["UNKNOWN_FIELD"]}
    answer = calls.post("/v1/addresses/validate", {"currency": "BTC", "network": "Mars", "address": "x"})
    assert (answer.status, answer.codes) == (422, {"network": ["INSTRUMENT_UNKNOWN"]})


def test_nothing_is_unknown_before_the_catalog_is_there(clock: Clock, other_service: Callable[..., Service]) -> None:
    empty = other_service()
    with served(empty) as url:
        calls = Calls(new_shop(empty, url, clock, "early"), url, clock)
        answer = calls.post("/v1/addresses/validate", {"currency": "BTC", "network": "BTC", "address": BTC_ADDRESS})
    assert (answer.status, answer.error["code"]) == (503, "CATALOG_NOT_READY")
