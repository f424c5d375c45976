"""Conflicts after a customer was shown where to pay, orders under review, and the persons who end them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import delete, update

from swap.cli import main
from swap.domain.lifecycle import Status
from swap.errors import Conflict, InvalidRequest, NotFound, SwapError
from swap.ops.by_hand import Act
from swap.sandbox.world import World
from swap.store import attempts as attempt_rows
from swap.store import upstream_orders
from swap.tables import DepositPlace, Order, OrderEvent, UpstreamRef
from swap.wiring import Service
from tests.conftest import Clock, Shop, look
from tests.factories import forget_upstream_orders, read_order, show, told
from tests.faults import Faults, Looks, dropping
from tests.polling import ADDRESSES, DAY, START, all_of, journal, place, quiet, types, view, walk

GUID = "1b5f7a52-8a3e-4a64-9d3c-1f2e3d4c5b6b"
OTHER_ADDRESS = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"
GONE = ("410 Gone", "application/json", b'{"status":"ERR_ORDER_EXPIRED","message":"Order expired","data":{}}')
NOT_FOUND = ("404 Not Found", "application/json", b'{"message":"order not found"}')
QUIET = ("200 OK", "application/json", quiet("expires"))
OTHER_DESTINATION = "rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe"
DO = Act("anna", "the upstream wrote that it was a mistake", do=True)
SHOW = Act("anna", "the upstream wrote that it was a mistake")


def other_destination(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "destinationAddress": OTHER_DESTINATION}


def other_deposit_address(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "depositAddress": {**body["depositAddress"], "depositAddress": OTHER_ADDRESS}}


def reviewed(service: Service, shop: Shop, clock: Clock, looks: Looks, scenario: str = "expires") -> str:
    """An order that two looks put under review."""
    order_id = place(shop, scenario)
    looks.edit = other_destination
    walk(service, clock, order_id, (20, 85))
    assert read_order(service.database, order_id).status == "needs_review"
    return order_id


# --- how an order comes under review ---------------------------------------------------------------------------------


def test_the_same_disagreement_a_minute_later_is_a_review_and_changes_nothing_that_callers_see(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.edit = other_destination
    first, again, later = walk(service, clock, order_id, (20, 50, 85))
    assert (first["deposit"]["payable"], first["deposit"]["payable_reason"]) == (False, "destination_mismatch")
    assert read_order(service.database, order_id).status_before_review == "awaiting_deposit"
    assert (later["status"], later["status_reason"]) == ("awaiting_deposit", "under_review")
    assert first["sequence"] == again["sequence"] == later["sequence"]
    assert types(service, order_id) == [*START, "updated"]
    assert journal(service, order_id) == ["journal.needs_review"]


def test_a_disagreement_within_a_minute_of_the_first_is_no_review(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.edit = other_destination
    walk(service, clock, order_id, (20, 75))
    assert read_order(service.database, order_id).status == "awaiting_deposit"


def test_a_disagreement_that_comes_back_after_an_agreement_is_a_review(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.edit = other_deposit_address
    walk(service, clock, order_id, (20,))
    looks.edit = None
    (between,) = walk(service, clock, order_id, (50,))
    assert between["deposit"]["payable"] is True
    looks.edit = other_deposit_address
    walk(service, clock, order_id, (85,))
    assert read_order(service.database, order_id).status == "needs_review"


def test_money_that_comes_while_its_way_is_in_doubt_is_for_a_person_even_if_the_upstream_agrees_again(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    looks.edit = other_deposit_address
    walk(service, clock, order_id, (20,))
    looks.edit = None
    (paid,) = walk(service, clock, order_id, (90,))
    assert (paid["status"], paid["status_reason"]) == ("confirming", "under_review")
    assert read_order(service.database, order_id).status == "needs_review"


def test_money_first_told_by_an_answer_with_another_deposit_address_is_for_a_person(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    looks.edit = other_deposit_address
    walk(service, clock, order_id, (70,))
    looks.edit = None
    (seen,) = walk(service, clock, order_id, (100,))
    assert (seen["status"], seen["status_reason"]) == ("awaiting_deposit", "under_review")
    assert read_order(service.database, order_id).status == "needs_review"


def test_money_told_by_contradicting_answers_under_review_is_one_alarm(
    service: Service, shop: Shop, clock: Clock, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop)
    service.review.begin(order_id, DO)
    looks.edit = other_deposit_address
    alarms: list[str] = []
    monkeypatch.setattr("swap.watching.steps.log.critical", lambda event, **_: alarms.append(event))
    walk(service, clock, order_id, (370, 800, 2000))
    assert alarms == ["watch.unexpected_deposit"]
    assert view(service, order_id)["deposits"] == []
    service.review.release(order_id, DO, accept=True)
    assert len(view(service, order_id)["deposits"]) == 1, "accepted, it counts"


def test_an_order_whose_money_is_on_its_way_to_somebody_else_comes_under_review(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (190,))
    looks.edit = other_destination
    moving = walk(service, clock, order_id, (215, 285))[-1]
    assert (moving["status"], moving["status_reason"]) == ("exchanging", "under_review")
    assert moving["deposit"]["address"], "where the money went stays visible"


def test_once_the_money_is_there_another_amount_or_refund_address_is_the_upstreams_affair(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (190,))
    looks.edit = lambda body: {**body, "claimedDepositAmount": "0.012", "refundAddress": OTHER_ADDRESS}
    moving = walk(service, clock, order_id, (215, 285))[-1]
    assert (moving["status"], moving["status_reason"]) == ("exchanging", None)


def test_an_order_that_shares_its_place_with_another_comes_under_review_and_the_owner_does_not(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    owner, guest = place(shop, "expires"), place(shop, "expires", client_order_id="order-2")
    owned = read_order(service.database, owner)
    with service.database.write() as session:
        session.execute(delete(DepositPlace).where(DepositPlace.order_id == guest))
        session.execute(update(Order).where(Order.id == guest).values(deposit_address=owned.deposit_address))
    place_of_both = {"depositAddress": owned.deposit_address}
    looks.edit = lambda body: {**body, "depositAddress": {**body["depositAddress"], **place_of_both}}
    for seconds in (20, 65):
        clock.advance(seconds)
        look(service, owner)
        look(service, guest)
    assert read_order(service.database, owner).status == "awaiting_deposit"
    assert view(service, owner)["deposit"]["payable"] is True
    shared = read_order(service.database, guest)
    assert (shared.status, shared.conflict) == ("needs_review", "address_in_use")


# --- while it lasts --------------------------------------------------------------------------------------------------


def test_looks_go_on_under_review_and_a_deposit_is_an_alarm(
    service: Service, shop: Shop, clock: Clock, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop)
    service.review.begin(order_id, DO)
    alarms: list[str] = []
    monkeypatch.setattr("swap.watching.steps.log.critical", lambda event, **_: alarms.append(event))
    walk(service, clock, order_id, (370, 800))
    seen = view(service, order_id)
    assert (seen["status"], seen["status_reason"], len(seen["deposits"])) == ("awaiting_deposit", "under_review", 1)
    assert seen["deposit"]["payable"] is False
    assert alarms == ["watch.unexpected_deposit"], "once"
    assert "journal.unexpected_deposit" in journal(service, order_id)
    assert read_order(service.database, order_id).next_check_at is not None


def test_an_agreeing_look_ends_no_review(service: Service, shop: Shop, clock: Clock, looks: Looks) -> None:
    order_id = reviewed(service, shop, clock, looks)
    looks.edit = None
    (seen,) = walk(service, clock, order_id, (500,))
    assert (seen["status_reason"], seen["deposit"]["payable"]) == ("under_review", False)


# --- a person puts it there ------------------------------------------------------------------------------------------


def test_a_review_by_hand_is_public_and_says_who_and_why(service: Service, shop: Shop) -> None:
    order_id = place(shop)
    shown = service.review.begin(order_id, SHOW)
    assert (shown["done"], shown["changes"]["status"]) == (
        *(False, {"from": "awaiting_deposit", "to": "needs_review"}),
    )
    assert types(service, order_id) == START, "asking does nothing"

    done = service.review.begin(order_id, DO)
    assert done["done"] is True
    seen = view(service, order_id)
    assert (seen["status"], seen["status_reason"]) == ("awaiting_deposit", "under_review")
    assert (seen["deposit"]["payable"], seen["deposit"]["payable_reason"]) == (False, "under_review")
    assert seen["deposit"]["address"] is not None
    assert types(service, order_id) == [*START, "updated"]
    event = max(all_of(service, OrderEvent, OrderEvent.order_id == order_id), key=lambda e: e.sequence or 0)
    assert {name: event.detail[name] for name in ("source", "action", "by", "reason")} == {
        "source": "person",
        "action": "review",
        "by": "anna",
        "reason": DO.reason,
    }
    assert [listed["order_id"] for listed in service.review.listed()] == [order_id]


def test_an_order_is_reviewed_once_and_only_if_its_customer_was_shown_where_to_pay(
    service: Service, shop: Shop
) -> None:
    order_id = place(shop)
    service.review.begin(order_id, DO)
    with pytest.raises(Conflict) as caught:
        service.review.begin(order_id, DO)
    assert caught.value.code == "ORDER_STATE_FORBIDS"


def test_name_and_reason_must_not_be_blank() -> None:
    with pytest.raises(InvalidRequest):
        Act(" ", "because")


# --- the way back ----------------------------------------------------------------------------------------------------


def test_a_release_reads_again_and_makes_the_order_payable_where_the_upstream_agrees(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = reviewed(service, shop, clock, looks)
    looks.edit = None
    before = read_order(service.database, order_id)
    assert service.review.release(order_id, SHOW)["changes"]["payable"] == {"from": False, "to": True}
    assert read_order(service.database, order_id).version == before.version, "asking does nothing"
    service.review.release(order_id, DO)
    seen = view(service, order_id)
    assert (seen["status"], seen["status_reason"], seen["deposit"]["payable"]) == ("awaiting_deposit", None, True)
    assert seen["deposit"]["address"]
    walk(service, clock, order_id, (300, 400))
    assert view(service, order_id)["deposit"]["payable"] is True


def test_a_release_goes_to_where_the_facts_say_the_order_is(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = reviewed(service, shop, clock, looks, "completes")
    looks.edit = None
    clock.advance(400)
    service.review.release(order_id, DO)
    seen = view(service, order_id)
    assert (seen["status"], seen["final"]) == ("completed", True)
    assert types(service, order_id)[-1] == "completed"


def test_a_release_is_refused_while_the_upstream_disagrees(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = reviewed(service, shop, clock, looks)
    with pytest.raises(Conflict) as caught:
        service.review.release(order_id, DO)
    assert caught.value.code == "UPSTREAM_DISAGREES"
    assert caught.value.details["conflict"] == "destination_mismatch"
    assert caught.value.details["upstream"]["destination_address"] == OTHER_DESTINATION
    assert read_order(service.database, order_id).status == "needs_review"


@pytest.mark.parametrize("accept", [False, True])
def test_a_review_ends_on_no_answer_about_the_orders_spare(
    service: Service, shop: Shop, clock: Clock, looks: Looks, accept: bool
) -> None:
    """As if the answers were one request late: this one names itself by a UUID alone, and tells not where to pay."""
    order_id = place(shop, "expires")
    order = read_order(service.database, order_id)
    spare = told("555555", GUID, upstream_key=order.upstream_key, destination_address=order.destination_address)
    with service.database.write() as session:
        assert upstream_orders.record(session, spare, clock(), order_id=order_id)
    service.review.begin(order_id, DO)
    left_out = {"orderId", "legacyOrderId", "id", "reference", "depositAddress"}
    paid = [{"createdAt": clock().isoformat(), "amount": "0.0125", "txId": "a" * 64, "confirmations": 3}]
    looks.edit = lambda body: {
        **{name: value for name, value in body.items() if name not in left_out},
        "uuid": GUID,
        "deposits": paid,
        "completed": True,
    }
    with pytest.raises(Conflict) as caught:
        service.review.release(order_id, DO, accept=accept)
    assert caught.value.code == "UPSTREAM_DISAGREES"
    assert read_order(service.database, order_id).status == "needs_review"
    looks.edit = None
    service.review.release(order_id, DO)
    assert (view(service, order_id)["status"], view(service, order_id)["deposits"]) == ("awaiting_deposit", [])


def test_an_accepted_answer_is_agreed_with_until_it_says_something_else(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = reviewed(service, shop, clock, looks)
    service.review.release(order_id, DO, accept=True)
    walk(service, clock, order_id, (200, 300))
    assert view(service, order_id)["deposit"]["payable"] is True
    looks.edit = lambda body: {**body, "destinationAddress": "rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw"[:-1] + "x"}
    walk(service, clock, order_id, (400, 500))
    assert read_order(service.database, order_id).status == "needs_review", "another wrong destination was not accepted"


def test_nobody_can_accept_that_customers_pay_to_another_address_than_they_were_shown(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.edit = other_deposit_address
    walk(service, clock, order_id, (20, 85))
    service.review.release(order_id, DO, accept=True)
    walk(service, clock, order_id, (200, 300))
    seen = view(service, order_id)
    assert (seen["status"], seen["status_reason"]) == ("awaiting_deposit", None)
    assert (seen["deposit"]["payable"], seen["deposit"]["payable_reason"]) == (False, "deposit_address_changed")


def test_a_release_does_not_make_payable_what_something_else_has_ended(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    with service.database.write() as session:
        values = {"payable": False, "payable_reason": "rate_expired", "version": Order.version + 1}
        session.execute(update(Order).where(Order.id == order_id).values(**values))
    looks.edit = other_destination
    walk(service, clock, order_id, (20, 85))
    looks.edit = None
    service.review.release(order_id, DO)
    seen = view(service, order_id)["deposit"]
    assert (seen["payable"], seen["payable_reason"]) == (False, "rate_expired")


def test_only_an_order_under_review_is_released(service: Service, shop: Shop) -> None:
    with pytest.raises(Conflict) as caught:
        service.review.release(place(shop), DO)
    assert caught.value.code == "ORDER_STATE_FORBIDS"


def test_under_review_the_money_is_where_the_upstream_says_it_is(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop)
    service.review.begin(order_id, DO)
    assert view(service, order_id)["funds"] == "with_user"
    seen = []
    for seconds in (70, 120, 120, 90):
        clock.advance(seconds)
        look(service, order_id)
        seen.append(view(service, order_id))
    assert [order["funds"] for order in seen] == ["seen_on_chain", "with_upstream", "on_its_way", "delivered"]
    assert {(order["status"], order["final"]) for order in seen} == {("awaiting_deposit", False)}


# --- the end ---------------------------------------------------------------------------------------------------------


def test_an_order_that_is_ended_by_hand_is_watched_on_and_money_that_comes_is_an_alarm(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop)
    assert service.review.end(order_id, Status.FAILED, SHOW)["changes"]["status"]["to"] == "failed"
    service.review.end(order_id, Status.FAILED, DO)
    seen = view(service, order_id)
    assert (seen["status"], seen["status_reason"], seen["final"]) == ("failed", "ended_by_hand", False)
    assert seen["deposit"]["payable"] is False
    alarms: list[str] = []
    monkeypatch.setattr("swap.watching.steps.log.critical", lambda event, **_: alarms.append(event))
    walk(service, clock, order_id, (20,))
    assert view(service, order_id)["next_check_at"] is not None
    walk(service, clock, order_id, (2 * 3600,))
    seen = view(service, order_id)
    assert (seen["status"], seen["funds"], len(seen["deposits"])) == ("completed", "delivered", 1)
    assert alarms == ["watch.unexpected_deposit"]


@pytest.mark.parametrize("answer", [NOT_FOUND, GONE])
@pytest.mark.parametrize("to", [Status.FAILED, Status.COMPLETED, Status.REFUNDED])
def test_an_order_under_review_of_which_the_upstream_knows_no_more_is_ended_despite_its_record(
    service: Service, shop: Shop, clock: Clock, looks: Looks, to: Status, answer: tuple[str, str, bytes]
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (70,))
    with pytest.raises(Conflict) as caught:
        service.review.end(order_id, to, DO, despite_record=True)
    assert caught.value.code == "RECORD_FORBIDS", "only under review"
    service.review.begin(order_id, DO)
    looks.answer = answer
    decisions: tuple[Callable[[], object], ...] = (
        lambda: service.review.release(order_id, DO, accept=True),
        lambda: service.review.end(order_id, to, DO),
        lambda: service.review.end(order_id, Status.EXPIRED, DO, despite_record=True),
    )
    for decide in decisions:
        with pytest.raises(SwapError):
            decide()
    service.review.end(order_id, to, DO, despite_record=True)
    (ended,) = all_of(service, OrderEvent, OrderEvent.type == f"order.{to}")
    assert (ended.detail["despite_record"], ended.detail["by"]) == (True, "anna")
    walk(service, clock, order_id, (2 * 86_400, 4 * 86_400))
    stored = read_order(service.database, order_id)
    assert (stored.status, stored.status_reason) == (to, "ended_by_hand"), "nobody is asked again"


@pytest.mark.parametrize("to", [Status.FAILED, Status.COMPLETED, Status.REFUNDED])
def test_what_a_person_has_ended_stays_so_though_the_upstream_goes_on_contradicting_it(
    service: Service, shop: Shop, clock: Clock, looks: Looks, to: Status
) -> None:
    order_id = place(shop)
    looks.edit = other_destination
    walk(service, clock, order_id, (20, 400))
    assert journal(service, order_id) == ["journal.needs_review", "journal.unexpected_deposit"]
    with pytest.raises(Conflict, match="Money came in"):
        service.review.end(order_id, Status.FAILED, DO)
    service.review.end(order_id, to, DO, despite_record=True)
    clock.advance(DAY)
    for _ in range(3):
        look(service, order_id)
    stored = read_order(service.database, order_id)
    assert (stored.status, stored.status_reason) == (to, "ended_by_hand")


def test_money_that_moves_after_a_person_ended_an_order_in_contradiction_is_for_a_person_again(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    looks.edit = other_destination
    walk(service, clock, order_id, (20, 40))
    service.review.begin(order_id, DO)
    service.review.end(order_id, Status.FAILED, DO)
    clock.advance(DAY)
    look(service, order_id)
    assert read_order(service.database, order_id).status == "needs_review"


def of_the_other(world: World) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Answers that name the second order, by its UUID alone."""
    return lambda body: {**body, "orderId": world.orders()[1].guid, "legacyOrderId": None}


def held(form: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def edit(body: dict[str, Any]) -> dict[str, Any]:
        hold = {"kind": "AML_HOLD", "createdAt": body["createdAt"]}
        return {**body, "orderEvents": [*body["orderEvents"], hold], "KYCFormLink": form}

    return edit


def test_a_form_that_is_asked_for_during_a_review_is_an_event_once_the_order_is_released(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    service.review.begin(order_id, DO)
    looks.edit = held("https://kyc.invalid/1")
    walk(service, clock, order_id, (400,))
    assert "action_required" not in types(service, order_id)
    service.review.release(order_id, DO)
    walk(service, clock, order_id, (420, 500))
    assert types(service, order_id)[-2:] == ["on_hold", "action_required"]
    assert view(service, order_id)["action_required"]["url"] == "https://kyc.invalid/1"


def test_another_form_during_the_review_of_a_held_order_is_an_event_at_once(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.edit = held("https://kyc.invalid/1")
    walk(service, clock, order_id, (20,))
    service.review.begin(order_id, DO)
    looks.edit = held("https://kyc.invalid/2")
    walk(service, clock, order_id, (400,))
    assert types(service, order_id)[-2:] == ["updated", "action_required"]
    assert view(service, order_id)["action_required"]["url"] == "https://kyc.invalid/2"


def test_an_order_that_is_over_does_not_come_under_review_for_answers_about_another(
    service: Service, shop: Shop, clock: Clock, looks: Looks, world: World
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (70, 190, 310, 370))
    place(shop, client_order_id="order-2")
    looks.edit = of_the_other(world)
    for _ in range(8):
        clock.advance(DAY)
        look(service, order_id)
    assert (view(service, order_id)["status_reason"], view(service, order_id)["final"]) == (None, True)


def test_answers_about_another_order_are_for_a_person_though_others_fail_between_them(
    service: Service, shop: Shop, clock: Clock, looks: Looks, world: World
) -> None:
    order_id = place(shop)
    place(shop, client_order_id="order-2")
    looks.edit = of_the_other(world)
    for number in range(6):
        looks.answer = NOT_FOUND if number in (0, 4) else None
        clock.advance(120)
        look(service, order_id)
    assert read_order(service.database, order_id).status == "needs_review"
    service.review.end(order_id, Status.FAILED, DO)
    for _ in range(8):
        clock.advance(DAY)
        look(service, order_id)
    assert read_order(service.database, order_id).status == "failed", "it is not asked for again"


def test_one_answer_about_another_order_after_many_failures_is_no_review(
    service: Service, shop: Shop, clock: Clock, looks: Looks, world: World
) -> None:
    order_id = place(shop)
    place(shop, client_order_id="order-2")
    looks.edit, looks.answer = of_the_other(world), NOT_FOUND
    for number in range(8):
        looks.answer = NOT_FOUND if number < 7 else None
        clock.advance(120)
        look(service, order_id)
    assert read_order(service.database, order_id).status == "awaiting_deposit"


def test_an_order_that_a_person_ended_as_expired_is_brought_back_by_no_good_answer(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.answer = GONE
    walk(service, clock, order_id, (20, 700))
    looks.answer = QUIET
    walk(service, clock, order_id, (1100, 1800))
    assert view(service, order_id)["status"] == "awaiting_deposit", "the upstream has taken its expiry back"
    service.review.end(order_id, Status.EXPIRED, DO)
    walk(service, clock, order_id, (1801, 3000, 4000))
    looks.answer = GONE
    walk(service, clock, order_id, (5000, 6000))
    looks.answer = QUIET
    walk(service, clock, order_id, (7000, 8000, 9000))
    seen = view(service, order_id)
    assert (seen["status"], seen["status_reason"]) == ("expired", "ended_by_hand")
    assert seen["deposit"]["payable"] is False


@pytest.mark.parametrize("to", [Status.FAILED, Status.EXPIRED, Status.COMPLETED, Status.REFUNDED])
def test_an_order_ends_only_as_its_record_says(service: Service, shop: Shop, clock: Clock, to: Status) -> None:
    order_id = place(shop)
    if to in (Status.FAILED, Status.EXPIRED):
        walk(service, clock, order_id, (90,))  # a deposit was seen
    with pytest.raises(Conflict) as caught:
        service.review.end(order_id, to, DO)
    assert caught.value.code == "RECORD_FORBIDS"


def test_an_order_under_review_is_ended_as_completed_once_the_record_shows_the_payout(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    service.review.begin(order_id, DO)
    with pytest.raises(Conflict):
        service.review.end(order_id, Status.COMPLETED, DO)
    walk(service, clock, order_id, (400,))
    service.review.end(order_id, Status.COMPLETED, DO)
    seen = view(service, order_id)
    assert (seen["status"], seen["final"], seen["status_reason"]) == ("completed", True, "ended_by_hand")


def test_an_order_has_one_end(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (400,))
    with pytest.raises(Conflict) as caught:
        service.review.end(order_id, Status.FAILED, DO)
    assert caught.value.code == "ORDER_STATE_FORBIDS"


def in_doubt(shop: Shop, faults: Faults, **changed: Any) -> str:
    """An order whose create was carried out and never answered."""
    faults["create"] = dropping
    order_id: str = shop.place(destination_address=ADDRESSES["expires"], **changed)["id"]
    del faults["create"]
    return order_id


def test_ending_an_order_in_doubt_keeps_what_its_create_named_under_watch(
    service: Service, shop: Shop, faults: Faults, world: World
) -> None:
    order_id = in_doubt(shop, faults)
    ref = str(world.orders()[-1].number)
    with service.database.write() as session:
        attempt_rows.finish_attempt(session, order_id, 1, refs=[ref])
    service.review.end(order_id, Status.FAILED, DO)
    seen = view(service, order_id)
    assert (seen["status"], seen["final"], seen["next_check_at"]) == ("failed", True, None)
    (orphan,) = service.support.unowned_orders()
    assert (orphan["upstream_order_id"], orphan["order_id"]) == (ref, order_id)


# --- an upstream order that is nobody's ------------------------------------------------------------------------------


def orphaned(service: Service, world: World, order_id: str | None = None) -> str:
    """Record the world's newest order as nobody's, or as an order's spare."""
    made = world.orders()[-1]
    with service.database.write() as session:
        known = told(
            str(made.number),
            upstream_key=service.settings.upstream_public_key,
            destination_address=ADDRESSES["expires"],
            amount=None,
        )
        assert upstream_orders.record(session, known, service.clock(), order_id=order_id)
    return str(made.number)


def test_an_upstream_order_is_given_to_an_order_in_doubt_and_shown(
    service: Service, shop: Shop, faults: Faults, world: World
) -> None:
    order_id = in_doubt(shop, faults)
    ref = orphaned(service, world)
    shown = service.linking.link(ref, order_id, SHOW)
    assert (shown["done"], shown["changes"]["status"]["to"]) == (False, "awaiting_deposit")
    assert view(service, order_id)["deposit"] is None
    assert service.linking.link(ref, order_id, DO)["done"] is True
    seen = view(service, order_id)
    assert (seen["status"], seen["upstream_order_id"], seen["deposit"]["payable"]) == ("awaiting_deposit", ref, True)
    assert service.support.unowned_orders() == []
    event = max(all_of(service, OrderEvent, OrderEvent.order_id == order_id), key=lambda e: e.sequence or 0)
    assert (event.detail["source"], event.detail["by"], event.detail["role"]) == ("person", "anna", "shown")


def test_an_upstream_order_of_other_terms_is_shown_to_nobody(
    service: Service, shop: Shop, faults: Faults, world: World
) -> None:
    order_id = in_doubt(shop, faults)
    in_doubt(shop, faults, client_order_id="order-2", amount="0.05")
    ref = orphaned(service, world)
    with pytest.raises(Conflict) as caught:
        service.linking.link(ref, order_id, DO)
    assert (caught.value.code, caught.value.details["conflict"]) == ("UPSTREAM_DISAGREES", "amount_mismatch")


def test_an_order_that_has_an_address_gets_a_spare_and_its_record_says_so(
    service: Service, shop: Shop, faults: Faults, world: World
) -> None:
    order_id = place(shop, "expires")
    in_doubt(shop, faults, client_order_id="order-2")
    ref = orphaned(service, world)
    before = read_order(service.database, order_id)
    service.linking.link(ref, order_id, DO)
    (spare,) = service.support.unowned_orders()
    assert (spare["upstream_order_id"], spare["order_id"]) == (ref, order_id)
    assert types(service, order_id) == START
    assert journal(service, order_id) == ["journal.link"]
    assert read_order(service.database, order_id).version == before.version + 1


def test_what_another_customer_was_shown_is_given_to_nobody_else(service: Service, shop: Shop) -> None:
    owner, other = place(shop, "expires"), place(shop, "expires", client_order_id="order-2")
    ref = view(service, owner)["upstream_order_id"]
    with pytest.raises(Conflict) as caught:
        service.linking.link(ref, other, DO)
    assert (caught.value.code, caught.value.details["order_id"]) == ("UPSTREAM_ORDER_OWNED", owner)


def test_an_upstream_order_with_the_deposit_address_of_another_order_is_given_to_nobody(
    service: Service, shop: Shop, faults: Faults, looks: Looks, world: World
) -> None:
    owner = view(service, place(shop, "expires"))["deposit"]["address"]
    order_id = in_doubt(shop, faults, client_order_id="order-2")
    ref = orphaned(service, world)
    looks.edit = lambda body: {**body, "depositAddress": {**body["depositAddress"], "depositAddress": owner}}
    with pytest.raises(Conflict) as caught:
        service.linking.link(ref, order_id, DO)
    assert caught.value.code == "DEPOSIT_PLACE_TAKEN"
    assert view(service, order_id)["deposit"] is None


def test_an_upstream_order_that_nobody_recorded_is_not_found(service: Service, shop: Shop) -> None:
    with pytest.raises(NotFound) as caught:
        service.linking.link("4711", place(shop), DO)
    assert caught.value.code == "UPSTREAM_ORDER_UNKNOWN"


# --- at the same time as a look --------------------------------------------------------------------------------------


def test_a_look_that_was_asked_before_the_review_overwrites_nothing(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    """The look has read the order and waits for the upstream; a person decides meanwhile."""
    order_id = place(shop)
    clock.advance(370)
    looks.hold = threading.Event()
    asked = len(looks.asked)
    looking = threading.Thread(target=look, args=(service, order_id))
    looking.start()
    while len(looks.asked) == asked:
        threading.Event().wait(0.01)
    service.review.begin(order_id, DO)
    looks.hold.set()
    looking.join(10)
    stored = read_order(service.database, order_id)
    assert (stored.status, stored.status_before_review) == ("needs_review", "awaiting_deposit")
    assert types(service, order_id) == [*START, "updated"]
    looks.hold = None
    look(service, order_id)
    assert len(view(service, order_id)["deposits"]) == 1, "the next look finds all of it again"


def test_of_two_looks_whose_answers_name_one_upstream_order_at_the_same_moment_one_is_believed(
    service: Service, shop: Shop, clock: Clock, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [place(shop, client_order_id=f"order-{number}") for number in (1, 2)]
    with service.database.write() as session:
        forget_upstream_orders(session)
        session.execute(update(Order).values(upstream_order_id=None))
    for order_id, ref in zip(orders, ("0b5f7a52-8a3e-4a64-9d3c-1f2e3d4c5b6a", GUID), strict=True):
        show(service.database, read_order(service.database, order_id), ref)
    told = {"orderId": 777777, "destinationAddress": ADDRESSES["completes"], "orderEvents": [], "completed": True}
    looks.answer = ("200 OK", "application/json", json.dumps({**told, "withdrawals": [{"txId": "f" * 64}]}).encode())
    together, claim = threading.Barrier(2), upstream_orders.show

    def both(*arguments: Any) -> set[str]:
        with suppress(threading.BrokenBarrierError):  # SQLite lets one in at a time
            together.wait(1)
        return claim(*arguments)

    monkeypatch.setattr(upstream_orders, "show", both)
    clock.advance(20)
    polls = [threading.Thread(target=look, args=(service, order_id)) for order_id in orders]
    for poll in polls:
        poll.start()
    for poll in polls:
        poll.join(20)
    seen = sorted(
        (view(service, order_id)["status"], view(service, order_id)["upstream_order_id"]) for order_id in orders
    )
    assert seen == [("awaiting_deposit", None), ("completed", "777777")]
    assert {ref.ref for ref in all_of(service, UpstreamRef)} >= {"777777"}


@pytest.mark.parametrize("decision", ["review", "end", "release"])
def test_a_person_and_a_look_at_the_same_moment_both_happen(
    service: Service, shop: Shop, clock: Clock, decision: str
) -> None:
    """Whoever is first, the other starts again from what is then there: nothing is lost, and no sequence has a hole."""
    for number in range(4):
        order_id = place(shop, client_order_id=f"race-{number}")
        if decision == "release":
            service.review.begin(order_id, DO)
        clock.advance(370)
        start = threading.Barrier(2)

        def person(order_id: str = order_id, start: threading.Barrier = start) -> None:
            start.wait(5)
            try:
                if decision == "end":
                    service.review.end(order_id, Status.FAILED, DO)
                else:
                    (service.review.begin if decision == "review" else service.review.release)(order_id, DO)
            except Conflict as error:
                assert error.code in ("ORDER_STATE_FORBIDS", "RECORD_FORBIDS"), "the look was first"

        deciding = threading.Thread(target=person)
        deciding.start()
        start.wait(5)
        look(service, order_id)
        deciding.join(10)
        look(service, order_id)
        stored = read_order(service.database, order_id)
        assert stored.status in ("needs_review", "completed") or decision == "end"
        assert stored.status != "needs_review" or decision == "review"
        assert len(view(service, order_id)["deposits"]) == 1
        types(service, order_id)


def test_two_persons_who_give_one_upstream_order_to_two_orders_give_it_to_one(
    service: Service, shop: Shop, faults: Faults, world: World
) -> None:
    orders = [in_doubt(shop, faults, client_order_id=f"order-{number}") for number in (1, 2)]
    ref = orphaned(service, world)
    start = threading.Barrier(2)

    def link(order_id: str) -> None:
        start.wait(5)
        with suppress(Conflict, NotFound):
            service.linking.link(ref, order_id, DO)

    persons = [threading.Thread(target=link, args=(order_id,)) for order_id in orders]
    for person in persons:
        person.start()
    for person in persons:
        person.join(20)
    shown = [order_id for order_id in orders if view(service, order_id)["deposit"] is not None]
    assert len(shown) == 1
    assert view(service, shown[0])["upstream_order_id"] == ref


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def swap(service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("swap.tools.orders.open_service", lambda: service)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["orders", *arguments])

    return run


WHO = ("--by", "anna", "--reason", "asked the upstream")


def test_the_command_does_nothing_without_yes_and_prints_one_object(
    swap: Any, service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    shown = swap("review", order_id, *WHO, "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["done"] is False
    assert read_order(service.database, order_id).status == "awaiting_deposit"
    done = swap("review", order_id, *WHO, "--json", "--yes")
    assert json.loads(done.stdout)["done"] is True
    assert read_order(service.database, order_id).status == "needs_review"
    listed = json.loads(swap("under-review", "--json").stdout)["orders"]
    assert [(order["order_id"], order["status"]) for order in listed] == [(order_id, "awaiting_deposit")]


def test_the_other_decisions_have_commands_too(
    swap: Any, service: Service, shop: Shop, faults: Faults, world: World
) -> None:
    order_id = in_doubt(shop, faults)
    linked = swap("link", orphaned(service, world), order_id, *WHO, "--json", "--yes")
    assert json.loads(linked.stdout)["changes"]["status"] == {"from": "in_doubt", "to": "awaiting_deposit"}
    assert json.loads(swap("review", order_id, *WHO, "--json", "--yes").stdout)["done"] is True
    released = json.loads(swap("release", order_id, *WHO, "--json", "--yes").stdout)
    assert released["upstream"]["destination_address"] == ADDRESSES["expires"]
    ended = json.loads(swap("end", order_id, "--as", "expired", *WHO, "--json", "--yes").stdout)
    assert ended["order"]["status"] == "expired"
    assert view(service, order_id)["deposit"]["payable"] is False


def test_what_is_refused_is_an_object_too_and_ends_with_1(swap: Any, shop: Shop) -> None:
    refused = swap("release", place(shop), *WHO, "--yes", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"]["code"] == "ORDER_STATE_FORBIDS"


@pytest.mark.parametrize("arguments", [("--by", "anna"), ("--reason", "x"), ("--by", " ", "--reason", "x")])
def test_a_decision_without_name_or_reason_is_called_wrongly(swap: Any, arguments: tuple[str, ...]) -> None:
    assert swap("review", "ord_1", *arguments).exit_code == 2
