"""Placing orders and finding them: over HTTP, against the sandbox, on a real database."""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, func, inspect, select

from swap.domain.lifecycle import Facts, Status, Transfer
from swap.domain.times import iso
from swap.errors import RateLimited
from swap.sandbox.world import World
from swap.store import attempts as attempt_rows
from swap.store import database as database_module
from swap.store import orders as order_rows
from swap.store import watching
from swap.store.serializers import order_view
from swap.tables import Order, OrderEvent, TransferRow, new_id
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS, Clock, Shop, look, new_shop
from tests.faults import HTML_403, Faults, Holding, Looks, answering, spoiling
from tests.polling import due_ids
from tests.signed_client import BTC, ETH, ETH_ADDRESS, EUR, USDT, Answer, Calls, body
from tests.waiting import until

IBAN = "RO49AAAA1B31007593840000"


def count(service: Service) -> int:
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(Order)) or 0


def at_once(makers: list[Callable[[], Answer]]) -> list[Answer]:
    """All of them at the same moment, each in a thread of its own."""
    start = threading.Barrier(len(makers))
    answers: list[Answer] = []

    def run(make: Callable[[], Answer]) -> None:
        start.wait()
        answers.append(make())

    threads = [threading.Thread(target=run, args=(make,)) for make in makers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(makers)
    return answers


# --- a new order -----------------------------------------------------------------------------------------------------


def test_an_order_tells_where_to_pay(calls: Calls) -> None:
    answer = calls.order(user_id="u1", metadata={"cart": [1, 2.5, None, {"ä": True}]})
    assert answer.status == 201
    order = answer.data
    assert (order["status"], order["sequence"], order["funds"], order["final"]) == (
        "awaiting_deposit",
        2,
        "with_user",
        False,
    )
    assert (order["amount"], order["rate_mode"]) == ("0.0125", "FLOATING")
    assert order["destination"] == {"address": XRP_ADDRESS, "memo": "1234567"}
    assert order["refund"] == {"address": BTC_ADDRESS, "memo": None}
    assert (order["user_id"], order["session_id"]) == ("u1", None)
    assert order["metadata"] == {"cart": [1, 2.5, None, {"ä": True}]}
    deposit = order["deposit"]
    assert deposit["payable"] is True
    assert (deposit["kind"], deposit["amount"], deposit["network"]) == ("address", "0.0125", "BTC")
    assert deposit["address"].startswith("bc1q")
    assert calls.get(f"/v1/orders/{order['id']}").data == order


def test_events_are_numbered_from_one_without_holes(service: Service, calls: Calls, clock: Clock) -> None:
    order_id = calls.order().data["id"]
    for _ in range(4):
        clock.advance(120)
        look(service, order_id)
    events = calls.get(f"/v1/orders/{order_id}/events").data["events"]
    assert [e["sequence"] for e in events] == list(range(1, len(events) + 1))
    assert [e["type"] for e in events][:2] == ["order.created", "order.awaiting_deposit"]
    assert events[-1]["type"] == "order.completed"
    assert all(e["order"]["sequence"] == e["sequence"] for e in events)
    assert events[0]["order"]["deposit"] is None


# --- problems --------------------------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once(service: Service, calls: Calls) -> None:
    answer = calls.order(amount=0.0125, destination_address=BTC_ADDRESS, colour="red", refund_address="nowhere")
    assert (answer.status, answer.error["code"], answer.details["retry"]) == (422, "VALIDATION_FAILED", "new_request")
    assert answer.codes == {
        "amount": ["AMOUNT_MALFORMED"],
        "colour": ["UNKNOWN_FIELD"],
        "destination_address": ["ADDRESS_INVALID"],
        "refund_address": ["ADDRESS_INVALID"],
    }
    assert count(service) == 0


def test_problems_that_only_the_upstream_knows_are_told_together(calls: Calls, faults: Faults) -> None:
    faults["validate"] = spoiling(lambda _: {"valid": False, "message": "sanctioned"})
    answer = calls.order(amount="0.00001")
    assert answer.status == 422
    assert answer.codes == {
        "amount": ["AMOUNT_BELOW_MINIMUM"],
        "destination_address": ["ADDRESS_REFUSED"],
        "refund_address": ["ADDRESS_REFUSED"],
    }
    assert "sanctioned" in answer.details["fields"]["destination_address"][0]["message"]
    assert Decimal(answer.details["fields"]["amount"][0]["min"]) > Decimal("0.00001")


MISTAKES: list[tuple[dict[str, Any], dict[str, list[str]]]] = [
    ({"client_order_id": ...}, {"client_order_id": ["REQUIRED"]}),
    ({"client_order_id": ""}, {"client_order_id": ["INVALID"]}),
    ({"client_order_id": "x" * 65}, {"client_order_id": ["INVALID"]}),
    ({"client_order_id": 17}, {"client_order_id": ["INVALID"]}),
    ({"from": ...}, {"from": ["REQUIRED"]}),
    ({"from": None}, {"from": ["INVALID"]}),
    ({"from": "BTC"}, {"from": ["INVALID"]}),
    ({"from": {"currency": "BTC"}}, {"from.network": ["REQUIRED"]}),
    ({"from": {**BTC, "chain": "x"}}, {"from.chain": ["UNKNOWN_FIELD"]}),
    ({"from": {"currency": "BTC", "network": "Bitcoin"}}, {"from": ["INSTRUMENT_UNKNOWN"]}),
    ({"to": BTC}, {"to": ["PAIR_UNAVAILABLE"], "destination_address": ["ADDRESS_INVALID"]}),
    ({"amount": ...}, {"amount": ["REQUIRED"]}),
    ({"amount": None}, {"amount": ["INVALID"]}),
    ({"amount": 1}, {"amount": ["AMOUNT_MALFORMED"]}),
    ({"amount": "1e-3"}, {"amount": ["AMOUNT_MALFORMED"]}),
    ({"amount": "-1"}, {"amount": ["AMOUNT_MALFORMED"]}),
    ({"amount": "0,5"}, {"amount": ["AMOUNT_MALFORMED"]}),
    ({"amount": "01"}, {"amount": ["AMOUNT_MALFORMED"]}),
    ({"amount": "٣"}, {"amount": ["AMOUNT_MALFORMED"]}),
    ({"amount": "NaN"}, {"amount": ["AMOUNT_MALFORMED"]}),
    ({"amount": "0"}, {"amount": ["AMOUNT_NOT_POSITIVE"]}),
    ({"amount": "0.000000000001"}, {"amount": ["TOO_MANY_DECIMALS"]}),
    ({"amount": "0.012500001"}, {"amount": ["TOO_MANY_DECIMALS"]}),
    ({"amount": "0.00001"}, {"amount": ["AMOUNT_BELOW_MINIMUM"]}),
    ({"amount": "1000"}, {"amount": ["AMOUNT_ABOVE_MAXIMUM"]}),
    ({"rate_mode": "fixed"}, {"rate_mode": ["INVALID"]}),
    ({"rate_mode": ...}, {"rate_mode": ["REQUIRED"]}),
    ({"destination_memo": ...}, {"destination_memo": ["MEMO_REQUIRED"]}),
    ({"destination_memo": 1234567}, {"destination_memo": ["INVALID"]}),
    ({"destination_memo": ""}, {"destination_memo": ["MEMO_INVALID"]}),
    ({"destination_memo_none": True}, {"destination_memo_none": ["MEMO_CONTRADICTION"]}),
    ({"destination_memo_none": "yes"}, {"destination_memo_none": ["INVALID"]}),
    ({"refund_address": ..., "refund_memo": "1"}, {"refund_address": ["REQUIRED"]}),
    ({"metadata": []}, {"metadata": ["INVALID"]}),
    *(
        ({name: text}, {name: ["TEXT_MALFORMED"]})
        for name in ("client_order_id", "user_id", "session_id", "account_id")
        for text in ("a\u200bb", "a\u202eb", "\ufeffa", "a\nb", "a\x7f", "a\u2028b", " a", "a ", "a\u00a0", " ")
    ),
    *(
        ({"search_terms": ["good", text]}, {"search_terms.1": ["TEXT_MALFORMED"]})
        for text in ("a\u200bb", "a\u202eb", "a\nb", " a", "a ", " ")
    ),
    ({"search_terms": "kim@shop.example"}, {"search_terms": ["INVALID"]}),
    ({"search_terms": [str(number) for number in range(6)]}, {"search_terms": ["INVALID"]}),
    ({"search_terms": ["x" * 65]}, {"search_terms.0": ["INVALID"]}),
    ({"search_terms": [""]}, {"search_terms.0": ["INVALID"]}),
    ({"search_terms": [None]}, {"search_terms.0": ["INVALID"]}),
    ({"search_terms": [17]}, {"search_terms.0": ["INVALID"]}),
    ({"search_terms": ["Kim@shop.example", "kim@SHOP.example"]}, {"search_terms": ["INVALID"]}),
    ({"metadata": {"text": "x" * 4090}}, {"metadata": ["INVALID"]}),
    ({"metadata": {"big": 1e20}}, {"metadata": ["INVALID"]}),
    ({"metadata": {"deep": [{"big": 2**60}]}}, {"metadata": ["INVALID"]}),
    ({"quote_id": "tampered"}, {"quote_id": ["QUOTE_INVALID"]}),
    (
        {"quote_id": "tampered", "destination_address": "nowhere"},
        {"quote_id": ["QUOTE_INVALID"], "destination_address": ["ADDRESS_INVALID"]},
    ),
    ({"user_id": "x" * 129}, {"user_id": ["INVALID"]}),
]


def test_each_mistake_is_named_and_leaves_the_id_free(
    service: Service, calls: Calls, world: World, subtests: pytest.Subtests
) -> None:
    for changed, codes in MISTAKES:
        with subtests.test(changed=changed):
            answer = calls.order(**changed)
            assert (answer.status, answer.codes) == (422, codes)
            assert (count(service), world.orders()) == (0, [])
    assert calls.order().status == 201


def test_a_bound_is_told_with_the_problem(calls: Calls) -> None:
    small = calls.order(amount="0.00001").details["fields"]["amount"][0]
    big = calls.order(amount="1000").details["fields"]["amount"][0]
    assert (small["min"], big["max"]) == ("0.00024", "3")
    assert "0.00024 BTC" in small["message"]


UNUSABLE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"amount": NaN}',
    b'{"amount": 1e400}',
    b'{"a": 1, "a": 2}',
    b"\xff",
    b"[" * 50_000,
    b'{"metadata": {"n": ' + b"9" * 5000 + b"}}",
    b'{"\\ud800": 1}',
    b'{"user_id": "\\u0000"}',
]


def test_a_body_that_is_no_usable_json_is_a_bad_request(calls: Calls, subtests: pytest.Subtests) -> None:
    for raw in UNUSABLE:
        with subtests.test(raw=raw[:20]):
            answer = calls.post("/v1/orders", raw)
            assert (answer.status, answer.error["code"]) == (400, "BAD_JSON")
            assert answer.details["retry"] == "new_request"


def test_a_malformed_request_is_malformed_also_without_a_catalog(calls: Calls, faults: Faults, clock: Clock) -> None:
    clock.advance(3601)
    answer = calls.order(amount=1)
    assert (answer.status, answer.codes) == (422, {"amount": ["AMOUNT_MALFORMED"]})
    answer = calls.order()
    assert (answer.status, answer.error["code"], answer.details["retry"]) == (503, "CATALOG_NOT_READY", "same_request")
    assert int(answer.headers["Retry-After"]) > 0


# --- memos and addresses ---------------------------------------------------------------------------------------------


def test_a_memo_may_be_waived_where_one_is_usual(calls: Calls, world: World) -> None:
    answer = calls.order(destination_memo=..., destination_memo_none=True)
    assert (answer.status, answer.data["destination"]["memo"]) == (201, None)
    assert answer.data["deposit"]["payable"] is True
    assert world.orders()[0].destination_memo is None


def test_refund_address_and_memo_reach_the_upstream(calls: Calls, world: World) -> None:
    answer = calls.order(
        **{"from": body()["to"], "to": ETH},
        amount="100",
        destination_address=ETH_ADDRESS,
        destination_memo=...,
        refund_address=XRP_ADDRESS,
        refund_memo="42",
    )
    assert answer.status == 201
    assert (world.orders()[0].refund, world.orders()[0].refund_memo) == (XRP_ADDRESS, "42")
    assert answer.data["deposit"]["memo"] == world.orders()[0].place.memo is not None


def _to_euro(**changed: Any) -> dict[str, Any]:
    return {"to": EUR, "destination_address": IBAN, "destination_memo": ..., **changed}


def test_an_address_without_a_rule_needs_the_upstreams_yes(
    service: Service, calls: Calls, faults: Faults, clock: Clock
) -> None:
    assert calls.order(**_to_euro(client_order_id="yes")).status == 201
    clock.advance(301)  # past what the destination check remembers
    faults["validate"] = answering(200, b"false")
    refused = calls.order(**_to_euro(client_order_id="no", refund_address=...))
    assert (refused.status, refused.codes) == (422, {"destination_address": ["ADDRESS_REFUSED"]})
    clock.advance(301)
    faults["validate"] = answering(403, HTML_403)
    blocked = calls.order(**_to_euro(client_order_id="blocked"))
    assert (blocked.status, blocked.error["code"], blocked.details["retry"]) == (
        503,
        "UPSTREAM_UNAVAILABLE",
        "same_request",
    )
    assert count(service) == 1
    del faults["validate"]
    assert calls.order(**_to_euro(client_order_id="blocked")).status == 201


def test_a_firewall_before_the_check_leaves_a_good_address_to_the_create(calls: Calls, faults: Faults) -> None:
    faults["validate"] = answering(403, HTML_403)
    assert calls.order().status == 201


@pytest.mark.parametrize(
    ("verdict", "codes"),
    [
        (answering(200, b"false"), {"destination_address": ["ADDRESS_REFUSED"]}),
        (answering(201, {"result": False}), {"destination_address": ["ADDRESS_REFUSED"]}),
        (
            answering(400, {"status": "ERR_HTTP", "message": "Http Exception", "data": {"memo": "no"}}),
            {"destination_memo": ["MEMO_REFUSED"]},
        ),
    ],
)
def test_the_upstream_may_turn_a_good_address_down(
    service: Service, calls: Calls, faults: Faults, verdict: Any, codes: dict[str, list[str]]
) -> None:
    faults["validate"] = verdict
    answer = calls.order(refund_address=...)
    assert (answer.status, answer.codes, count(service)) == (422, codes, 0)


def test_an_unusable_verdict_leaves_a_good_address_to_the_create(
    calls: Calls, faults: Faults, subtests: pytest.Subtests
) -> None:
    for number, verdict in enumerate(
        (answering(200, {"hello": 1}), answering(401, {"message": "no"}), answering(200, HTML_403), answering(503))
    ):
        with subtests.test(str(number)):
            faults["validate"] = verdict
            assert calls.order(client_order_id=f"order-{number}").status == 201


# --- one client_order_id ---------------------------------------------------------------------------------------------


def test_the_same_request_finds_its_order_again(calls: Calls, world: World, clock: Clock) -> None:
    first = calls.order()
    again = calls.order(amount="0.01250", user_id=None, search_terms=[], metadata=None, destination_memo_none=False)
    assert (first.status, again.status) == (201, 200)
    assert again.data == first.data
    clock.advance(7200)
    assert calls.order().status == 200  # with a catalog that is too old for new orders
    assert len(world.orders()) == 1


OTHERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"amount": "0.0126"}, ["amount"]),
    ({"to": ETH, "destination_address": ETH_ADDRESS}, ["destination_address", "to.currency", "to.network"]),
    ({"destination_memo": "1"}, ["destination_memo"]),
    ({"destination_memo": ..., "destination_memo_none": True}, ["destination_memo", "destination_memo_none"]),
    ({"refund_address": ...}, ["refund_address"]),
    ({"metadata": {"a": 1}}, ["metadata"]),
    ({"user_id": "u"}, ["user_id"]),
    ({"search_terms": ["kim@shop.example"]}, ["search_terms"]),
    ({"rate_mode": "FIXED"}, ["rate_mode"]),
    ({"quote_id": "x"}, ["quote_id"]),
]


def test_other_fields_under_the_same_id_are_a_conflict_that_says_what_differs(
    calls: Calls, world: World, subtests: pytest.Subtests
) -> None:
    order_id = calls.order().data["id"]
    for changed, different in OTHERS:
        with subtests.test(changed=changed):
            answer = calls.order(**changed)
            assert (answer.status, answer.error["code"]) == (409, "CLIENT_ORDER_ID_CONFLICT")
            assert answer.details == {"order_id": order_id, "different": different, "retry": "never"}
    assert len(world.orders()) == 1


def test_true_is_not_one_however_deep_it_stands_in_metadata(calls: Calls) -> None:
    assert calls.order(metadata={"cart": [1, {"a": False}]}).status == 201
    for other in ([True, {"a": False}], [1, {"a": 0}], [1, {}], [1], [1, {"a": None}]):
        answer = calls.order(metadata={"cart": other})
        assert (answer.status, answer.details["different"]) == (409, ["metadata"]), other
    assert calls.order(metadata={"cart": [1, {"a": False}]}).status == 200


def test_a_character_that_nobody_sees_is_named_with_its_place(calls: Calls) -> None:
    (problem,) = calls.order(user_id="ab\u200dc").details["fields"]["user_id"]
    assert (problem["character"], problem["position"]) == ("U+200D", 2)
    assert calls.order(user_id="zoë 𝕏 ب").status == 201


def test_a_request_stored_before_a_field_existed_is_still_the_same(service: Service, calls: Calls) -> None:
    order_id = calls.order().data["id"]
    with service.database.write() as session:
        order = session.get_one(Order, order_id)
        order.request = {k: v for k, v in order.request.items() if k not in ("account_id", "destination_memo_none")}
    assert calls.order().status == 200


def test_two_clients_may_use_the_same_id(service: Service, api_url: str, calls: Calls, clock: Clock) -> None:
    other = Calls(new_shop(service, api_url, clock, "other"), api_url, clock)
    first, second = calls.order().data, other.order(amount="0.02").data
    assert first["id"] != second["id"]
    del second["tracking"]  # never in a list
    assert other.get("/v1/orders").data["orders"] == [second]
    for path in (f"/v1/orders/{first['id']}", f"/v1/orders/{first['id']}/events"):
        answer = other.get(path)
        assert (answer.status, answer.error["code"]) == (404, "ORDER_NOT_FOUND")
    assert other.post(f"/v1/orders/{first['id']}/refresh", b"").status == 404
    for nothing in ("ord_of_nobody", "ord_%00", "x" * 3000):
        assert calls.get(f"/v1/orders/{nothing}").status == 404


def test_sixteen_at_once_with_one_id_make_one_order(service: Service, calls: Calls, world: World) -> None:
    answers = at_once([calls.order] * 16)
    assert {a.status for a in answers} <= {200, 201, 202}
    assert Counter(a.status for a in answers)[201] == 1
    assert len({a.data["id"] for a in answers}) == 1
    assert (count(service), len(world.orders())) == (1, 1)
    with service.database.read() as session:
        assert [a.outcome for a in attempt_rows.attempts_of(session, answers[0].data["id"])] == ["done"]


def test_different_requests_at_once_with_one_id_make_one_order_and_conflicts(
    service: Service, calls: Calls, world: World
) -> None:
    answers = at_once([partial(calls.order, amount=f"0.01{n:02}") for n in range(10, 18)])
    assert Counter(a.status for a in answers) == {201: 1, 409: 7}
    assert (count(service), len(world.orders())) == (1, 1)


def test_different_ids_at_once_make_an_order_each(service: Service, calls: Calls, world: World) -> None:
    answers = at_once([partial(calls.order, client_order_id=f"order-{n}") for n in range(16)])
    assert [a.status for a in answers] == [201] * 16
    assert len({a.data["deposit"]["address"] for a in answers}) == 16
    assert (count(service), len(world.orders())) == (16, 16)


# --- load and time ---------------------------------------------------------------------------------------------------


def test_reads_go_on_over_one_connection_while_a_create_hangs(
    other_service: Callable[..., Service],
    api_of: Callable[[Service], str],
    shop: Shop,
    clock: Clock,
    faults: Faults,
    monkeypatch: Any,
) -> None:
    real = create_engine
    one = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 2}
    with monkeypatch.context() as patched:
        patched.setattr(database_module, "create_engine", lambda url, **options: real(url, **{**options, **one}))
        single = other_service()
    url = api_of(single)
    calls = Calls(shop, url, clock)
    holding = Holding()
    faults["create"] = holding
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(calls.order()))
    thread.start()
    try:
        assert holding.arrived.wait(10)
        orders = calls.get("/v1/orders").data["orders"]
        assert [order["status"] for order in orders] == ["creating"]
        assert calls.get("/v1/instruments").status == 200
    finally:
        holding.let_go()
        thread.join()
    assert answers[0].status == 201


def test_no_more_creates_than_allowed_run_at_once_and_known_orders_are_found_all_the_same(
    service: Service,
    other_service: Callable[..., Service],
    api_of: Callable[[Service], str],
    shop: Shop,
    clock: Clock,
    faults: Faults,
) -> None:
    small = other_service(max_creates=1)
    url = api_of(small)
    calls = Calls(shop, url, clock)
    assert calls.order(client_order_id="known").status == 201
    holding = Holding()
    faults["create"] = holding
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(calls.order()))
    thread.start()
    try:
        assert holding.arrived.wait(10)
        full = calls.order(client_order_id="one-too-many")
        assert (full.status, full.error["code"], full.details["retry"]) == (503, "TOO_MANY_CREATES", "same_request")
        assert full.headers["Retry-After"] == "2"
        assert calls.order(client_order_id="known").status == 200
        assert calls.order().status == 202
    finally:
        holding.let_go()
        thread.join()
    assert answers[0].status == 201
    assert count(service) == 2


@pytest.mark.parametrize("endpoint", ["rate", "validate"])
def test_slow_questions_end_in_time_for_no_create_to_be_begun(
    service: Service,
    other_service: Callable[..., Service],
    api_of: Callable[[Service], str],
    shop: Shop,
    clock: Clock,
    faults: Faults,
    endpoint: str,
    monkeypatch: Any,
) -> None:
    """30 s in all, here 6: what the create may take is set aside, and the questions share the rest.

    Four of the six are the create's, so that a machine that stands still for a second breaks nothing that is kept.
    """
    monkeypatch.setattr("swap.orders.place.TOTAL_SECONDS", 6.0)
    impatient = other_service(upstream_create_timeout=4.0)
    url = api_of(impatient)
    holding = Holding(before=True)
    faults[endpoint] = holding
    began = clock.time()
    try:
        answer = Calls(shop, url, clock).order()
    finally:
        holding.let_go()
    assert (answer.status, answer.details["retry"]) == (503, "same_request")
    assert clock.time() - began < 6
    assert (count(service), faults.seen["create"]) == (0, 0)


def test_nothing_that_an_order_needs_stands_behind_polls(
    service: Service, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    budget = service.upstream_access._budget
    take = budget.take

    def noted(priority: str, max_wait: float) -> None:
        asked.append(priority)
        take(priority, max_wait)

    monkeypatch.setattr(budget, "take", noted)
    assert calls.order().status == 201
    assert set(asked) == {"create", "check"}


def test_a_create_that_would_outlast_the_deadline_is_not_begun(
    service: Service, calls: Calls, world: World, monkeypatch: Any
) -> None:
    """The database took so long to write the order down that the create no longer fits."""
    real = service.placer._creator.send
    monkeypatch.setattr(
        service.placer._creator, "send", lambda order, number, at, left: real(order, number, at, left - 29)
    )
    answer = calls.order()
    assert (answer.status, answer.error["code"], answer.details["retry"]) == (
        503,
        "UPSTREAM_NOT_REACHED",
        "same_request",
    )
    assert world.orders() == []


# --- finding ---------------------------------------------------------------------------------------------------------


def test_orders_are_found_by_memo_pair_ids_and_time(calls: Calls, clock: Clock) -> None:
    first = calls.order(client_order_id="first", destination_memo="1").data
    clock.advance(60)
    between = iso(clock())
    clock.advance(60)
    second = calls.order(client_order_id="second", destination_memo="2").data

    def found(query: str) -> list[str]:
        return [order["client_order_id"] for order in calls.get(f"/v1/orders?{query}").data["orders"]]

    assert found("destination_memo=2") == ["second"]
    assert found("from_currency=BTC&to_network=XRP") == ["second", "first"]
    assert found("to_currency=ETH") == []
    assert found(f"ids={first['id']}") == ["first"]
    assert found(f"ids={first['id']},{second['id']},ord_none") == ["second", "first"]
    for column in ("created", "updated"):
        assert found(f"{column}_since={between}") == ["second"]
        assert found(f"{column}_until={between}") == ["first"]
    for wrong in ("ids=", "ids=a,,b", "ids=" + ",".join(["x"] * 101), "created_since=yesterday"):
        assert calls.get(f"/v1/orders?{wrong}").status == 422, wrong


def test_orders_come_newest_first_by_pages(calls: Calls, clock: Clock) -> None:
    made = []
    for number in range(5):
        made.append(calls.order(client_order_id=f"order-{number}").data["id"])
        clock.advance(1)
    first = calls.get("/v1/orders?limit=2").data
    assert [o["id"] for o in first["orders"]] == [made[4], made[3]]
    assert first["has_more"] is True
    calls.order(client_order_id="newer than the cursor")
    second = calls.get(f"/v1/orders?limit=2&after={first['next']}").data
    third = calls.get(f"/v1/orders?limit=2&after={second['next']}").data
    assert [o["id"] for o in second["orders"] + third["orders"]] == [made[2], made[1], made[0]]
    assert (third["next"], third["has_more"]) == (None, False)


def test_orders_of_one_millisecond_are_all_found(service: Service, calls: Calls) -> None:
    made = {calls.order(client_order_id=f"order-{n}").data["id"] for n in range(5)}
    with service.database.write() as session:
        moment = service.clock()
        for order in session.scalars(select(Order)):
            order.created_at = moment
    found: list[str] = []
    cursor = ""
    while True:
        page = calls.get(f"/v1/orders?limit=2{cursor}").data
        found += [o["id"] for o in page["orders"]]
        if not page["has_more"]:
            break
        cursor = f"&after={page['next']}"
    assert (len(found), set(found)) == (5, made)


def test_orders_are_found_by_what_support_is_told(service: Service, calls: Calls, clock: Clock) -> None:
    wanted = calls.order(user_id="u1", session_id="s1", account_id="a1").data
    calls.order(client_order_id="order-2", to=ETH, destination_address=ETH_ADDRESS, destination_memo=...)
    clock.advance(400)
    look(service, wanted["id"])
    wanted = calls.get(f"/v1/orders/{wanted['id']}").data
    for name, value in {
        "client_order_id": "order-1",
        "user_id": "u1",
        "session_id": "s1",
        "account_id": "a1",
        "destination_address": XRP_ADDRESS,
        "deposit_address": wanted["deposit"]["address"],
        "upstream_order_id": wanted["upstream_order_id"],
        "tx_id": wanted["withdrawals"][0]["tx_id"],
        "status": "completed",
    }.items():
        found = calls.get(f"/v1/orders?{name}={value}").data
        assert [o["id"] for o in found["orders"]] == [wanted["id"]], name
        assert found["has_more"] is False
    assert calls.get("/v1/orders?status=expired").data["orders"] == []
    assert calls.get("/v1/orders?status=creating&user_id=u1").data["orders"] == []


def test_an_order_under_review_is_found_under_the_status_it_shows(service: Service, calls: Calls) -> None:
    order_id = calls.order().data["id"]
    with service.database.write() as session:
        order = session.get_one(Order, order_id)
        order.status, order.status_before_review = Status.NEEDS_REVIEW, Status.CONFIRMING
    assert calls.get(f"/v1/orders/{order_id}").data["status"] == "confirming"
    assert [o["id"] for o in calls.get("/v1/orders?status=confirming").data["orders"]] == [order_id]
    assert calls.get("/v1/orders?status=on_hold").data["orders"] == []


def cursor(*parts: object) -> str:
    return urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode()


NOT_UNDERSTOOD = [
    ("after=nonsense", "after"),
    ("after=%2B%2B", "after"),
    ("after=%F0%9F%98%80", "after"),
    (f"after={cursor('2026-01-01T00:00:00.000', 'ord_1')}", "after"),  # a time without a zone
    (f"after={cursor('0001-01-01T00:00:00.000+23:00', 'ord_1')}", "after"),  # before the beginning of time
    (f"after={cursor('2026-01-01T01:00:00.000+01:00', 'ord_1')}", "after"),  # another spelling of a time
    (f"after={cursor('2026-01-01T00:00:00.000Z', chr(0))}", "after"),  # a NUL for an id
    (f"after={cursor('2026-01-01T00:00:00.000Z')}", "after"),
    (f"after={cursor('2026-01-01T00:00:00.000Z', 'ord_1', '')}", "after"),
    (f"after={cursor('2026-01-01T00:00:00.000Z', 1)}", "after"),
    ("limit=0", "limit"),
    ("limit=1001", "limit"),
    ("limit=many", "limit"),
    ("status=paid", "status"),
    ("colour=red", "colour"),
]


def test_a_list_refuses_what_it_does_not_understand(calls: Calls, subtests: pytest.Subtests) -> None:
    for query, field in NOT_UNDERSTOOD:
        with subtests.test(query=query):
            answer = calls.get(f"/v1/orders?{query}")
            assert (answer.status, list(answer.codes)) == (422, [field])


# --- refresh ---------------------------------------------------------------------------------------------------------


def due(service: Service, order_id: str) -> float | None:
    """Seconds until the next look."""
    with service.database.read() as session:
        order = order_rows.get(session, order_id)
    assert order is not None
    return None if order.next_check_at is None else (order.next_check_at - service.clock()).total_seconds()


def test_a_refresh_makes_an_order_due_at_once_or_five_seconds_after_its_last_look(
    service: Service, calls: Calls, clock: Clock
) -> None:
    order_id = calls.order().data["id"]
    assert calls.post(f"/v1/orders/{order_id}/refresh", b"").status == 202
    assert 4 < (due(service, order_id) or 0) <= 5, "five seconds after the last look, no sooner"
    clock.advance(6)
    answer = calls.post(f"/v1/orders/{order_id}/refresh", b"")
    assert (answer.status, answer.data["id"]) == (202, order_id)
    assert (due(service, order_id) or 0) <= 0
    assert due_ids(service) == [order_id]


def test_a_refresh_cuts_short_neither_a_back_off_nor_a_pause_nor_the_pace_of_all_polls(
    service: Service, calls: Calls, faults: Faults, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RateLimited("Too many.", retry_after=20)

    def refreshed() -> float:
        assert calls.post(f"/v1/orders/{order_id}/refresh", b"").status == 202
        return due(service, order_id) or 0

    order_id = calls.order().data["id"]
    clock.advance(20)
    with monkeypatch.context() as patched:
        patched.setattr(service.upstream, "order", refuse)
        look(service, order_id)
    assert refreshed() > 15, "put off"
    faults["order"] = answering(404, b"{}")
    clock.advance(60)
    for _ in range(6):
        look(service, order_id)
    assert refreshed() > 600, "backs off"
    del faults["order"]
    clock.advance(3600)
    look(service, order_id)
    with service.database.write() as session:
        watching.change(session, fresh=Decimal(4), aged=Decimal(4))
    service.throttle._cached = None
    clock.advance(6)
    assert 10 < refreshed() <= 15, "twenty seconds after the last look, when all looks are four times as rare"
    clock.advance(16)
    assert due_ids(service) == [order_id]


def test_a_refresh_during_a_look_has_no_other_look_begin(
    service: Service, calls: Calls, clock: Clock, looks: Looks
) -> None:
    order_id = calls.order().data["id"]
    clock.advance(30)
    looks.hold = threading.Event()
    looking = threading.Thread(target=service.due.work)
    looking.start()
    until(lambda: looks.asked)
    assert calls.post(f"/v1/orders/{order_id}/refresh", b"").status == 202
    assert due_ids(service) == []
    looks.hold.set()
    looking.join()
    assert len(looks.asked) == 1


def test_a_refresh_leaves_an_order_alone_that_cannot_be_looked_at(
    service: Service, calls: Calls, faults: Faults, clock: Clock
) -> None:
    faults["create"] = answering(403, HTML_403)
    order_id = calls.order().details["order_id"]
    clock.advance(60)
    assert calls.post(f"/v1/orders/{order_id}/refresh", b"").data["status"] == "creating"
    assert (due(service, order_id) or 0) > 500
    assert due_ids(service) == []


# --- money -----------------------------------------------------------------------------------------------------------

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SOME = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# All that money.parse takes: up to 20 digits before the point and 24 after it.
AMOUNTS = st.from_regex(r"(0|[1-9][0-9]{0,19})(\.[0-9]{1,24})?", fullmatch=True, alphabet="0123456789.")


@MANY
@given(text=AMOUNTS)
def test_every_amount_comes_back_from_the_database_as_it_was(service: Service, kept: Order, text: str) -> None:
    columns = {a.key: getattr(kept, a.key) for a in inspect(Order).column_attrs}
    amount = Decimal(text)
    order_id = new_id("ord")
    order = Order(**{**columns, "id": order_id, "client_order_id": order_id, "amount": amount, "amount_to_get": amount})
    with service.database.write() as session:
        assert order_rows.insert(session, order)
        facts = Facts(transfers=(Transfer("deposit", amount=amount, tx_id="t", at=None),)).to_json()
        assert order_rows.move(session, order, {"facts": facts}, at=service.clock(), source="test")
    with service.database.read() as session:
        found = order_rows.get(session, order_id)
        transfer = session.scalars(select(TransferRow).where(TransferRow.order_id == order_id)).one()
        event = session.scalars(select(OrderEvent).where(OrderEvent.order_id == order_id)).first()
    assert found is not None
    assert event is not None and event.order is not None
    assert found.amount == found.amount_to_get == transfer.amount == amount
    view = order_view(found)
    for shown in (view["amount"], view["amount_to_get"], event.order["amount"], view["deposits"][0]["amount"]):
        assert Decimal(shown) == amount
        assert "e" not in shown.lower()
        assert shown == (text.rstrip("0").rstrip(".") if "." in text else text)


@pytest.fixture
def kept(service: Service, calls: Calls) -> Order:
    with service.database.read() as session:
        order = order_rows.get(session, calls.order().data["id"])
    assert order is not None
    return order


@SOME
@given(units=st.integers(20, 9_999), digits=st.text("0123456789", max_size=6))
def test_an_accepted_amount_comes_back_in_every_answer_as_it_was(
    calls: Calls, world: World, units: int, digits: str
) -> None:
    text = f"{units}.{digits}" if digits else str(units)
    answer = calls.order(
        **{"from": USDT},
        client_order_id=f"order-{text}",
        amount=text,
        refund_address=...,
    )
    assert answer.status in (200, 201), answer
    plain = text.rstrip("0").rstrip(".") if "." in text else text
    assert (answer.data["amount"], answer.data["deposit"]["amount"]) == (plain, plain)
    assert calls.get(f"/v1/orders/{answer.data['id']}").data["amount"] == plain
    assert any(order.amount == Decimal(text) for order in world.orders())


def test_numbers_travel_as_text_everywhere(calls: Calls, faults: Faults) -> None:
    answer = calls.order()

    def numbers(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [n for v in value.values() for n in numbers(v)]
        if isinstance(value, list):
            return [n for v in value for n in numbers(v)]
        return [value] if isinstance(value, float) else []

    assert numbers(answer.data) == []
    assert '"claimedDepositAmount": "0.0125"' in json.dumps(faults.sent[0])
