"""The upstream's list as a signal: it makes orders due, it never moves one, and it is trusted while it deserves it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from swap.sandbox.world import World
from swap.store import watching
from swap.tables import Watching
from swap.watching import list_signal
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import read_order
from tests.faults import Faults, spoiling
from tests.polling import place, view, watch_due


def state(service: Service) -> Watching:
    with service.database.read() as session:
        return watching.state(session)


def set_state(service: Service, **values: object) -> None:
    with service.database.write() as session:
        watching.change(session, **values)


def read_list(service: Service, clock: Clock, after: float = 16) -> None:
    """The next read of the list, as if many looks were planned."""
    clock.advance(after)
    set_state(service, planned=Decimal(10))
    service.list_signal.poll_due()


def put_off(service: Service, clock: Clock, order_id: str) -> None:
    """As if the next look were an hour away."""
    with service.database.write() as session:
        later = (clock() + timedelta(hours=1)).replace(microsecond=0)
        order = read_order(service.database, order_id)
        order.next_check_at = later
        session.merge(order)


def test_an_order_that_the_list_shows_to_have_changed_is_looked_at_at_once_and_not_moved_by_the_list(
    service: Service, shop: Shop, clock: Clock
) -> None:
    order_id = place(shop)
    clock.advance(20)
    assert watch_due(service) == [order_id]
    before = view(service, order_id)
    put_off(service, clock, order_id)
    clock.advance(600)
    read_list(service, clock)
    assert view(service, order_id)["status"] == before["status"], "the list moves nothing"
    assert watch_due(service) == [order_id]
    assert view(service, order_id)["status"] != before["status"]


def test_the_list_cuts_short_no_back_off(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop)
    clock.advance(20)
    assert watch_due(service) == [order_id]
    put_off(service, clock, order_id)
    with service.database.write() as session:
        session.execute(text("UPDATE orders SET failures = 5"))
    clock.advance(600)
    read_list(service, clock)
    assert watch_due(service) == []
    assert read_order(service.database, order_id).signalled_at is not None, "noted all the same"


def test_an_order_that_the_list_shows_unchanged_is_left_to_its_plan(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop, "expires")
    clock.advance(20)
    assert watch_due(service) == [order_id]
    put_off(service, clock, order_id)
    for _ in range(3):
        read_list(service, clock)
        assert watch_due(service) == []


def test_the_list_is_read_by_one_of_many_schedulers_and_only_where_it_saves_looks(
    service: Service, other_service: Callable[..., Service], shop: Shop, world: World, clock: Clock
) -> None:
    place(shop)
    clock.advance(16)
    service.throttle.set_due()
    service.list_signal.poll_due()
    assert listed(world) == 0, "one look in fifteen seconds costs no more than the list"
    read_list(service, clock)
    assert listed(world) == 1
    other_service().list_signal.poll_due()
    service.list_signal.poll_due()
    assert listed(world) == 1
    read_list(other_service(), clock)
    assert listed(world) == 2


def listed(world: World) -> int:
    return int(world.chaos.report()["requests"].get("list", 0))


def test_a_list_that_announces_what_looks_find_is_trusted(service: Service, shop: Shop, clock: Clock) -> None:
    order_ids = [place(shop, client_order_id=f"order-{number}") for number in range(20)]
    read_list(service, clock, 1)
    for _ in range(40):
        clock.advance(60)
        read_list(service, clock)
        watch_due(service)
    assert state(service).counted >= list_signal.ENOUGH
    assert state(service).announced >= 0.95 * state(service).counted
    assert state(service).list_state == "trusted"
    service.throttle._cached = None
    assert service.throttle.slowdown().list_trusted
    assert all(view(service, order_id)["status"] == "completed" for order_id in order_ids)
    clock.advance(3600)
    service.throttle._cached = None
    assert not service.throttle.slowdown().list_trusted, "a list that nobody reads announces nothing"


def test_changes_that_a_list_does_not_announce_end_the_trust_in_it_and_it_gets_another_chance(
    service: Service, shop: Shop, world: World, clock: Clock
) -> None:
    """A list whose `updatedAt` does not move: everything in it looks as it was when it was made."""
    set_state(service, list_state="trusted", counted=list_signal.ENOUGH - 1, announced=list_signal.ENOUGH - 1)
    order_ids = [place(shop, client_order_id=f"order-{number}") for number in range(12)]
    read_list(service, clock, 1)
    for _ in range(12):
        clock.advance(50)
        set_state(service, list_began_at=clock() - timedelta(seconds=1))
        with service.database.write() as session:
            session.execute(text("UPDATE orders SET signalled_at = NULL"))
        watch_due(service)
    assert all(view(service, order_id)["status"] == "completed" for order_id in order_ids)
    read_list(service, clock)
    row = state(service)
    assert row.list_state == "off"
    assert row.list_reason == f"announced {row.announced} of {row.counted}"
    before = listed(world)
    read_list(service, clock)
    assert listed(world) == before, "it is left alone"
    read_list(service, clock, 6 * 3600)
    assert (state(service).list_state, state(service).counted) == ("learning", 0)
    assert listed(world) == before + 1


def test_a_look_that_was_quicker_than_the_list_proves_nothing(service: Service, shop: Shop, clock: Clock) -> None:
    place(shop)
    read_list(service, clock, 1)
    clock.advance(120)
    watch_due(service)
    assert state(service).counted == 0


@pytest.mark.parametrize(("limit", "reason"), [("LARGEST_BYTES", "too large"), ("SLOWEST_SECONDS", "too slow")])
def test_a_list_past_its_bounds_is_left_alone(
    service: Service, shop: Shop, world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, limit: str, reason: str
) -> None:
    place(shop)
    if reason == "too large":
        monkeypatch.setattr(list_signal, limit, 10)
    else:
        service.list_signal._patience = 0.3
        world.chaos.change({"delay_seconds": 1.0})
        world.chaos.force("list.delay", 3)
    read_list(service, clock)
    assert (state(service).list_state, state(service).list_reason) == ("off", reason)
    assert state(service).list_until is not None


def test_a_list_that_cannot_be_read_this_once_is_read_again(
    service: Service, shop: Shop, world: World, clock: Clock
) -> None:
    place(shop)
    world.chaos.force("list.error_500", 3)
    read_list(service, clock)
    assert (state(service).list_state, state(service).list_began_at) == ("learning", None)
    read_list(service, clock)
    assert state(service).list_began_at is not None


def test_a_list_that_is_dated_ahead_makes_no_order_due_again_and_again(
    service: Service, shop: Shop, clock: Clock, faults: Faults
) -> None:
    order_id = place(shop)
    clock.advance(20)
    assert watch_due(service) == [order_id]

    def date_ahead(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["updatedAt"] = (clock() + timedelta(days=180)).isoformat()

    faults["orders"] = spoiling(date_ahead)
    looked = []
    for _ in range(4):
        put_off(service, clock, order_id)
        read_list(service, clock)
        looked += watch_due(service)
    assert looked == []
