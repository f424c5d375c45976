"""What browsers are told about answers to pages of other sites: which they may ask for, and which the page may read."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from swap.web import cors, create_app
from swap.web.door import Door
from swap.wiring import Service
from tests.conftest import Clock, Shop, new_shop
from tests.pages import EVIL, OPENED, OTHER_SITE, QUESTIONS, SHOP_SITE, Page, key_of, seen_by_browsers
from tests.servers import served
from tests.signed_client import Calls, raw
from tests.test_door import Protocol, scope

pytestmark = pytest.mark.sqlite_only


@pytest.fixture
def page(service: Service, shop: Shop, api_url: str) -> Page:
    return Page(api_url, key_of(service))


# --- what browsers ask, and may read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "target", "_content"), QUESTIONS)
def test_a_browser_is_told_that_the_page_may_ask(
    method: str, target: str, _content: object, service: Service, shop: Shop, api_url: str
) -> None:
    key_of(service, SHOP_SITE, "http://localhost:3000")
    for origin in (SHOP_SITE, "http://localhost:3000"):
        headers: dict[str, str | bytes] = {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type,x-publishable-key",
        }
        answer = raw(api_url, "OPTIONS", target, b"", headers)
        assert (answer.status, answer.content) == (204, b"")
        assert seen_by_browsers(answer) == origin
        assert answer.headers["Access-Control-Allow-Methods"] == method
        assert answer.headers["Access-Control-Allow-Headers"] == "X-Publishable-Key, Content-Type"
        assert answer.headers["Access-Control-Max-Age"] == "600"


def test_a_browser_is_told_of_no_other_route_and_no_other_method(page: Page, service: Service) -> None:
    page("GET", "/v1/instruments")
    for rule in create_app(service).url_map.iter_rules():
        target = re.sub(r"<string:\w+>", "x", rule.rule)
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            headers: dict[str, str | bytes] = {"Origin": SHOP_SITE, "Access-Control-Request-Method": method}
            told = raw(page.url, "OPTIONS", target, b"", headers).headers.get("Access-Control-Allow-Methods")
            assert (told == method) == ((method, rule.rule) in OPENED), (method, rule)


def test_errors_of_every_kind_can_be_read_by_the_page(
    page: Page, service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen_by_browsers(page("POST", "/v1/quotes", {})) == SHOP_SITE
    assert seen_by_browsers(page("GET", "/v1/instruments/NO/NO")) == SHOP_SITE
    etag = page("GET", "/v1/instruments").headers["ETag"]
    unchanged = page("GET", "/v1/instruments", If_None_Match=etag)
    assert (unchanged.status, seen_by_browsers(unchanged)) == (304, SHOP_SITE)
    monkeypatch.setattr(service.catalog, "snapshot", lambda: 1 / 0)
    assert (page("GET", "/v1/instruments").status, seen_by_browsers(page("GET", "/v1/instruments"))) == (500, SHOP_SITE)

    @event.listens_for(service.database.engine, "before_cursor_execute")
    def away(*_: object) -> None:
        raise OperationalError("", {}, Exception())

    clock.advance(5)
    answer = page("GET", "/v1/instruments")
    assert (answer.status, answer.code, seen_by_browsers(answer)) == (503, "DATABASE_UNAVAILABLE", SHOP_SITE)


def test_answers_that_depend_on_the_page_say_so_to_caches_on_the_way(page: Page, shop: Shop, clock: Clock) -> None:
    assert "Origin" in Calls(shop, page.url, clock)("GET", "/v1/instruments").headers["Vary"]


def test_a_page_of_a_tracking_site_may_not_ask_and_one_with_a_key_may_not_follow(
    other_service: Callable[..., Service], clock: Clock
) -> None:
    parts = other_service(allowed_origins=(OTHER_SITE,))
    with served(parts) as url:
        order = new_shop(parts, url, clock, "shop")
        key = key_of(parts)
        assert Page(url, key)("GET", "/v1/instruments").status == 200
        for target, method, origin in (
            ("/v1/quotes", "POST", OTHER_SITE),
            (f"/v1/orders/{order.client_id}", "GET", SHOP_SITE),
        ):
            headers: dict[str, str | bytes] = {"Origin": origin, "Access-Control-Request-Method": method}
            assert seen_by_browsers(raw(url, "OPTIONS", target, b"", headers)) is None


# --- at the door -----------------------------------------------------------------------------------------------------


def test_what_the_door_refuses_can_be_read_by_pages_that_are_known(page: Page, service: Service) -> None:
    page("GET", "/v1/instruments")
    held = threading.Event()

    def application(_environ: Any, start_response: Any) -> list[bytes]:
        held.wait(30)
        start_response("200 OK", [])
        return [b"done"]

    async def refused(door: Door, **headers: str) -> dict[str, str]:
        protocol, asked = Protocol(), scope("POST", "/v1/orders")
        asked.headers.update(headers)
        await door.__rsgi__(asked, protocol)
        assert protocol.answered is not None and protocol.answered[0] == 503
        return dict(protocol.answered[1])

    async def scene() -> None:
        door = Door(application, 1, "test", lambda: None, may_read=partial(cors.may_read, service))
        waiting = [asyncio.create_task(door.__rsgi__(scope("POST", "/v1/orders"), Protocol())) for _ in range(2 * 9)]
        await asyncio.sleep(0)
        for origin, told in ((SHOP_SITE, SHOP_SITE), (EVIL, None)):
            headers = await refused(door, origin=origin)
            assert (headers.get("Access-Control-Allow-Origin"), headers["Vary"]) == (told, "Origin")
        assert "Access-Control-Allow-Origin" not in await refused(door)
        held.set()
        await asyncio.gather(*waiting)

    asyncio.run(scene())
