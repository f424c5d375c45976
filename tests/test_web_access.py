"""Who gets in, with what, and how everybody else is told: over real HTTP, every byte of the request ours.

On SQLite alone: what the database has to say in this is in test_keys.py and test_web_input.py, on both.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import flask
import pytest
import requests

from swap.access.keys import SCOPES, KeyOptions
from swap.domain.signing import sign_request
from swap.sdk import SwapApiError
from swap.web import create_app
from swap.web.auth import OPEN
from swap.web.auth import SCOPES as BLUEPRINT_SCOPES
from swap.wiring import Service
from tests.conftest import Clock, Shop, new_shop
from tests.servers import served, served_app
from tests.signed_client import ORDER, QUOTE, Calls, raw

pytestmark = pytest.mark.sqlite_only

NOBODY_REDIS = "redis://127.0.0.1:1"


# --- the signature ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/v1/instruments/DOT/Asset%20Hub%28Polkadot%29",
        "/v1/instruments/DOT/Asset%20Hub(Polkadot)",
        "/v1/instruments/D%4fT/%41sset%20Hub%28Polkadot)",
        "/%76%31/instruments/DOT/Asset%20Hub%28Polkadot%29",
    ],
)
def test_one_signature_fits_every_spelling_of_a_path(target: str, calls: Calls) -> None:
    answer = calls("GET", "/v1/instruments/DOT/Asset Hub(Polkadot)", target=target)
    assert (answer.status, answer.data["instrument"]["network"]) == (200, "Asset Hub(Polkadot)")


def test_whatever_stands_in_a_path_can_be_signed(calls: Calls) -> None:
    for name in ["Zü", "€", "日本", "a~b", "a+b", "a%b", "a;b=c,d", "%41", "\u0301", "a\tb", "'\"<>"]:
        answer = calls("GET", f"/v1/instruments/{name}/{name}")
        assert (answer.status, answer.code) == (404, "INSTRUMENT_UNKNOWN"), name


def test_the_sdk_and_a_plain_requests_call_sign_paths_with_spaces_alike(shop: Shop, api_url: str, clock: Clock) -> None:
    assert shop.api.instrument("DOT", "Asset Hub(Polkadot)")["currency"] == "DOT"
    timestamp = str(int(clock.time() * 1000))
    path = "/v1/instruments/DOT/Asset Hub(Polkadot)"
    headers = {
        "X-API-Key": shop.key,
        "X-Timestamp": timestamp,
        "X-Signature": sign_request(shop.secret, "GET", path, "", timestamp, b""),
    }
    assert requests.get(api_url + path, headers=headers, timeout=30).status_code == 200


@pytest.mark.parametrize(
    "query", ["limit=2", "limit=2&from_currency=BTC", "from_currency=%42TC&limit=2", "limit=%32", "limit=2&"]
)
def test_a_query_is_signed_as_it_stands_in_the_url(query: str, calls: Calls) -> None:
    assert len(calls("GET", "/v1/pairs", query).data["pairs"]) == 2


def test_an_empty_query_is_no_query(calls: Calls) -> None:
    assert calls("GET", "/v1/instruments", target="/v1/instruments?").status == 200


@pytest.mark.parametrize("offset_ms", [-4900, 4900])
def test_a_clock_may_be_off_by_almost_five_seconds(offset_ms: int, calls: Calls) -> None:
    assert calls("GET", "/v1/instruments", offset_ms=offset_ms).status == 200


@pytest.mark.parametrize("offset_ms", [-5100, 5500, -86_400_000, 86_400_000])
def test_a_clock_further_off_is_told_the_time(offset_ms: int, calls: Calls, clock: Clock) -> None:
    answer = calls("GET", "/v1/instruments", offset_ms=offset_ms)
    assert (answer.status, answer.code) == (401, "TIMESTAMP_OUTSIDE_WINDOW")
    assert abs(answer.json["error"]["details"]["server_time"] - clock.time() * 1000) < 5000


BAD_CREDENTIALS: list[tuple[dict[str, Any], str]] = [
    ({"X_API_Key": None}, "CREDENTIALS_MISSING"),
    ({"X_Timestamp": None}, "CREDENTIALS_MISSING"),
    ({"X_Signature": None}, "CREDENTIALS_MISSING"),
    ({"X_API_Key": "", "X_Timestamp": "", "X_Signature": ""}, "CREDENTIALS_MISSING"),
    ({"X_Timestamp": "176000000000"}, "TIMESTAMP_MALFORMED"),
    ({"X_Timestamp": "17600000000000"}, "TIMESTAMP_MALFORMED"),
    ({"X_Timestamp": "1760000000"}, "TIMESTAMP_MALFORMED"),
    ({"X_Timestamp": "-176000000000"}, "TIMESTAMP_MALFORMED"),
    ({"X_Timestamp": "1760000000.00"}, "TIMESTAMP_MALFORMED"),
    ({"X_Timestamp": "１７６００００００００００".encode()}, "TIMESTAMP_MALFORMED"),
    ({"X_Timestamp": b"17600000000\xb2\xb3"}, "TIMESTAMP_MALFORMED"),
    ({"X_API_Key": "swk_nobody"}, "KEY_UNKNOWN"),
    ({"X_API_Key": "schlüssel".encode()}, "KEY_UNKNOWN"),
    ({"X_API_Key": b"\xff\xfe"}, "KEY_UNKNOWN"),
    ({"X_API_Key": "k" * 30_000}, "KEY_UNKNOWN"),
    ({"X_Signature": "0" * 64}, "SIGNATURE_INVALID"),
    ({"X_Signature": b"\xff" * 64}, "SIGNATURE_INVALID"),
    ({"X_Signature": "☃".encode()}, "SIGNATURE_INVALID"),
]


def test_whatever_is_wrong_with_the_credentials_is_named(calls: Calls) -> None:
    for headers, code in BAD_CREDENTIALS:
        answer = calls("GET", "/v1/instruments", **headers)
        assert (answer.status, answer.code) == (401, code), headers
        assert answer.json["error"]["details"]["retry"] in ("new_request", "never")


def test_every_missing_header_is_named_at_once(api_url: str) -> None:
    answer = raw(api_url, "GET", "/v1/orders")
    assert answer.code == "CREDENTIALS_MISSING"
    for name in ("X-API-Key", "X-Timestamp", "X-Signature"):
        assert name in answer.json["error"]["message"]


def test_a_signature_holds_method_path_query_and_body_together(calls: Calls, api_url: str) -> None:
    assert calls("POST", "/v1/addresses/validate", body=ORDER).status == 422
    body = json.dumps(QUOTE).encode()

    def tampered(method: str, target: str, content: bytes) -> str:
        timestamp = str(int(calls.clock.time() * 1000))
        signature = sign_request(calls.shop.secret, "POST", "/v1/quotes", "", timestamp, body)
        headers: dict[str, str | bytes] = {
            "X-API-Key": calls.shop.key,
            "X-Timestamp": timestamp,
            "X-Signature": signature,
        }
        return raw(api_url, method, target, content, headers).code

    assert tampered("POST", "/v1/quotes", body + b" ") == "SIGNATURE_INVALID"
    assert tampered("POST", "/v1/quotes", body.replace(b"0.0125", b"0.9125")) == "SIGNATURE_INVALID"
    assert tampered("POST", "/v1/quotes", b"") == "SIGNATURE_INVALID"
    assert tampered("POST", "/v1/quotes?a=1", body) == "SIGNATURE_INVALID"
    assert tampered("POST", "/v1/orders", body) == "SIGNATURE_INVALID"
    assert tampered("GET", "/v1/orders", body) == "SIGNATURE_INVALID"


def test_the_secret_of_another_key_does_not_fit(calls: Calls, service: Service, clock: Clock) -> None:
    other = new_shop(service, calls.url, clock, "other")
    assert calls("GET", "/v1/orders", X_API_Key=other.key).code == "SIGNATURE_INVALID"


def test_a_revoked_key_is_out_after_a_second(calls: Calls, service: Service, clock: Clock) -> None:
    assert calls("GET", "/v1/orders").status == 200
    assert service.keys.revoke(calls.shop.key)
    clock.advance(1)
    answer = calls("GET", "/v1/orders")
    assert (answer.status, answer.code) == (401, "KEY_UNKNOWN")


# --- scopes and limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_what_its_scope_names_and_nothing_else(
    scope: str, service: Service, api_url: str, clock: Clock
) -> None:
    calls = Calls(new_shop(service, api_url, clock, "narrow", scopes=[scope]), api_url, clock)
    for needed, method, path in (
        ("catalog", "GET", "/v1/instruments"),
        ("catalog", "GET", "/v1/pairs"),
        ("catalog", "POST", "/v1/addresses/validate"),
        ("quotes", "POST", "/v1/quotes"),
        ("orders:read", "GET", "/v1/orders"),
        ("orders:write", "POST", "/v1/orders"),
        ("events:read", "GET", "/v1/events"),
        ("support:read", "GET", "/v1/support/orders?clue=u1"),
    ):
        answer = calls(method, *path.split("?"))
        if scope == needed:
            assert answer.status in (200, 400), path
        else:
            assert (answer.status, answer.code) == (403, "SCOPE_MISSING"), path
            assert answer.json["error"]["details"]["scope"] == needed


def test_a_refused_scope_spends_no_signature(service: Service, api_url: str, clock: Clock) -> None:
    calls = Calls(new_shop(service, api_url, clock, "narrow", scopes=["catalog"]), api_url, clock)
    assert calls("POST", "/v1/quotes", body=QUOTE).code == "SCOPE_MISSING"
    assert raw(api_url, "POST", "/v1/quotes", json.dumps(QUOTE).encode(), calls.last).code == "SCOPE_MISSING"


def test_every_route_is_open_on_purpose_or_asks_for_a_scope(service: Service) -> None:
    app = create_app(service)
    assert set(app.blueprints) == OPEN | set(BLUEPRINT_SCOPES)
    assert {scope for both in BLUEPRINT_SCOPES.values() for scope in both} <= {*SCOPES, None}
    for rule in app.url_map.iter_rules():
        assert rule.endpoint.partition(".")[0] in app.blueprints, rule


def test_a_blueprint_nobody_gave_a_scope_lets_nobody_in(service: Service) -> None:
    app = create_app(service)
    forgotten = flask.Blueprint("forgotten", __name__)
    forgotten.add_url_rule("/v1/forgotten", view_func=lambda: "secret")
    app.register_blueprint(forgotten)
    with served_app(app) as url:
        answer = raw(url, "GET", "/v1/forgotten")
    assert (answer.status, answer.code) == (500, "INTERNAL")


@pytest.mark.parametrize("redis_away", [False, True])
@pytest.mark.parametrize("weight", [1, 10, 20, 60])
def test_a_key_that_spent_its_budget_is_told_when_to_come_back(
    weight: int, redis_away: bool, other_service: Callable[..., Service], service: Service, clock: Clock
) -> None:
    parts = other_service(redis_url=NOBODY_REDIS) if redis_away else service
    with served(parts) as url:
        calls = Calls(new_shop(parts, url, clock, "small", weight_per_minute=weight), url, clock)
        answers = [calls("GET", "/v1/events")]
        while answers[-1].status == 200:
            answers.append(calls("GET", "/v1/events"))
            assert len(answers) <= max(2, weight)
        last = answers[-1]
        assert (last.status, last.code) == (429, "RATE_LIMITED")
        assert len(answers) > 1, "a key's first request is never too many"
        assert last.json["error"]["details"]["retry"] == "same_request"
        longest = 60 / weight * (5 if redis_away else 4) + 1
        assert 1 <= int(last.headers["retry-after"]) <= longest
        # Somebody else's budget is somebody else's.
        other = Calls(new_shop(parts, url, clock, "other"), url, clock)
        assert other("GET", "/v1/events").status == 200


def test_two_processes_share_a_budget(
    other_service: Callable[..., Service], service: Service, api_url: str, clock: Clock
) -> None:
    small = new_shop(service, api_url, clock, "small", weight_per_minute=16)
    with served(other_service()) as second_url:
        assert Calls(small, api_url, clock)("GET", "/v1/events").status == 200
        assert Calls(small, second_url, clock)("GET", "/v1/events").status == 429


def test_all_keys_of_a_client_spend_of_one_budget(service: Service, api_url: str, clock: Clock) -> None:
    one = Calls(new_shop(service, api_url, clock, "one", client="shop", weight_per_minute=8), api_url, clock)
    two = Calls(new_shop(service, api_url, clock, "two", client="shop"), api_url, clock)
    while (answer := one("GET", "/v1/events")).status == 200:
        pass
    assert (answer.code, two("GET", "/v1/events").code) == ("RATE_LIMITED", "RATE_LIMITED")


def test_every_answer_says_what_is_left_and_costly_requests_cost_more(
    service: Service, api_url: str, clock: Clock
) -> None:
    calls = Calls(new_shop(service, api_url, clock, "shop", weight_per_minute=6000), api_url, clock)

    def left(path: str) -> int:
        answer = calls.get(path)
        assert answer.status == 200, answer.text
        assert answer.headers["X-RateLimit-Limit"] == "6000"
        assert int(answer.headers["X-RateLimit-Reset"]) >= 0
        return int(answer.headers["X-RateLimit-Remaining"])

    before = left("/v1/limits")
    assert before - left("/v1/orders") == 10
    assert before - left("/v1/orders?status=completed") == 15
    assert before - left("/v1/pairs") == 20
    told = calls("GET", "/v1/limits").data
    assert (told["weight_per_minute"], told["remaining"]) == (6000, before - 21)
    assert told["costs"] == {"GET /v1/orders": 10, "GET /v1/pairs": 5, "GET /v1/webhook-deliveries": 10}


def test_a_refused_request_says_of_how_much_and_at_what_cost(service: Service, api_url: str, clock: Clock) -> None:
    calls = Calls(new_shop(service, api_url, clock, "small", weight_per_minute=40), api_url, clock)
    while (answer := calls("GET", "/v1/orders")).status == 200:
        pass
    details = answer.json["error"]["details"]
    assert (details["limit"], details["cost"], answer.headers["X-RateLimit-Remaining"]) == (40, 10, "0")


def test_a_key_that_is_bound_to_networks_is_refused_from_elsewhere(
    other_service: Callable[..., Service], clock: Clock
) -> None:
    parts = other_service(trusted_proxies=("127.0.0.0/8",))
    with served(parts) as url:
        shop = new_shop(parts, url, clock, "bound", options=KeyOptions(allowed_from=["203.0.113.0/24"]))
        calls = Calls(shop, url, clock)
        assert calls("GET", "/v1/orders", X_Forwarded_For="203.0.113.9").status == 200
        forged: tuple[dict[str, Any], ...] = (
            {},
            {"X_Forwarded_For": "198.51.100.1"},
            {"X_Forwarded_For": "203.0.113.9, 198.51.100.1"},
        )
        for headers in forged:
            answer = calls("GET", "/v1/orders", **headers)
            assert (answer.status, answer.code) == (403, "ADDRESS_NOT_ALLOWED")
        assert parts.keys.listed()[0]["last_used_from"] == "203.0.113.9"


# --- routes, methods, queries ----------------------------------------------------------------------------------------


def test_what_is_not_there_is_not_found_and_nobody_is_sent_elsewhere(api_url: str) -> None:
    for path in ["/", "/v1", "/v1/", "/v2/orders", "/v1/orders/", "/v1//time", "/v1/time/..", "/%00", "/v1/ord%ff"]:
        answer = raw(api_url, "GET", path)
        assert (answer.status, answer.code) == (404, "NOT_FOUND"), path
        assert "location" not in answer.headers


def test_every_refusal_names_its_request_and_where_its_code_is_explained(calls: Calls, service: Service) -> None:
    for path, code in (("/v1/orders/ord_none", "ORDER_NOT_FOUND"), ("/v1/orders?limit=0", "VALIDATION_FAILED")):
        error = calls.get(path).error
        assert (error["code"], error["doc_url"]) == (code, f"docs/errors.md#{code.lower()}")
    app = create_app(service)
    app.add_url_rule("/teapot", "teapot", view_func=lambda: flask.abort(418))
    app.add_url_rule("/broken", "broken", view_func=lambda: str(1 / 0))
    with served_app(app) as url:
        assert raw(url, "GET", "/teapot").error["doc_url"] == "docs/errors.md#others"
        broken = raw(url, "GET", "/broken").error
    assert broken["details"]["request_id"] == broken["request_id"]


def test_a_method_that_is_not_offered_is_told_which_are(api_url: str) -> None:
    for method in ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW", "post"]:
        answer = raw(api_url, method, "/v1/time")
        assert (answer.status, answer.code) == (405, "METHOD_NOT_ALLOWED"), method
        assert set(answer.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "OPTIONS"}


def test_head_is_a_read_without_a_body_and_is_signed_as_head(calls: Calls, api_url: str) -> None:
    assert raw(api_url, "HEAD", "/healthz").status == 200
    assert raw(api_url, "HEAD", "/v1/orders").status == 401
    answer = calls("HEAD", "/v1/orders")
    assert (answer.status, answer.content) == (200, b"")


def test_options_tells_the_methods_to_those_who_may_know(calls: Calls, api_url: str) -> None:
    assert "GET" in raw(api_url, "OPTIONS", "/v1/time").headers["allow"]
    assert raw(api_url, "OPTIONS", "/v1/orders").status == 401
    assert "POST" in calls("OPTIONS", "/v1/orders").headers["allow"]


def test_a_strange_host_name_changes_nothing(api_url: str) -> None:
    parts = urlsplit(api_url)
    for host in [b"\xc3\xa4", b"a..b", b"x:99999999", b"", b"[::1", b"evil.example/..", b"a b"]:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        connection.putrequest("GET", "/v1/time", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status < 500, host
        answer.read()
        connection.close()


def test_the_sdk_raises_what_the_service_said(shop: Shop, clock: Clock) -> None:
    clock.ahead += 0
    shop.api._secret = "sws_wrong"
    with pytest.raises(SwapApiError) as caught:
        shop.api.order("ord_x")
    assert (caught.value.status, caught.value.code, caught.value.retry) == (401, "SIGNATURE_INVALID", "new_request")
    assert "sws_wrong" not in repr(shop.api) + str(caught.value)


def test_answers_are_not_kept_by_anybody_unless_they_carry_an_etag(calls: Calls) -> None:
    assert calls("GET", "/v1/orders").headers["cache-control"] == "no-store"
    first = calls("GET", "/v1/instruments")
    assert first.headers["cache-control"] == "private, no-cache"
    again = calls("GET", "/v1/instruments", If_None_Match=first.headers["etag"])
    assert (again.status, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
