"""What a person decided about an order, and what a look may not make of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from swap.domain.lifecycle import Status
from swap.errors import Conflict
from swap.ops.by_hand import Act
from swap.store import upstream_orders
from swap.wiring import Service
from tests.conftest import Clock, Shop, look
from tests.factories import told
from tests.faults import Faults, Looks, spoiling
from tests.polling import DAY, place, types, view, walk, watch_due

DO = Act(by="anna", reason="seen with the upstream", do=True)
OTHER_ADDRESS = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"


def elsewhere(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "depositAddress": {**body["depositAddress"], "depositAddress": OTHER_ADDRESS}}


def form(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "KYCFormLink": "https://kyc.example/1"}


def frozen(service: Service, shop: Shop, clock: Clock, looks: Looks, seconds: float) -> str:
    """An order whose upstream says from that moment on what it said then."""
    order_id, told_then = place(shop), list[dict[str, Any]]()

    def keep(body: dict[str, Any]) -> dict[str, Any]:
        told_then.append(body)
        return body

    looks.edit = keep
    walk(service, clock, order_id, (seconds,))
    looks.edit = lambda _: told_then[-1]
    return order_id


@pytest.mark.parametrize("again", ["another disagreement", "another review"])
def test_a_deposit_address_that_was_accepted_although_it_is_another_is_never_asked_for_again(
    service: Service, shop: Shop, clock: Clock, looks: Looks, again: str
) -> None:
    order_id = place(shop, "expires")
    looks.edit = elsewhere
    walk(service, clock, order_id, (20, 85))
    service.review.release(order_id, DO, accept=True)
    walk(service, clock, order_id, (200,))
    if again == "another review":
        service.review.begin(order_id, DO)
        service.review.release(order_id, DO)
    else:
        looks.edit = lambda body: {**body, "claimedDepositAmount": "9.9"}
        walk(service, clock, order_id, (240,))
        looks.edit = elsewhere
        walk(service, clock, order_id, (280, 320))
    assert view(service, order_id)["deposit"]["payable"] is False


def test_a_hold_that_goes_away_makes_nothing_payable_that_the_upstream_failed_to_make(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.edit = form
    walk(service, clock, order_id, (20,))
    assert view(service, order_id)["status"] == "on_hold"
    looks.edit = lambda body: {**body, "failedToCreate": True}
    walk(service, clock, order_id, (100,))
    seen = view(service, order_id)
    assert (seen["status"], seen["deposit"]["payable"]) != ("awaiting_deposit", True)
    service.review.begin(order_id, DO)
    with pytest.raises(Conflict):
        service.review.release(order_id, DO)


@pytest.mark.parametrize("to", [Status.REFUNDED, Status.COMPLETED, Status.FAILED])
def test_what_a_person_ended_stays_ended_until_there_is_news(
    service: Service, shop: Shop, clock: Clock, looks: Looks, to: Status
) -> None:
    order_id = frozen(service, shop, clock, looks, 190)
    service.review.begin(order_id, DO)
    clock.advance(60)
    service.review.end(order_id, to, DO, despite_record=True)
    clock.advance(60)
    look(service, order_id)
    assert view(service, order_id)["status"] == to


def test_an_order_whose_watch_has_ended_is_watched_again_under_review(
    service: Service, shop: Shop, clock: Clock
) -> None:
    order_id = place(shop, "expires")
    walk(service, clock, order_id, (950, 1560, 31 * DAY))
    assert view(service, order_id)["final"]
    service.review.begin(order_id, DO)
    assert view(service, order_id)["next_check_at"] is not None


def test_a_failed_order_whose_money_went_nowhere_is_watched_on(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = frozen(service, shop, clock, looks, 190)
    service.review.begin(order_id, DO)
    service.review.end(order_id, Status.FAILED, DO, despite_record=True)
    for _ in range(5):
        clock.advance(8 * DAY)
        watch_due(service)
    seen = view(service, order_id)
    assert (seen["final"], seen["next_check_at"] is not None) == (False, True)


def test_a_second_hold_without_a_form_does_not_ask_for_the_first_ones(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "hold_then_completes")
    _, held, after = walk(service, clock, order_id, (70, 190, 490))
    assert held["action_required"]
    assert after["status"] == "exchanging"
    hold = {"kind": "AML_FROZEN", "createdAt": clock().isoformat()}
    looks.edit = lambda body: {**body, "KYCFormLink": None, "orderEvents": [hold, *body["orderEvents"]]}
    (seen,) = walk(service, clock, order_id, (520,))
    assert (seen["status"], seen["action_required"]) == ("on_hold", None)


def test_an_answer_that_names_the_number_of_an_upstream_order_of_nobodys_is_believed_all_the_same(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    with service.database.write() as session:
        upstream_orders.record(session, told("555555"), clock())
    looks.edit = lambda body: {**body, "legacyOrderId": "555555"}
    walk(service, clock, order_id, (190,))
    assert "exchanging" in types(service, order_id)


def test_a_fixed_rate_does_not_end_before_the_order_began_whatever_zone_the_upstream_dates_in(
    service: Service, shop: Shop, clock: Clock, faults: Faults
) -> None:
    made = (clock() - timedelta(hours=3)).isoformat()
    told_by = {"createdAt": made, "claimedPublicRate": {"fixedRate_maxTimeMinutes": 15}}
    faults["create"] = spoiling(lambda body: body.update(told_by))
    order_id = place(shop, "expires", rate_mode="FIXED")
    assert view(service, order_id)["deposit"]["payable_reason"] is None
