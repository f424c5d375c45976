"""Orders in doubt: adopted, or created again, with every other upstream order kept as a spare; never another order's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from swap.errors import AmountRefused
from swap.orders.attempts import record_answer
from swap.sandbox.world import World
from swap.sdk import SwapApiError
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.store.leases import LEASE
from swap.tables import Order
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, SANDBOX_KEYS, Clock, Shop, claimed, look
from tests.factories import read_order
from tests.faults import Fault, Faults, Looks, answering, spoiling
from tests.test_matching import OTHER_XRP_ADDRESS


def in_doubt(
    shop: Shop, world: World, fault: str = "create.accept_then_drop", name: str = "order-1", **changed: Any
) -> str:
    """Place an order whose create goes wrong in that way; returns its id."""
    world.chaos.force(fault)
    order = shop.place(name, **changed)
    assert (order["status"], order["status_reason"]) == ("creating", "create_in_doubt")
    assert order["deposit"] is None
    return str(order["id"])


def journal(service: Service, order_id: str) -> list[dict[str, Any]]:
    return [event["detail"] for event in service.support.record(order_id)["events"]]


def attempts(service: Service, order_id: str) -> list[str]:
    return [attempt["outcome"] for attempt in service.support.record(order_id)["attempts"]]


def go_on(service: Service, clock: Clock, order_id: str, seconds: float, step: float = 6) -> None:
    """Let that much time pass, with everything done when it is due."""
    end = clock() + timedelta(seconds=seconds)
    while clock() < end:
        service.upstream_access._breaker.after("OK")
        look(service, order_id)
        clock.advance(step)


REFUSING = answering(422, {"message": "Amount Too Big", "data": {"details": {"expected": "0.001"}}})


def naming(address: str) -> Fault:
    """A create that is answered with this deposit address."""

    def change(told: dict[str, Any]) -> None:
        told["depositAddress"]["depositAddress"] = address

    return spoiling(change)


def is_first(world: World, told: dict[str, Any]) -> bool:
    return str(told["orderId"]) == str(world.orders()[0].number)


def promise(service: Service, order_id: str, times: Decimal) -> None:
    """Change what the order was promised by this factor."""
    with service.database.write() as session:
        order = order_rows.get(session, order_id)
        assert order is not None
        assert order.amount_to_get is not None
        (attempt,) = attempt_rows.attempts_of(session, order_id)
        order.amount_to_get = attempt.amount_to_get = order.amount_to_get * times


def answer_late(service: Service, world: World, order_id: str) -> None:
    """Write down that the order's create was answered after all, with the order that it made."""
    made = world.orders()[0]
    told = service.upstream.order(str(made.number), made.destination, deadline=5)
    record_answer(service.database, order_id, 1, "done", service.clock(), reply=told)


def test_an_order_that_was_made_although_the_answer_was_lost_is_found_and_adopted(
    shop: Shop, world: World, service: Service
) -> None:
    order_id = in_doubt(shop, world)
    look(service, order_id)
    order = shop.api.order(order_id)
    assert order["status"] == "awaiting_deposit"
    assert order["deposit"]["payable"] is True
    (made,) = world.orders()
    assert order["upstream_order_id"] == str(made.number)
    assert order["deposit"]["address"] == made.place.address
    assert [event["sequence"] for event in shop.api.order_events(order_id)] == [1, 2, 3]
    assert journal(service, order_id)[-1]["adopted"] == str(made.number)
    assert shop.place("order-1")["id"] == order_id


@pytest.mark.parametrize(
    "fault",
    [
        "create.accept_then_500",
        "create.accept_then_502",
        "create.accept_then_truncated",
        "create.accept_then_hello",
        "create.accept_then_no_deposit",
    ],
)
def test_whatever_answer_hides_an_order_it_is_adopted(shop: Shop, world: World, service: Service, fault: str) -> None:
    order_id = in_doubt(shop, world, fault)
    look(service, order_id)
    assert shop.api.order(order_id)["deposit"]["address"] == world.orders()[0].place.address


def test_orders_alike_but_for_the_memo_each_find_their_own(shop: Shop, world: World, service: Service) -> None:
    first = in_doubt(shop, world, name="order-1", destination_memo="1")
    second = in_doubt(shop, world, name="order-2", destination_memo="2")
    look(service, second)
    look(service, first)
    truth = {made.destination_memo: str(made.number) for made in world.orders()}
    assert shop.api.order(first)["upstream_order_id"] == truth["1"]
    assert shop.api.order(second)["upstream_order_id"] == truth["2"]


def test_a_uuid_that_create_answered_and_the_list_does_not_know_leads_to_the_order(
    shop: Shop, world: World, service: Service
) -> None:
    world.chaos.change({"id.uuid": 1.0})
    order_id = in_doubt(shop, world)
    look(service, order_id)
    (made,) = world.orders()
    assert shop.api.order(order_id)["upstream_order_id"] == str(made.number)
    assert len(service.support.record(order_id)["order"]["internal"]["upstream_refs"]) >= 2


def test_an_order_is_created_again_when_it_was_not_found(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    go_on(service, clock, order_id, 18)
    assert attempts(service, order_id) == ["unknown"]
    go_on(service, clock, order_id, 6)
    go_on(service, clock, order_id, 1)
    order = shop.api.order(order_id)
    assert (order["status"], order["deposit"]["payable"]) == ("awaiting_deposit", True)
    assert attempts(service, order_id) == ["unknown", "done"]
    assert len(world.orders()) == 1
    types = [event["type"] for event in shop.api.order_events(order_id)]
    assert types == ["order.created", "order.updated", "order.awaiting_deposit"], "creating again is no public event"


def lose_lease(service: Service, clock: Clock, order_id: str) -> Order:
    """Let the lease on the order run out, and another process claim it."""
    clock.advance(LEASE + timedelta(seconds=1))
    other = claimed(service, order_id)
    assert other is not None
    return other


@pytest.mark.parametrize("when", ["before its step", "within its step"])
def test_a_resolver_that_lost_its_lease_does_not_create_again(
    shop: Shop, world: World, service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch, faults: Faults, when: str
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(40)
    mine = claimed(service, order_id)
    assert mine is not None
    if when == "before its step":
        lose_lease(service, clock, order_id)
    else:
        resolver = service.due._resolver
        renew = resolver._renew

        def renew_late(order: Order) -> Any:
            lose_lease(service, clock, order_id)
            return renew(order)

        monkeypatch.setattr(resolver, "_renew", renew_late)
    service.due.run(mine)
    monkeypatch.undo()
    assert (faults.seen["create"], attempts(service, order_id)) == (1, ["unknown"])
    held = read_order(service.database, order_id)
    assert held.lease_token not in (None, mine.lease_token)
    assert held.next_check_at == mine.next_check_at, "nor does it put off what another one holds"
    service.due.run(held)
    assert attempts(service, order_id) == ["unknown", "done"]


@pytest.mark.parametrize("fault", ["create.drop", "create.accept_then_drop"])
def test_a_resolver_that_lost_its_lease_neither_ends_an_order_nor_puts_it_off(
    shop: Shop, world: World, service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    order_id = in_doubt(shop, world, fault)
    clock.advance(3 if fault == "create.drop" else 660)
    mine = claimed(service, order_id)
    assert mine is not None
    search = service.due._resolver._search
    held: list[Order] = []

    def find_nothing_late(doubt: Any) -> list[Any]:
        held.append(lose_lease(service, clock, order_id))
        return []

    monkeypatch.setattr(search, "all_of", find_nothing_late)
    monkeypatch.setattr(service.due._resolver, "_renew", lambda order: None)
    service.due.run(mine)
    after = read_order(service.database, order_id)
    assert after.status == "in_doubt"
    assert (after.lease_token, after.next_check_at) == (held[0].lease_token, mine.next_check_at)


def test_the_upstream_is_asked_at_2_8_and_20_seconds_and_the_create_is_sent_again_at_22(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    with service.database.read() as session:
        (attempt,) = attempt_rows.attempts_of(session, order_id)
    due = []
    for _ in range(4):
        with service.database.read() as session:
            order = order_rows.get(session, order_id)
        assert order is not None
        assert order.next_check_at is not None
        due.append(round((order.next_check_at - attempt.sent_at).total_seconds()))
        clock.advance(order.next_check_at - clock())
        look(service, order_id)
    assert due[0] >= 2, "two seconds after the answer that was none"
    assert due[1:] == [8, 20, 22]
    assert attempts(service, order_id) == ["unknown", "done"]


def test_what_shows_up_after_the_order_was_created_again_is_kept_as_its_spare(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    world.chaos.change({"order.listed_late": 1.0})
    order_id = in_doubt(shop, world)
    (made,) = world.orders()
    world.chaos.record(made.number).listed_at += 60
    go_on(service, clock, order_id, 30)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    assert len(world.orders()) == 2
    assert service.support.unowned_orders() == []
    clock.advance(61)
    service.spares.search_due()
    (found,) = service.support.unowned_orders()
    assert (found["role"], found["candidates"]) == ("unowned", [order_id]), "the list says too little"
    service.unowned.poll_due()
    (spare,) = service.support.unowned_orders()
    assert (spare["role"], spare["order_id"], spare["candidates"]) == ("spare", order_id, [])
    assert spare["upstream_order_id"] == str(made.number)
    assert shop.api.order(order_id)["upstream_order_id"] == str(world.orders()[1].number)


def test_the_search_for_spares_leaves_alone_what_an_order_in_doubt_may_still_find(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    settled = in_doubt(shop, world, "create.drop")
    go_on(service, clock, settled, 30)
    order_id = in_doubt(shop, world, name="order-2")
    service.spares.search_due()
    assert service.support.unowned_orders() == []
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"


def test_an_order_of_nobody_in_the_list_is_nobodys_spare(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    """Two orders may have made it, and nothing in the list tells which."""
    for name, memo in (("order-1", "1"), ("order-2", "2")):
        order_id = in_doubt(shop, world, "create.drop", name=name, destination_memo=memo)
        go_on(service, clock, order_id, 30)
    world.chaos.change({"info.error_500": 1.0})
    made = in_doubt(shop, world, name="order-3", destination_memo="1")
    with service.database.write() as session:
        changes = {"status": "failed", "status_reason": "create_unconfirmed", "next_check_at": None}
        order = order_rows.get(session, made)
        assert order is not None
        order_rows.move(session, order, changes, at=clock(), source="test")
    clock.advance(61)
    service.spares.search_due()
    (unowned,) = service.support.unowned_orders()
    assert (unowned["role"], unowned["order_id"]) == ("unowned", None)


def test_no_more_creates_are_sent_than_the_setting_allows(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    world.chaos.change({"create.drop": 1.0})
    go_on(service, clock, order_id, 120)
    assert attempts(service, order_id) == ["unknown"] * 3
    assert shop.api.order(order_id)["status"] == "creating"
    go_on(service, clock, order_id, 720, step=30)
    order = shop.api.order(order_id)
    assert (order["status"], order["status_reason"], order["final"]) == ("failed", "create_unconfirmed", True)
    assert attempts(service, order_id) == ["unknown"] * 3


def test_creates_that_were_not_sent_do_not_count(shop: Shop, world: World, service: Service, clock: Clock) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(22)
    for _ in range(4):
        world.chaos.force("create.rate_limited_bare")
        look(service, order_id)
        assert shop.api.order(order_id)["status"] == "creating"
        clock.advance(12)
    service.upstream_access._breaker.after("OK")
    go_on(service, clock, order_id, 40)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    sent = [outcome for outcome in attempts(service, order_id) if outcome != "not_sent"]
    assert sent == ["unknown", "done"]


def test_a_refusal_ends_an_order_only_after_what_the_create_before_it_may_have_made(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    world.chaos.change({"info.error_500": 1.0})
    order_id = in_doubt(shop, world)
    faults["create"] = REFUSING
    go_on(service, clock, order_id, 30)
    assert attempts(service, order_id) == ["unknown", "refused"]
    assert shop.api.order(order_id)["status"] == "creating"
    world.chaos.change({"info.error_500": 0.0})
    go_on(service, clock, order_id, 60)
    assert shop.api.order(order_id)["upstream_order_id"] == str(world.orders()[0].number)


def test_an_order_that_is_not_found_after_a_refusal_ends_with_it(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    faults["create"] = REFUSING
    go_on(service, clock, order_id, 660, step=30)
    order = shop.api.order(order_id)
    assert order["status"] == "failed"
    assert order["status_reason"].startswith("amount")


def test_a_floating_order_is_created_again_at_todays_rate_if_that_is_as_good(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(150)
    go_on(service, clock, order_id, 12)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    first, second = (sent["claimedPublicRate"] for sent in faults.sent)
    assert first["updatedAt"] < second["updatedAt"]


@pytest.mark.parametrize("mode", ["FLOATING", "FIXED"])
def test_an_order_whose_rate_got_worse_is_looked_for_and_ends_with_its_quote(
    shop: Shop, world: World, service: Service, clock: Clock, mode: str
) -> None:
    order_id = in_doubt(shop, world, "create.drop", rate_mode=mode)
    promise(service, order_id, Decimal("1.02"))
    clock.advance(150)
    go_on(service, clock, order_id, 480, step=30)
    ended = shop.api.order(order_id)
    assert (ended["status"], ended["status_reason"]) == ("failed", "quote_expired")
    assert attempts(service, order_id) == ["unknown"]


def test_an_answer_that_may_not_be_shown_is_read_again_and_shown_when_it_agrees(
    shop: Shop, world: World, service: Service
) -> None:
    world.chaos.force("create.accept_then_other_destination")
    order = shop.place()
    assert (order["status"], order["status_reason"], order["deposit"]) == ("creating", "verifying", None)
    look(service, order["id"])
    order = shop.api.order(order["id"])
    assert (order["status"], order["status_reason"]) == ("awaiting_deposit", None)
    assert order["deposit"]["address"] == world.orders()[0].place.address
    assert len(world.orders()) == 1


def test_what_never_agrees_is_created_again_and_becomes_a_spare(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    looks.edit = lambda told: {**told, "destinationAddress": OTHER_XRP_ADDRESS} if is_first(world, told) else told
    world.chaos.force("create.accept_then_other_destination")
    order_id = shop.place()["id"]
    go_on(service, clock, order_id, 30)
    first, second = (str(made.number) for made in world.orders())
    order = shop.api.order(order_id)
    assert (order["status"], order["upstream_order_id"]) == ("awaiting_deposit", second)
    (spare,) = service.support.unowned_orders()
    assert (spare["role"], spare["order_id"], spare["upstream_order_id"]) == ("spare", order_id, first)


def test_a_deposit_on_a_spare_raises_the_alarm(
    shop: Shop, world: World, service: Service, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    world.chaos.change({"order.bare_info": 1.0})
    order_id = in_doubt(shop, world)
    world.chaos.change({"order.bare_info": 0.0})
    go_on(service, clock, order_id, 30)
    clock.advance(timedelta(minutes=11))
    service.unowned.poll_due()
    (unread,) = service.support.unowned_orders()
    assert (unread["role"], unread["candidates"]) == ("unowned", [order_id]), "public-info names no memo"
    assert unread["deposit_seen_at"] is not None


def test_of_several_that_only_this_order_can_have_made_the_newest_is_shown(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world)
    world.chaos.record(world.orders()[0].number).listed_at += 60
    clock.advance(23)
    world.chaos.force("create.accept_then_drop")
    look(service, order_id)
    assert len(world.orders()) == 2
    clock.advance(45)
    look(service, order_id)
    older, newer = (str(made.number) for made in world.orders())
    assert shop.api.order(order_id)["upstream_order_id"] == newer
    (spare,) = service.support.unowned_orders()
    assert (spare["upstream_order_id"], spare["role"], spare["order_id"]) == (older, "spare", order_id)


def test_the_record_shows_every_upstream_order_with_its_role(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world)
    world.chaos.record(world.orders()[0].number).listed_at += 60
    clock.advance(23)
    look(service, order_id)
    clock.advance(61)
    service.spares.search_due()
    service.unowned.poll_due()
    upstream_orders = service.support.record(order_id)["upstream_orders"]
    assert [each["role"] for each in upstream_orders] == ["shown", "spare"]
    spare, shown = world.orders()
    assert str(shown.number) in upstream_orders[0]["refs"]
    assert upstream_orders[0]["deposit_address"] == shown.place.address
    assert str(spare.number) in upstream_orders[1]["refs"]


def test_a_place_of_another_order_is_not_shown_and_the_order_is_created_again(
    shop: Shop, world: World, service: Service, faults: Faults
) -> None:
    other = shop.place("order-1", destination_memo="2")["deposit"]["address"]
    faults["create"] = naming(other)
    order_id = shop.place("order-2")["id"]
    assert shop.api.order(order_id)["deposit"] is None
    del faults["create"]
    look(service, order_id)
    order = shop.api.order(order_id)
    assert order["status"] == "awaiting_deposit"
    assert order["deposit"]["address"] != other
    assert [spare["role"] for spare in service.support.unowned_orders()] == ["spare"]


def test_an_upstream_that_names_places_of_others_each_time_ends_the_order(
    shop: Shop, world: World, service: Service, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    faults["create"] = naming(shop.place("order-1", destination_memo="2")["deposit"]["address"])
    order_id = shop.place("order-2")["id"]
    for _ in range(3):
        look(service, order_id)
    order = shop.api.order(order_id)
    assert (order["status"], order["status_reason"]) == ("failed", "address_in_use")
    assert attempts(service, order_id) == ["done", "done", "done"], "as many as SWAP_CREATE_ATTEMPTS"
    assert {spare["order_id"] for spare in service.support.unowned_orders()} == {order_id}


def test_equal_orders_with_different_fixed_promises_each_find_their_own(
    shop: Shop, world: World, service: Service, looks: Looks, clock: Clock
) -> None:
    first = in_doubt(shop, world, name="order-1", rate_mode="FIXED")
    clock.advance(5)
    second = in_doubt(shop, world, name="order-2", rate_mode="FIXED")
    promise(service, second, Decimal("0.9"))
    promised = shop.api.order(second)["amount_to_get"]
    looks.edit = lambda told: told if is_first(world, told) else {**told, "amountToGet": promised}
    for order_id in (second, first):
        look(service, order_id)
    assert [shop.api.order(each)["upstream_order_id"] for each in (first, second)] == [
        str(made.number) for made in world.orders()
    ]


def test_a_sick_upstream_is_not_flooded_with_creates_sent_again(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    world.chaos.change({"create.drop": 1.0})
    ids = [in_doubt(shop, world, "create.drop", name=f"order-{n}", destination_memo=str(n)) for n in range(12)]
    clock.advance(23)
    for order_id in ids:
        service.upstream_access._breaker.after("OK")
        look(service, order_id)
    again = [order_id for order_id in ids if len(attempts(service, order_id)) > 1]
    assert len(again) == 1, "one goes on, as the probe"
    world.chaos.change({"create.drop": 0.0})
    for _ in range(12):
        clock.advance(40)
        for order_id in ids:
            service.upstream_access._breaker.after("OK")
            look(service, order_id)
    assert all(shop.api.order(order_id)["upstream_order_id"] for order_id in ids)


def test_an_upstream_key_has_its_share_of_creates_sent_again_in_an_hour(
    shop: Shop, world: World, service: Service, clock: Clock, other_service: Callable[..., Service]
) -> None:
    strict = other_service(spare_limit=1)
    first = in_doubt(shop, world, "create.drop", name="order-1", destination_memo="1")
    second = in_doubt(shop, world, "create.drop", name="order-2", destination_memo="2")
    clock.advance(23)
    world.chaos.force("create.drop")
    look(strict, first)
    look(strict, second)
    assert attempts(service, first) == ["unknown", "unknown"]
    assert attempts(service, second) == ["unknown"]
    clock.advance(timedelta(minutes=5))
    look(strict, second)
    assert attempts(service, second) == ["unknown"], "five minutes later it is still the same hour"
    look(service, second)
    assert attempts(service, second) == ["unknown", "done"], "another limit lets it go on"


def test_an_order_that_shows_up_late_in_the_list_is_waited_for(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    world.chaos.change({"order.listed_late": 1.0})
    order_id = in_doubt(shop, world)
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "creating"
    clock.advance(12)
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    assert len(world.orders()) == 1


def test_of_two_equal_orders_each_takes_one(shop: Shop, world: World, service: Service, clock: Clock) -> None:
    first = in_doubt(shop, world)
    second = in_doubt(shop, world, name="order-2")
    for order_id in (first, second):
        look(service, order_id)
    taken = {shop.api.order(order_id)["upstream_order_id"] for order_id in (first, second)}
    assert taken == {str(made.number) for made in world.orders()}


def test_an_upstream_order_is_never_adopted_twice(shop: Shop, world: World, service: Service, clock: Clock) -> None:
    first = in_doubt(shop, world)
    second = in_doubt(shop, world, "create.drop", name="order-2")
    for order_id in (first, second):
        look(service, order_id)
    owners = [shop.api.order(order_id)["upstream_order_id"] for order_id in (first, second)]
    assert owners == [str(world.orders()[0].number), None]


def test_what_may_be_the_order_of_another_is_not_adopted(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    """The other gave a refund address, and public-info does not say whether this one has one."""
    looks.edit = lambda told: {name: value for name, value in told.items() if not name.startswith("refund")}
    other = in_doubt(shop, world, name="order-2", refund_address=BTC_ADDRESS)
    order_id = in_doubt(shop, world, "create.drop", refund_address=None)
    look(service, order_id)
    assert shop.api.order(order_id)["upstream_order_id"] is None
    looks.edit = None
    look(service, other)
    assert shop.api.order(other)["upstream_order_id"] == str(world.orders()[0].number)


def test_an_answer_of_its_own_beats_a_likeness(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    """An equal order took the upstream order that this one's create made. It was shown, so this one gets another."""
    taker = in_doubt(shop, world, "create.drop", name="order-1")
    order_id = in_doubt(shop, world, name="order-2")
    look(service, taker)
    assert shop.api.order(taker)["upstream_order_id"] == str(world.orders()[0].number)
    answer_late(service, world, order_id)
    look(service, order_id)
    order = shop.api.order(order_id)
    assert (order["status"], order["upstream_order_id"]) == ("awaiting_deposit", str(world.orders()[1].number))


def test_a_create_is_resolved_with_the_key_that_made_it(
    shop: Shop, world: World, service: Service, other_service: Callable[..., Service]
) -> None:
    order_id = in_doubt(shop, world)
    rotated = other_service(
        upstream_public_key="pk_new", upstream_secret_key="sk_new", upstream_old_keys=(SANDBOX_KEYS,)
    )
    look(rotated, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"


def test_an_upstream_that_is_away_leaves_the_order_in_doubt(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world)
    world.chaos.change({"list.error_500": 1.0})
    look(service, order_id)
    order = shop.api.order(order_id)
    assert order["status"] == "creating"
    assert order["next_check_at"] is not None


def test_an_order_alike_that_was_placed_while_the_list_was_read_is_not_taken_from(
    shop: Shop, world: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.chaos.change({"order.bare_info": 0.0})
    first = in_doubt(shop, world, "create.drop", destination_memo=None, destination_memo_none=True)
    read_list = service.upstream.orders
    placed: list[str] = []

    def while_reading(**options: Any) -> Any:
        if not placed:
            placed.append(in_doubt(shop, world, name="order-2", destination_memo="2"))
        return read_list(**options)

    monkeypatch.setattr(service.upstream, "orders", while_reading)
    look(service, first)
    look(service, placed[0])
    assert shop.api.order(first)["upstream_order_id"] is None
    assert shop.api.order(placed[0])["upstream_order_id"] == str(world.orders()[0].number)


def test_a_process_that_has_not_heard_of_a_new_key_leaves_the_order_to_others(
    shop: Shop, world: World, service: Service, clock: Clock, other_service: Callable[..., Service]
) -> None:
    order_id = in_doubt(shop, world)
    behind = other_service(upstream_public_key="pk_before", upstream_secret_key="sk_before")
    look(behind, order_id)
    assert shop.api.order(order_id)["status"] == "creating"
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"


def test_an_order_in_doubt_of_which_nothing_was_sent_after_all_is_created(
    shop: Shop, world: World, service: Service
) -> None:
    """Swept up while its answer was being written down, by a process that died before it could say so."""
    order_id = in_doubt(shop, world, "create.drop")
    with service.database.write() as session:
        (attempt,) = attempt_rows.attempts_of(session, order_id)
        attempt.outcome = "not_sent"
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    assert len(world.orders()) == 1


def test_an_equal_order_that_was_never_sent_keeps_nobody_from_its_own(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world)
    with service.database.write() as session:
        (attempt,) = attempt_rows.attempts_of(session, order_id)
        attempt.sent_at -= timedelta(seconds=1.5)
    world.chaos.force("create.rate_limited_bare")
    with pytest.raises(SwapApiError):
        shop.place("order-2")
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"


def test_an_order_that_was_not_sent_is_kept_for_its_ten_minutes_whoever_looks(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    world.chaos.force("create.rate_limited_bare")
    with pytest.raises(SwapApiError):
        shop.place("order-1")
    (order,) = shop.api.orders()
    look(service, order["id"])
    assert shop.api.order(order["id"])["status"] == "creating"
    clock.advance(timedelta(minutes=11))
    look(service, order["id"])
    assert shop.api.order(order["id"])["status"] == "failed"


def test_a_deposit_on_a_spare_with_the_shown_address_moves_the_order(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    """An upstream may use one address again for a customer. What was shown stays; which upstream order it is, may change."""
    order_id = in_doubt(shop, world)
    world.chaos.record(world.orders()[0].number).listed_at += 60
    clock.advance(23)
    look(service, order_id)
    spare, shown = world.orders()
    looks.edit = lambda told: (
        told | {"depositAddress": {**told["depositAddress"], "depositAddress": shown.place.address}}
    )
    clock.advance(61)
    service.spares.search_due()
    service.unowned.poll_due()
    order = shop.api.order(order_id)
    assert order["upstream_order_id"] == str(spare.number)
    assert order["deposit"]["address"] == shown.place.address
    (other,) = service.support.unowned_orders()
    assert (other["role"], other["order_id"], other["upstream_order_id"]) == ("spare", order_id, str(shown.number))
    look(service, order_id)
    assert shop.api.order(order_id)["deposits"] != []


def test_no_order_is_shown_the_address_of_another_orders_spare(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults, looks: Looks
) -> None:
    looks.edit = lambda told: {**told, "destinationAddress": OTHER_XRP_ADDRESS} if is_first(world, told) else told
    world.chaos.force("create.accept_then_other_destination")
    go_on(service, clock, shop.place()["id"], 30)
    faults["create"] = naming(str(world.orders()[0].place.address))
    assert shop.place("order-2")["deposit"] is None


@pytest.mark.parametrize("fault", ["create.drop", "create.accept_then_drop"])
def test_workers_that_resolve_one_order_at_once_create_or_adopt_it_once(
    shop: Shop, world: World, service: Service, clock: Clock, fault: str
) -> None:
    order_id = in_doubt(shop, world, fault)
    clock.advance(23)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: look(service, order_id), range(4)))
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    assert len(world.orders()) == 1
    assert service.support.unowned_orders() == []


def test_equal_orders_that_are_resolved_at_once_never_share_an_upstream_order(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    ids = [in_doubt(shop, world, name=f"order-{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda order_id: look(service, order_id), ids))
    for order_id in ids:
        look(service, order_id)
        go_on(service, clock, order_id, 30)
    owned = [shop.api.order(order_id)["upstream_order_id"] for order_id in ids]
    assert None not in owned
    assert len(set(owned)) == len(ids)


def test_an_answer_that_names_two_upstream_orders_is_not_shown(
    shop: Shop, world: World, service: Service, faults: Faults
) -> None:
    in_doubt(shop, world, name="order-1", destination_memo="1")
    other = world.orders()[0]

    def change(told: dict[str, Any]) -> None:
        told["depositAddress"] |= {"orderId": other.number, "depositAddress": other.place.address}

    faults["create"] = spoiling(change)
    order = shop.place("order-2", destination_memo="2")
    assert (order["status_reason"], order["deposit"]) == ("verifying", None)


def test_a_late_refusal_of_the_first_create_does_not_fail_what_the_second_may_have_made(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(23)
    world.chaos.force("create.accept_then_drop")
    look(service, order_id)
    with service.database.read() as session:
        order = order_rows.get(session, order_id)
    assert order is not None
    refusal = AmountRefused("too much", code="AMOUNT_ABOVE_MAXIMUM", status=422)
    assert service.resolver._creator._refused(order, 1, refusal).status == "in_doubt"
    clock.advance(3)
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"


def test_an_order_is_not_created_again_when_its_answer_comes_while_that_is_decided(
    shop: Shop, world: World, service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = in_doubt(shop, world)
    world.chaos.record(world.orders()[0].number).listed_at += 600
    clock.advance(23)
    hold_back = service.resolver._bounds.hold_back

    def late(*arguments: Any) -> Any:
        answer_late(service, world, order_id)
        return hold_back(*arguments)

    monkeypatch.setattr(service.resolver._bounds, "hold_back", late)
    look(service, order_id)
    monkeypatch.undo()
    look(service, order_id)
    assert shop.api.order(order_id)["upstream_order_id"] == str(world.orders()[0].number)
    assert len(world.orders()) == 1


def test_an_order_ends_in_time_though_its_next_create_can_never_be_sent(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    faults["create"] = answering(429, {"message": "Too many"})
    go_on(service, clock, order_id, 915, step=15)
    order = shop.api.order(order_id)
    assert (order["status"], order["status_reason"]) == ("failed", "create_unconfirmed")


def test_an_order_that_an_outage_kept_from_being_created_again_is_tried_when_that_is_over(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    faults["create"] = answering(429, {"message": "Too many"})
    go_on(service, clock, order_id, 610, step=30)
    del faults["create"]
    go_on(service, clock, order_id, 60, step=30)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    assert len(world.orders()) == 1


def test_a_held_order_whose_next_create_is_not_sent_goes_on_soon_and_without_news(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    looks.edit = lambda told: {**told, "destinationAddress": OTHER_XRP_ADDRESS} if is_first(world, told) else told
    world.chaos.force("create.accept_then_other_destination")
    order_id = shop.place()["id"]
    clock.advance(23)
    world.chaos.force("create.rate_limited_bare")
    look(service, order_id)
    assert [event["type"] for event in shop.api.order_events(order_id)] == ["order.created", "order.updated"]
    assert shop.api.order(order_id)["status_reason"] == "verifying"
    go_on(service, clock, order_id, 30)
    assert shop.api.order(order_id)["upstream_order_id"] == str(world.orders()[1].number)


def test_creates_that_follow_one_that_was_not_sent_are_none_that_were_sent_again(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    world.chaos.force("create.rate_limited_bare")
    with pytest.raises(SwapApiError):
        shop.place()
    clock.advance(10)
    world.chaos.force("create.drop")
    order_id = shop.place()["id"]
    assert attempts(service, order_id) == ["not_sent", "unknown"]
    with service.database.read() as session:
        creates = attempt_rows.creates_since(session, SANDBOX_KEYS[0], clock() - timedelta(hours=1))
    assert (creates.sent, creates.unshown_again) == (1, 0)


def test_what_may_be_shown_under_an_id_that_the_list_does_not_know_is_no_spare(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    doubted = in_doubt(shop, world, "create.drop", destination_memo="2")
    go_on(service, clock, doubted, 30)

    def by_uuid_alone(told: dict[str, Any]) -> None:
        told["orderId"] = told.pop("legacyOrderId")

    def by_number_alone(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row.pop("legacyOrderId", None)
            row.pop("uuid", None)

    faults["create"], faults["orders"] = spoiling(by_uuid_alone), spoiling(by_number_alone)
    assert shop.place("order-2")["deposit"] is not None
    clock.advance(61)
    service.spares.search_due()
    assert service.support.unowned_orders() == []


def test_doubts_that_only_had_to_queue_after_nobody_could_look_are_not_failed(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    """Of doubts that are due at once one is created again at a time; the others must not be over in that moment."""
    ids = [in_doubt(shop, world, "create.drop", name=f"order-{n}", destination_memo=str(n)) for n in range(4)]
    clock.advance(timedelta(minutes=11))  # no worker lived; the upstream was well
    for _ in range(8):
        for order_id in ids:
            look(service, order_id)
        clock.advance(1)
    assert {shop.api.order(order_id)["status"] for order_id in ids} == {"awaiting_deposit"}


def test_a_rate_that_cannot_be_read_just_after_nobody_could_look_ends_no_order(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(timedelta(minutes=11))
    faults["rate"] = answering(503)
    look(service, order_id)
    assert (shop.api.order(order_id)["status"], attempts(service, order_id)) == ("creating", ["unknown"])
    clock.advance(timedelta(minutes=4))
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "creating"
    clock.advance(timedelta(minutes=4))
    look(service, order_id)
    assert shop.api.order(order_id)["status_reason"] == "create_unconfirmed", "for so long, and once"
    del faults["rate"]
