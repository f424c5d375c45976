"""Blocked addresses: no order pays out or refunds to one, however it is written, and nobody is told why."""

from __future__ import annotations

import pytest

from swap.errors import Conflict, InvalidRequest, NotFound
from swap.sandbox.world import World
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS, Clock, Shop
from tests.signed_client import ETH_ADDRESS, Calls

WHY = {"by": "anna", "reason": "case 17"}


@pytest.fixture
def calls(shop: Shop, api_url: str, clock: Clock) -> Calls:
    return Calls(shop, api_url, clock)


def test_an_order_to_a_blocked_address_is_refused_before_anything_is_made(
    service: Service, calls: Calls, world: World
) -> None:
    service.blocked.block("XRP", "XRP", XRP_ADDRESS, **WHY)
    answer = calls.order()
    assert (answer.status, answer.codes) == (422, {"destination_address": ["DESTINATION_BLOCKED"]})
    assert "case 17" not in answer.text
    assert (world.orders(), calls.get("/v1/orders").data["orders"]) == ([], [])
    service.blocked.unblock("XRP", "XRP", XRP_ADDRESS, **WHY)
    assert calls.order().status == 201


def test_a_blocked_refund_address_is_refused_together_with_whatever_else_is_wrong(
    service: Service, calls: Calls
) -> None:
    service.blocked.block("BTC", "BTC", BTC_ADDRESS.upper(), **WHY)
    answer = calls.order(amount="0.00000001")
    assert answer.codes["refund_address"] == ["DESTINATION_BLOCKED"]


def test_an_address_is_blocked_in_every_spelling_and_on_every_network(service: Service, calls: Calls) -> None:
    service.blocked.block("ETH", "ERC20", ETH_ADDRESS.lower(), **WHY)
    asked = {"currency": "ETH", "network": "ERC20", "address": ETH_ADDRESS}
    answer = calls("POST", "/v1/addresses/validate", body=asked).data
    assert (answer["orderable"], answer["problems"]["address"][0]["code"]) == (False, "DESTINATION_BLOCKED")
    with pytest.raises(Conflict):
        service.blocked.block("USDT", "ERC20", ETH_ADDRESS, **WHY)


def test_an_order_that_was_not_sent_is_not_made_later_to_an_address_that_was_blocked_meanwhile(
    service: Service, calls: Calls, world: World
) -> None:
    world.chaos.force("create.rate_limited")
    assert calls.order().status == 503
    service.blocked.block("XRP", "XRP", XRP_ADDRESS, **WHY)
    answer = calls.order()
    assert (answer.status, answer.code) == (422, "DESTINATION_BLOCKED")
    assert world.orders() == []


def test_who_blocked_what_and_why_is_listed_and_kept(service: Service) -> None:
    service.blocked.block("XRP", "XRP", XRP_ADDRESS, **WHY)
    (listed,) = service.blocked.listed()
    assert (listed["address"], listed["blocked_by"], listed["reason"]) == (XRP_ADDRESS, "anna", "case 17")
    service.blocked.unblock("XRP", "XRP", XRP_ADDRESS, by="bert", reason="cleared")
    acts = [(act["act"], act["actor"], act["reason"]) for act in service.clients.audit(subject=XRP_ADDRESS)]
    assert acts == [("addresses.unblock", "bert", "cleared"), ("addresses.block", "anna", "case 17")]
    with pytest.raises(NotFound):
        service.blocked.unblock("XRP", "XRP", XRP_ADDRESS, **WHY)
    with pytest.raises(InvalidRequest):
        service.blocked.block("XRP", "XRP", "no address", **WHY)
