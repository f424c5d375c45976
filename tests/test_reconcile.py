"""Daily reconciliation: every kind of difference is found, nobody is accused by a list that lags or leaves out, and what is
nobody's is watched from then on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from sqlalchemy import update
from structlog.testing import capture_logs

from swap.cli import main
from swap.sandbox import answers
from swap.sandbox.world import World
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.tables import Order, Reconciliation, TransferRow
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, SANDBOX_KEYS, XRP_ADDRESS, Clock, Shop, look
from tests.factories import NOON, make_client, make_order, read_order, show
from tests.polling import all_of, place, view
from tests.scripted_upstream import reply, serving
from workers.schedule import Scheduler

KEY = SANDBOX_KEYS[0]
SETTLED = timedelta(hours=2)

MakeService = Callable[..., Service]


def run(service: Service) -> dict[str, Any]:
    (report,) = service.reconcile.run()
    return report


def settled(shop: Shop, service: Service, clock: Clock, name: str = "order-1", **changed: Any) -> str:
    """An order that has completed, and was left in peace since."""
    order_id: str = shop.place(name, **changed)["id"]
    clock.advance(400)
    look(service, order_id)
    assert view(service, order_id)["status"] == "completed"
    clock.advance(SETTLED)
    return order_id


def change(service: Service, order_id: str, **values: Any) -> None:
    """Our row, behind the door's back."""
    with service.database.write() as session:
        session.execute(update(Order).where(Order.id == order_id).values(**values))


def own(service: Service, order_id: str, *refs: str) -> None:
    assert show(service.database, read_order(service.database, order_id), *refs) == set()


def foreign(sandbox_url: str, destination: str = XRP_ADDRESS) -> str:
    """Somebody else's order with our key; returns its number. The old v1 create needs no signature."""
    body = {
        "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC"},
        "instrumentTo": {"currencyTitle": "XRP", "networkTitle": "XRP"},
        "destinationAddress": destination,
        "destinationAddressMemo": "7",
        "claimedDepositAmount": "0.02",
    }
    made = requests.post(f"{sandbox_url}/api/v1/orders/public/create", json=body, timeout=5)
    return str(made.json()["orderId"])


def listed(world: World) -> list[dict[str, Any]]:
    return [answers.listed_json(order, world.look(order)) for order in world.orders()]


@contextmanager
def told(make: MakeService, answer: list[dict[str, Any]]) -> Iterator[Service]:
    """A service whose upstream answers with this list, once."""
    with serving(reply(200, answer)) as script:
        yield make(upstream_url=script.url)


def reports(service: Service) -> list[str]:
    """The outcomes of all stored reports, the oldest first."""
    return [report["outcome"] for report in reversed(service.reconcile.last())]


# --- nothing to say --------------------------------------------------------------------------------------------------


def test_orders_as_the_upstream_lists_them_make_a_clean_report_that_is_stored(
    shop: Shop, service: Service, clock: Clock
) -> None:
    ids = [place(shop, name, client_order_id=name) for name in ("completes", "refunded", "expires")]
    clock.advance(400)
    for order_id in ids:
        look(service, order_id)
    assert [view(service, each)["status"] for each in ids] == ["completed", "refunded", "awaiting_deposit"]
    clock.advance(SETTLED)
    with capture_logs() as logs:
        report = run(service)
    assert (report["outcome"], report["listed"], report["compared"]) == ("clean", 3, 3)
    assert (report["counts"], report["findings"]) == ({}, [])
    assert service.reconcile.last() == [report]
    assert [(line["log_level"], line["event"]) for line in logs] == [("info", "reconcile.clean")]


def test_a_service_without_orders_is_clean(service: Service) -> None:
    assert run(service)["outcome"] == "clean"


def test_a_list_that_lags_accuses_nobody(shop: Shop, service: Service, world: World, clock: Clock) -> None:
    place(shop)
    record = world.chaos.record(world.orders()[0].number)
    record.listed_at += 3000
    report = run(service)
    assert (report["outcome"], report["listed"], report["counts"]) == ("clean", 0, {"fresh": 1})
    clock.advance(3001)
    report = run(service)
    assert (report["outcome"], report["listed"], report["counts"]) == ("clean", 1, {"fresh": 1})


def test_an_order_attempted_just_now_is_fresh_however_old_it_is(shop: Shop, service: Service, clock: Clock) -> None:
    order_id = settled(shop, service, clock)
    change(service, order_id, amount=Decimal(9))
    with service.database.write() as session:
        order = order_rows.get(session, order_id)
        assert order is not None
        attempt_rows.start_attempt(session, order, clock())
    assert run(service)["counts"] == {"fresh": 1}
    clock.advance(SETTLED)
    assert run(service)["counts"] == {"amount": 1}


def test_how_long_an_order_is_fresh_is_divided_by_the_time_scale(
    shop: Shop, service: Service, other_service: MakeService, clock: Clock
) -> None:
    place(shop, "expires")
    clock.advance(61)
    assert run(service)["counts"] == {"fresh": 1}
    assert run(other_service(time_scale=Decimal(60)))["compared"] == 1


def test_what_the_list_leaves_out_is_no_difference(
    shop: Shop, service: Service, world: World, clock: Clock, other_service: MakeService
) -> None:
    settled(shop, service, clock)
    (row,) = listed(world)
    with told(other_service, [{name: row[name] if name == "orderId" else None for name in row}]) as other:
        report = run(other)
    assert (report["outcome"], report["compared"], report["counts"]) == ("clean", 1, {})


def test_an_order_whose_number_was_never_told_is_not_accused_nor_is_its_listed_row(
    shop: Shop, service: Service, world: World, clock: Clock
) -> None:
    world.chaos.change({"id.uuid": 1.0, "order.info_one_id": 1.0})
    order_id = place(shop, "expires")
    clock.advance(400)
    look(service, order_id)
    clock.advance(SETTLED)
    report = run(service)
    assert (report["outcome"], report["counts"]) == ("clean", {"not_comparable": 1, "undecided": 1})
    assert service.support.unowned_orders() == []


# --- differences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changed", "ours", "theirs"),
    [
        ("amount", {"amount": Decimal("0.0126")}, "0.0126", "0.0125"),
        ("refund", {"refund_address": None}, None, BTC_ADDRESS),
    ],
)
def test_a_listed_order_that_tells_otherwise_is_a_difference(
    shop: Shop,
    service: Service,
    clock: Clock,
    kind: str,
    changed: dict[str, Any],
    ours: str | None,
    theirs: str,
) -> None:
    order_id = settled(shop, service, clock)
    change(service, order_id, **changed)
    with capture_logs() as logs:
        report = run(service)
    number = view(service, order_id)["upstream_order_id"]
    finding = {"kind": kind, "order_id": order_id, "refs": [number], "ours": ours, "theirs": theirs}
    assert (report["outcome"], report["counts"], report["findings"]) == ("differences", {kind: 1}, [finding])
    assert [line["event"] for line in logs] == ["reconcile.differences", f"reconcile.{kind}"]
    assert {line["log_level"] for line in logs} == {"error"}
    assert BTC_ADDRESS not in str(logs), "an alert names kinds and counts, not values"


def test_an_order_that_the_list_does_not_show_is_missing(
    shop: Shop, service: Service, world: World, clock: Clock
) -> None:
    gone, _ = (place(shop, "expires", client_order_id=name) for name in ("order-1", "order-2"))
    clock.advance(SETTLED)
    del world._orders[0]
    report = run(service)
    assert (report["counts"], report["compared"]) == ({"missing": 1}, 1)
    assert report["findings"][0]["order_id"] == gone


def test_what_completed_there_and_not_here_is_looked_at_but_not_moved(
    shop: Shop, service: Service, clock: Clock
) -> None:
    order_id = place(shop)
    clock.advance(SETTLED)
    change(service, order_id, next_check_at=clock() + timedelta(days=1))
    (finding,) = run(service)["findings"]
    assert (finding["kind"], finding["ours"], finding["theirs"]) == ("completed", "awaiting_deposit", "completed")
    order = read_order(service.database, order_id)
    assert order.status == "awaiting_deposit"
    assert order.next_check_at is not None
    assert order.next_check_at <= clock()
    look(service, order_id)
    assert view(service, order_id)["status"] == "completed"


def test_a_payout_of_another_amount_is_a_difference_and_several_are_summed_up(
    shop: Shop, service: Service, clock: Clock
) -> None:
    order_id = settled(shop, service, clock)
    (paid,) = all_of(service, TransferRow, TransferRow.direction == "withdrawal")
    half = paid.amount - Decimal("0.000001")
    with service.database.write() as session:
        session.execute(update(TransferRow).where(TransferRow.direction == "withdrawal").values(amount=half))
    (finding,) = run(service)["findings"]
    assert (finding["kind"], finding["order_id"]) == ("payout", order_id)
    assert (Decimal(finding["ours"]), Decimal(finding["theirs"])) == (half, paid.amount)
    rest = TransferRow(
        order_id=order_id,
        position=9,
        direction="withdrawal",
        amount=Decimal("0.000001"),
        tx_id="second",
        confirmations=None,
        at=NOON,
    )
    with service.database.write() as session:
        session.add(rest)
    assert run(service)["outcome"] == "clean"


def test_two_listed_orders_of_one_of_ours_are_a_difference(
    shop: Shop, service: Service, sandbox_url: str, clock: Clock
) -> None:
    order_id = settled(shop, service, clock)
    second = foreign(sandbox_url)
    own(service, order_id, second)
    report = run(service)
    assert report["counts"] == {"owned_twice": 1}
    (finding,) = report["findings"]
    assert finding["order_id"] == order_id
    assert set(finding["theirs"].split(", ")) == {view(service, order_id)["upstream_order_id"], second}
    assert set(finding["refs"]) == set(service.support.record(order_id)["order"]["internal"]["upstream_refs"])


# --- what is nobody's ------------------------------------------------------------------------------------------------


def test_a_listed_order_that_is_nobodys_becomes_an_orphan_and_is_watched(
    shop: Shop, service: Service, sandbox_url: str, clock: Clock
) -> None:
    settled(shop, service, clock)
    number = foreign(sandbox_url)
    report = run(service)
    assert (report["counts"], report["findings"][0]["refs"]) == ({"unowned": 1}, [number])
    (orphan,) = service.support.unowned_orders()
    assert (orphan["upstream_order_id"], orphan["amount"]) == (number, "0.02")
    assert (orphan["destination_address"], orphan["order_id"]) == (XRP_ADDRESS, None)

    report = run(service)
    assert (report["outcome"], report["counts"]) == ("clean", {"orphans": 1}), "known by now"
    clock.advance(400)
    service.unowned.poll_due()
    assert service.support.unowned_orders()[0]["deposit_seen_at"] is not None


def test_an_order_in_doubt_is_left_to_the_resolver(shop: Shop, service: Service, world: World, clock: Clock) -> None:
    world.chaos.force("create.accept_then_drop")
    order_id = place(shop)
    clock.advance(SETTLED)
    report = run(service)
    assert (report["outcome"], report["counts"]) == ("clean", {"resolving": 1, "undecided": 1})
    assert service.support.unowned_orders() == []
    look(service, order_id)
    assert view(service, order_id)["upstream_order_id"] == str(world.orders()[0].number)
    assert run(service)["compared"] == 1


def test_an_orphan_tells_which_failed_order_may_have_made_it(
    shop: Shop, service: Service, world: World, clock: Clock
) -> None:
    world.chaos.force("create.accept_then_drop")
    order_id = place(shop)
    world.chaos.change({"list.error_500": 1.0, "create.drop": 1.0})
    for _ in range(30):
        clock.advance(60)
        service.upstream_access._breaker.after("OK")
        look(service, order_id)
    assert view(service, order_id)["status_reason"] == "create_unconfirmed"
    assert service.support.unowned_orders() == [], "the list was never read"
    world.chaos.change({"list.error_500": 0.0, "create.drop": 0.0})
    clock.advance(SETTLED)
    (finding,) = run(service)["findings"]
    assert (finding["kind"], finding["order_id"]) == ("unowned", order_id)
    assert service.support.unowned_orders()[0]["candidates"] == [order_id]
    service.unowned.poll_due()
    assert service.support.unowned_orders()[0]["order_id"] == order_id, "public-info told all"


def test_one_run_makes_a_bounded_number_of_orphans_the_newest_first(
    service: Service, sandbox_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.watching.reconcile.RECORDED", 2)
    monkeypatch.setattr("swap.watching.comparison.KEPT", 1)
    numbers = []
    for _ in range(3):
        numbers.append(foreign(sandbox_url))
        clock.advance(1)
    report = run(service)
    assert (report["counts"], len(report["findings"])) == ({"unowned": 3}, 1), "the counts are complete"
    assert {orphan["upstream_order_id"] for orphan in service.support.unowned_orders()} == set(numbers[1:])
    assert run(service)["counts"] == {"orphans": 2, "unowned": 1}
    assert run(service)["counts"] == {"orphans": 3}


# --- lists that prove nothing ----------------------------------------------------------------------------------------


def test_an_empty_list_is_not_believed_once_there_are_orders(
    shop: Shop, service: Service, world: World, clock: Clock
) -> None:
    settled(shop, service, clock)
    world._orders.clear()
    with capture_logs() as logs:
        report = run(service)
    assert (report["outcome"], report["findings"][0]["theirs"]) == ("not_read", "EMPTY_LIST")
    assert [(line["log_level"], line["event"]) for line in logs] == [("error", "reconcile.not_read")]


def test_many_orders_older_than_all_that_is_listed_show_that_the_list_is_cut_off(
    shop: Shop, service: Service, clock: Clock
) -> None:
    settled(shop, service, clock)
    client_id = make_client(service.database, "old shop")
    for number in range(10):
        order_id = make_order(service.database, client_id, upstream_key=KEY).id
        own(service, order_id, str(number))
    with capture_logs() as logs:
        report = run(service)
    assert (report["counts"], report["compared"]) == ({"beyond_list": 10}, 1)
    assert "reconcile.list_cut_off" in {line["event"] for line in logs}


def test_orders_are_read_page_by_page(
    shop: Shop, service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.watching.reconcile._PAGE", 2)
    for number in range(5):
        place(shop, "expires", client_order_id=f"order-{number}")
    clock.advance(SETTLED)
    assert run(service)["compared"] == 5


# --- when --------------------------------------------------------------------------------------------------------------


def test_it_is_done_once_a_day_however_many_schedulers_run(
    service: Service, other_service: MakeService, clock: Clock
) -> None:
    fleet = [service, other_service(), other_service()]
    for day in (1, 2):
        with ThreadPoolExecutor(len(fleet)) as pool:
            list(pool.map(lambda one: one.reconcile.run_due(), fleet))
        assert reports(service) == ["clean"] * day
        clock.advance(timedelta(hours=23))
        for one in fleet:
            one.reconcile.run_due()
        assert reports(service) == ["clean"] * day
        clock.advance(timedelta(hours=1))


def test_a_list_that_cannot_be_read_is_reported_and_tried_again_after_an_hour(
    service: Service, world: World, clock: Clock
) -> None:
    world.chaos.change({"list.html_403": 1.0})
    service.reconcile.run_due()
    (report,) = service.reconcile.last()
    assert (report["outcome"], report["compared"]) == ("not_read", 0)
    assert report["findings"][0]["theirs"] == "UPSTREAM_BLOCKED"
    clock.advance(timedelta(minutes=59))
    service.reconcile.run_due()
    assert reports(service) == ["not_read"]
    world.chaos.change({"list.html_403": 0.0})
    clock.advance(timedelta(minutes=1))
    service.reconcile.run_due()
    clock.advance(timedelta(hours=23))
    service.reconcile.run_due()
    assert reports(service) == ["not_read", "clean"]


def test_what_broke_in_the_middle_is_tried_again_after_an_hour(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.store.reconciliations.page", None)
    with pytest.raises(TypeError):
        service.reconcile.run_due()
    monkeypatch.undo()
    service.reconcile.run_due()
    assert reports(service) == []
    clock.advance(timedelta(hours=1))
    service.reconcile.run_due()
    assert reports(service) == ["clean"]


def test_nothing_is_written_while_it_is_not_due(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.reconcile.run_due()
    monkeypatch.setattr(service.database, "write", None)
    service.reconcile.run_due()


def test_each_key_is_reconciled_for_itself(
    shop: Shop, service: Service, other_service: MakeService, clock: Clock
) -> None:
    settled(shop, service, clock)
    rotated = other_service(
        upstream_public_key="pk_new", upstream_secret_key="sk_new", upstream_old_keys=(SANDBOX_KEYS,)
    )
    new, old = rotated.reconcile.run()
    assert (new["upstream_key"], new["outcome"]) == ("pk_new", "not_read"), "the sandbox does not know this key"
    assert (old["upstream_key"], old["outcome"], old["compared"]) == (KEY, "clean", 1)


def test_the_scheduler_does_it_and_forgets_old_reports(service: Service, clock: Clock) -> None:
    scheduler = Scheduler(service)
    scheduler.tick()
    scheduler.close()
    assert reports(service) == ["clean"]
    clock.advance(timedelta(days=399))
    service.housekeeping.clean_due()
    assert len(all_of(service, Reconciliation)) == 1
    clock.advance(timedelta(days=2))
    service.housekeeping.clean_due()
    assert all_of(service, Reconciliation) == []


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_shows_its_report_and_exits_1_when_there_are_differences(
    service: Service, sandbox_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process' own start is left out: it sets up logging for good.
    monkeypatch.setattr("swap.cli.open_service", lambda: service)

    def swap(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        with capture_logs():
            done = CliRunner().invoke(main, ["reconcile", *arguments])
        assert SANDBOX_KEYS[1] not in done.stdout
        return done.exit_code, json.loads(done.stdout)["reports"]

    number = foreign(sandbox_url)
    code, (report,) = swap("--json")
    assert (code, report["outcome"], report["findings"][0]["refs"]) == (1, "differences", [number])
    code, (report,) = swap()
    assert (code, report["outcome"]) == (0, "clean")
    code, last = swap("--last", "--json")
    assert (code, [report["outcome"] for report in last]) == (0, ["clean", "differences"])
