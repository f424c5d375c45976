"""What time does to orders that are watched, with an answer and without one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from swap.domain.times import iso
from swap.errors import RateLimited, UpstreamUnavailable
from swap.store import upstream_orders
from swap.tables import Order, UpstreamOrder
from swap.wiring import Service
from tests.conftest import Clock, Shop, look
from tests.factories import read_order, told
from tests.faults import Faults, Looks, answering, spoiling
from tests.polling import DAY, START, all_of, place, quiet, types, view, watch_due
from tests.signed_client import Calls

pytestmark = pytest.mark.sqlite_only

JSON = "application/json"
NOT_FOUND = ("404 Not Found", JSON, b'{"message":"order not found"}')
GONE = ("410 Gone", JSON, b'{"status":"ERR_ORDER_EXPIRED","message":"Order expired","data":{}}')
QUIET = ("200 OK", JSON, quiet("expires"))


def deposit(service: Service, order_id: str) -> tuple[bool, str | None]:
    found = view(service, order_id)["deposit"]
    assert found["address"], "what was shown stays visible"
    return found["payable"], found["payable_reason"]


def look_at(service: Service, clock: Clock, order_id: str, *minutes: float) -> None:
    """Look at the order at each of these minutes after it was created."""
    born = read_order(service.database, order_id).created_at
    for minute in minutes:
        clock.advance(born + timedelta(minutes=minute) - clock())
        look(service, order_id)


# --- silence ---------------------------------------------------------------------------------------------------------


def test_an_order_that_answers_404_for_ever_stops_being_payable_and_expires(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.answer = NOT_FOUND
    for _ in range(6):
        clock.advance(DAY)
        assert watch_due(service) == [order_id]
    assert view(service, order_id)["status"] == "awaiting_deposit"
    assert deposit(service, order_id) == (False, "unverified")
    for _ in range(24):
        clock.advance(DAY)
        watch_due(service)
    found = view(service, order_id)
    assert (found["status"], found["status_reason"]) == ("expired", "local_expiry")
    assert (found["final"], found["next_check_at"] is None) == (False, False), "still watched: somebody may pay yet"
    assert types(service, order_id) == [*START, "updated", "expired"]
    clock.advance(10 * DAY)
    assert watch_due(service) == [order_id]
    assert view(service, order_id)["final"] is True


@pytest.mark.parametrize("minutes", [(14, 16), (2, 4, 14.9), (1, 2, 3, 4, 5, 6)])
def test_fewer_than_three_missed_looks_or_less_than_fifteen_minutes_leave_an_order_payable(
    service: Service, shop: Shop, clock: Clock, looks: Looks, minutes: tuple[float, ...]
) -> None:
    order_id = place(shop, "expires")
    looks.answer = NOT_FOUND
    look_at(service, clock, order_id, *minutes)
    assert deposit(service, order_id) == (True, None)
    assert types(service, order_id) == START


def test_three_missed_looks_and_fifteen_minutes_end_payments_until_a_good_look(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.answer = NOT_FOUND
    look_at(service, clock, order_id, 5, 10, 15.1)
    assert deposit(service, order_id) == (False, "unverified")
    assert view(service, order_id)["deposit"]["uri"] is None
    look_at(service, clock, order_id, 16, 17)
    assert types(service, order_id) == [*START, "updated"], "said once"
    looks.answer = QUIET
    look_at(service, clock, order_id, 18)
    assert deposit(service, order_id) == (True, None)
    assert types(service, order_id) == [*START, "updated", "updated"]


@pytest.mark.parametrize(
    "refusal", [RateLimited("no turn", retry_after=1.0), UpstreamUnavailable("the breaker is open", cause="breaker")]
)
def test_looks_that_are_never_sent_are_missed_as_well(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    order_id = place(shop, "expires")

    def refuse(*_: Any, **__: Any) -> None:
        raise refusal

    monkeypatch.setattr(service.upstream, "order", refuse)
    look_at(service, clock, order_id, 1, 2, 3, 14)
    assert deposit(service, order_id) == (True, None)
    look_at(service, clock, order_id, 15.1)
    assert deposit(service, order_id) == (False, "unverified")
    assert read_order(service.database, order_id).failures == 0
    look_at(service, clock, order_id, 7 * 24 * 60)
    assert view(service, order_id)["status"] == "expired"


def test_a_few_looks_put_off_do_not_end_payments_to_an_order_that_is_polled_rarely(
    service: Service, shop: Shop, clock: Clock, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop, "expires")
    looks.answer = QUIET
    look_at(service, clock, order_id, 2 * 24 * 60)  # from now on every 30 minutes

    def refuse(*_: Any, **__: Any) -> None:
        raise RateLimited("no turn", retry_after=1.0)

    monkeypatch.setattr(service.upstream, "order", refuse)
    look_at(service, clock, order_id, *(2 * 24 * 60 + minute for minute in (30, 30.1, 30.2, 30.3, 40)))
    assert deposit(service, order_id) == (True, None)
    look_at(service, clock, order_id, 2 * 24 * 60 + 120)
    assert deposit(service, order_id) == (False, "unverified")


@pytest.mark.parametrize("answer", [NOT_FOUND, GONE, ("502 Bad Gateway", JSON, b"{}")])
def test_a_paid_order_is_moved_by_no_silence_and_a_day_of_it_is_for_a_person(
    service: Service, shop: Shop, clock: Clock, looks: Looks, answer: tuple[str, str, bytes]
) -> None:
    order_id = place(shop)
    look_at(service, clock, order_id, 70 / 60)
    looks.answer = answer
    look_at(service, clock, order_id, 5, 6, 7, 60, 23 * 60)
    assert view(service, order_id)["status"] == "confirming"
    assert types(service, order_id) == [*START, "confirming"]
    look_at(service, clock, order_id, 25 * 60, 60 * 60, 10 * 24 * 60)
    found = view(service, order_id)
    assert (found["status"], found["status_reason"], found["final"]) == ("confirming", "under_review", False)
    assert types(service, order_id) == [*START, "confirming", "updated"], "said once"


def test_a_guessed_word_holds_no_order_for_ever(service: Service, shop: Shop, clock: Clock, looks: Looks) -> None:
    order_id = place(shop, "expires")
    looks.answer = (*QUIET[:2], QUIET[2].replace(b"created", b"processing"))
    look_at(service, clock, order_id, 1)
    assert view(service, order_id)["status"] == "confirming"
    looks.answer = QUIET
    for _ in range(8):
        clock.advance(DAY)
        watch_due(service)
    assert read_order(service.database, order_id).status == "needs_review"


# --- the end of a watch ----------------------------------------------------------------------------------------------


def test_no_watch_ends_over_a_deposit_that_came_on_its_last_day(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "completes")
    look_at(service, clock, order_id, 7)
    last_day = iso(clock() + timedelta(days=29, hours=23))

    def another(body: dict[str, Any]) -> dict[str, Any]:
        (first,) = body["deposits"]
        events = [{"kind": kind, "createdAt": last_day} for kind in ("INCOMING_FUNDS_DETECTED", "DEPOSIT_REGISTERED")]
        second = {**first, "txId": "9" * 64, "createdAt": last_day}
        return {**body, "deposits": [first, second], "orderEvents": [*body["orderEvents"], *events]}

    looks.edit = another
    clock.advance(timedelta(days=29, hours=23, minutes=1))
    watch_due(service)
    for _ in range(30):
        assert view(service, order_id)["next_check_at"] is not None
        clock.advance(3600)
        watch_due(service)
    found = view(service, order_id)
    assert (found["status"], found["funds"], found["final"]) == ("completed", "with_upstream", False)
    assert read_order(service.database, order_id).status == "needs_review"


def test_no_watch_ends_on_a_look_that_nobody_answered(service: Service, shop: Shop, clock: Clock, looks: Looks) -> None:
    order_id = place(shop, "expires")
    clock.advance(8 * DAY)
    watch_due(service)
    assert view(service, order_id)["status"] == "expired"
    looks.answer = ("502 Bad Gateway", JSON, b"{}")
    for _ in range(40):
        clock.advance(1.3 * DAY)
        watch_due(service)
    assert view(service, order_id)["final"] is False
    looks.answer = None
    clock.advance(1.3 * DAY)
    assert watch_due(service) == [order_id]
    assert (view(service, order_id)["final"], view(service, order_id)["next_check_at"]) == (True, None)


def test_the_watch_of_an_unowned_order_ends_on_no_read_that_failed(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order = read_order(service.database, place(shop, "expires"))
    with service.database.write() as session:
        known = told("4711", upstream_key=order.upstream_key, destination_address=order.destination_address)
        upstream_orders.record(session, known, clock())

    def due() -> bool:
        (row,) = all_of(service, UpstreamOrder, UpstreamOrder.role == "unowned")
        return row.next_check_at is not None

    looks.answer = ("502 Bad Gateway", JSON, b"{}")
    for _ in range(35):
        clock.advance(DAY)
        service.unowned.poll_due()
    assert due()
    looks.answer = NOT_FOUND
    clock.advance(DAY)
    service.unowned.poll_due()
    assert not due()


# --- an expiry that is told ------------------------------------------------------------------------------------------


def test_the_first_answer_that_says_expired_ends_payments_and_a_good_one_takes_it_back(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.answer = GONE
    look_at(service, clock, order_id, 1, 2)
    assert view(service, order_id)["status"] == "awaiting_deposit"
    assert deposit(service, order_id) == (False, "unverified")
    looks.answer = QUIET
    look_at(service, clock, order_id, 3)
    assert deposit(service, order_id) == (True, None)
    assert types(service, order_id) == [*START, "updated", "updated"]


def test_a_second_one_ten_minutes_later_expires_the_order_and_two_good_ones_bring_it_back_once(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.answer = GONE
    look_at(service, clock, order_id, 1, 10.9, 11.1)
    assert view(service, order_id)["status"] == "expired"
    looks.answer = QUIET
    look_at(service, clock, order_id, 12, 21.9)
    assert view(service, order_id)["status"] == "expired"
    look_at(service, clock, order_id, 22.1)
    back = view(service, order_id)
    assert (back["status"], back["status_reason"]) == ("awaiting_deposit", "expiry_taken_back")
    assert deposit(service, order_id) == (True, None)
    looks.answer = GONE
    look_at(service, clock, order_id, 30, 40.1)
    looks.answer = QUIET
    look_at(service, clock, order_id, 50, 60, 70, 200)
    assert view(service, order_id)["status"] == "expired"
    assert types(service, order_id) == [*START, "updated", "expired", "awaiting_deposit", "updated", "expired"]


def test_the_look_that_can_confirm_an_expiry_comes_as_soon_as_it_counts(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    """An order that is looked at rarely by now would else stay open, and unpayable, for as long."""
    order_id = place(shop, "expires")
    clock.advance(timedelta(hours=30))
    looks.answer = GONE
    look(service, order_id)
    due = read_order(service.database, order_id).next_check_at
    assert due is not None
    assert timedelta(minutes=10) < due - clock() <= timedelta(minutes=10, seconds=5)


@pytest.mark.parametrize(
    "answer",
    [
        ("400 Bad Request", JSON, b'{"message":"Request timestamp expired"}'),
        ("401 Unauthorized", JSON, b'{"message":"Session expired"}'),
        ("404 Not Found", JSON, b'{"message":"Order has expired"}'),
        ("200 OK", JSON, b'{"status":"ERR_HTTP","message":"token expired"}'),
    ],
)
def test_an_answer_that_only_says_expired_somewhere_expires_nothing(
    service: Service, shop: Shop, clock: Clock, looks: Looks, answer: tuple[str, str, bytes]
) -> None:
    order_id = place(shop, "expires")
    looks.answer = answer
    look_at(service, clock, order_id, 1, 12)
    assert view(service, order_id)["status"] == "awaiting_deposit"
    assert deposit(service, order_id) == (True, None)


@pytest.mark.parametrize("edit", [{"state": "expired"}, {"claimedDepositAmount": "9.9"}])
def test_an_answer_that_contradicts_or_speaks_of_an_end_takes_no_expiry_back(
    service: Service, shop: Shop, clock: Clock, looks: Looks, edit: dict[str, Any]
) -> None:
    order_id = place(shop, "completes")
    looks.answer = GONE
    look_at(service, clock, order_id, 1, 11.1)
    looks.answer, looks.edit = None, lambda body: {**body, "orderEvents": [], "deposits": [], "withdrawals": [], **edit}
    look_at(service, clock, order_id, 12, 30, 60)
    assert view(service, order_id)["status"] in ("expired", "completed")
    assert "awaiting_deposit" not in types(service, order_id)[2:]


def test_a_deposit_that_is_listed_is_stronger_than_any_expiry(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    looks.answer = GONE
    look_at(service, clock, order_id, 0.5)
    looks.answer = None
    look_at(service, clock, order_id, 70 / 60)
    looks.answer = GONE
    look_at(service, clock, order_id, 2, 12, 30)
    assert view(service, order_id)["status"] == "confirming"


# --- the end of a fixed rate -----------------------------------------------------------------------------------------


def windowed(minutes: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda body: {**body, "claimedPublicRate": {"fixedRate_maxTimeMinutes": minutes}}


def lasts_fifteen_minutes(order: Order) -> bool:
    ends = order.created_at + timedelta(minutes=15)
    return order.payable_until is not None and abs(order.payable_until - ends) < timedelta(seconds=5)


def test_a_fixed_rate_is_payable_for_its_window_and_never_again(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires", rate_mode="FIXED")
    order = read_order(service.database, order_id)
    assert order.payable_until is not None
    assert lasts_fifteen_minutes(order)
    assert view(service, order_id)["deposit"]["payable_until"] == iso(order.payable_until)
    looks.edit = windowed(90)
    look_at(service, clock, order_id, 1, 14.9)
    assert deposit(service, order_id) == (True, None)
    next_check_at = read_order(service.database, order_id).next_check_at
    assert next_check_at is not None
    assert next_check_at <= order.payable_until, "it is told when the moment has come"
    looks.edit, looks.answer = None, QUIET
    look_at(service, clock, order_id, 15.2)
    assert deposit(service, order_id) == (False, "fixed_rate_ended")
    look_at(service, clock, order_id, 17, 60)
    assert deposit(service, order_id) == (False, "fixed_rate_ended")
    assert read_order(service.database, order_id).payable_until == order.payable_until, "told once, and kept"
    assert types(service, order_id) == [*START, "updated"]


@pytest.mark.parametrize("answer", [NOT_FOUND, GONE])
def test_a_fixed_rate_ends_without_a_good_answer(
    service: Service, shop: Shop, clock: Clock, looks: Looks, answer: tuple[str, str, bytes]
) -> None:
    order_id = place(shop, "expires", rate_mode="FIXED")
    looks.answer = answer
    look_at(service, clock, order_id, 15.2)
    assert deposit(service, order_id) == (False, "fixed_rate_ended")


@pytest.mark.parametrize("minutes", [16, 30, 62])
def test_a_fixed_rate_ends_while_the_upstream_asks_for_an_hour_of_peace(
    service: Service, shop: Shop, clock: Clock, faults: Faults, minutes: float
) -> None:
    order_id = place(shop, "expires", rate_mode="FIXED")
    faults["order"] = answering(429, {"message": "slow down"}, Retry_After="3600")
    look_at(service, clock, order_id, 1, 14)
    clock.advance(timedelta(minutes=minutes - 14))
    watch_due(service)
    assert deposit(service, order_id) == (False, "fixed_rate_ended")


def test_an_order_that_is_put_off_for_long_moves_with_time(
    service: Service, shop: Shop, clock: Clock, faults: Faults
) -> None:
    order_id = place(shop, "expires")
    faults["order"] = answering(429, {"message": "slow down"}, Retry_After="86400")
    for _ in range(5):
        clock.advance(timedelta(minutes=6))
        assert watch_due(service) == [order_id]
    assert deposit(service, order_id) == (False, "unverified")


def test_a_fixed_rate_ends_by_the_clock_even_if_no_worker_is_there(
    service: Service, shop: Shop, clock: Clock, calls: Calls
) -> None:
    order_id = place(shop, "expires", rate_mode="FIXED")
    shown = calls.get(f"/v1/orders/{order_id}").data
    assert shown["deposit"]["payable"] is True
    clock.advance(timedelta(minutes=16))
    for seen in (
        calls.get(f"/v1/orders/{order_id}").data,
        calls.get("/v1/orders").data["orders"][0],
        calls("POST", f"/v1/orders/{order_id}/refresh").data,
        service.tracking.open(shown["tracking"]["token"]).view(),
    ):
        assert (seen["deposit"]["payable"], seen["deposit"]["payable_reason"]) == (False, "fixed_rate_ended")
        assert (seen["deposit"]["address"], seen["deposit"]["uri"]) == (shown["deposit"]["address"], None)
    assert calls.get(f"/v1/orders/{order_id}/deposit.svg").status == 409


@pytest.mark.parametrize(("mode", "held"), [("FIXED", True), ("FLOATING", False)])
def test_a_window_in_an_unknown_form_is_not_taken_for_none(
    service: Service, shop: Shop, faults: Faults, mode: str, held: bool
) -> None:
    faults["create"] = spoiling(windowed({"value": 15}))
    order = shop.place(rate_mode=mode)
    assert (order["status"], order["status_reason"]) == (
        ("creating", "verifying") if held else ("awaiting_deposit", None)
    )


def test_a_disagreement_that_is_settled_does_not_bring_back_a_rate_that_ran_out(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "completes", rate_mode="FIXED")
    quiet = {"orderEvents": [], "deposits": [], "withdrawals": [], "completed": False}
    looks.edit = lambda body: {**body, **quiet, "claimedDepositAmount": "9.9"}
    look_at(service, clock, order_id, 14.5)
    assert view(service, order_id)["deposit"]["payable_reason"] == "amount_mismatch"
    looks.edit = lambda body: {**body, **quiet}
    look_at(service, clock, order_id, 15.2)
    assert deposit(service, order_id) == (False, "fixed_rate_ended")


def test_a_window_that_only_a_later_answer_tells_counts_from_the_creation(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires", rate_mode="FIXED")
    with service.database.write() as session:
        session.execute(update(Order).values(payable_until=None))
    looks.edit = windowed(15)
    look_at(service, clock, order_id, 5)
    assert lasts_fifteen_minutes(read_order(service.database, order_id))


def test_a_floating_rate_has_no_window_whatever_is_told(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.edit = windowed(1)
    look_at(service, clock, order_id, 5)
    assert deposit(service, order_id) == (True, None)
    assert view(service, order_id)["deposit"]["payable_until"] is None


# --- holds without a deposit -----------------------------------------------------------------------------------------


def test_a_hold_without_a_deposit_says_so_and_expires_like_any_order(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.edit = lambda body: {**body, "KYCFormLink": "https://kyc.example/x"}
    look_at(service, clock, order_id, 1 / 3)
    held = view(service, order_id)
    assert (held["status"], held["funds"]) == ("on_hold", "with_user")
    assert deposit(service, order_id) == (False, "on_hold")
    looks.edit, looks.answer = None, NOT_FOUND
    for _ in range(8):
        clock.advance(DAY)
        watch_due(service)
    found = view(service, order_id)
    assert (found["status"], found["status_reason"]) == ("expired", "local_expiry")
    assert found["next_check_at"] is not None


@pytest.mark.parametrize("answer", [None, QUIET])
def test_a_form_link_that_is_no_longer_told_gives_an_order_without_a_deposit_back(
    service: Service, shop: Shop, clock: Clock, looks: Looks, answer: tuple[str, str, bytes] | None
) -> None:
    order_id = place(shop, "expires")
    looks.edit = lambda body: {**body, "KYCFormLink": "https://kyc.example/x"}
    if answer is not None:
        looks.answer = (*answer[:2], answer[2].replace(b"{", b'{"KYCFormLink":"https://kyc.example/x",', 1))
    look_at(service, clock, order_id, 1 / 3)
    assert view(service, order_id)["status"] == "on_hold"
    looks.edit, looks.answer = None, answer
    look_at(service, clock, order_id, 2)
    found = view(service, order_id)
    assert (found["status"], found["funds"], found["action_required"]) == ("awaiting_deposit", "with_user", None)
    assert deposit(service, order_id) == (True, None)
    assert types(service, order_id) == [*START, "on_hold", "action_required", "awaiting_deposit"]


def test_a_form_link_that_is_gone_makes_no_order_payable_that_was_ever_paid(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "completes")
    looks.edit = lambda body: {**body, "KYCFormLink": "https://kyc.example/x"}
    look_at(service, clock, order_id, 70 / 60)
    assert view(service, order_id)["status"] == "on_hold"
    looks.edit = lambda body: {**body, "orderEvents": [], "deposits": []}
    look_at(service, clock, order_id, 1.3, 1.4, 1.5)
    assert deposit(service, order_id) == (False, "deposit_received")


def test_money_held_is_received_and_expires_never(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop, "hold_then_completes")
    look_at(service, clock, order_id, 190 / 60)
    assert view(service, order_id)["status"] == "on_hold"
    assert deposit(service, order_id) == (False, "deposit_received")


# --- orders that break the poll --------------------------------------------------------------------------------------


def break_order(service: Service, order_id: str) -> None:
    with service.database.write() as session:
        session.execute(update(Order).where(Order.id == order_id).values(facts={"events": "broken"}))


def test_an_order_that_breaks_every_look_backs_off_to_an_hour_and_raises_the_alarm(
    service: Service, shop: Shop, clock: Clock
) -> None:
    order_id = place(shop)
    break_order(service, order_id)
    waits = []
    with capture_logs() as logs:
        for _ in range(12):
            due_at = read_order(service.database, order_id).next_check_at
            assert due_at is not None
            clock.advance(due_at - clock() + timedelta(seconds=1))
            assert watch_due(service) == [order_id]
            stored = read_order(service.database, order_id)
            assert stored.next_check_at is not None
            waits.append((stored.next_check_at - clock()).total_seconds())
    alarms = [line for line in logs if line["log_level"] == "critical"]
    assert [(line["event"], line["failures"]) for line in alarms] == [("watch.order_breaks", 5)]
    assert waits[0] < 40
    assert 3600 * 0.8 <= waits[-1] <= 3600 * 1.2


def test_an_order_that_breaks_the_look_moves_with_time_all_the_same(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop, "expires")

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(service.upstream, "order", broken)
    for _ in range(8):
        clock.advance(DAY)
        assert watch_due(service) == [order_id]
    assert view(service, order_id)["status"] == "expired"
    assert "updated" in types(service, order_id), "unverified before that"


def test_a_watched_order_without_an_upstream_id_backs_off_and_moves_with_time(
    service: Service, shop: Shop, clock: Clock, other_service: Callable[..., Service]
) -> None:
    order_id = place(shop, "expires")
    with service.database.write() as session:
        session.execute(update(Order).values(upstream_order_id=None))
    order = all_of(service, Order, Order.id == order_id)[0]
    clock.advance(7 * DAY)
    service.due._poller.poll(order, [])
    found = read_order(service.database, order_id)
    assert (found.status, found.failures) == ("expired", 1)
