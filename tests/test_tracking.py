"""Tracking tokens: whoever holds one may follow that one order, sees less than its owner, and can do nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests

from swap.access.tracking import LIFETIME, Tracking
from swap.errors import NotAuthenticated, NotFound
from swap.infra.vault import Vault
from swap.settings import Settings
from swap.wiring import Service
from tests.conftest import Clock, Shop, look, new_shop
from tests.factories import read_order
from tests.receivers import receiving
from tests.signed_client import raw

SHOP_SITE = "https://shop.example"
PRIVATE = {
    *("client_order_id", "user_id", "session_id", "account_id", "search_terms", "metadata", "upstream_order_id"),
    "tracking",
}
GIVEN: dict[str, Any] = {
    "user_id": "user-7",
    "session_id": "s-9",
    "account_id": "a-1",
    "search_terms": ["kim@shop.example"],
    "metadata": {"cart": "private"},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, allowed_origins=(SHOP_SITE,))


@pytest.fixture
def order(shop: Shop) -> dict[str, Any]:
    return shop.place(**GIVEN)


def follow(api_url: str, order_id: str, token: str, **headers: str) -> requests.Response:
    return requests.get(
        f"{api_url}/v1/orders/{order_id}", headers={"Authorization": f"Bearer {token}", **headers}, timeout=30
    )


def refused(tracking: Tracking, token: str) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        tracking.open(token)
    return caught.value.code


def test_a_token_reads_its_order_without_what_is_between_client_and_service(
    api_url: str, order: dict[str, Any]
) -> None:
    answer = follow(api_url, order["id"], order["tracking"]["token"])
    assert answer.status_code == 200
    seen = answer.json()["data"]
    assert set(order) - set(seen) == PRIVATE
    assert all(seen[name] == order[name] for name in seen)
    for word in ("user-7", "s-9", "a-1", "kim@", "private", "order-1"):
        assert word not in json.dumps(seen)


def test_the_owner_gets_the_token_with_the_create_and_the_order_and_nowhere_else(
    service: Service, shop: Shop, order: dict[str, Any]
) -> None:
    token = order["tracking"]["token"]
    assert shop.api.order(order["id"])["tracking"] == order["tracking"]
    assert shop.place(**GIVEN)["tracking"]
    with receiving() as receiver:
        service.endpoints.add(shop.key, f"{receiver.url}/hook", trusted=True)
        look(service, order["id"])
        service.feed.publish()
        service.deliverer.deliver_due()
        others = [
            list(shop.api.orders()),
            shop.api.order_events(order["id"]),
            shop.api.events(),
            shop.api.refresh(order["id"]),
            service.support.record(order["id"]),
            [request.body.decode() for request in receiver.got],
        ]
    assert receiver.got
    for answer in others:
        assert answer
        assert "trk_" not in json.dumps(answer)
        assert "tracking" not in json.dumps(answer)
    assert token.startswith("trk_")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/orders"),
        ("GET", "/v1/events"),
        ("GET", "/v1/orders/{id}/refresh"),
        ("POST", "/v1/orders/{id}/events"),
        ("POST", "/v1/orders/{id}/revoke-tracking"),
        ("POST", "/v1/orders"),
        ("GET", "/v1/instruments"),
        ("HEAD", "/v1/orders/{id}"),
    ],
)
def test_a_token_opens_nothing_else(method: str, path: str, api_url: str, order: dict[str, Any]) -> None:
    headers: dict[str, str | bytes] = {"Authorization": f"Bearer {order['tracking']['token']}"}
    assert raw(api_url, method, path.format(id=order["id"]), b"", headers).status in (401, 405)


def test_a_token_shows_the_picture_and_what_happened_without_what_is_between_client_and_service(
    api_url: str, order: dict[str, Any]
) -> None:
    token = order["tracking"]["token"]
    picture = follow(api_url, f"{order['id']}/deposit.svg", token)
    assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/svg+xml")
    answer = follow(api_url, f"{order['id']}/events", token)
    events = answer.json()["data"]["events"]
    assert [event["type"] for event in events] == ["order.created", "order.awaiting_deposit"]
    assert not any(PRIVATE & set(event["order"]) for event in events)
    for word in ("user-7", "s-9", "a-1", "kim@", "private", "order-1"):
        assert word not in answer.text


def test_a_token_has_its_order_polled_soon_but_not_again_and_again(
    service: Service, api_url: str, order: dict[str, Any]
) -> None:
    headers: dict[str, str | bytes] = {"Authorization": f"Bearer {order['tracking']['token']}"}
    before = read_order(service.database, order["id"]).next_check_at
    first, second = (raw(api_url, "POST", f"/v1/orders/{order['id']}/refresh", b"", headers) for _ in range(2))
    assert (first.status, set(first.data) & PRIVATE) == (202, set())
    after = read_order(service.database, order["id"]).next_check_at
    assert before is not None and after is not None and after < before
    assert (second.status, second.code) == (429, "RATE_LIMITED")
    assert 1 <= int(second.headers["Retry-After"]) <= 31


def test_a_page_may_ask_for_a_refresh_from_the_sites_that_were_named(api_url: str, order: dict[str, Any]) -> None:
    url = f"{api_url}/v1/orders/{order['id']}/refresh"
    for asked, status in (("POST", 204), ("GET", 401)):
        headers = {"Origin": SHOP_SITE, "Access-Control-Request-Method": asked}
        answer = requests.options(url, headers=headers, timeout=30)
        assert (answer.status_code, answer.headers.get("Access-Control-Allow-Methods") == "POST") == (
            status,
            status == 204,
        )


def test_a_token_of_one_order_does_not_tell_whether_there_is_another(
    api_url: str, shop: Shop, order: dict[str, Any]
) -> None:
    other = shop.place("order-2")
    for order_id in (other["id"], "ord_of_nobody"):
        answer = follow(api_url, order_id, order["tracking"]["token"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "TOKEN_FOR_ANOTHER_ORDER")


def test_what_is_no_token_of_ours_is_refused(service: Service, shop: Shop, order: dict[str, Any]) -> None:
    other = shop.place("order-2")["tracking"]["token"].rpartition(".")
    token = order["tracking"]["token"]
    head, _, mac = token.rpartition(".")
    order_id, version, expires = head.split(".")
    forged = [
        "",
        "trk_",
        token[:-1],
        token + "A",
        token + "\n",
        head + "." + ("A" if mac[0] != "A" else "B") + mac[1:],
        f"{other[0]}.{mac}",
        f"{order_id}.{int(version) + 1}.{expires}.{mac}",
        f"{order_id}.{version}.{int(expires) + 1}.{mac}",
        f"{order_id}.{version}.٣{expires[1:]}.{mac}",
        f"{order_id}\x00.{version}.{expires}.{mac}",
        "é" * 40,
    ]
    assert [refused(service.tracking, text) for text in forged] == ["TOKEN_INVALID"] * len(forged)


def test_a_token_ends_with_its_time(service: Service, clock: Clock, order: dict[str, Any]) -> None:
    token = order["tracking"]["token"]
    clock.advance(LIFETIME - timedelta(minutes=1))
    service.tracking.open(token)
    clock.advance(LIFETIME)
    service.tracking.open(token)
    clock.advance(timedelta(minutes=2))
    assert refused(service.tracking, token) == "TOKEN_EXPIRED"
    service.tracking.open(service.tracking.issue(read_order(service.database, order["id"]))["token"])


def test_a_token_is_short_stays_the_same_and_changes_with_every_revocation(
    service: Service, clock: Clock, order: dict[str, Any]
) -> None:
    row = read_order(service.database, order["id"])
    first = service.tracking.issue(row)
    assert first == order["tracking"]
    assert len(first["token"]) <= 100
    clock.advance(LIFETIME - timedelta(minutes=1))
    assert service.tracking.issue(row) == first
    clock.advance(timedelta(minutes=2))
    later = service.tracking.issue(row)
    ends = [datetime.fromisoformat(one["expires_at"]) for one in (first, later)]
    assert ends[1] - ends[0] == LIFETIME
    row.token_version += 1
    assert service.tracking.issue(row)["token"] != later["token"]


def test_revoking_ends_every_token_of_that_order_alone(
    service: Service, api_url: str, clock: Clock, shop: Shop, order: dict[str, Any]
) -> None:
    other = shop.place("order-2")
    stranger = new_shop(service, api_url, clock, "stranger")
    with pytest.raises(NotFound):
        service.tracking.revoke(stranger.client_id, order["id"])
    with pytest.raises(NotFound):
        service.tracking.revoke(shop.client_id, "ord_\x00")
    assert shop.api.revoke_tracking(order["id"]) == {"order_id": order["id"], "revoked": True}
    answer = follow(api_url, order["id"], order["tracking"]["token"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "TOKEN_REVOKED")
    assert follow(api_url, other["id"], other["tracking"]["token"]).status_code == 200
    assert follow(api_url, order["id"], shop.api.order(order["id"])["tracking"]["token"]).status_code == 200


def test_revoking_and_moving_do_not_get_in_each_others_way(
    service: Service, shop: Shop, clock: Clock, order: dict[str, Any]
) -> None:
    shop.api.revoke_tracking(order["id"])
    clock.advance(60)
    look(service, order["id"])
    assert refused(service.tracking, order["tracking"]["token"]) == "TOKEN_REVOKED"
    assert service.tracking.open(shop.api.order(order["id"])["tracking"]["token"]).order.token_version == 1


def test_tokens_survive_a_new_secret_key_until_the_old_one_is_taken_out(
    service: Service, clock: Clock, order: dict[str, Any]
) -> None:
    old, new = service.settings.secret_keys[0], "another key for tests, of at least 32 characters"
    token = order["tracking"]["token"]
    rotated = Tracking(service.database, Vault([new, old]), clock)
    assert rotated.open(token).order.id == order["id"]
    fresh = rotated.issue(read_order(service.database, order["id"]))["token"]
    assert fresh != token
    assert refused(Tracking(service.database, Vault([new]), clock), token) == "TOKEN_INVALID"
    Tracking(service.database, Vault([new]), clock).open(fresh)


def test_whoever_follows_has_a_small_budget_of_requests(
    api_url: str, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.web.auth._TRACKED_WEIGHT", 1)
    statuses = [follow(api_url, order["id"], order["tracking"]["token"]).status_code for _ in range(8)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


# --- browsers of other sites -----------------------------------------------------------------------------------------


def test_an_allowed_site_may_read_the_order_and_ask_whether_it_may(api_url: str, order: dict[str, Any]) -> None:
    url = f"{api_url}/v1/orders/{order['id']}"
    asked = requests.options(
        url,
        headers={
            "Origin": SHOP_SITE,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        },
        timeout=30,
    )
    assert asked.status_code == 204
    assert asked.headers["Access-Control-Allow-Origin"] == SHOP_SITE
    assert asked.headers["Access-Control-Allow-Headers"] == "Authorization"
    assert asked.headers["Access-Control-Allow-Methods"] == "GET"
    answer = follow(api_url, order["id"], order["tracking"]["token"], Origin=SHOP_SITE)
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP_SITE
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Retry-After", "X-Request-Id", "X-RateLimit-Remaining"} <= set(exposed)
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    wrong = follow(api_url, order["id"], "trk_x", Origin=SHOP_SITE)
    assert (wrong.status_code, wrong.headers["Access-Control-Allow-Origin"]) == (401, SHOP_SITE)


@pytest.mark.parametrize(
    ("method", "path", "origin"),
    [
        ("GET", "/v1/orders/{id}", "https://evil.example"),
        ("GET", "/v1/orders/{id}", "https://shop.example.evil.example"),
        ("GET", "/v1/orders/{id}", "null"),
        ("GET", "/v1/orders", SHOP_SITE),
        ("POST", "/v1/orders", SHOP_SITE),
        ("POST", "/v1/orders/{id}/revoke-tracking", SHOP_SITE),
        ("POST", "/v1/orders/{id}/refresh", "https://evil.example"),
        ("GET", "/nowhere", SHOP_SITE),
    ],
)
def test_nothing_else_is_open_to_browsers(
    method: str, path: str, origin: str, api_url: str, order: dict[str, Any]
) -> None:
    url = f"{api_url}{path.format(id=order['id'])}"
    headers = {"Origin": origin, "Authorization": f"Bearer {order['tracking']['token']}"}
    for answer in (
        requests.options(url, headers={**headers, "Access-Control-Request-Method": method}, timeout=30),
        requests.request(method, url, headers=headers, timeout=30),
    ):
        assert [name for name in answer.headers if name.startswith("Access-Control")] == []
