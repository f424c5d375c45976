"""Orders in doubt: adopted, created again, unconfirmed, or left as unowned; never twice, never another order's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from swap.sandbox.world import World
from swap.sdk import SwapApiError
from swap.store import orders as order_rows
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, SANDBOX_KEYS, XRP_ADDRESS, Clock, Shop, look


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


def reads(service: Service, clock: Clock, order_id: str, count: int = 3, apart: float = 11) -> None:
    for _ in range(count):
        look(service, order_id)
        clock.advance(apart)


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


def test_what_is_proved_absent_is_created_once_more_while_the_terms_stand(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(50)
    other = shop.place("order-2", destination_memo="2")
    clock.advance(5)
    reads(service, clock, order_id)
    order = shop.api.order(order_id)
    assert order["status"] == "awaiting_deposit"
    assert order["upstream_order_id"] != other["upstream_order_id"]
    assert len(world.orders()) == 2
    assert [a["outcome"] for a in service.support.record(order_id)["attempts"]] == ["unknown", "done"]


def test_two_reads_are_no_proof_of_absence(shop: Shop, world: World, service: Service, clock: Clock) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(50)
    shop.place("order-2", destination_memo="2")
    reads(service, clock, order_id, count=2, apart=11)
    assert len(service.support.record(order_id)["attempts"]) == 1


def test_reads_in_quick_succession_count_as_one(shop: Shop, world: World, service: Service, clock: Clock) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(50)
    shop.place("order-2", destination_memo="2")
    reads(service, clock, order_id, count=4, apart=3)
    assert len(service.support.record(order_id)["attempts"]) == 1


def test_a_list_that_shows_nothing_newer_proves_nothing_before_five_minutes(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(20)
    reads(service, clock, order_id, count=5)
    record = service.support.record(order_id)
    assert record["order"]["internal"]["status"] == "in_doubt"
    assert len(record["attempts"]) == 1


def test_what_is_proved_absent_too_late_for_its_rate_ends_and_may_be_asked_for_anew(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(timedelta(minutes=6))
    reads(service, clock, order_id)
    order = shop.api.order(order_id)
    assert (order["status"], order["status_reason"], order["final"]) == ("failed", "create_absent", True)
    assert world.orders() == []


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


def test_an_order_whose_deposit_details_cannot_be_read_ends_unconfirmed_and_leaves_an_orphan(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    world.chaos.change({"order.bare_info": 1.0})
    order_id = in_doubt(shop, world)
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "creating"
    clock.advance(timedelta(minutes=11))
    look(service, order_id)
    order = shop.api.order(order_id)
    assert (order["status"], order["status_reason"]) == ("failed", "create_unconfirmed")
    (orphan,) = service.support.unowned_orders()
    assert orphan["upstream_order_id"] == str(world.orders()[0].number)
    assert orphan["destination_address"] == XRP_ADDRESS
    assert orphan["deposit_seen_at"] is None or orphan["order_id"] == order_id


def test_a_deposit_on_an_orphan_raises_the_alarm(
    shop: Shop, world: World, service: Service, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    world.chaos.change({"order.bare_info": 1.0})
    order_id = in_doubt(shop, world)
    clock.advance(timedelta(minutes=11))
    look(service, order_id)
    service.unowned.poll_due()
    (orphan,) = service.support.unowned_orders()
    assert orphan["deposit_seen_at"] is not None


def test_nothing_is_adopted_while_an_identical_create_is_in_flight(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world)
    rival = in_doubt(shop, world, "create.drop", name="order-2")
    with service.database.write() as session:
        order_rows.start_attempt(session, rival, SANDBOX_KEYS[0], clock())
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "creating"
    clock.advance(18)
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"


def test_an_upstream_order_is_never_adopted_twice(shop: Shop, world: World, service: Service, clock: Clock) -> None:
    first = in_doubt(shop, world)
    second = in_doubt(shop, world, "create.drop", name="order-2")
    look(service, first)
    look(service, second)
    clock.advance(timedelta(minutes=11))
    look(service, second)
    owners = [shop.api.order(order)["upstream_order_id"] for order in (first, second)]
    assert owners == [str(world.orders()[0].number), None]


def test_a_create_is_resolved_with_the_key_that_made_it(
    shop: Shop, world: World, service: Service, other_service: Callable[..., Service]
) -> None:
    order_id = in_doubt(shop, world)
    rotated = other_service(
        upstream_public_key="pk_new", upstream_secret_key="sk_new", upstream_old_keys=(SANDBOX_KEYS,)
    )
    rotated.due.run(order_id)
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


def test_an_order_that_the_list_half_tells_is_no_proof_of_absence(
    shop: Shop, world: World, service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = in_doubt(shop, world)
    read_list = service.upstream.orders
    hidden = [
        {"amount": None},
        {"refund_address": None},
        {"created_at": None},
        {"refund_address": BTC_ADDRESS.upper()},
        {"from_currency": None},
    ]
    for changes in hidden:
        monkeypatch.setattr(
            service.upstream, "orders", lambda changes=changes, **o: [replace(row, **changes) for row in read_list(**o)]
        )
        world.chaos.change({"info.error_500": 1.0})
        clock.advance(120)
        reads(service, clock, order_id, count=4)
        assert len(service.support.record(order_id)["attempts"]) == 1, changes
        service.upstream_access._breaker.after("OK")
    assert len(world.orders()) == 1


def test_a_second_create_that_nobody_answers_is_the_last(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(50)
    shop.place("order-2", destination_memo="2")
    clock.advance(5)
    world.chaos.force("create.drop")
    reads(service, clock, order_id)
    assert [a["outcome"] for a in service.support.record(order_id)["attempts"]] == ["unknown", "unknown"]
    for number in range(30):
        clock.advance(40)
        if number % 5 == 0:
            shop.place(f"more-{number}", destination_memo=str(10 + number))
        look(service, order_id)
    order = shop.api.order(order_id)
    assert order["status"] == "failed"
    assert order["status_reason"] in ("create_absent", "create_unconfirmed")
    assert len(service.support.record(order_id)["attempts"]) == 2


def test_an_order_in_doubt_ends_even_when_public_info_never_answers(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world)
    world.chaos.change({"info.error_500": 1.0})
    for _ in range(22):
        look(service, order_id)
        service.upstream_access._breaker.after("OK")
        clock.advance(60)
    assert shop.api.order(order_id)["status_reason"] == "create_unconfirmed"
    assert [orphan["upstream_order_id"] for orphan in service.support.unowned_orders()] == [
        str(world.orders()[0].number)
    ]


def test_a_proof_of_absence_that_has_begun_is_brought_to_its_end_after_ten_minutes(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    """The resolver may have been away for most of them. Nobody has to search for an order that is proved not to be."""
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(timedelta(minutes=9, seconds=55))
    reads(service, clock, order_id)
    order = shop.api.order(order_id)
    assert (order["status"], order["status_reason"]) == ("failed", "create_absent"), "its rate is too old by now"
    assert world.orders() == []


def test_a_proof_of_absence_does_not_go_on_for_ever(shop: Shop, world: World, service: Service, clock: Clock) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(timedelta(minutes=9, seconds=55))
    look(service, order_id)
    clock.advance(timedelta(minutes=11))
    look(service, order_id)
    order = shop.api.order(order_id)
    assert (order["status"], order["status_reason"]) == ("failed", "create_unconfirmed")


def test_a_wrong_idea_of_the_upstreams_clock_proves_no_absence(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    """Or an order that is there, and whose details cannot be read, would be made a second time."""
    world.chaos.force("order.bare_info")
    order_id = in_doubt(shop, world, "create.accept_then_malformed")
    for _ in range(9):
        ahead = format_datetime(clock() + timedelta(seconds=25), usegmt=True)
        service.upstream._exchange.clock.observe({"Date": ahead}, 0.0)
    clock.advance(30)
    shop.place("later", destination_address=XRP_ADDRESS, destination_memo="7")
    reads(service, clock, order_id, count=4)
    assert shop.api.order(order_id)["status"] == "creating"
    assert len(world.orders()) == 2


def test_creating_again_goes_on_when_the_upstream_could_not_be_reached(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    """Whoever placed it was told 202, and does not ask again."""
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(50)
    shop.place("order-2", destination_memo="2")
    clock.advance(5)
    world.chaos.force("create.rate_limited_bare")
    reads(service, clock, order_id)
    assert shop.api.order(order_id)["status"] == "creating"
    clock.advance(25)
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    outcomes = [attempt["outcome"] for attempt in service.support.record(order_id)["attempts"]]
    assert outcomes == ["unknown", "not_sent", "done"]


def test_an_order_alike_that_was_made_long_after_does_not_hide_that_one_is_absent(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    world.chaos.change({"order.bare_info": 1.0})
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(60)
    in_doubt(shop, world, name="order-2", destination_memo="2")
    world.chaos.change({"order.bare_info": 0.0})
    clock.advance(20)
    reads(service, clock, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"


def test_an_order_taken_up_late_is_adopted_though_one_alike_has_been_in_doubt_for_long(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    long_ago = in_doubt(shop, world, "create.drop", destination_memo="2")
    clock.advance(120)
    order_id = in_doubt(shop, world, name="order-2")
    with service.database.write() as session:
        (attempt,) = order_rows.attempts_of(session, order_id)
        attempt.sent_at -= timedelta(seconds=25)
    look(service, order_id)
    assert shop.api.order(order_id)["upstream_order_id"] == str(world.orders()[0].number)
    assert shop.api.order(long_ago)["upstream_order_id"] is None


def test_of_two_equal_orders_the_elder_leaves_the_younger_its_own(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    """Its own is still on the way into the list; taken instead of it, the younger's would leave it to nobody."""
    world.chaos.change({"order.listed_late": 1.0})
    elder = in_doubt(shop, world)
    clock.advance(5)
    world.chaos.change({"order.listed_late": 0.0})
    younger = in_doubt(shop, world, name="order-2")
    look(service, elder)
    assert shop.api.order(elder)["status"] == "creating"
    look(service, younger)
    clock.advance(11)
    look(service, elder)
    made = [str(each.number) for each in world.orders()]
    assert [shop.api.order(order)["upstream_order_id"] for order in (elder, younger)] == made


def test_what_was_created_again_has_its_own_ten_minutes(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    with service.database.write() as session:
        (attempt,) = order_rows.attempts_of(session, order_id)
        attempt.sent_at -= timedelta(minutes=9, seconds=30)
    clock.advance(20)
    world.chaos.change({"order.listed_late": 1.0})
    world.chaos.force("create.accept_then_drop")
    reads(service, clock, order_id)
    assert len(service.support.record(order_id)["attempts"]) == 2
    look(service, order_id)
    clock.advance(15)
    look(service, order_id)
    assert shop.api.order(order_id)["upstream_order_id"] == str(world.orders()[0].number)


def test_reads_so_early_that_the_create_may_still_be_taken_up_prove_nothing(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world, "create.drop")
    clock.advance(16)
    shop.place("order-2", destination_memo="2")
    reads(service, clock, order_id)
    assert len(service.support.record(order_id)["attempts"]) == 1
    look(service, order_id)
    assert len(service.support.record(order_id)["attempts"]) == 2


def test_a_process_that_has_not_heard_of_a_new_key_leaves_the_order_to_others(
    shop: Shop, world: World, service: Service, clock: Clock, other_service: Callable[..., Service]
) -> None:
    order_id = in_doubt(shop, world)
    behind = other_service(upstream_public_key="pk_before", upstream_secret_key="sk_before")
    behind.due.run(order_id)
    assert shop.api.order(order_id)["status"] == "creating"
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"


def test_an_order_in_doubt_of_which_nothing_was_sent_after_all_is_created(
    shop: Shop, world: World, service: Service
) -> None:
    """Swept up while its answer was being written down, by a process that died before it could say so."""
    order_id = in_doubt(shop, world, "create.drop")
    with service.database.write() as session:
        (attempt,) = order_rows.attempts_of(session, order_id)
        attempt.outcome = "not_sent"
    look(service, order_id)
    assert shop.api.order(order_id)["status"] == "awaiting_deposit"
    assert len(world.orders()) == 1


def test_an_equal_order_that_was_never_sent_keeps_nobody_from_its_own(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order_id = in_doubt(shop, world)
    with service.database.write() as session:
        (attempt,) = order_rows.attempts_of(session, order_id)
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
