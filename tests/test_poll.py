"""Watching orders over the sandbox, on both databases. World and service share one clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event

from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.tables import Order, TransferRow
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import make_order, move, read_order
from tests.faults import Looks
from tests.polling import DAY, START, all_of, journal, place, quiet, types, view, walk, watch_due
from tests.waiting import until

UNREACHED = "redis://127.0.0.1:1"


# --- the scenarios ---------------------------------------------------------------------------------------------------


def test_a_swap_completes_with_its_money_accounted_for(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop)
    seen = walk(service, clock, order_id, (30, 70, 130, 190, 310, 370))
    assert [o["status"] for o in seen] == [
        *("awaiting_deposit", "confirming", "confirming", "exchanging", "sending", "completed")
    ]
    assert [o["funds"] for o in seen] == [
        *("with_user", "seen_on_chain", "seen_on_chain", "with_upstream", "on_its_way", "delivered")
    ]
    assert [[d["confirmations"] for d in o["deposits"]] for o in seen] == [[], [0], [1], [2], [2], [2]]
    assert types(service, order_id) == [*START, "confirming", "updated", "exchanging", "sending", "completed"]
    done = seen[-1]
    assert done["final"] is True
    assert done["deposit"]["payable"] is False
    assert done["deposit"]["payable_reason"] == "completed"
    assert [d["amount"] for d in done["deposits"]] == ["0.0125"]
    assert all(t["tx_id"] and t["at"] for t in (*done["deposits"], *done["withdrawals"]))
    assert Decimal(done["withdrawals"][0]["amount"]) == Decimal(done["amount_to_get"])
    assert done["next_check_at"] is not None, "a completed order is watched for a reversal"

    transfers = all_of(service, TransferRow, TransferRow.order_id == order_id)
    assert {(t.direction, t.tx_id) for t in transfers} == {
        ("deposit", done["deposits"][0]["tx_id"]),
        ("withdrawal", done["withdrawals"][0]["tx_id"]),
    }
    assert {t.confirmations for t in transfers if t.direction == "deposit"} == {2}


WALKS: dict[str, tuple[tuple[float, ...], list[str], dict[str, Any]]] = {
    "refunded": (
        (70, 190, 310, 370),
        ["confirming", "exchanging", "refunding", "refunded"],
        {"status": "refunded", "funds": "returned", "final": True},
    ),
    "hold_then_completes": (
        (70, 190, 490, 550, 610),
        ["confirming", "on_hold", "action_required", "exchanging", "sending", "completed"],
        {"status": "completed", "funds": "delivered", "final": True, "action_required": None},
    ),
    "hold_then_refunded": (
        (70, 190, 490, 610),
        ["confirming", "on_hold", "action_required", "refunding", "refunded"],
        {"status": "refunded", "funds": "returned", "final": True},
    ),
    "expires": (
        (70, 890, 950, 1560),
        ["expired"],
        {"status": "expired", "funds": "not_seen_in_time", "final": False, "deposits": []},
    ),
    "late_deposit": (
        (880, 905, 1506, 1868, 1990, 2070, 2130),
        ["expired", "late_deposit", "confirming", "exchanging", "sending", "completed"],
        {"status": "completed", "funds": "delivered", "final": True, "status_reason": None},
    ),
    "wrong_amount": (
        (70, 190, 310, 370),
        ["confirming", "exchanging", "sending", "completed"],
        {"status": "completed", "funds": "delivered"},
    ),
    "second_deposit": (
        (70, 190, 330, 450),
        ["confirming", "exchanging", "late_deposit", "sending", "completed"],
        {"status": "completed", "funds": "with_upstream", "final": False},
    ),
}


@pytest.mark.parametrize("scenario", WALKS)
def test_every_scenario_ends_as_its_story_says(service: Service, shop: Shop, clock: Clock, scenario: str) -> None:
    moments, expected, end = WALKS[scenario]
    order_id = place(shop, scenario)
    walk(service, clock, order_id, moments)
    assert [t for t in types(service, order_id) if t != "updated"] == [*START, *expected]
    found = view(service, order_id)
    assert {name: found[name] for name in end} == end
    stored = all_of(service, TransferRow, TransferRow.order_id == order_id)
    assert len(stored) == len(found["deposits"]) + len(found["withdrawals"])
    assert journal(service, order_id) == []


def test_a_wrong_amount_is_told_as_it_moved_not_as_it_was_claimed(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop, "wrong_amount")
    (seen,) = walk(service, clock, order_id, (370,))
    assert (seen["amount"], seen["deposits"][0]["amount"]) == ("0.0125", "0.01")
    assert Decimal(seen["withdrawals"][0]["amount"]) < Decimal(seen["amount_to_get"])


def test_a_second_deposit_is_told_once_and_both_are_listed(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop, "second_deposit")
    seen = walk(service, clock, order_id, (310, 330, 350, 370, 1.3 * DAY))
    assert [len(o["deposits"]) for o in seen] == [1, 2, 2, 2, 2]
    assert [d["confirmations"] for d in seen[-1]["deposits"]] == [2, 2]
    assert types(service, order_id).count("late_deposit") == 1
    assert len({d["tx_id"] for d in seen[-1]["deposits"]}) == 2


def test_a_hold_shows_the_form_while_it_lasts_and_then_no_more(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop, "hold_then_completes")
    before, held, after = walk(service, clock, order_id, (70, 190, 490))
    assert (before["action_required"], after["action_required"]) == (None, None)
    assert held["action_required"]["kind"] == "kyc"
    assert held["action_required"]["url"].startswith("https://")
    assert held["funds"] == "held"
    found = service.orders.events(read_order(service.database, order_id).client_id, order_id)
    shown = {e["type"]: e["order"]["action_required"] for e in found}
    assert shown["order.on_hold"] is None, "the order as it was at this event"
    assert shown["order.action_required"] == held["action_required"]


def test_a_late_deposit_is_told_before_the_status_follows_it(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop, "late_deposit")
    walk(service, clock, order_id, (905, 1506, 1868))
    found = service.orders.events(read_order(service.database, order_id).client_id, order_id)
    late, confirming = found[-2:]
    assert [late["type"], confirming["type"]] == ["order.late_deposit", "order.confirming"]
    assert [e["order"]["status"] for e in (late, confirming)] == ["expired", "confirming"]
    assert [e["order"]["status_reason"] for e in (late, confirming)] == ["late_deposit", "late_deposit"]
    assert [len(e["order"]["deposits"]) for e in (late, confirming)] == [1, 1]
    assert [e["order"]["sequence"] for e in (late, confirming)] == [late["sequence"], confirming["sequence"]]


def test_steps_that_no_look_saw_are_skipped_forward(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (400,))
    assert types(service, order_id) == [*START, "completed"]


def test_no_deposit_for_seven_days_expires_the_order_by_ourselves(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.answer = ("200 OK", "application/json", quiet("expires"))
    almost, over = walk(service, clock, order_id, (7 * DAY - 60, 7 * DAY + 3600))
    assert (almost["status"], over["status"]) == ("awaiting_deposit", "expired")
    assert over["status_reason"] == "local_expiry"
    assert over["final"] is False
    assert over["deposit"]["payable"] is False


def test_an_expired_order_becomes_final_when_the_watch_ends_and_everybody_is_told(
    service: Service, shop: Shop, clock: Clock
) -> None:
    order_id = place(shop, "expires")
    _, _, end = walk(service, clock, order_id, (950, 1560, 31 * DAY))
    assert end["next_check_at"] is None
    assert end["final"] is True
    assert types(service, order_id) == [*START, "updated", "expired", "updated"]


def test_a_watch_that_ends_on_a_failed_look_makes_the_order_final_with_an_event(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    walk(service, clock, order_id, (950, 1560))
    looks.answer = ("404 Not Found", "application/json", b"{}")
    (end,) = walk(service, clock, order_id, (31 * DAY,))
    assert (end["final"], end["next_check_at"]) == (True, None)
    assert types(service, order_id) == [*START, "updated", "expired", "updated"]


def test_the_watch_needs_no_redis(
    other_service: Callable[..., Service], service: Service, shop: Shop, clock: Clock
) -> None:
    alone = other_service(redis_url=UNREACHED)
    order_id = place(shop)
    walk(alone, clock, order_id, (190, 370))
    assert types(service, order_id) == [*START, "exchanging", "completed"]


# --- several at once -------------------------------------------------------------------------------------------------


def test_two_workers_that_look_at_one_order_move_it_once(
    service: Service, other_service: Callable[..., Service], shop: Shop, clock: Clock, looks: Looks
) -> None:
    other = other_service()
    order_id = place(shop)
    clock.advance(190)
    looks.hold = threading.Event()
    threads = [threading.Thread(target=s.due.work) for s in (service, other) * 3]
    for thread in threads:
        thread.start()
    looks.hold.set()
    for thread in threads:
        thread.join()
    assert types(service, order_id) == [*START, "exchanging"]
    stored = read_order(service.database, order_id)
    assert stored.failures == 0
    assert stored.next_check_at is not None


def test_a_look_that_comes_too_late_does_not_end_the_watch_of_a_moved_order(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "late_deposit")
    walk(service, clock, order_id, (905, 1506))
    stale = read_order(service.database, order_id)
    walk(service, clock, order_id, (1868,))
    clock.advance(timedelta(days=40))  # by its old status the watch would be over
    with service.database.write() as session:
        service.due._poller.back_off(session, stale)
    found = view(service, order_id)
    assert (found["status"], found["final"]) == ("confirming", False)
    assert found["next_check_at"] is not None


def test_an_order_that_changed_during_a_look_is_looked_at_again_soon(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    clock.advance(190)
    looks.hold = threading.Event()
    looking = threading.Thread(target=service.due.work)
    looking.start()
    until(lambda: looks.asked)
    held = read_order(service.database, order_id)
    assert move(service.database, held, upstream_state="seen elsewhere", next_check_at=clock() + timedelta(hours=1))
    looks.hold.set()
    looking.join()
    after = read_order(service.database, order_id)
    assert (after.status, after.lease_token) == ("awaiting_deposit", None)
    assert after.next_check_at is not None
    assert after.next_check_at < clock() + timedelta(seconds=6)
    clock.advance(6)
    assert watch_due(service) == [order_id]
    assert view(service, order_id)["status"] == "exchanging"


# --- creates that were never settled ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        (None, "in_doubt", "create_in_doubt"),
        ("unknown", "in_doubt", "create_in_doubt"),
        ("done", "in_doubt", "verifying"),
        ("not_sent", "failed", "create_not_sent"),
        ("refused", "failed", "amount_refused"),
    ],
)
def test_a_create_nobody_finished_is_swept_by_what_its_last_attempt_says(
    service: Service, outcome: str | None, status: str, reason: str
) -> None:
    order = make_order(service.database, status="creating", deposit_kind=None, deposit_address=None, payable=False)
    with service.database.write() as session:
        number = attempt_rows.start_attempt(session, order, order.created_at)
        code = "AMOUNT_REFUSED" if outcome == "refused" else None
        attempt_rows.finish_attempt(session, order.id, number, outcome=outcome, code=code)
    assert watch_due(service) == [order.id]
    swept = read_order(service.database, order.id)
    assert (swept.status, swept.status_reason) == (status, reason)
    assert types(service, order.id) == ["created", "failed" if status == "failed" else "updated"]


def test_a_sweep_never_undoes_a_create_that_was_answered_meanwhile(service: Service, shop: Shop) -> None:
    order_id = place(shop)
    answered = read_order(service.database, order_id)
    stale = Order(**{name: getattr(answered, name) for name in order_rows._COLUMNS})
    for status in ("creating", "in_doubt"):
        stale.status, stale.version = status, answered.version - 1
        service.due._sweeper.sweep(stale)
    after = read_order(service.database, order_id)
    assert (after.status, after.next_check_at) == ("awaiting_deposit", answered.next_check_at)


# --- the database ----------------------------------------------------------------------------------------------------


def test_no_read_session_ever_writes(service: Service, shop: Shop, clock: Clock) -> None:
    wrong: list[str] = []

    @event.listens_for(service.database.engine, "before_cursor_execute")
    def spy(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        writes = statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE", "WITH"))
        if writes and not connection.get_execution_options().get("swap_write"):
            wrong.append(statement)

    order_id = place(shop)
    walk(service, clock, order_id, (70, 190, 370))
    service.feed.publish()
    service.deliverer.deliver_due()
    service.support.record(order_id)
    assert wrong == []
