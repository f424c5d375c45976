"""How much a client may order of a currency: in one order, and in any 24 hours, whatever is ordered at the same moment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, update

from swap.cli import main
from swap.domain.lifecycle import Status
from swap.domain.money import total
from swap.domain.order_limits import DAY, Counted, sum_reached
from swap.domain.times import iso
from swap.errors import InvalidRequest, NotFound
from swap.sandbox.world import World
from swap.store import orders as order_rows
from swap.tables import Order, new_id
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import NOON, make_client, order_row
from tests.faults import Faults, answering, spoiling
from tests.signed_client import ETH, Answer, Calls
from tests.threads import race

WHY = {"by": "anna", "reason": "case 17"}


@contextmanager
def nothing_asked(faults: Faults) -> Iterator[None]:
    before = dict(faults.seen)
    yield
    assert faults.seen == before


@pytest.fixture
def limit(service: Service, shop: Shop, clock: Clock) -> Any:
    """Limit what the shop orders, and let the second pass after which it counts for a key that was seen before."""

    def set_limit(currency: str = "BTC", client: str = "shop", **changes: str | None) -> None:
        amounts = {name: None if text is None else Decimal(text) for name, text in changes.items()}
        service.clients.limit_orders(client, currency, amounts, **WHY)  # type: ignore[arg-type]
        clock.advance(2)

    return set_limit


def problem(answer: Answer) -> dict[str, Any]:
    """The one problem of an order that was refused for its amount alone."""
    assert (answer.status, answer.code, answer.fields) == (422, "VALIDATION_FAILED", {"amount"})
    (found,) = answer.details["fields"]["amount"]
    return dict(found)


def use(calls: Calls, currency: str = "BTC") -> tuple[str, str]:
    """What is used and left of the daily sum, as the client is told."""
    (shown,) = [each for each in calls.get("/v1/limits").data["order_limits"] if each["currency"] == currency]
    return shown["used"], shown["left"]


# --- the rule --------------------------------------------------------------------------------------------------------

# All that money.parse takes: up to 20 digits before the point and 24 after it.
AMOUNTS = st.from_regex(r"(0|[1-9][0-9]{0,19})(\.[0-9]{1,24})?", fullmatch=True, alphabet="0123456789.").map(Decimal)
SMALL = st.integers(1, 40).map(Decimal)
GAPS = st.integers(0, 10 * 3600).map(lambda seconds: timedelta(seconds=seconds))


def of_24_hours(orders: list[Counted], now: datetime) -> list[Counted]:
    return [order for order in orders if order.made_at > now - DAY]


@given(st.lists(st.tuples(GAPS, SMALL), max_size=30), st.integers(1, 60).map(Decimal))
def test_no_24_hours_ever_hold_more_than_the_daily_sum_and_nothing_that_fits_is_refused(
    asked: list[tuple[timedelta, Decimal]], daily_sum: Decimal
) -> None:
    made: list[Counted] = []
    now = NOON
    for gap, amount in asked:
        now += gap
        window = of_24_hours(made, now)
        if sum_reached(daily_sum, window, amount) is None:
            made.append(Counted(now, amount))
        else:
            assert sum(order.amount for order in window) + amount > daily_sum
    for last in made:
        held = [order for order in of_24_hours(made, last.made_at) if order.made_at <= last.made_at]
        assert sum(order.amount for order in held) <= daily_sum


@given(st.lists(st.tuples(GAPS, SMALL), max_size=30), SMALL, SMALL)
def test_an_order_that_is_too_much_fits_at_the_time_that_is_told_and_not_a_millisecond_sooner(
    made: list[tuple[timedelta, Decimal]], daily_sum: Decimal, amount: Decimal
) -> None:
    counted = sorted(Counted(NOON - gap, each) for gap, each in made)
    reached = sum_reached(daily_sum, counted, amount)
    if reached is None or reached.again_at is None:
        assert reached is None or amount > daily_sum
        return
    assert sum_reached(daily_sum, of_24_hours(counted, reached.again_at), amount) is None
    sooner = reached.again_at - timedelta(milliseconds=1)
    assert sum_reached(daily_sum, of_24_hours(counted, sooner), amount) is not None


@given(st.lists(AMOUNTS, min_size=1, max_size=20))
def test_the_last_digit_of_the_longest_amounts_counts(amounts: list[Decimal]) -> None:
    *counted, asked = (Counted(NOON, each) for each in amounts)
    units = int(sum(map(Fraction, amounts)) * 10**24)
    assert sum_reached(Decimal(f"{units}e-24"), counted, asked.amount) is None
    assert sum_reached(Decimal(f"{units - 1}e-24"), counted, asked.amount) is not None


# --- which orders count ----------------------------------------------------------------------------------------------

COUNTED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ORDERS = st.fixed_dictionaries(
    {
        "amount": AMOUNTS,
        "status": st.sampled_from(Status),
        "from_currency": st.sampled_from(["BTC", "ETH"]),
        "deposit_kind": st.sampled_from([None, "address"]),
        "created_at": st.integers(-2, 2).map(lambda ms: NOON - DAY + timedelta(milliseconds=ms)) | st.just(NOON),
    }
)


@COUNTED
@given(orders=st.lists(ORDERS, max_size=12))
def test_every_order_of_24_hours_counts_but_those_that_failed_before_there_was_where_to_pay(
    service: Service, orders: list[dict[str, Any]]
) -> None:
    client = make_client(service.database, new_id("client"))
    stranger = make_client(service.database, "stranger")
    with service.database.write() as session:
        for order in orders:
            for owner in (client, stranger):
                assert order_rows.insert(session, order_row(owner, **order))
    service.clients.limit_orders(client, "BTC", {"daily_sum": Decimal(10) ** 22}, **WHY)
    expected = total(
        order["amount"]
        for order in orders
        if order["from_currency"] == "BTC"
        and order["created_at"] > NOON - DAY
        and not (order["status"] == Status.FAILED and order["deposit_kind"] is None)
    )
    (shown,) = replace_clock(service, NOON).order_limits.shown(client)
    assert Decimal(shown["used"] or "") == expected
    assert total((Decimal(shown["used"] or ""), Decimal(shown["left"] or ""))) == Decimal(10) ** 22


def replace_clock(service: Service, now: datetime) -> Service:
    return replace(service, timing=replace(service.timing, now=lambda: now))


# --- the largest order -----------------------------------------------------------------------------------------------


def test_an_order_over_the_largest_is_refused_before_anything_is_asked_and_leaves_the_id_free(
    calls: Calls, limit: Any, faults: Faults
) -> None:
    limit(largest_order="0.5")
    with nothing_asked(faults):
        refused = problem(calls.order(amount="0.50000001"))
    assert (refused["code"], refused["max"]) == ("ORDER_TOO_LARGE", "0.5")
    assert "0.5 BTC" in refused["message"]
    assert calls.get("/v1/orders").data["orders"] == []
    assert calls.order(amount="0.5").status == 201


def test_limits_are_told_together_with_whatever_else_is_wrong(calls: Calls, limit: Any) -> None:
    limit(largest_order="0.5", daily_sum="0.6")
    answer = calls.order(amount="0.700000001", destination_memo="x", refund_address="no address")
    assert answer.codes == {
        "amount": ["TOO_MANY_DECIMALS", "ORDER_TOO_LARGE", "DAILY_SUM_REACHED"],
        "destination_memo": ["MEMO_INVALID"],
        "refund_address": ["ADDRESS_INVALID"],
    }
    malformed = calls.order(amount="0.7", client_order_id=17)
    assert malformed.codes == {"amount": ["ORDER_TOO_LARGE", "DAILY_SUM_REACHED"], "client_order_id": ["INVALID"]}
    # Nothing to compare: what is no amount, or of no currency, is told as ever.
    assert calls.order(amount="much").fields == {"amount"}
    assert calls.order(**{"from": {"currency": "BTX", "network": "BTC"}}).fields == {"from"}


def test_a_limit_holds_for_its_client_and_its_currency_alone_in_whatever_spelling(
    service: Service, calls: Calls, limit: Any, clock: Clock
) -> None:
    service.keys.create("other", client="other")
    limit("btc", largest_order="0.001")
    limit("BTC", client="other", daily_sum="5")
    assert calls.order(client_order_id="1").status == 422
    assert calls.order(client_order_id="2", **{"from": {"currency": "btc", "network": "btc"}}).status == 422
    assert calls.order(client_order_id="3", amount="0.9", **{"from": ETH}, refund_address=...).status == 201
    (shown,) = calls.get("/v1/limits").data["order_limits"]
    assert (shown["currency"], shown["largest_order"]) == ("BTC", "0.001")


# --- the daily sum ---------------------------------------------------------------------------------------------------


def test_the_daily_sum_is_told_with_what_is_used_and_from_when_on_it_fits_again(
    service: Service, calls: Calls, limit: Any, clock: Clock, faults: Faults
) -> None:
    limit(daily_sum="0.04")
    first = calls.order(client_order_id="1").data
    assert calls.order(client_order_id="2", amount="0.02").status == 201
    assert use(calls) == ("0.0325", "0.0075")
    again_at = service.clock() + timedelta(minutes=3)
    with service.database.write() as session:
        session.execute(update(Order).where(Order.id == first["id"]).values(created_at=again_at - DAY))
    with nothing_asked(faults):
        refused = problem(calls.order(client_order_id="3"))
    assert (refused["code"], refused["limit"], refused["used"]) == ("DAILY_SUM_REACHED", "0.04", "0.0325")
    assert refused["try_again_at"] == iso(again_at)
    assert calls.order(client_order_id="4", amount="0.0075").status == 201, "less fits"
    clock.advance(timedelta(minutes=2, seconds=50))
    assert problem(calls.order(client_order_id="3"))["try_again_at"] == refused["try_again_at"]
    clock.advance(again_at - service.clock())
    assert calls.order(client_order_id="3").status == 201


def test_an_order_that_is_over_the_daily_sum_by_itself_is_told_no_time(calls: Calls, limit: Any) -> None:
    limit(daily_sum="0.01")
    refused = problem(calls.order())
    assert (refused["code"], refused["used"], refused["try_again_at"]) == ("DAILY_SUM_REACHED", "0", None)


def test_a_repeated_order_counts_once_and_is_answered_when_nothing_more_may_be_ordered(
    calls: Calls, limit: Any, world: World
) -> None:
    limit(daily_sum="0.02")
    order = calls.order().data
    assert use(calls) == ("0.0125", "0.0075")
    again = calls.order()
    assert (again.status, again.data["id"], use(calls)) == (200, order["id"], ("0.0125", "0.0075"))
    limit(daily_sum="0.001", largest_order="0.001")
    assert (calls.order().data["id"], use(calls)) == (order["id"], ("0.0125", "0"))
    assert len(world.orders()) == 1


def test_what_the_upstream_refused_does_not_count(calls: Calls, limit: Any, faults: Faults) -> None:
    limit(daily_sum="0.0125")
    faults["create"] = answering(422, {"message": "pair not supported"})
    assert (calls.order(client_order_id="1").code, use(calls)) == ("PAIR_REFUSED", ("0", "0.0125"))
    del faults["create"]
    assert calls.order(client_order_id="2").status == 201


def test_an_order_in_doubt_counts(calls: Calls, limit: Any, world: World) -> None:
    limit(daily_sum="0.0125")
    world.chaos.force("create.accept_then_drop")
    assert calls.order(client_order_id="1").status == 202
    assert problem(calls.order(client_order_id="2"))["code"] == "DAILY_SUM_REACHED"


def test_an_order_that_was_not_sent_has_its_place_and_is_sent_however_the_limit_is_set_meanwhile(
    calls: Calls, limit: Any, world: World
) -> None:
    limit(daily_sum="0.0125")
    world.chaos.force("create.rate_limited")
    assert calls.order(client_order_id="1").status == 503
    assert problem(calls.order(client_order_id="2"))["code"] == "DAILY_SUM_REACHED"
    limit(daily_sum="0.001", largest_order="0.001")
    assert calls.order(client_order_id="1").status == 201


# --- at the same moment ----------------------------------------------------------------------------------------------


def meeting(parties: int) -> Any:
    """The first `parties` orders wait for each other where the rate is asked for: each was found to fit by then."""
    together = Barrier(parties)

    def wait(_answer: Any) -> None:
        together.wait(10)

    return spoiling(wait)


def test_orders_at_once_by_several_keys_of_a_client_never_come_to_more_than_the_daily_sum(
    service: Service, calls: Calls, limit: Any, world: World, faults: Faults
) -> None:
    limit(daily_sum="0.03")
    made = [service.keys.create(f"key {n}", client="shop") for n in range(8)]
    all_calls = [replace(calls, shop=replace(calls.shop, key=each.key, secret=each.secret)) for each in made]
    faults["rate"] = meeting(8)
    answers = race(8, lambda n: all_calls[n].order(client_order_id=f"order-{n}"))
    assert Counter(answer.status for answer in answers) == {201: 2, 422: 6}
    for answer in answers:
        if answer.status == 422:
            refused = problem(answer)
            assert (refused["code"], refused["used"]) == ("DAILY_SUM_REACHED", "0.025")
    assert (use(calls), len(world.orders())) == (("0.025", "0.005"), 2)


def test_orders_of_an_unlimited_currency_do_not_wait_for_one_that_is_being_counted(
    service: Service, calls: Calls, limit: Any, faults: Faults
) -> None:
    limit(daily_sum="0.0125")
    with service.database.write() as session:
        order = order_row(calls.shop.client_id, created_at=service.clock())
        assert order_rows.insert(session, order)
        service.order_limits.hold(session, order, service.keys.caller(calls.shop.key).order_limits)  # type: ignore[union-attr]
        if not service.database.sqlite:  # which has one writer anyway
            assert calls.order(amount="0.9", **{"from": ETH}, refund_address=...).status == 201


def test_one_order_at_once_is_the_same_order_also_where_it_takes_all_that_is_left(
    calls: Calls, limit: Any, world: World, faults: Faults
) -> None:
    limit(daily_sum="0.0125")
    faults["rate"] = meeting(6)
    answers = race(6, lambda _: calls.order())
    assert {answer.status for answer in answers} <= {200, 201, 202}
    assert len({answer.data["id"] for answer in answers}) == 1
    assert (use(calls), len(world.orders())) == (("0.0125", "0"), 1)


def test_an_order_that_was_placed_since_this_repetition_looked_for_it_does_not_count_against_itself(
    service: Service, calls: Calls, limit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(daily_sum="0.0125")
    note, before = service.order_limits.note, [calls.order]

    def after_the_other(*arguments: Any) -> None:
        while before:
            assert before.pop()().status == 201
        note(*arguments)

    monkeypatch.setattr(service.placer._limits, "note", after_the_other)
    assert calls.order().status == 200


# --- what it costs ---------------------------------------------------------------------------------------------------


def statements(service: Service, work: Any) -> list[str]:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(service.database.engine, "before_cursor_execute", note)
    work()
    event.remove(service.database.engine, "before_cursor_execute", note)
    return [each for each in seen if not each.startswith("BEGIN")]


def test_a_client_without_a_daily_sum_pays_no_query_for_those_that_have_one(
    service: Service, calls: Calls, limit: Any, clock: Clock
) -> None:
    calls.order(client_order_id="warm")
    clock.advance(2)
    without = statements(service, partial(calls.order, client_order_id="1"))
    limit(largest_order="1")
    limit("ETH", daily_sum="1")
    assert statements(service, partial(calls.order, client_order_id="2")) == without
    limit(daily_sum="1")
    with_sum = statements(service, partial(calls.order, client_order_id="3"))
    # Looked at before the upstream is asked; then locked, and looked at again.
    assert len(with_sum) == len(without) + 3


# --- what the operator sets ------------------------------------------------------------------------------------------


def test_a_bound_that_is_not_named_stays_and_one_that_is_taken_away_is_gone(
    service: Service, calls: Calls, limit: Any
) -> None:
    limit(largest_order="0.5", daily_sum="2.50")
    for currency in ("BTC", "BTC", "btc"):
        limit(currency, largest_order="0.01")
    assert service.clients.one("shop")["order_limits"] == [
        {"currency": "BTC", "largest_order": "0.01", "daily_sum": "2.5"}
    ]
    assert calls.order(client_order_id="1").status == 422
    limit(largest_order=None)
    assert calls.order(client_order_id="1").status == 201
    limit(daily_sum=None)
    assert calls.get("/v1/limits").data["order_limits"] == []


def test_what_is_left_is_never_less_than_nothing(calls: Calls, limit: Any) -> None:
    assert calls.order(client_order_id="1").status == 201
    limit(daily_sum="0.01")
    limit("ETH", largest_order="3")
    assert calls.get("/v1/limits").data["order_limits"] == [
        {"currency": "BTC", "largest_order": None, "daily_sum": "0.01", "used": "0.0125", "left": "0"},
        {"currency": "ETH", "largest_order": "3", "daily_sum": None, "used": None, "left": None},
    ]


def test_who_limited_whom_and_why_is_kept(service: Service, shop: Shop) -> None:
    service.clients.limit_orders("shop", "btc", {"daily_sum": Decimal("2.0")}, **WHY)
    service.clients.limit_orders(shop.client_id, "BTC", {"daily_sum": None}, by="bert")
    removed, added, *_ = service.clients.audit(subject=shop.client_id)
    assert (added["act"], added["actor"], added["reason"]) == ("clients.limit_orders", "anna", "case 17")
    unlimited = {"currency": "BTC", "largest_order": None, "daily_sum": None}
    assert added["detail"] == {**unlimited, "daily_sum": "2", "before": unlimited}
    assert (removed["actor"], removed["detail"]) == ("bert", {**unlimited, "before": {**unlimited, "daily_sum": "2"}})


@pytest.mark.parametrize(
    ("currency", "amount", "field"),
    [("BTX", "1", "currency"), ("BTC", "0", "daily_sum"), ("BTC", "-1", "daily_sum")],
)
def test_a_limit_that_would_protect_nothing_is_not_set(
    service: Service, shop: Shop, currency: str, amount: str, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        service.clients.limit_orders("shop", currency, {"daily_sum": Decimal(amount)}, **WHY)
    assert set(refused.value.fields) == {field}
    with pytest.raises(NotFound):
        service.clients.limit_orders("nobody", "BTC", {"daily_sum": Decimal(1)}, **WHY)


@pytest.fixture
def swap(service: Service, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("swap.tools.access.open_service", lambda: service)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["clients", "limits", *arguments])

    return run


def test_the_command_sets_shows_and_takes_away(swap: Any, calls: Calls) -> None:
    calls.order()
    done = swap("shop", "--currency", "btc", "--largest-order", "0.50", "--daily-sum", "2", "--by", "anna", "--json")
    assert done.exit_code == 0, done.output
    limits = [{"currency": "BTC", "largest_order": "0.5", "daily_sum": "2", "used": "0.0125", "left": "1.9875"}]
    assert json.loads(done.output)["order_limits"] == limits
    shown = json.loads(swap("shop", "--json").output)
    assert (shown["name"], shown["weight_per_minute"], shown["order_limits"]) == ("shop", 60_000, limits)
    gone = swap("shop", "--currency", "BTC", "--largest-order", "none", "--daily-sum", "none", "--json")
    assert json.loads(gone.output)["order_limits"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--currency", "BTC"], "--largest-order"),
        (["--daily-sum", "2"], "--currency"),
        (["--currency", "BTC", "--daily-sum", "2e1"], "2e1"),
        (["--currency", "BTC", "--daily-sum", "-2"], "-2"),
    ],
)
def test_a_limit_that_is_written_badly_is_not_set(swap: Any, service: Service, arguments: list[str], said: str) -> None:
    done = swap("shop", *arguments)
    assert (done.exit_code, said in done.output) == (2, True)
    assert service.clients.one("shop")["order_limits"] == []
