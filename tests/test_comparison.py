"""The upstream's list compared with our orders: what is a difference, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from swap.domain.lifecycle import Status
from swap.store.reconciliations import OurOrder
from swap.upstream.replies import ListedOrder
from swap.watching import comparison
from swap.watching.comparison import CUT_OFF, KEPT, MOST_OPEN, Comparison
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS
from tests.factories import NOON, order_row
from tests.signed_client import ETH_ADDRESS

OTHER_XRP_ADDRESS = "rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh"
SETTLED_BEFORE = NOON + timedelta(hours=2)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def ours(*refs: str, paid_out: str | None = None, attempted: Any = None, **changed: Any) -> OurOrder:
    """A completed BTC to XRP order of noon, left in peace since; with these upstream ids."""
    values: dict[str, Any] = {"id": "ord_1", "status": Status.COMPLETED, "refund_address": BTC_ADDRESS}
    values |= {"upstream_order_id": refs[0] if refs else None}
    order = order_row("shop", **{**values, **changed})
    return OurOrder(order, refs, attempted, None if paid_out is None else Decimal(paid_out))


def row(*refs: str, **changed: Any) -> ListedOrder:
    """The same order as the upstream lists it."""
    values: dict[str, Any] = {
        "order_id": refs[0],
        "refs": refs,
        "destination_address": XRP_ADDRESS,
        "refund_address": BTC_ADDRESS,
        "amount": Decimal("0.0125"),
        "amount_to_get": None,
        "paid_out": None,
        "from_currency": "BTC",
        "from_network": "BTC",
        "to_currency": "XRP",
        "to_network": "XRP",
        "created_at": NOON + SECOND,
        "updated_at": NOON + MINUTE,
        "completed": True,
        "state": "completed",
    }
    return ListedOrder(**{**values, **changed})


def compare(listed: Sequence[ListedOrder], *orders: OurOrder, offset: timedelta = timedelta()) -> Comparison:
    result = Comparison(listed, SETTLED_BEFORE, offset)
    for order in orders:
        result.compare(order)
    result.finish()
    return result


def findings(result: Comparison) -> list[tuple[Any, ...]]:
    return [(f["kind"], f["order_id"], f["refs"], f["ours"], f["theirs"]) for f in result.findings]


# --- no difference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "listed"),
    [
        ({}, {}),
        ({}, {"refund_address": BTC_ADDRESS.upper(), "to_network": "xrp", "amount": Decimal("0.012500")}),
        (
            {"to_currency": "ETH", "to_network": "ERC20", "destination_address": ETH_ADDRESS},
            {"to_currency": "eth", "to_network": "erc20", "destination_address": ETH_ADDRESS.lower()},
        ),
        ({"refund_address": None}, {"refund_address": None}),
        ({"paid_out": "5"}, {"paid_out": None}),
        ({"paid_out": None}, {"paid_out": Decimal(5)}),
        ({"paid_out": "5.0"}, {"paid_out": Decimal(5)}),
        ({"status": Status.REFUNDED}, {"completed": True}),
        ({"status": Status.REFUNDED, "paid_out": "5"}, {"completed": True, "paid_out": Decimal(6)}),
        ({"status": Status.CONFIRMING}, {"completed": False}),
        ({"status": Status.CONFIRMING}, {"completed": None}),
        (
            {},
            dict.fromkeys(field for field in ListedOrder.__dataclass_fields__ if field != "refs"),
        ),
    ],
)
def test_spellings_and_what_either_side_leaves_out_are_no_difference(
    order: dict[str, Any], listed: dict[str, Any]
) -> None:
    result = compare([row("7", **listed)], ours("7", **order))
    assert (result.compared, result.counts, result.findings, result.to_poll) == (1, {}, [], [])
    assert result.unclaimed() == []


def test_the_listed_order_that_is_asked_for_is_the_one_compared() -> None:
    elder = row("6", amount=Decimal(9))
    result = compare([elder, row("7")], ours("7", "6"))
    assert result.counts == {"owned_twice": 1}, "and not its amount"


# --- differences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changed", "our_side", "their_side"),
    [
        ("amount", {"amount": Decimal("0.0126")}, "0.0126", "0.0125"),
        ("destination", {"destination_address": OTHER_XRP_ADDRESS}, OTHER_XRP_ADDRESS, XRP_ADDRESS),
        ("refund", {"refund_address": None}, None, BTC_ADDRESS),
        ("pair", {"to_network": "Other"}, "BTC/BTC to XRP/Other", "BTC/BTC to XRP/XRP"),
    ],
)
def test_what_the_upstream_carries_out_otherwise_is_a_difference(
    kind: str, changed: dict[str, Any], our_side: str | None, their_side: str
) -> None:
    result = compare([row("7")], ours("7", **changed))
    assert result.counts == {kind: 1}
    assert findings(result) == [(kind, "ord_1", ["7"], our_side, their_side)]


@pytest.mark.parametrize(
    ("status", "completed", "their_side"),
    [
        (Status.COMPLETED, False, "not completed, state expired"),
        (Status.AWAITING_DEPOSIT, True, "completed"),
        (Status.EXPIRED, True, "completed"),
        (Status.FAILED, True, "completed"),
    ],
)
def test_completed_on_one_side_alone_is_a_difference_and_the_order_is_polled(
    status: Status, completed: bool, their_side: str
) -> None:
    order = ours("7", status=status)
    result = compare([row("7", completed=completed, state="expired")], order)
    assert findings(result) == [("completed", "ord_1", ["7"], status, their_side)]
    assert result.to_poll == [order.order]


def test_a_payout_of_another_amount_is_a_difference() -> None:
    result = compare([row("7", paid_out=Decimal("261.8"))], ours("7", paid_out="261.90"))
    assert findings(result) == [("payout", "ord_1", ["7"], "261.9", "261.8")]
    assert result.to_poll == []


def test_ids_of_two_listed_orders_or_of_two_of_ours_are_differences() -> None:
    result = compare([row("7"), row("8")], ours("7", "8"))
    assert findings(result) == [("owned_twice", "ord_1", ["7", "8"], "7, 8", "7, 8")]
    result = compare([row("7", "uuid")], ours("7"), ours("uuid", id="ord_2"))
    assert findings(result) == [("owned_twice", "ord_2", ["7", "uuid"], "ord_1", None)]


def test_of_each_kind_some_findings_are_kept_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "KEPT", 2)
    rows = [row(str(number), state="x" * 300) for number in range(4)]
    orders = [ours(str(number), id=f"ord_{number}", amount=Decimal(9)) for number in range(4)]
    result = compare(rows, *orders, ours("99", id="ord_99"))
    assert result.counts == {"amount": 4, "missing": 1}
    assert [finding["kind"] for finding in result.findings] == ["amount", "amount", "missing"]
    assert KEPT == 50


def test_a_long_text_of_the_upstreams_is_cut() -> None:
    result = compare([row("7", completed=False, state="x" * 300)], ours("7"))
    assert len(result.findings[0]["theirs"]) == 200


# --- left out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{"created_at": SETTLED_BEFORE}, {"attempted": SETTLED_BEFORE}])
def test_an_order_created_or_attempted_too_lately_is_not_compared(changed: dict[str, Any]) -> None:
    result = compare([row("7", amount=Decimal(9))], ours("7", **changed))
    assert (result.counts, result.compared) == ({"fresh": 1}, 0)
    earlier = {name: value - timedelta(milliseconds=1) for name, value in changed.items()}
    assert compare([row("7", amount=Decimal(9))], ours("7", **earlier)).counts == {"amount": 1}


@pytest.mark.parametrize(
    ("order", "listed", "offset"),
    [
        ({"status_changed_at": SETTLED_BEFORE}, {}, timedelta()),
        ({}, {"updated_at": SETTLED_BEFORE}, timedelta()),
        ({}, {"updated_at": SETTLED_BEFORE + 30 * SECOND}, 30 * SECOND),
    ],
)
def test_an_order_that_moved_just_now_here_or_there_may_be_ahead_but_its_amount_may_not(
    order: dict[str, Any], listed: dict[str, Any], offset: timedelta
) -> None:
    result = compare([row("7", completed=False, **listed)], ours("7", amount=Decimal(9), **order), offset=offset)
    assert (result.counts, result.to_poll) == ({"amount": 1, "moving": 1}, [])


def test_the_upstreams_times_are_read_by_our_clock() -> None:
    moved = row("7", completed=False, updated_at=SETTLED_BEFORE + 29 * SECOND)
    assert compare([moved], ours("7"), offset=30 * SECOND).counts == {"completed": 1}


@pytest.mark.parametrize("status", [Status.CREATING, Status.IN_DOUBT])
def test_an_order_that_is_not_resolved_is_left_to_the_resolver(status: Status) -> None:
    result = compare([row("7", amount=Decimal(9))], ours("7", status=status))
    assert (result.counts, result.compared) == ({"resolving": 1}, 0)


def test_an_order_that_is_not_listed_is_missing_if_the_list_would_name_it() -> None:
    result = compare([row("8")], ours("7", "uuid"), ours("uuid-2", id="ord_2"), ours(id="ord_3"))
    assert result.counts == {"missing": 1, "not_comparable": 1}
    assert findings(result) == [("missing", "ord_1", ["7", "uuid"], "completed", None)]
    assert compare([row("8", created_at=None)], ours("7")).counts == {"missing": 1}, "nothing says that it is cut off"


@pytest.mark.parametrize(("older", "counts"), [(CUT_OFF - 1, "missing"), (CUT_OFF, "beyond_list")])
def test_many_orders_older_than_the_whole_list_show_that_it_is_cut_off(older: int, counts: str) -> None:
    orders = [ours(str(number), id=f"ord_{number}") for number in range(older)]
    result = compare([row("99", created_at=NOON + HOUR + SECOND)], *orders)
    assert result.counts == {counts: older}
    result = compare([row("99", created_at=NOON + HOUR)], *orders)
    assert result.counts == {"missing": older}, "an hour older is too little"
    result = compare([row("99", created_at=NOON + HOUR + SECOND)], *orders, offset=2 * SECOND)
    assert result.counts == {"missing": older}, "by our clock it is less than that"


# --- listed orders that none of ours owns ----------------------------------------------------------------------------


def test_a_listed_order_that_none_of_ours_owns_is_unclaimed_once_however_often_it_is_listed() -> None:
    result = compare([row("7"), row("8"), row("8")], ours("7"))
    assert [unclaimed.refs for unclaimed in result.unclaimed()] == [("8",)]
    assert not result.excused(result.unclaimed()[0])


@pytest.mark.parametrize(
    ("refs", "order"),
    [
        ((), {"status": Status.IN_DOUBT}),
        ((), {"status": Status.CREATING}),
        ((), {"attempted": SETTLED_BEFORE, "created_at": NOON}),
        (("uuid",), {}),
    ],
)
def test_an_order_whose_number_is_unknown_excuses_one_listed_order_that_it_could_own(
    refs: tuple[str, ...], order: dict[str, Any]
) -> None:
    result = compare([row("8"), row("9")], ours(*refs, **order))
    assert [result.excused(unclaimed) for unclaimed in result.unclaimed()] == [True, False]
    assert not compare([row("8")], ours(*refs, **order)).excused(row("8", amount=Decimal(9)))


def test_an_order_that_is_settled_or_has_a_number_excuses_nothing() -> None:
    for order in (ours(), ours("7"), ours("7", status=Status.IN_DOUBT)):
        assert not compare([row("8")], order).excused(row("8"))
    assert not compare([row("uuid"), row("8")], ours("uuid")).excused(row("8")), "its own is listed by its UUID"


@pytest.mark.parametrize(
    ("created_at", "offset", "in_doubt", "fresh"),
    [
        (NOON - 2 * SECOND, timedelta(), True, True),
        (NOON - 3 * SECOND, timedelta(), False, False),
        (NOON + 2 * MINUTE, timedelta(), True, True),
        (NOON + 2 * MINUTE + SECOND, timedelta(), True, False),
        (NOON + 2 * MINUTE + SECOND, SECOND, True, True),
        (NOON - 2 * SECOND, SECOND, False, False),
        (None, timedelta(), True, True),
    ],
)
def test_an_order_excuses_only_what_was_made_in_its_time(
    created_at: Any, offset: timedelta, in_doubt: bool, fresh: bool
) -> None:
    """An order in doubt may have been taken up late; an order with a UUID was answered, and not later than that."""
    listed = row("8", created_at=created_at)
    assert compare([listed], ours(status=Status.IN_DOUBT), offset=offset).excused(listed) is in_doubt
    assert compare([listed], ours("uuid"), offset=offset).excused(listed) is fresh


def test_a_later_attempt_excuses_what_was_made_after_it() -> None:
    listed = row("8", created_at=NOON + HOUR)
    assert compare([listed], ours("uuid", attempted=NOON + HOUR - MINUTE)).excused(listed)


def test_two_orders_alike_that_are_known_by_uuids_excuse_one_listed_order_each_whichever_is_listed_first() -> None:
    """The older order might have made either: it must not take the only one that the younger one can have made."""
    early, late = row("7"), row("8", created_at=NOON + MINUTE)
    first, second = ours("uuid-1"), ours("uuid-2", id="ord_2", attempted=NOON + MINUTE)
    for listed in ([early, late], [late, early]):
        for orders in ([first, second], [second, first]):
            result = compare(listed, *orders)
            assert [result.excused(unclaimed) for unclaimed in result.unclaimed()] == [True, True]


def test_with_too_many_orders_without_a_number_every_listed_order_is_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_OPEN", 1)
    listed, strange = row("8"), row("9", amount=Decimal(9))
    one = [ours(id="ord_1", status=Status.IN_DOUBT)]
    assert not compare([listed, strange], *one).excused(strange)
    two = [*one, ours(id="ord_2", status=Status.IN_DOUBT)]
    assert compare([listed, strange], *two).excused(strange)
    assert MOST_OPEN == 1000
