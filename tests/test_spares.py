"""Spares: each upstream order is recorded once, with its place to pay at, and is dropped by no answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from swap.domain.lifecycle import Status
from swap.errors import Conflict
from swap.ops.by_hand import Act
from swap.orders.bounds import SpareBounds
from swap.sandbox.world import World
from swap.store import attempts as attempt_rows
from swap.store import deposit_places, upstream_orders
from swap.store import orders as order_rows
from swap.tables import DepositPlace, Order, UpstreamOrder
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, SANDBOX_KEYS, Clock, Shop, look
from tests.factories import read_order, told, upstream_owners
from tests.faults import Faults, Looks, knowing_no, spoiling
from tests.test_matching import OTHER_XRP_ADDRESS
from tests.test_resolve import attempts, go_on, in_doubt, is_first, naming

SECONDS = timedelta(seconds=1)
DO = Act(by="anna", reason="seen with the upstream", do=True)


def with_a_spare(shop: Shop, world: World, service: Service, clock: Clock, looks: Looks) -> str:
    """An order that is shown its second upstream order; the first one is its spare."""
    looks.edit = lambda told: {**told, "destinationAddress": OTHER_XRP_ADDRESS} if is_first(world, told) else told
    world.chaos.force("create.accept_then_other_destination")
    order_id = str(shop.place()["id"])
    go_on(service, clock, order_id, 30)
    looks.edit = None
    assert [spare["order_id"] for spare in service.support.unowned_orders()] == [order_id]
    return order_id


def poll_spares(service: Service, clock: Clock) -> list[str]:
    """Poll all spares once more; returns what was logged as a warning or worse."""
    clock.advance(timedelta(minutes=11))
    with capture_logs() as logs:
        service.unowned.poll_due()
    return [entry["event"] for entry in logs if entry["log_level"] != "info"]


def test_an_answer_about_the_shown_order_does_not_drop_the_spare(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    order_id = with_a_spare(shop, world, service, clock, looks)
    spare, shown = world.orders()
    # As if the answers were one request late.
    looks.edit = lambda told: {
        **told,
        "orderId": None,
        "legacyOrderId": None,
        "id": None,
        "reference": None,
        "uuid": shown.guid,
        "depositAddress": {"depositAddress": shown.place.address},
    }
    assert "orphan.answer_of_another" in poll_spares(service, clock)
    (row,) = service.support.unowned_orders()
    assert (row["role"], row["order_id"], row["upstream_order_id"]) == ("spare", order_id, str(spare.number))
    assert row["deposit_seen_at"] is None, "what is told of the shown one is no deposit on the spare"
    assert upstream_owners(service.database)[str(shown.number)] == order_id


def test_a_constant_reference_does_not_drop_a_spare(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    order_id = with_a_spare(shop, world, service, clock, looks)
    looks.edit = lambda told: {**told, "reference": "CONSTANT"}
    look(service, order_id)
    poll_spares(service, clock)
    look(service, order_id)
    (row,) = service.support.unowned_orders()
    assert (row["role"], row["upstream_order_id"]) == ("spare", str(world.orders()[0].number))


@pytest.mark.parametrize("constant", [{"reference": "CONSTANT"}, {"id": 1}], ids=str)
def test_a_spare_is_kept_though_creates_tell_a_uuid_and_a_constant_alone(
    shop: Shop,
    world: World,
    service: Service,
    clock: Clock,
    faults: Faults,
    looks: Looks,
    constant: dict[str, Any],
) -> None:
    def uuid_and_constant(told: dict[str, Any]) -> None:
        told["orderId"] = told.pop("legacyOrderId")
        told.update(constant)

    faults["create"] = spoiling(uuid_and_constant)
    with_a_spare(shop, world, service, clock, looks)
    (row,) = service.support.unowned_orders()
    assert str(world.orders()[0].guid) in row["refs"]


def test_orders_that_are_told_by_uuids_beside_a_constant_number_are_all_shown(
    shop: Shop, world: World, service: Service, faults: Faults
) -> None:
    def uuid_and_constant(told: dict[str, Any]) -> None:
        told["orderId"] = told.pop("legacyOrderId")
        told["id"] = 1

    faults["create"] = spoiling(uuid_and_constant)
    placed = [shop.place(name) for name in ("order-1", "order-2", "order-3")]
    assert [order["upstream_order_id"] for order in placed] == [made.guid for made in world.orders()]


def test_the_place_of_a_spare_that_is_learned_later_is_shown_to_no_other_customer(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks, faults: Faults
) -> None:
    world.chaos.force("create.accept_then_no_deposit")
    looks.answer = ("404 Not Found", "application/json", b"{}")
    order_id = shop.place()["id"]
    go_on(service, clock, order_id, 30)
    looks.answer = None
    (row,) = service.support.unowned_orders()
    assert row["order_id"] == order_id
    poll_spares(service, clock)
    faults["create"] = naming(str(world.orders()[0].place.address))
    assert shop.place("order-2")["deposit"] is None


def test_a_spare_with_the_address_that_another_customer_was_shown_raises_the_alarm(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    with_a_spare(shop, world, service, clock, looks)
    other = shop.place("order-2")["deposit"]["address"]
    looks.edit = lambda told: {**told, "depositAddress": {**told["depositAddress"], "depositAddress": other}}
    assert "orders.deposit_address_in_use" in poll_spares(service, clock)
    assert "orders.deposit_address_in_use" not in poll_spares(service, clock), "once"


def test_the_ids_of_one_answer_are_one_upstream_order(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    world.chaos.force("create.accept_then_no_deposit")
    looks.answer = ("404 Not Found", "application/json", b"{}")
    order_id = shop.place()["id"]
    go_on(service, clock, order_id, 30)
    first = world.orders()[0]
    (row,) = service.support.unowned_orders()
    assert (row["order_id"], row["refs"]) == (order_id, [str(first.number), first.guid])


def test_an_upstream_order_that_is_known_by_one_of_the_ids_alone_is_read_by_that(
    shop: Shop, world: World, service: Service, faults: Faults
) -> None:
    faults["create"] = spoiling(
        lambda body: body.update(orderId=4711, legacyOrderId=world.orders()[0].number, depositAddress=None)
    )
    order_id = shop.place()["id"]
    look(service, order_id)
    assert shop.api.order(order_id)["upstream_order_id"] == str(world.orders()[0].number)


def test_one_answer_with_the_place_of_another_order_counts_once_though_the_list_has_it_too(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults, looks: Looks
) -> None:
    place = shop.place("order-1", destination_memo="1")["deposit"]["address"]

    def change(told: dict[str, Any]) -> None:
        del told["orderId"]
        told["depositAddress"] |= {"depositAddress": place}
        told["depositAddress"].pop("orderId", None)

    faults["create"] = spoiling(change)
    second = shop.place("order-2", destination_memo="2")
    assert second["deposit"] is None
    del faults["create"]
    number = str(world.orders()[1].number)
    looks.edit = lambda told: (
        {**told, "uuid": None, "depositAddress": {**told["depositAddress"], "depositAddress": place}}
        if str(told["orderId"]) == number
        else told
    )
    look(service, second["id"])
    assert shop.api.order(second["id"])["deposit"]["address"] == world.orders()[2].place.address


def test_a_spare_is_given_to_another_order_with_its_place(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    with_a_spare(shop, world, service, clock, looks)
    poll_spares(service, clock)
    other = shop.place("order-2")["id"]
    ref = str(world.orders()[0].number)
    service.linking.link(ref, other, DO)
    assert {spare["order_id"] for spare in service.support.unowned_orders()} == {other}
    with service.database.read() as session:
        held = list(session.scalars(select(DepositPlace.order_id).where(DepositPlace.order_id == other)))
    assert len(held) == 2


KNOWN_NO_MORE = [
    ("410 Gone", "application/json", b'{"message": "Order expired"}'),
    ("404 Not Found", "application/json", b'{"message": "order not found"}'),
]


def ended_with_a_spare(shop: Shop, world: World, service: Service, looks: Looks) -> tuple[str, str]:
    """An order that a person ended before its customer was shown anything, and the id of its spare."""
    looks.edit = lambda told: {**told, "destinationAddress": OTHER_XRP_ADDRESS} if is_first(world, told) else told
    world.chaos.force("create.accept_then_other_destination")
    order_id = str(shop.place("ended")["id"])
    service.review.end(order_id, Status.FAILED, DO)
    looks.edit = None
    (spare,) = service.support.unowned_orders()
    assert held_by(service, str(world.orders()[0].place.address)) == [order_id]
    return order_id, str(spare["upstream_order_id"])


def held_by(service: Service, address: str) -> list[str]:
    """The orders that are paid at this address."""
    with service.database.read() as session:
        return [row.order_id for row in session.scalars(select(DepositPlace)) if address in row.place]


@pytest.mark.parametrize("answer", KNOWN_NO_MORE)
def test_the_place_of_a_spare_that_the_upstream_knows_no_more_goes_along_and_is_shown_to_no_other_customer(
    shop: Shop, world: World, service: Service, looks: Looks, faults: Faults, answer: tuple[str, str, bytes]
) -> None:
    _, ref = ended_with_a_spare(shop, world, service, looks)
    address = str(world.orders()[0].place.address)
    other = shop.place("order-2")["id"]
    looks.answer = answer
    service.linking.link(ref, other, DO)
    looks.answer = None
    with service.database.write() as session:
        deposit_places.free_unwatched(session)
    assert held_by(service, address) == [other]
    faults["create"] = naming(address)
    assert shop.place("order-3")["deposit"] is None


@pytest.mark.parametrize("do", [True, False])
@pytest.mark.parametrize("answer", KNOWN_NO_MORE)
def test_a_spare_that_the_upstream_knows_no_more_is_not_given_away_with_an_address_that_its_customer_was_shown(
    shop: Shop, service: Service, clock: Clock, looks: Looks, answer: tuple[str, str, bytes], do: bool
) -> None:
    order = read_order(service.database, shop.place("order-1")["id"])
    other = shop.place("order-2")["id"]
    known = told("555555", upstream_key=order.upstream_key, deposit_address=order.deposit_address)
    with service.database.write() as session:
        upstream_orders.record(session, known, clock(), order_id=order.id)
    looks.answer = answer
    with pytest.raises(Conflict) as caught:
        service.linking.link("555555", other, replace(DO, do=do))
    assert caught.value.code == "DEPOSIT_PLACE_TAKEN"
    assert held_by(service, str(order.deposit_address)) == [order.id]


def test_a_spare_is_not_given_away_with_an_address_that_its_customer_is_shown_at_this_moment(
    shop: Shop, world: World, service: Service, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, ref = ended_with_a_spare(shop, world, service, looks)
    other = shop.place("order-2")["id"]
    carry_out = service.linking._by_hand.carry_out

    def meanwhile(*arguments: Any, **more: Any) -> dict[str, Any]:
        with service.database.write() as session:
            shown = {"deposit_kind": "address", "deposit_address": world.orders()[0].place.address}
            session.execute(update(Order).where(Order.id == first).values(**shown))
        return carry_out(*arguments, **more)

    monkeypatch.setattr(service.linking._by_hand, "carry_out", meanwhile)
    with pytest.raises(Conflict) as caught:
        service.linking.link(ref, other, DO)
    assert caught.value.code == "DEPOSIT_PLACE_TAKEN"


def test_a_spare_takes_along_the_place_that_is_recorded_and_the_one_that_is_told_now(
    shop: Shop, world: World, service: Service, looks: Looks
) -> None:
    _, ref = ended_with_a_spare(shop, world, service, looks)
    other = shop.place("order-2")["id"]
    now = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"
    looks.edit = lambda body: {**body, "depositAddress": {**body["depositAddress"], "depositAddress": now}}
    service.linking.link(ref, other, DO)
    assert held_by(service, str(world.orders()[0].place.address)) == held_by(service, now) == [other]


def test_the_place_of_a_spare_goes_along_to_an_order_that_is_paid_in_another_currency(
    shop: Shop, world: World, service: Service, looks: Looks
) -> None:
    _, ref = ended_with_a_spare(shop, world, service, looks)
    other = shop.place("order-2")["id"]
    with service.database.write() as session:
        session.execute(update(Order).where(Order.id == other).values(from_currency="ETH", from_network="ETH"))
    looks.answer = KNOWN_NO_MORE[0]
    service.linking.link(ref, other, DO)
    assert set(held_by(service, str(world.orders()[0].place.address))) == {other}


@pytest.mark.parametrize("recorded", [True, False])
def test_an_answer_about_another_upstream_order_gives_a_customer_no_address(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks, recorded: bool
) -> None:
    """As if the answers were one request late: it names itself by a UUID alone, and tells where another order is paid."""
    first = in_doubt(shop, world)
    in_doubt(shop, world, name="order-2")
    one, another = world.orders()
    key = service.settings.upstream_public_key
    with service.database.write() as session:
        for made in (one, another) if recorded else (one,):
            assert upstream_orders.record(session, told(made.guid, upstream_key=key, amount=None), clock())
    left_out = {"orderId", "legacyOrderId", "id", "reference"}
    looks.edit = lambda body: {
        **{name: value for name, value in body.items() if name not in left_out},
        "uuid": another.guid,
        "depositAddress": {"depositAddress": another.place.address},
    }
    with pytest.raises(Conflict) as caught:
        service.linking.link(one.guid, first, DO)
    assert (caught.value.code, "conflict" in caught.value.details) == ("UPSTREAM_DISAGREES", False)
    assert shop.api.order(first)["deposit"] is None


def test_what_two_orders_may_have_made_names_both(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    first = in_doubt(shop, world)
    second = in_doubt(shop, world, "create.drop", name="order-2")
    looks.answer = ("404 Not Found", "application/json", b"{}")
    go_on(service, clock, first, 30)
    (row,) = service.support.unowned_orders()
    assert (row["role"], row["order_id"], sorted(row["candidates"])) == ("unowned", None, sorted([first, second]))


# --- key pairs -------------------------------------------------------------------------------------------------------


def test_after_a_change_of_keys_the_lists_of_both_are_searched(
    shop: Shop, world: World, service: Service, clock: Clock, other_service: Callable[..., Service]
) -> None:
    order_id = in_doubt(shop, world)
    world.chaos.record(world.orders()[0].number).listed_at += 60
    clock.advance(23)
    changed = other_service(
        upstream_public_key="pk_new", upstream_secret_key="sk_new", upstream_old_keys=(SANDBOX_KEYS,)
    )
    with service.database.write() as session:
        # The new pair's create was not answered either. Its list cannot be read: the sandbox knows one pair.
        attempt_rows.start_attempt(session, replace_key(session, order_id, "pk_new"), clock())
    clock.advance(45)
    look(changed, order_id)
    assert shop.api.order(order_id)["upstream_order_id"] == str(world.orders()[0].number)
    assert read_order(service.database, order_id).upstream_key == SANDBOX_KEYS[0], "the pair that made it asks about it"


def deposited(told: dict[str, Any]) -> dict[str, Any]:
    deposit = {"txId": "a" * 64, "amount": "0.0125", "createdAt": told["createdAt"], "confirmations": 3}
    return {**told, "deposits": [deposit]}


def test_a_deposit_on_a_spare_of_a_key_pair_that_is_gone_raises_the_alarm_and_can_be_given_to_an_order(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks, other_service: Callable[..., Service]
) -> None:
    with_a_spare(shop, world, service, clock, looks)
    changed = other_service(upstream_public_key="pk_new", upstream_secret_key="sk_new")
    looks.edit = deposited
    assert "orphan.deposit_seen" in poll_spares(changed, clock)
    other = shop.place("order-2")["id"]
    assert changed.linking.link(str(world.orders()[0].number), other, DO)["done"]


def test_what_an_answer_named_under_a_key_pair_that_is_gone_is_a_spare_once_its_order_has_failed(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks, other_service: Callable[..., Service]
) -> None:
    world.chaos.force("create.accept_then_other_destination")
    order_id = str(shop.place()["id"])
    changed = other_service(upstream_public_key="pk_new", upstream_secret_key="sk_new")
    go_on(changed, clock, order_id, 660, step=30)
    assert shop.api.order(order_id)["status"] == "failed"
    changed.spares.search_due()
    (row,) = service.support.unowned_orders()
    assert (row["order_id"], row["upstream_order_id"]) == (order_id, str(world.orders()[0].number))


def test_a_deposit_on_a_spare_is_seen_though_the_upstream_does_not_know_its_number(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks, faults: Faults
) -> None:
    with_a_spare(shop, world, service, clock, looks)
    faults["order"], looks.edit = knowing_no(world.orders()[0].number), deposited
    assert "orphan.deposit_seen" in poll_spares(service, clock)


def replace_key(session: Session, order_id: str, key: str) -> Order:
    order = order_rows.get(session, order_id)
    assert order is not None
    order.upstream_key = key
    session.flush()
    return order


def test_a_spare_keeps_its_memo_though_a_poll_repeats_the_address_alone(
    shop: Shop, world: World, service: Service, clock: Clock, looks: Looks
) -> None:
    """Its place is the address with the memo: another memo is another customer's."""
    sides: dict[str, Any] = {
        "source": ("XRP", "XRP"),
        "target": ("BTC", "BTC"),
        "amount": "100",
        "destination_address": BTC_ADDRESS,
    }
    order_id = in_doubt(shop, world, **sides, destination_memo=None, refund_address=None)
    world.chaos.record(world.orders()[0].number).listed_at += 60
    go_on(service, clock, order_id, 30)
    clock.advance(61)
    service.spares.search_due()
    service.unowned.poll_due()

    def alone(told: dict[str, Any]) -> dict[str, Any]:
        return {**told, "depositAddress": {"depositAddress": told["depositAddress"]["depositAddress"]}}

    looks.edit = alone
    before = places_of(service, order_id)
    clock.advance(301)
    service.unowned.poll_due()
    with service.database.read() as session:
        spare = session.scalars(select(UpstreamOrder).where(UpstreamOrder.role == "spare")).one()
    assert spare.deposit_memo == str(world.orders()[0].place.memo)
    assert places_of(service, order_id) == before


def places_of(service: Service, order_id: str) -> list[str]:
    with service.database.read() as session:
        return sorted(session.scalars(select(DepositPlace.place).where(DepositPlace.order_id == order_id)))


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_of_creates_that_are_due_at_the_same_moment_no_more_are_sent_than_the_limit(
    shop: Shop, world: World, service: Service, clock: Clock, other_service: Callable[..., Service]
) -> None:
    ids = [in_doubt(shop, world, "create.drop", name=f"order-{n}", destination_memo=str(n)) for n in range(4)]
    world.chaos.change({"create.drop": 1.0})
    clock.advance(23)
    strict = [other_service(spare_limit=1) for _ in ids]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, strict, ids))
    assert sorted(len(attempts(service, order_id)) for order_id in ids) == [1, 1, 1, 2]


def test_creates_that_are_on_their_way_do_not_make_their_pair_sick(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    order = read_order(service.database, in_doubt(shop, world, "create.drop"))
    others = [str(shop.place(f"other-{number}")["id"]) for number in range(4)]
    clock.advance(timedelta(minutes=11))
    with service.database.write() as session:
        for other in others:
            for _ in range(5):
                attempt_rows.start_attempt(session, read_order(service.database, other), clock())
    with service.database.read() as session:
        assert service.resolver._bounds.hold_back(session, order, clock()) is None
    clock.advance(18)
    with service.database.read() as session:
        assert service.resolver._bounds.hold_back(session, order, clock()) is not None, "by now they are lost"


def test_doubts_that_wait_ask_less_often_the_more_they_are(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    ids = [in_doubt(shop, world, "create.drop", name=f"order-{n}", destination_memo=str(n)) for n in range(8)]
    clock.advance(60)
    look(service, ids[0])
    assert len(attempts(service, ids[0])) == 2
    bounds = service.resolver._bounds
    with service.database.read() as session:
        # Half a second after that, however long this machine has stood still since.
        moment = attempt_rows.attempts_of(session, ids[0])[-1].sent_at + SECONDS / 2
        bounds = SpareBounds(bounds.limits, bounds._key, replace(service.timing, now=lambda: moment))
        pause = bounds.hold_back(session, read_order(service.database, ids[1]), moment - timedelta(seconds=38))
    assert pause is not None
    assert pause >= 3 * SECONDS


# --- a create that begins late ---------------------------------------------------------------------------------------


def test_a_create_is_over_when_its_attempt_says_so_however_long_that_took_to_write_down(
    shop: Shop, world: World, service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes it to be over by then, and creates the order again."""
    start_attempt = attempt_rows.start_attempt

    def slow(*arguments: Any, **more: Any) -> int:
        number = start_attempt(*arguments, **more)
        clock.advance(16)
        return number

    monkeypatch.setattr(attempt_rows, "start_attempt", slow)
    with pytest.raises(Exception, match="UPSTREAM_NOT_REACHED"):
        shop.place()
    assert world.orders() == []


def test_what_was_made_before_the_create_that_is_shown_is_a_spare_though_no_number_is_known_of_that(
    shop: Shop, world: World, service: Service, clock: Clock, faults: Faults
) -> None:
    order_id = in_doubt(shop, world)
    first = world.orders()[0]
    world.chaos.record(first.number).listed_at += 60

    def uuid_alone(told: dict[str, Any]) -> None:
        told["orderId"] = told.pop("legacyOrderId")

    faults["create"] = spoiling(uuid_alone)
    go_on(service, clock, order_id, 30)
    assert shop.api.order(order_id)["upstream_order_id"] == world.orders()[1].guid
    clock.advance(61)
    service.spares.search_due()
    assert [spare["upstream_order_id"] for spare in service.support.unowned_orders()] == [str(first.number)]
