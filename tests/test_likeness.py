"""What looks like an order's own may be another customer's: likeness alone makes nothing anybody's, and takes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from swap.sandbox.world import World
from swap.wiring import Service
from tests.conftest import Clock, Shop, look
from tests.faults import Faults, Holding, Looks, spoiling
from tests.polling import ADDRESSES, view
from tests.test_matching import OTHER_XRP_ADDRESS
from tests.test_resolve import go_on, in_doubt

SAME: dict[str, Any] = {"destination_address": ADDRESSES["completes"]}  # an exchange's: customers differ in the memo


def say_little(rows: list[dict[str, Any]]) -> None:
    """The list leaves out what tells orders apart (docs/upstream.md E7)."""
    for row in rows:
        for name in ("destinationAddress", "refundAddress", "claimedDepositAmount"):
            row[name] = None


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Public-info that leaves these out."""
    return lambda body: {name: value for name, value in body.items() if name not in names}


def watched_to_its_end(service: Service, clock: Clock, order_id: str) -> str:
    for _ in range(60):
        clock.advance(30)
        look(service, order_id)
        service.unowned.poll_due()
    return str(view(service, order_id)["status"])


def test_what_a_customer_is_shown_by_a_uuid_becomes_no_spare_of_a_doubt_that_cannot_read_it(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    world.chaos.change({"id.uuid": 1.0})
    doubt = in_doubt(shop, world, "create.drop", name="doubt", destination_memo="1", **SAME)
    clock.advance(15)
    shown = shop.place("shown", destination_memo="2", **SAME)
    assert not shown["upstream_order_id"].isdigit()
    looks.answer = ("503 Service Unavailable", "application/json", b"{}")
    clock.advance(8)
    look(service, doubt)
    looks.answer = None
    (found,) = service.support.unowned_orders()
    assert (found["role"], found["candidates"]) == ("unowned", [doubt])
    assert watched_to_its_end(service, clock, shown["id"]) == "completed"


def test_what_a_customer_is_shown_by_a_uuid_becomes_no_spare_of_an_equal_order_though_no_answer_repeats_the_uuid(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    world.chaos.change({"id.uuid": 1.0})
    equal = {**SAME, "destination_memo": "1"}
    doubt = in_doubt(shop, world, "create.drop", name="doubt", **equal)
    clock.advance(15)
    shown = shop.place("shown", **equal)
    looks.edit = without("legacyOrderId", "uuid")
    clock.advance(8)
    look(service, doubt)
    assert watched_to_its_end(service, clock, shown["id"]) == "completed"


def test_an_order_of_which_no_answer_can_be_believed_comes_under_review(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    """The same, and public-info tells no place to pay at either: nobody would see that the customer has paid."""
    world.chaos.change({"id.uuid": 1.0})
    equal = {**SAME, "destination_memo": "1"}
    doubt = in_doubt(shop, world, "create.drop", name="doubt", **equal)
    clock.advance(15)
    shown = shop.place("shown", **equal)
    looks.edit = without("legacyOrderId", "uuid", "depositAddress")
    clock.advance(8)
    look(service, doubt)
    watched_to_its_end(service, clock, shown["id"])
    assert [order["order_id"] for order in service.review.listed()] == [shown["id"]]
    assert shop.api.order(shown["id"])["deposit"]["payable"] is False


def test_the_search_for_spares_takes_nothing_that_a_customer_is_shown(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    settled = in_doubt(shop, world, "create.drop", name="settled")
    go_on(service, clock, settled, 30)
    clock.advance(600)
    world.chaos.change({"id.uuid": 1.0})
    shown = shop.place("shown", **SAME, amount="0.02")
    faults["orders"] = spoiling(say_little)
    clock.advance(5)
    service.spares.search_due()
    assert watched_to_its_end(service, clock, shown["id"]) == "completed"


def test_a_direct_answer_beats_likeness(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    doubt = in_doubt(shop, world, "create.drop", name="doubt")
    clock.advance(15)
    holding = Holding()
    faults["create"] = holding
    answers: list[dict[str, Any]] = []
    direct = {"destination_address": OTHER_XRP_ADDRESS, "amount": "0.02"}
    placing = threading.Thread(target=lambda: answers.append(shop.place("direct", **direct)))
    placing.start()
    assert holding.arrived.wait(10)
    del faults["create"]
    faults["orders"] = spoiling(say_little)
    clock.advance(8)
    look(service, doubt)
    holding.let_go()
    placing.join()
    assert [answer["status"] for answer in answers] == ["awaiting_deposit"]


def test_what_is_nobodys_becomes_the_spare_of_its_maker_once_public_info_tells_all(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    made, other = (in_doubt(shop, world, name=name, destination_memo=memo) for name, memo in (("a", "1"), ("b", "2")))
    for upstream in world.orders():
        world.chaos.record(upstream.number).listed_at += 60
    for order_id in (made, other):
        go_on(service, clock, order_id, 30)
    looks.edit = lambda body: {**body, "destinationAddressMemo": None}
    clock.advance(61)
    service.spares.search_due()
    service.unowned.poll_due()
    assert {spare["role"] for spare in service.support.unowned_orders()} == {"unowned"}
    looks.edit = None
    clock.advance(301)
    service.unowned.poll_due()
    owners = {spare["upstream_order_id"]: spare["order_id"] for spare in service.support.unowned_orders()}
    assert owners == {str(world.orders()[0].number): made, str(world.orders()[1].number): other}
