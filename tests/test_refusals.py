"""One line for many refusals: none is silent, and nobody can fill the log or the memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from swap.web import door
from swap.web.door import Door
from swap.web.refusals import EVERY_SECONDS, Refusals
from tests.conftest import Shop
from tests.signed_client import Calls, raw
from tests.test_door import Held, Protocol, held, scope

__all__ = ["held"]

KEY = f"swk_{'0a' * 12}"
PAGE_KEY = f"pk_test_{'0a' * 12}"


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def refusals(time: Time) -> Refusals:
    return Refusals(time)


def refused(logs: list[Any]) -> list[dict[str, Any]]:
    return [line for line in logs if line["event"] == "web.refused"]


def note(refusals: Refusals, code: str = "KEY_UNKNOWN", key: str = KEY) -> None:
    refusals.note(code, 401, key=key, method="GET", route="/v1/orders")


def test_a_key_and_code_have_one_line_a_minute_with_how_many_were_left_out(refusals: Refusals, time: Time) -> None:
    with capture_logs() as logs:
        for _ in range(10):
            note(refusals)
        note(refusals, "SIGNATURE_INVALID")
        note(refusals, key="")
        time.now = EVERY_SECONDS
        note(refusals)
        note(refusals)
    assert [(line["code"], line["key"], line["left_out"]) for line in logs] == [
        ("KEY_UNKNOWN", KEY, 0),
        ("SIGNATURE_INVALID", KEY, 0),
        ("KEY_UNKNOWN", "none", 0),
        ("KEY_UNKNOWN", KEY, 9),
    ]
    assert logs[0] == {
        "event": "web.refused",
        "log_level": "warning",
        "code": "KEY_UNKNOWN",
        "status": 401,
        "key": KEY,
        "method": "GET",
        "route": "/v1/orders",
        "left_out": 0,
    }


@pytest.mark.parametrize(
    "given", ["sws_topsecret", "swk_" + "A" * 24, f"{KEY} ", f"{KEY}\n", "x" * 24, "prod_" + KEY, f"{PAGE_KEY}0"]
)
def test_what_has_not_the_form_of_a_key_is_never_written(refusals: Refusals, given: str) -> None:
    with capture_logs() as logs:
        note(refusals, key=given)
    assert [line["key"] for line in logs] == ["none"]


@pytest.mark.parametrize("given", [KEY, f"test_{KEY}", f"live_{KEY}", PAGE_KEY, PAGE_KEY.replace("test", "live")])
def test_the_ids_of_keys_are_told(refusals: Refusals, given: str) -> None:
    with capture_logs() as logs:
        note(refusals, key=given)
    assert [line["key"] for line in logs] == [given]


def test_invented_keys_fill_neither_the_log_nor_the_memory(refusals: Refusals, time: Time) -> None:
    with capture_logs() as logs:
        for number in range(5_000):
            note(refusals, key=f"swk_{number:024x}")
    assert len(logs) == 1_001
    assert logs[-1]["key"] == "others"
    assert len(refusals._told) == 1_001
    time.now = EVERY_SECONDS
    with capture_logs() as logs:
        note(refusals)
    assert [line["key"] for line in logs] == [KEY], "there is room again"


def test_a_method_nobody_knows_is_not_written_as_it_came(refusals: Refusals) -> None:
    with capture_logs() as logs:
        refusals.note("METHOD_NOT_ALLOWED", 405, key="", method="SECRET", route=None)
    assert logs[0]["method"] == "other"


def test_refusals_before_and_after_the_signature_are_told_without_path_query_or_signature(
    calls: Calls, shop: Shop, api_url: str
) -> None:
    with capture_logs() as logs:
        raw(api_url, "GET", "/v1/orders/ord_mine?x=1", headers={"Authorization": "Bearer whatever"})
        raw(api_url, "GET", "/nowhere")
        calls.get("/v1/orders", X_Signature="0" * 64)
        calls.get("/v1/orders/ord_mine")
        calls.order(amount="none")
        calls.order(amount="none")
    lines = refused(logs)
    assert [(line["code"], line["status"], line["key"], line["route"]) for line in lines] == [
        ("TOKEN_INVALID", 401, "none", "/v1/orders/<string:order_id>"),
        ("NOT_FOUND", 404, "none", None),
        ("SIGNATURE_INVALID", 401, shop.key, "/v1/orders"),
        ("ORDER_NOT_FOUND", 404, shop.key, "/v1/orders/<string:order_id>"),
        ("VALIDATION_FAILED", 422, shop.key, "/v1/orders"),
    ]
    assert {line["log_level"] for line in lines} == {"warning"}
    assert "ord_mine" not in str(lines)


def test_the_key_of_a_page_is_told_and_neither_its_origin_nor_a_secret_in_its_place(shop: Shop, api_url: str) -> None:
    with capture_logs() as logs:
        for given in (PAGE_KEY, shop.secret):
            headers: dict[str, str | bytes] = {"X-Publishable-Key": given, "Origin": "https://private.example"}
            raw(api_url, "GET", "/v1/instruments", headers=headers)
    assert [(line["code"], line["key"]) for line in refused(logs)] == [
        ("KEY_UNKNOWN", PAGE_KEY),
        ("KEY_UNKNOWN", "none"),
    ]
    assert "private.example" not in str(logs)
    assert shop.secret not in str(logs)


def test_refusals_at_the_door_are_told_too(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LINE_SECONDS", 0.0)
    asked = scope("POST", "/v1/orders")
    asked.headers = {"x-api-key": KEY}
    by_page = scope("POST", "/v1/quotes")
    by_page.headers = {"x-publishable-key": PAGE_KEY}
    with capture_logs() as logs:
        asyncio.run(Door(held, 1, "test", lambda: None).__rsgi__(asked, Protocol()))
        asyncio.run(Door(held, 1, "test", lambda: None).__rsgi__(by_page, Protocol()))
        asyncio.run(Door(held, 1, "test", lambda: None).__rsgi__(scope("GET", "/v1/orders/ord_mine"), Protocol()))
    assert [(line["code"], line["status"], line["key"], line["route"]) for line in refused(logs)] == [
        ("OVERLOADED", 503, KEY, "/v1/orders"),
        ("OVERLOADED", 503, PAGE_KEY, "/v1/quotes"),
        ("OVERLOADED", 503, "none", None),
    ]
