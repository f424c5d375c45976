"""Answers to a create that were written down before we died: they are used, by the same checks as a fresh one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap.domain.lifecycle import Status
from swap.errors import OutcomeUnknown
from swap.orders import attempts
from swap.sandbox.world import World
from swap.settings import Settings
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.tables import Order
from swap.upstream.decode import read_order
from swap.upstream.fields import parse_json
from swap.upstream.refusals import judge_create
from swap.wiring import Service
from tests.conftest import XRP_ADDRESS, Clock, Shop, look
from tests.faults import Faults, cutting, spoiling
from tests.polling import due_ids

ROOT = Path(__file__).resolve().parent.parent

# A process that is killed at the moment in which the answer is in its attempt and nothing has come of it.
DYING = """
import os, signal, sys
from decimal import Decimal
from swap.orders.settle import Settler
from swap.orders.validation import Destination, InstrumentName, OrderRequest
from swap.wiring import start

Settler.settle = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
start("api").placer.place(sys.argv[1], OrderRequest(
    client_order_id="order-1", source=InstrumentName("BTC", "BTC"), target=InstrumentName("XRP", "XRP"),
    amount=Decimal("0.0125"), rate_mode="FLOATING", destination=Destination(sys.argv[2], "7"),
), limits=())
"""


@pytest.fixture
def die(settings: Settings, service: Service, shop: Shop) -> Callable[[], str]:
    """Have another process place an order and die with the answer written down; returns the order's id."""

    def place_and_die() -> str:
        environ = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": settings.database_url.replace("postgresql+psycopg://", "postgresql://"),
            "REDIS_URL": settings.redis_url or "",
            "UPSTREAM_URL": settings.upstream_url,
            "UPSTREAM_PUBLIC_KEY": settings.upstream_public_key,
            "UPSTREAM_SECRET_KEY": settings.upstream_secret_key,
            "UPSTREAM_RPS": "1000",
            "SWAP_SECRET_KEYS": "a key for tests of at least 32 characters",
        }
        command = [sys.executable, "-c", DYING, shop.client_id, XRP_ADDRESS]
        died = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
        assert died.returncode == -signal.SIGKILL, died.stderr
        order = next(each for each in shop.api.orders() if each["client_order_id"] == "order-1")
        assert (order["status"], order["deposit"], order["upstream_order_id"]) == ("creating", None, None)
        return str(order["id"])

    return place_and_die


def attempt_of(service: Service, order_id: str) -> dict[str, Any]:
    (attempt,) = service.support.record(order_id)["attempts"]
    return dict(attempt)


def swept(service: Service, clock: Clock, order_id: str) -> dict[str, Any]:
    """The order after the look that is due once its create must be over."""
    clock.advance(service.settings.upstream_create_timeout + 6)
    assert order_id in due_ids(service)
    look(service, order_id)
    return dict(service.support.record(order_id)["order"])


def test_a_complete_answer_is_used_although_public_info_tells_no_deposit_details(
    die: Callable[[], str], service: Service, shop: Shop, world: World, clock: Clock
) -> None:
    world.chaos.change({"order.bare_info": 1.0})
    order_id = die()
    attempt = attempt_of(service, order_id)
    assert attempt["outcome"] == "done"
    order = swept(service, clock, order_id)
    (made,) = world.orders()
    assert (order["status"], order["status_reason"]) == ("awaiting_deposit", None)
    assert (order["deposit"]["payable"], order["deposit"]["address"]) == (True, made.place.address)
    assert sorted(order["internal"]["upstream_refs"]) == sorted([str(made.number), made.guid])
    assert order["as_of"] == attempt["finished_at"]
    assert [event["type"] for event in shop.api.order_events(order_id)] == ["order.created", "order.awaiting_deposit"]
    assert service.support.record(order_id)["events"][-1]["detail"] == {"source": "answer", "attempt": 1}
    assert shop.place(destination_memo="7", refund_address=None)["id"] == order_id
    assert due_ids(service) == [order_id], "such an old answer is looked after at once"


def test_an_order_that_was_swept_into_doubt_is_settled_from_its_answer_too(
    die: Callable[[], str], service: Service, world: World, clock: Clock
) -> None:
    order_id = die()
    world.chaos.change({"order.bare_info": 1.0, "list.error_500": 1.0})
    with service.database.write() as session:
        order = order_rows.get(session, order_id)
        assert order is not None
        doubt = {"status": Status.IN_DOUBT, "status_reason": "create_in_doubt"}
        assert order_rows.move(session, order, doubt, at=clock(), source="test")
    assert swept(service, clock, order_id)["deposit"]["address"] == world.orders()[0].place.address


def test_a_stored_answer_passes_the_checks_of_a_fresh_one(
    die: Callable[[], str], service: Service, faults: Faults, clock: Clock
) -> None:
    faults["create"] = spoiling(lambda order: order.update(destinationAddressMemo="8"))
    order = swept(service, clock, die())
    assert (order["status"], order["status_reason"], order["deposit"]) == ("creating", "verifying", None)


@pytest.mark.parametrize(("kilobytes", "used"), [(5, True), (50, True), (100, False)])
def test_a_long_answer_is_kept_whole_and_of_a_huge_one_enough_to_ask_with(
    die: Callable[[], str],
    service: Service,
    faults: Faults,
    world: World,
    clock: Clock,
    kilobytes: int,
    used: bool,
) -> None:
    faults["create"] = spoiling(lambda order: {"padding": "x" * kilobytes * 1000, **order})
    order_id = die()
    (made,) = world.orders()
    assert attempt_of(service, order_id)["refs"] == [str(made.number), made.guid]
    order = swept(service, clock, order_id)
    assert (order["status"] == "awaiting_deposit") is used
    if not used:
        clock.advance(2)
        look(service, order_id)
        order = service.support.record(order_id)["order"]
    assert (order["status"], order["deposit"]["address"]) == ("awaiting_deposit", made.place.address)


def test_a_stored_answer_with_an_id_of_another_order_is_not_used_and_ends_in_time(
    die: Callable[[], str], service: Service, shop: Shop, world: World, faults: Faults, clock: Clock
) -> None:
    shop.place("first")
    faults["create"] = spoiling(lambda order: order.update(orderId=world.orders()[0].number))
    order_id = die()
    assert swept(service, clock, order_id)["status_reason"] == "verifying"
    clock.advance(2)
    look(service, order_id)
    assert service.support.record(order_id)["order"]["deposit"] is not None, "its own is found in the list"


def test_what_was_told_reads_back_as_it_was_told(service: Service, shop: Shop, world: World) -> None:
    order_id = shop.place()["id"]
    told = json.loads(attempt_of(service, order_id)["answer"])
    odd = {"amountToGet": "1E-7", "note": "a\x00b \ud800 \u00fc", "quotes": {"a": 0.1}, "deposits": []}
    reply = judge_create(201, json.dumps({**told, **odd}).encode(), {})
    with service.database.write() as session:
        order = order_rows.get(session, order_id)
        assert order is not None
        number = attempt_rows.start_attempt(session, order, service.clock())
    attempts.record_answer(service.database, order_id, number, "done", service.clock(), reply=reply)
    with service.database.read() as session:
        found = attempts.last_complete_answer(attempt_rows.attempts_of(session, order_id))
    assert found is not None
    attempt, again = found
    assert attempt.number == number
    assert {**vars_of(again), "raw": None} == {**vars_of(reply), "raw": None}


def vars_of(reply: Any) -> dict[str, Any]:
    return {name: getattr(reply, name) for name in reply.__dataclass_fields__}


def test_an_answer_that_broke_off_keeps_the_ids_that_it_still_holds(
    service: Service, shop: Shop, world: World, faults: Faults, clock: Clock
) -> None:
    faults["create"] = cutting(keep=0.9)
    order_id = shop.place()["id"]
    attempt = attempt_of(service, order_id)
    (made,) = world.orders()
    assert attempt["outcome"] == "unknown"
    assert str(made.number) in attempt["refs"]
    world.chaos.change({"list.error_500": 1.0})
    clock.advance(20)
    look(service, order_id)
    assert shop.api.order(order_id)["deposit"]["address"] == made.place.address, "found without the list"


@pytest.mark.parametrize(
    ("body", "refs"),
    [
        (b'{"x":1,"orderId":12345', ()),
        (b'{"orderId":12345,"depositAddress":{"dep', ("12345",)),
        (b'{"orderId":"a-b","legacyOrderId" : 77 , "dep', ("a-b", "77")),
        (b'{"orderId":"cut', ()),
        (b'{"id":"12","uuid":"34","user', ()),
        (b"<html>orderId 5</html>", ()),
        (b'{"orderId":"a\x00b","', ()),
    ],
)
def test_only_ids_that_are_there_in_full_are_read_from_an_answer_that_broke_off(
    body: bytes, refs: tuple[str, ...]
) -> None:
    for status in (200, 502):
        with pytest.raises(OutcomeUnknown, match="create") as raised:
            judge_create(status, body, {})
        found = raised.value.found
        assert (found.refs if found else ()) == refs


def test_an_order_is_settled_once_by_many_who_find_its_answer(
    die: Callable[[], str], service: Service, other_service: Callable[..., Service], clock: Clock
) -> None:
    order_id = die()
    stale = _copy(service, order_id)
    clock.advance(30)
    for one in (service, other_service(), service):
        one.due._sweeper.sweep(stale)
    assert [e["sequence"] for e in service.support.record(order_id)["events"]] == [1, 2]
    assert service.support.unowned_orders() == []


def _copy(service: Service, order_id: str) -> Order:
    with service.database.read() as session:
        order = order_rows.get(session, order_id)
    assert order is not None
    return Order(**{name: getattr(order, name) for name in order_rows._COLUMNS})


def test_a_stored_answer_of_an_order_that_has_ended_meanwhile_becomes_an_orphan(
    die: Callable[[], str], service: Service, world: World, clock: Clock
) -> None:
    order_id = die()
    stale = _copy(service, order_id)
    with service.database.write() as session:
        failed = {"status": Status.FAILED, "status_reason": "create_unconfirmed", "next_check_at": None}
        order = order_rows.get(session, order_id)
        assert order is not None
        assert order_rows.move(session, order, failed, at=clock(), source="test")
    clock.advance(timedelta(minutes=1))
    service.due._sweeper.sweep(stale)
    (orphan,) = service.support.unowned_orders()
    assert (orphan["upstream_order_id"], orphan["order_id"]) == (str(world.orders()[0].number), order_id)


# --- what was written is what is read --------------------------------------------------------------------------------

NUMBERS = st.sampled_from(["90210", "90210.0", "9.021e4", "9021E1", "1.0", "0.0", "1234567.00", "12.5", "1e30"])


@pytest.mark.parametrize(
    ("told", "read"),
    [("90210.0", "90210"), ("9.021e4", "90210"), ('"90210.0"', "90210.0"), ("12.5", None), ("true", None)],
)
def test_a_whole_number_is_one_id_and_one_memo_however_json_writes_it(told: str, read: str | None) -> None:
    order = read_order(parse_json(f'{{"uuid":"u-1","id":{told},"destinationAddressMemo":{told}}}'.encode()))
    assert order.refs == ("u-1", *([read] if read else []))
    assert order.destination_memo == read
    assert order.unreadable == (() if read else ("destinationAddressMemo",)), "a memo that is there never becomes none"


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_an_answer_is_read_back_from_its_attempt_as_when_it_came(
    number: str, memo: str, to_memo: str, paid: str
) -> None:
    body = f"""{{"orderId":{number},"uuid":"u-1","amountToGet":{paid},"claimedDepositAmount":"0.0125",
        "depositAddress":{{"depositAddress":"addr","depositAddressMemo":{memo}}},"destinationAddressMemo":{to_memo}}}"""
    came = read_order(parse_json(body.encode()))
    text = attempts._as_text(came)
    assert text is not None
    back = read_order(parse_json(text.encode()))
    assert {**vars_of(back), "raw": None} == {**vars_of(came), "raw": None}
