"""What a web page of another site may do with a publishable key, over real HTTP: what such a key opens, and nothing else.

On SQLite alone: what the database has to say in this is in test_publishable_keys.py, on both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from swap.access.client_address import visitor_at
from swap.processes.supervise import free_port
from swap.web import auth, create_app
from swap.wiring import Service
from tests.conftest import Clock, Shop, new_shop
from tests.pages import ADDRESS, EVIL, OPENED, OTHER_SITE, QUESTIONS, SHOP_SITE, Page, key_of, seen_by_browsers
from tests.servers import served
from tests.signed_client import ORDER, QUOTE, Answer, Calls, raw
from tests.test_processes import Processes, fast_world, gate, processes
from tests.waiting import until

__all__ = ["fast_world", "gate", "processes"]
pytestmark = pytest.mark.sqlite_only


@pytest.fixture
def page(service: Service, shop: Shop, api_url: str) -> Page:
    return Page(api_url, key_of(service))


# --- what it opens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "target", "content"), QUESTIONS)
def test_a_page_asks_by_itself_what_everybody_may_know(
    method: str, target: str, content: dict[str, Any] | None, page: Page
) -> None:
    answer = page(method, target, content)
    assert (answer.status, seen_by_browsers(answer)) == (200, SHOP_SITE), answer.text
    assert answer.data


def test_what_a_page_was_promised_its_backend_orders_and_no_other_client_can(
    page: Page, shop: Shop, service: Service, clock: Clock
) -> None:
    quote = page("POST", "/v1/quotes", QUOTE).data["quote_id"]
    checked = page("POST", "/v1/addresses/validate", ADDRESS).data["validation_id"]
    order = {**ORDER, "quote_id": quote, "destination_validation_id": checked}
    stranger = Calls(new_shop(service, page.url, clock, "stranger"), page.url, clock)
    assert stranger("POST", "/v1/orders", body=order).codes == {
        "quote_id": ["QUOTE_MISMATCH"],
        "destination_validation_id": ["VALIDATION_MISMATCH"],
    }
    placed = Calls(shop, page.url, clock)("POST", "/v1/orders", body=order)
    assert (placed.status, placed.data["status"]) == (201, "awaiting_deposit")
    assert shop.api.order(placed.data["id"])["client_order_id"] == "o-1"


def test_every_route_but_those_that_are_meant_is_closed_to_a_publishable_key(page: Page, service: Service) -> None:
    app = create_app(service)
    opened, told = set(), set()
    for rule in app.url_map.iter_rules():
        target = re.sub(r"<string:\w+>", "x", rule.rule)
        assert "<" not in target, "a parameter of another kind"
        for method in rule.methods or ():
            answer = page(method, target)
            if rule.endpoint.partition(".")[0] in auth.OPEN:
                assert answer.status == raw(page.url, method, target).status, "open to everybody, with a key or without"
            elif answer.status == 403:
                assert method == "HEAD" or answer.code == "SECRET_KEY_NEEDED", (method, rule)
                told.add((method, rule.rule))
            else:
                opened.add((method, rule.rule))
    assert opened == OPENED
    assert {("POST", "/v1/orders"), ("GET", "/v1/orders"), ("GET", "/v1/limits"), ("HEAD", "/v1/instruments")} <= told


def test_a_new_route_beside_those_that_are_open_is_closed(service: Service, page: Page) -> None:
    app = create_app(service)
    app.add_url_rule("/v1/quotes/history", "quotes.history", view_func=lambda: "secret", methods=["GET", "POST"])
    client = app.test_client()
    for method in ("GET", "POST"):
        answer = client.open(
            "/v1/quotes/history", method=method, headers={"X-Publishable-Key": page.key, "Origin": SHOP_SITE}
        )
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "SECRET_KEY_NEEDED")


def test_the_description_names_the_key_where_it_opens_and_nowhere_else(page: Page) -> None:
    spec = raw(page.url, "GET", "/openapi.json").json
    scheme = spec["components"]["securitySchemes"]["publishable_key"]
    assert (scheme["in"], scheme["name"]) == ("header", "X-Publishable-Key")
    named = {
        (method.upper(), re.sub(r"{(\w+)}", r"<string:\1>", path))
        for path, item in spec["paths"].items()
        for method, operation in item.items()
        if method != "parameters" and {"publishable_key": []} in operation.get("security", [])
    }
    assert named == OPENED


def test_of_two_credentials_the_one_that_opens_less_counts(page: Page, shop: Shop, clock: Clock) -> None:
    signed = Calls(shop, page.url, clock)
    assert signed("GET", "/v1/orders").status == 200
    answer = signed("GET", "/v1/orders", X_Publishable_Key=page.key, Origin=SHOP_SITE)
    assert (answer.status, answer.code) == (403, "SECRET_KEY_NEEDED")
    token = shop.place()["tracking"]["token"]
    answer = page("GET", "/v1/orders/x", Authorization=f"Bearer {token}")
    assert (answer.status, answer.code) == (403, "SECRET_KEY_NEEDED")


# --- origins, keys ---------------------------------------------------------------------------------------------------

OTHERS = [
    EVIL,
    "null",
    "",
    "*",
    f"{SHOP_SITE}/",
    "https://Shop.example",
    "HTTPS://SHOP.EXAMPLE",
    f"{SHOP_SITE}:443",
    f"{SHOP_SITE}:8443",
    "http://shop.example",
    f"{SHOP_SITE}.evil.example",
    "https://evil-shop.example",
    "https://evil.shop.example",
    "https://shop.example@evil.example",
    "https://shop.exampl",
    "https://shop.example.",
    f"{SHOP_SITE} {EVIL}",
    f"{SHOP_SITE},{EVIL}",
    f"{SHOP_SITE}\x00",
    "https://shop.example\xe9",
    "x" * 5000,
]


@pytest.mark.parametrize("origin", OTHERS)
def test_a_page_of_any_other_origin_gets_nothing_and_may_read_nothing(origin: str, page: Page) -> None:
    page("GET", "/v1/instruments")
    other = Page(page.url, page.key, origin)
    for method, target, content in QUESTIONS:
        answer = other(method, target, content)
        assert (answer.status, answer.code) == (403, "ORIGIN_NOT_ALLOWED"), target
        assert seen_by_browsers(answer) is None
        asked = raw(page.url, "OPTIONS", target, b"", {"Origin": origin, "Access-Control-Request-Method": method})
        assert (asked.status, seen_by_browsers(asked)) == (401, None)


def test_a_program_that_names_no_page_gets_nothing(page: Page) -> None:
    answer = Page(page.url, page.key, None)("POST", "/v1/quotes", QUOTE)
    assert (answer.status, answer.code, seen_by_browsers(answer)) == (403, "ORIGIN_NOT_ALLOWED", None)


def test_a_page_is_told_what_is_wrong_with_its_key_where_another_key_lets_it_read(
    page: Page, service: Service, clock: Clock
) -> None:
    new_shop(service, page.url, clock, "other")
    elsewhere = key_of(service, OTHER_SITE, client="other")
    clock.advance(1)
    for key, status, code in (
        (elsewhere, 403, "ORIGIN_NOT_ALLOWED"),
        ("pk_test_" + "0" * 24, 401, "KEY_UNKNOWN"),
        ("", 401, "KEY_UNKNOWN"),
        ("schlüssel", 401, "KEY_UNKNOWN"),
        ("pk_live_" + "0" * 24, 401, "KEY_OF_OTHER_ENVIRONMENT"),
    ):
        answer = Page(page.url, key)("GET", "/v1/instruments")
        assert (answer.status, answer.code, seen_by_browsers(answer)) == (status, code, SHOP_SITE), key


@pytest.mark.parametrize("end", ["revoke", "expire"])
def test_a_key_that_ended_is_out_after_a_second_and_its_page_may_read_nothing_any_more(
    end: str, page: Page, service: Service, clock: Clock
) -> None:
    assert page("GET", "/v1/instruments").status == 200
    if end == "revoke":
        assert service.keys.revoke(page.key)
    else:
        service.keys.expire(page.key, clock())
    clock.advance(1)
    answer = page("POST", "/v1/quotes", QUOTE)
    assert (answer.status, answer.code, seen_by_browsers(answer)) == (401, "KEY_UNKNOWN", None)
    asked = raw(page.url, "OPTIONS", "/v1/quotes", b"", {"Origin": SHOP_SITE, "Access-Control-Request-Method": "POST"})
    assert (asked.status, seen_by_browsers(asked)) == (401, None)


def test_a_key_shows_when_and_by_which_page_it_was_used_and_no_visitors_address(page: Page, service: Service) -> None:
    page("GET", "/v1/instruments")
    row = next(row for row in service.keys.listed() if row["key"] == page.key)
    assert (row["last_used_at"] is not None, row["last_used_from"]) == (True, SHOP_SITE)


# --- limits ----------------------------------------------------------------------------------------------------------


def spent(answers: Iterator[Answer], most: int = 400) -> Answer:
    """The first answer that refuses for the budget."""
    for _, answer in zip(range(most), answers, strict=False):
        if answer.status == 429:
            assert answer.code == "RATE_LIMITED"
            assert int(answer.headers["Retry-After"]) >= 1
            return answer
        assert answer.status == 200, answer.text
    raise AssertionError("never refused")


def asking(page: Callable[..., Answer], **headers: str) -> Iterator[Answer]:
    while True:
        yield page("GET", "/v1/instruments", **headers)


def test_what_pages_spend_is_not_their_backends_nor_the_other_way_round(
    service: Service, api_url: str, clock: Clock
) -> None:
    calls = Calls(new_shop(service, api_url, clock, "small", weight_per_minute=20), api_url, clock)
    page = Page(api_url, key_of(service, client="small", weight_per_minute=20))
    other = Page(api_url, key_of(service, client="small", weight_per_minute=20))
    refused = spent(asking(page))
    assert seen_by_browsers(refused) == SHOP_SITE
    assert (refused.details["limit"], refused.headers["X-RateLimit-Remaining"]) == (20, "0")
    assert calls("GET", "/v1/instruments").status == 200
    assert other("GET", "/v1/instruments").status == 200, "each key has its own"
    while calls("GET", "/v1/instruments").status == 200:
        pass
    assert Page(api_url, key_of(service, client="small"))("GET", "/v1/limits").code == "SECRET_KEY_NEEDED"
    clock.advance(1)
    assert Page(api_url, key_of(service, client="small"))("GET", "/v1/instruments").status == 200


def test_a_page_that_loads_the_catalog_and_asks_a_little_is_not_refused(page: Page) -> None:
    for target in ("/v1/instruments", *["/v1/pairs?limit=500"] * 4):
        assert page("GET", target).status == 200
    assert [page(*question).status for question in QUESTIONS[3:]] == [200, 200]


@contextmanager
def behind_a_proxy(other_service: Callable[..., Service], clock: Clock) -> Iterator[tuple[Service, str]]:
    parts = other_service(trusted_proxies=("127.0.0.0/8",))
    with served(parts) as url:
        new_shop(parts, url, clock, "shop")
        yield parts, url


def test_one_visitor_who_asks_too_much_keeps_no_other_from_the_shop(
    other_service: Callable[..., Service], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "VISITOR_WEIGHT", 20)
    with behind_a_proxy(other_service, clock) as (parts, url):
        page = Page(url, key_of(parts, weight_per_minute=80))
        greedy = {"X_Forwarded_For": "2001:db8::1"}
        refused = spent(asking(page, **greedy))
        assert (refused.details["limit"], seen_by_browsers(refused)) == (20, SHOP_SITE)
        # More than all visitors may together: what one was refused counts for nobody.
        for number in range(90):
            assert page("GET", "/v1/instruments", X_Forwarded_For=f"2001:db8::{number:x}").status == 429
        first = page("GET", "/v1/instruments", X_Forwarded_For="2001:db8:0:1::1")
        assert (first.status, first.headers["X-RateLimit-Limit"]) == (200, "20"), "the shop's own limit is its business"
        assert page("GET", "/v1/instruments", X_Forwarded_For="198.51.100.7").status == 200
        answer = page("GET", "/v1/instruments", X_Forwarded_For="198.51.100.8")
        assert answer.status == 200


def test_many_visitors_together_have_the_limit_of_the_key(other_service: Callable[..., Service], clock: Clock) -> None:
    with behind_a_proxy(other_service, clock) as (parts, url):
        page = Page(url, key_of(parts, weight_per_minute=40))
        visitors = (page("GET", "/v1/instruments", X_Forwarded_For=f"198.51.100.{n}") for n in range(1, 250))
        assert spent(visitors).details["limit"] == 40


def test_while_redis_is_away_pages_are_limited_all_the_same(
    other_service: Callable[..., Service], clock: Clock
) -> None:
    parts = other_service(redis_url="redis://127.0.0.1:1")
    with served(parts) as url:
        calls = Calls(new_shop(parts, url, clock, "shop", weight_per_minute=20), url, clock)
        spent(asking(Page(url, key_of(parts, weight_per_minute=20))))
        assert calls("GET", "/v1/instruments").status == 200


def test_an_address_is_counted_for_the_network_that_one_visitor_has() -> None:
    assert visitor_at("203.0.113.9") == "203.0.113.9"
    assert visitor_at("2001:db8:1:2:3:4:5:6") == visitor_at("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert visitor_at("2001:db8:1:3::") != visitor_at("2001:db8:1:2::")
    assert visitor_at("no address") == "no address"


def test_pages_wait_in_lines_of_their_own_for_what_the_upstream_is_asked(
    page: Page, shop: Shop, service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []

    def told_of(place: Any) -> Any:
        def noted(owner: str, seconds: float) -> Any:
            waited.append(owner)
            return place(owner, seconds)

        return noted

    for part in (service.quotes, service.destinations):
        monkeypatch.setattr(part._room, "place", told_of(part._room.place))
    signed = Calls(shop, page.url, clock)
    signed("POST", "/v1/quotes", body={**QUOTE, "amount": "0.0126"})
    page("POST", "/v1/quotes", {**QUOTE, "amount": "0.0127"})
    signed("POST", "/v1/addresses/validate", body=ADDRESS)
    page("POST", "/v1/addresses/validate", {**ADDRESS, "memo": "8"})
    assert waited == [shop.client_id, f"pages of {shop.client_id}"] * 2


# --- the real server ---


@pytest.mark.process
def test_a_page_is_served_by_the_real_server_and_reads_what_its_door_refuses(
    processes: Processes, gate: object
) -> None:
    processes.tool("keys", "create", "--name", "shop", "--json")
    site = f"http://localhost:{free_port()}"
    made = processes.tool(
        *("keys", "create-publishable", "--name", "checkout", "--client", "shop"),
        *("--origin", EVIL, "--weight-per-minute", "900", "--expires-in", "30d", "--reason", "launch", "--json"),
    )
    assert sorted(made) == ["client", "key", "name", "origins", "weight_per_minute"]
    processes.tool("keys", "origins", made["key"], "--origin", SHOP_SITE, "--origin", site, "--by", "anna", "--json")
    processes.tool("keys", "limits", made["key"], "--weight-per-minute", "800", "--json")
    listed = {row["kind"]: row for row in processes.tool("keys", "list", "--json")["keys"]}
    row = listed["publishable"]
    assert (row["key"], row["origins"], row["weight_per_minute"]) == (made["key"], [SHOP_SITE, site], 800)
    acts = processes.tool("audit", "--subject", made["key"], "--json")["audit"]
    assert [act["act"] for act in acts] == ["keys.limit", "keys.origins", "keys.create"]
    processes.start("scheduler")
    processes.api()
    page = Page(processes.api_url, made["key"], site)
    quote = page("POST", "/v1/quotes", QUOTE)
    assert (quote.status, seen_by_browsers(quote)) == (200, site), quote.text
    large = page("POST", "/v1/quotes", {"x": "x" * 70_000})
    assert (large.status, large.code, seen_by_browsers(large)) == (413, "BODY_TOO_LARGE", site)
    strange = Page(processes.api_url, made["key"], EVIL)("POST", "/v1/quotes", {"x": "x" * 70_000})
    assert (strange.status, seen_by_browsers(strange)) == (413, None)
    processes.tool("keys", "revoke", made["key"], "--json")
    until(lambda: page("POST", "/v1/quotes", {**QUOTE, "amount": "0.0126"}).status == 401, 2)
    assert made["key"] in processes.logs(), "who is refused is told"
