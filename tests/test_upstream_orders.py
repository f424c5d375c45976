"""Upstream orders: one is recorded once, by whichever of its ids it is reported, and an id belongs to one of them."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from swap.domain.lifecycle import Status
from swap.orders.settle import Settlement, Settler
from swap.store import deposit_places, upstream_ids, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import UpstreamOrder
from swap.wiring import Service
from tests.factories import NOON, make_order, make_orders, read_order, show, told, upstream_owners
from tests.test_matching import info
from tests.threads import race

UUID = "0b5f7a52-8a3e-4a64-9d3c-1f2e3d4c5b6a"
OTHER_UUID, THIRD_UUID = UUID.replace("6a", "6b"), UUID.replace("6a", "6c")


def report(database: Database, *refs: str, order_id: str | None = None, **known: Any) -> bool:
    with database.write() as session:
        return upstream_orders.record(session, told(*refs, **known), NOON, order_id=order_id) is not None


def known(database: Database) -> list[tuple[str, list[str]]]:
    with database.read() as session:
        return [(row.ref, refs) for row, refs in upstream_orders.not_shown(session)]


def only(database: Database) -> UpstreamOrder:
    with database.read() as session:
        ((row, _),) = upstream_orders.not_shown(session)
        return row


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        (["1", "a-b"], ["a-b", "1"], ["1", "a-b"]),
        (["1", "a-b"], ["a-b"], ["1", "a-b"]),
        (["1"], ["a-b", "1"], ["1", "a-b"]),
        (["1", "x%_"], ["y", "x%_"], ["1", "x%_", "y"]),
        (["1", '\u00fc"\\'], ["y", '\u00fc"\\'], ["1", "y", '\u00fc"\\']),
    ],
)
def test_an_order_reported_by_two_of_its_ids_is_recorded_once_with_all_of_them(
    database: Database, first: list[str], second: list[str], merged: list[str]
) -> None:
    assert report(database, *first)
    assert not report(database, *second)
    assert known(database) == [(first[0], sorted(merged))]


def test_two_that_an_answer_shows_to_be_one_become_one_with_its_owner_and_its_alarm(database: Database) -> None:
    order = make_order(database)
    report(database, "1", order_id=order.id)
    report(database, UUID, deposit_address="bc1qx")
    with database.write() as session:
        upstream_ids.by_refs(session, [UUID])[UUID].deposit_seen_at = NOON
    assert not report(database, "1", UUID)
    assert known(database) == [("1", ["1", UUID])]
    row = only(database)
    assert (row.order_id, row.deposit_address, row.deposit_seen_at) == (order.id, "bc1qx", NOON)


def test_ids_that_only_look_alike_are_two_orders(database: Database) -> None:
    for refs in (["1", "x%"], ["12", "xy"], ["2", "X%"]):
        assert report(database, *refs)
    assert len(known(database)) == 3


def test_hundreds_of_ids_are_looked_up_on_either_database(database: Database) -> None:
    refs = [f"id-{number}" for number in range(70_000)]
    assert report(database, "id-69999")
    with database.read() as session:
        assert upstream_ids.by_refs(session, refs).keys() == {"id-69999"}
        assert upstream_ids.roles(session, [(None, (ref,)) for ref in refs]) == [None] * 69_999 + ["unowned"]


def test_one_that_an_order_shows_by_another_of_its_ids_is_unowned_no_more(database: Database) -> None:
    order = make_order(database)
    report(database, "1", "a-b")
    report(database, "2")
    assert show(database, order, "a-b", "legacy") == set()
    assert known(database) == [("2", ["2"])]
    assert upstream_owners(database) == {"1": order.id, "a-b": order.id, "legacy": order.id, "2": None}


def test_what_a_customer_was_shown_is_not_recorded_and_gets_no_ids_of_a_report(database: Database) -> None:
    order = make_order(database)
    show(database, order, "1")
    assert not report(database, "a-b", "1", order_id=make_order(database).id)
    assert (known(database), upstream_owners(database)) == ([], {"1": order.id})


def test_a_spare_of_another_order_is_not_shown(database: Database) -> None:
    one, other = make_order(database), make_order(database)
    report(database, "1", order_id=one.id)
    assert show(database, other, "1", UUID) == {"1"}
    assert upstream_owners(database) == {"1": one.id}, "all or none"


def test_an_order_has_one_upstream_order_that_is_shown(database: Database) -> None:
    order = make_order(database)
    show(database, order, "1")
    report(database, "2", order_id=order.id)
    with pytest.raises(IntegrityError), database.write() as session:
        upstream_ids.by_refs(session, ["2"])["2"].role = upstream_orders.SHOWN
        session.flush()


@pytest.mark.parametrize("role", ["unowned", "spare", "mine"])
def test_a_role_and_its_owner_fit(database: Database, role: str) -> None:
    order_id = make_order(database).id if role == "unowned" else None
    report(database, "1")
    with pytest.raises(IntegrityError), database.write() as session:
        row = upstream_ids.by_refs(session, ["1"])["1"]
        row.role, row.order_id = role, order_id
        session.flush()


def test_an_upstream_order_that_is_shown_and_reported_at_once_is_recorded_once(
    database: Database, twin: Database
) -> None:
    (order_id,) = make_orders(database, 1)

    def work(number: int) -> None:
        with (database, twin)[number % 2].write() as session:
            order = order_rows.get(session, order_id)
            assert order is not None
            if number < 2:
                assert upstream_orders.show(session, order, told("1", UUID), NOON) == set()
            else:
                upstream_orders.record(session, told(*((UUID,), (UUID, "1"), ("1",))[number % 3]), NOON)

    race(8, work)
    assert known(database) == []
    assert upstream_owners(database) == {"1": order_id, UUID: order_id}


# --- what looks like an id and is none -------------------------------------------------------------------------------


def test_a_value_that_orders_with_numbers_of_their_own_have_in_common_is_no_id(database: Database) -> None:
    one, other = make_order(database), make_order(database)
    show(database, one, "1", "constant")
    with capture_logs() as logs:
        assert show(database, other, "2", "constant") == set()
        assert report(database, "3", "constant")
    assert upstream_owners(database) == {"1": one.id, "2": other.id, "3": None}
    assert [entry["event"] for entry in logs] == ["orders.shared_upstream_id"]


def test_a_listed_order_with_a_constant_is_not_taken_for_the_one_that_has_it(database: Database) -> None:
    show(database, make_order(database), "1", "constant")
    with database.read() as session:
        listed = [("1", ("1", "constant")), ("2", ("2", "constant")), (None, ("constant",))]
        assert upstream_ids.roles(session, listed) == ["shown", None, "shown"]


def test_a_constant_in_the_report_of_a_spare_neither_drops_it_nor_merges_it(database: Database) -> None:
    order = make_order(database)
    show(database, order, "1", "constant")
    assert report(database, "2", "constant", order_id=order.id)
    assert known(database) == [("2", ["2"])]


def test_a_constant_makes_no_spare_one_with_what_its_order_is_shown_by_another_form_of_id(database: Database) -> None:
    order = make_order(database)
    assert report(database, "1", UUID, "constant", order_id=order.id)
    assert show(database, order, OTHER_UUID, "constant") == set()
    assert known(database) == [("1", ["1", UUID])]
    assert upstream_owners(database) == {"1": order.id, UUID: order.id, OTHER_UUID: order.id}


def test_a_constant_keeps_no_order_from_what_is_its_own_by_another_form_of_id(database: Database) -> None:
    one, other = make_order(database), make_order(database)
    show(database, one, "1", UUID, "constant")
    assert show(database, other, OTHER_UUID, "constant") == set()
    assert report(database, THIRD_UUID, "constant")
    assert upstream_owners(database) == {"1": one.id, UUID: one.id, OTHER_UUID: other.id, THIRD_UUID: None}


def test_an_order_that_is_told_by_another_uuid_keeps_its_own(database: Database) -> None:
    """An answer that mixes the ids of two orders takes no id from either: it may as well be the mistake."""
    one, other = make_order(database), make_order(database)
    show(database, one, "1", UUID)
    assert show(database, other, OTHER_UUID, UUID) == {UUID}
    assert upstream_owners(database) == {"1": one.id, UUID: one.id}


# --- watching --------------------------------------------------------------------------------------------------------


def test_what_a_poll_finds_after_its_lease_counts_only_if_nobody_took_the_order_up(
    database: Database, twin: Database
) -> None:
    report(database, "1")
    lease = timedelta(seconds=17)

    def claim(seconds: timedelta) -> UpstreamOrder:
        with twin.write() as session:
            found = upstream_orders.claim_due(session, NOON + seconds, lease)
        assert found is not None
        return found

    def is_held(claimed: UpstreamOrder) -> bool:
        with database.write() as session:
            return upstream_orders.still_leased(session, claimed) is not None

    slow = claim(timedelta())
    with twin.write() as session:
        assert upstream_orders.claim_due(session, NOON + lease - timedelta(milliseconds=1), lease) is None
    assert is_held(slow)
    quick = claim(lease)
    assert (is_held(slow), is_held(quick)) == (False, True)


def test_one_that_a_customer_is_shown_meanwhile_is_not_polled_as_a_spare(database: Database) -> None:
    report(database, "1")
    with database.write() as session:
        claimed = upstream_orders.claim_due(session, NOON, timedelta(seconds=17))
    assert claimed is not None
    show(database, make_order(database), "1")
    with database.write() as session:
        assert upstream_orders.still_leased(session, claimed) is None
        assert upstream_orders.claim_due(session, NOON + timedelta(days=1), timedelta(seconds=17)) is None


def test_a_place_is_kept_while_the_order_or_a_spare_of_it_is_watched(database: Database) -> None:
    order = make_order(database, next_check_at=None)
    report(database, "1", order_id=order.id)
    with database.write() as session:
        deposit_places.claim(session, order.id, "there")
        deposit_places.free_unwatched(session)
        assert deposit_places.holder(session, "there") == order.id
        upstream_ids.by_refs(session, ["1"])["1"].next_check_at = None
    with database.write() as session:
        deposit_places.free_unwatched(session)
        assert deposit_places.holder(session, "there") is None


def test_what_names_nothing_but_a_value_that_is_no_id_is_neither_shown_nor_recorded(database: Database) -> None:
    """Nobody could ever ask about it."""
    first, second, third = (read_order(database, order_id) for order_id in make_orders(database, 3))
    assert show(database, first, "1", "CONSTANT") == set()
    assert show(database, second, "2", "CONSTANT") == set()
    with database.write() as session:
        order = order_rows.get(session, third.id)
        assert order is not None
        assert upstream_orders.show(session, order, told("CONSTANT"), NOON) == {"CONSTANT"}
        assert upstream_orders.record(session, told("CONSTANT"), NOON, order_id=third.id) is None
        assert upstream_orders.shown_of(session, third.id) is None


def test_two_answers_to_creates_of_one_order_do_not_wait_for_each_other(
    service: Service, twin: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each claims its place, whose row refers to the order, and then the order itself."""
    (order_id,) = make_orders(service.database, 1, deposit_kind=None, deposit_address=None, status="in_doubt")
    claim, both = deposit_places.claim, threading.Barrier(2)

    def claim_together(*arguments: Any) -> bool:
        claimed = claim(*arguments)
        with suppress(threading.BrokenBarrierError):
            both.wait(1)
        return claimed

    monkeypatch.setattr(deposit_places, "claim", claim_together)
    settlers = [Settler(database, service.queue, service.timing) for database in (service.database, twin)]

    def settle(number: int) -> None:
        answer = replace(info(), order_id=str(number), refs=(str(number),), deposit_address=f"place {number}")
        shown = {"status": Status.AWAITING_DEPOSIT, "deposit_kind": "address", "deposit_address": f"place {number}"}
        settlers[number]._try(order_id, Settlement(lambda _: shown, {}, answer))

    race(2, settle)
    assert read_order(service.database, order_id).status == Status.AWAITING_DEPOSIT
