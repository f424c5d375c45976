"""Unowned orders: one upstream order is recorded once, by whichever of its ids it is reported."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from swap.store import orders as order_rows
from swap.store import unowned
from swap.store.database import Database
from swap.tables import UnownedOrder
from tests.factories import NOON, make_order


def report(database: Database, *refs: str) -> bool:
    with database.write() as session:
        return unowned.add(
            session,
            ref=refs[0],
            refs=refs,
            upstream_key="pk",
            destination_address=None,
            amount=Decimal("0.5"),
            order_id=None,
            now=NOON,
        )


def known(database: Database) -> list[tuple[str, list[str]]]:
    with database.read() as session:
        return [(row.ref, sorted(row.refs)) for row in unowned.all_unowned(session)]


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


def test_ids_that_only_look_alike_are_two_orders(database: Database) -> None:
    for refs in (["1", "x%"], ["12", "xy"], ["2", "X%"]):
        assert report(database, *refs)
    assert len(known(database)) == 3


def test_an_order_that_gets_an_owner_by_another_of_its_ids_is_unowned_no_more(database: Database) -> None:
    report(database, "1", "a-b")
    report(database, "2")
    with database.write() as session:
        unowned.adopt(session, ["a-b", "legacy"])
    assert known(database) == [("2", ["2"])]


def test_what_an_order_of_ours_owns_by_any_id_is_not_recorded(database: Database) -> None:
    order = make_order(database)
    with database.write() as session:
        order_rows.claim_refs(session, order.id, ["1"])
    assert not report(database, "a-b", "1")
    assert known(database) == []


def test_what_a_poll_finds_after_its_lease_counts_only_if_nobody_took_the_order_up(
    database: Database, twin: Database
) -> None:
    report(database, "1")
    lease = timedelta(seconds=17)

    def claim(at: datetime) -> UnownedOrder:
        with twin.write() as session:
            found = unowned.claim_due(session, at, lease)
        assert found is not None
        return found

    def record(claimed: UnownedOrder, deposit_seen_at: datetime | None) -> datetime | None:
        with database.write() as session:
            unowned.record_poll(
                session, claimed, refs=["1"], deposit_seen_at=deposit_seen_at, next_check_at=NOON + timedelta(hours=1)
            )
        with database.read() as session:
            return unowned.all_unowned(session)[0].deposit_seen_at

    slow = claim(NOON)
    with twin.write() as session:
        assert unowned.claim_due(session, NOON + lease - timedelta(milliseconds=1), lease) is None
    quick = claim(NOON + lease)
    assert record(slow, NOON) is None
    assert record(quick, NOON) == NOON
    assert record(slow, None) == NOON, "an alarm is not taken back"
