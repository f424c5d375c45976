"""GET /v1/instruments, /v1/instruments/{currency}/{network} and /v1/pairs."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from swap.sandbox.server import running
from swap.sandbox.world import World
from swap.wiring import Service
from tests.conftest import SANDBOX_KEYS, Clock, new_shop
from tests.servers import served
from tests.signed_client import BTC, XRP, Calls


def test_instruments_are_listed_with_their_age(calls: Calls, clock: Clock, world: World) -> None:
    found = calls.get("/v1/instruments").data
    assert len(found["instruments"]) == len(world.catalog.instruments)
    assert (found["staleness"], found["as_of"][-1]) == ("fresh", "Z")
    xrp = next(i for i in found["instruments"] if i["currency"] == "XRP")
    assert xrp == {
        "currency": "XRP",
        "network": "XRP",
        "type": "crypto",
        "name": "XRP",
        "precision": 6,
        "requires_memo": True,
        "memo_name": "destination tag",
        "contract_address": None,
        "logo_url": "https://sandbox.invalid/assets/coins/xrp.svg",
    }
    assert {i["type"] for i in found["instruments"]} == {"crypto", "fiat"}
    clock.advance(timedelta(minutes=6))
    assert calls.get("/v1/instruments").data["staleness"] == "stale"
    clock.advance(timedelta(hours=1))
    old = calls.get("/v1/instruments").data
    assert (old["staleness"], len(old["instruments"])) == ("expired", len(found["instruments"]))


def test_one_instrument_is_found_in_any_case(calls: Calls) -> None:
    found = calls.get("/v1/instruments/dot/asset%20hub%28polkadot%29").data["instrument"]
    assert (found["currency"], found["network"]) == ("DOT", "Asset Hub(Polkadot)")
    answer = calls.get("/v1/instruments/BTC/Bitcoin")
    assert (answer.status, answer.error["code"]) == (404, "INSTRUMENT_UNKNOWN")


def test_the_precision_that_is_shown_is_what_a_wallet_can_send(calls: Calls) -> None:
    """The sandbox lists BTC with 11 digits, USDT on Tron with 12 and SOL with 4."""
    shown = {(i["currency"], i["network"]): i["precision"] for i in calls.get("/v1/instruments").data["instruments"]}
    assert [shown[name] for name in (("BTC", "BTC"), ("USDT", "TRC20"), ("SOL", "SOL"))] == [8, 6, 4]


def test_a_catalog_the_caller_has_already_is_not_sent_again(calls: Calls, service: Service, clock: Clock) -> None:
    for path in ("/v1/instruments", "/v1/instruments/BTC/BTC", "/v1/pairs?limit=3"):
        tag = calls.get(path).headers["ETag"]
        again = calls.get(path, If_None_Match=tag)
        assert (again.status, again.json, again.headers["ETag"]) == (304, {}, tag)
        assert calls.get(path, If_None_Match=f'"other", W/{tag}').status == 304
        assert calls.get(path, If_None_Match='"another"').status == 200
        assert calls.get(path, If_None_Match='W/"another"').status == 200
    clock.advance(timedelta(minutes=6))
    assert calls.get("/v1/instruments", If_None_Match=calls.get("/v1/instruments").headers["ETag"]).status == 304
    assert calls.get("/v1/pairs?limit=3", If_None_Match=tag).status == 200


def test_pairs_are_filtered_by_any_title_in_any_case(calls: Calls, world: World) -> None:
    active = [pair for pair in world.catalog.pairs if pair.is_active]
    found = calls.get("/v1/pairs?from_currency=btc&limit=1000").data
    assert {(p["from"]["currency"], p["from"]["network"]) for p in found["pairs"]} == {("BTC", "BTC")}
    assert len(found["pairs"]) == sum(pair.source.currency == "BTC" for pair in active)
    exact = calls.get("/v1/pairs?from_currency=BTC&from_network=btc&to_currency=xrp&to_network=XRP").data
    assert [(p["from"], p["to"]) for p in exact["pairs"]] == [(BTC, XRP)]
    assert calls.get("/v1/pairs?from_currency=NOBODY").data["pairs"] == []


def test_inactive_pairs_are_not_listed(calls: Calls, world: World) -> None:
    inactive = next(pair for pair in world.catalog.pairs if not pair.is_active)
    currency, network = inactive.source.key
    listed = calls.get(f"/v1/pairs?from_currency={currency}&from_network={network}&limit=1000").data["pairs"]
    targets = {(pair["to"]["currency"], pair["to"]["network"]) for pair in listed}
    assert targets
    assert inactive.target.key not in targets


def test_limits_and_modes_are_null_until_a_quote_has_taught_them(calls: Calls) -> None:
    path = "/v1/pairs?from_currency=BTC&to_currency=XRP"
    (before,) = calls.get(path).data["pairs"]
    assert (before["limits"], before["rate_modes"]) == (None, None)
    assert calls.post("/v1/quotes", {"from": BTC, "to": XRP}).status == 200
    (after,) = calls.get(path).data["pairs"]
    assert after["rate_modes"] == ["FLOATING", "FIXED"]
    assert (after["limits"]["min"], after["limits"]["max"]) == ("0.00024", "3")


NO_KEYS = [
    "5",
    "null",
    '{"a":1,"b":2,"c":3,"d":4}',
    '["a","b","c"]',
    '["a","b","c",5]',
    '["a","b","c",null]',
    r'["a","b","c","\u0000"]',
    '["a", "b", "c", "d"]',
]
NOT_UNDERSTOOD = [
    *((f"after={urlsafe_b64encode(text.encode()).decode()}", "after") for text in NO_KEYS),
    ("after=nonsense", "after"),
    ("after=%F0%9F%98%80", "after"),
    ("limit=0", "limit"),
    ("limit=1001", "limit"),
    ("limit=x", "limit"),
    ("from=BTC", "from"),
]


def test_what_is_not_understood_is_refused_by_name(calls: Calls, subtests: pytest.Subtests) -> None:
    for query, field in NOT_UNDERSTOOD:
        with subtests.test(query=query):
            answer = calls.get(f"/v1/pairs?{query}")
            assert (answer.status, list(answer.codes)) == (422, [field])


@pytest.fixture
def large(clock: Clock, other_service: Callable[..., Service]) -> Iterator[tuple[Calls, Service, World]]:
    """The API over a catalog of 20,000 pairs."""
    world = World(*SANDBOX_KEYS, clock=clock.time, large=True)
    with running(world) as upstream_url:
        service = other_service(upstream_url=upstream_url)
        assert service.catalog.refresh()
        with served(service) as url:
            shop = new_shop(service, url, clock, "shop", weight_per_minute=60_000)
            yield Calls(shop, url, clock), service, world


def test_twenty_thousand_pairs_are_paged_through_while_the_catalog_changes(
    large: tuple[Calls, Service, World],
) -> None:
    calls, service, world = large
    active = {(p.source.key, p.target.key) for p in world.catalog.pairs if p.is_active}
    found: list[Any] = []
    cursor, pages = "", 0
    while True:
        page = calls.get(f"/v1/pairs?limit=1000{cursor}").data
        found += page["pairs"]
        pages += 1
        if pages == 5:
            # Known pairs that are confirmed, and limits that are learned, move nothing.
            assert service.catalog.refresh()
            assert calls.post("/v1/quotes", {"from": BTC, "to": XRP}).status == 200
        if not page["has_more"]:
            assert page["next"] is None
            break
        assert len(page["pairs"]) == 1000
        cursor = f"&after={page['next']}"
    listed = [tuple((p[side]["currency"], p[side]["network"]) for side in ("from", "to")) for p in found]
    assert len(listed) == len(set(listed))
    assert set(listed) == active
