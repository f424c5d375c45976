"""The four outcomes of a create, against an upstream that misbehaves: done, refused, not sent, unknown."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from swap.errors import ConfigurationError, OrderRefused, TryAgainLater
from swap.orders.create import CreateOptions
from swap.orders.validation import Destination, InstrumentName, OrderRequest
from swap.sandbox.world import World
from swap.settings import Settings
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.store import upstream_orders
from swap.tables import Order, OrderAttempt, UpstreamCall
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS, Clock, Shop, look, new_shop
from tests.factories import order_request, upstream_owners
from tests.faults import HTML_403, Fault, Faults, Holding, answering, cutting, dropping, spoiling
from tests.polling import due_ids
from tests.signed_client import ETH, ETH_ADDRESS, XRP, Answer, Calls, body

OTHER_XRP_ADDRESS = "rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh"
REQUEST = OrderRequest(
    client_order_id="order-1",
    source=InstrumentName("BTC", "BTC"),
    target=InstrumentName("XRP", "XRP"),
    amount=Decimal("0.0125"),
    rate_mode="FLOATING",
    destination=Destination(XRP_ADDRESS, "1234567"),
)


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """A create that is given up after 0.3 seconds."""
    return replace(settings, upstream_create_timeout=0.3)


def attempts(service: Service, order_id: str) -> list[OrderAttempt]:
    with service.database.read() as session:
        return list(attempt_rows.attempts_of(session, order_id))


def stored(service: Service, order_id: str) -> Order:
    with service.database.read() as session:
        order = order_rows.get(session, order_id)
    assert order is not None
    return order


def only_order(service: Service, shop: Shop) -> Order:
    with service.database.read() as session:
        orders = order_rows.page(session, shop.client_id, {}, None, 10)
    assert len(orders) == 1
    return orders[0]


def asked_again(order: Order) -> OrderRequest:
    """The very request that made this order."""
    return order_request(**order.request)


def everything_shown(service: Service, calls: Calls, order_id: str) -> str:
    """All that a caller can read about an order, as text."""
    service.feed.publish()
    paths = (f"/v1/orders/{order_id}", f"/v1/orders/{order_id}/events", "/v1/orders", "/v1/events")
    return " ".join(str(calls.get(path).data) for path in paths)


# --- done ------------------------------------------------------------------------------------------------------------


def test_a_done_create_tells_where_to_pay_and_owns_every_id(service: Service, world: World, calls: Calls) -> None:
    answer = calls.order()
    assert answer.status == 201
    (made,) = world.orders()
    assert answer.data["upstream_order_id"] == str(made.number)
    assert answer.data["deposit"]["address"] == made.place.address
    with service.database.read() as session:
        assert set(upstream_orders.shown_refs(session, answer.data["id"])) == {str(made.number), made.guid}
    (attempt,) = attempts(service, answer.data["id"])
    assert (attempt.outcome, attempt.refs) == ("done", [str(made.number), made.guid])


def test_the_upstream_gets_the_catalogs_own_spelling(calls: Calls, faults: Faults) -> None:
    answer = calls.order(**{"from": {"currency": "btc", "network": "btc"}, "to": {"currency": "xRp", "network": "xrp"}})
    assert answer.status == 201
    assert faults.sent[0]["instrumentTo"] == {"currencyTitle": "XRP", "networkTitle": "XRP"}
    assert answer.data["to"] == XRP


def test_an_answer_with_a_uuid_alone_is_an_order(calls: Calls, faults: Faults, world: World) -> None:
    def without_number(order: dict[str, Any]) -> None:
        order["orderId"] = order.pop("legacyOrderId")

    faults["create"] = spoiling(without_number)
    answer = calls.order()
    assert answer.status == 201
    assert answer.data["upstream_order_id"] == world.orders()[0].guid
    assert answer.data["deposit"]["payable"] is True


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda order: order.update(values)


def _deposit(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda order: order["depositAddress"].update(values)


def _other_pair(order: dict[str, Any]) -> None:
    order["pair"]["instrumentTo"]["networkTitle"] = "XRP2"


HELD: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (_set(destinationAddress=OTHER_XRP_ADDRESS), "destination_mismatch"),
    (_set(destinationAddressMemo="7654321"), "memo_mismatch"),
    (_set(refundAddress="bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3"), "refund_mismatch"),
    (_set(claimedDepositAmount="0.125"), "amount_mismatch"),
    (_other_pair, "pair_mismatch"),
    (_set(rateMode="FIXED"), "rate_mode_mismatch"),
    (_set(amountToGet="300"), "rate_mismatch"),
    (_set(failedToCreate=True), "failed_to_create"),
    (_deposit(instrument={"currencyTitle": "BTC", "networkTitle": "BEP20"}), "deposit_instrument_mismatch"),
    (_deposit(instrument={"currencyTitle": "BCH", "networkTitle": "BTC"}), "deposit_instrument_mismatch"),
    (_deposit(instrument="BTC"), "answer_unreadable"),
    (_deposit(depositAddressMemo={"type": "tag", "value": "1234567"}), "answer_unreadable"),
    (_deposit(depositAddressMemo=["1234567"]), "answer_unreadable"),
    (_deposit(depositAddressMemo=1234567.5), "answer_unreadable"),
    (_set(claimedDepositAmount="about 0.0125"), "answer_unreadable"),
    (_set(rateMode="FLOATING_V2"), "answer_unreadable"),
    (_set(destinationAddressMemo={"tag": 1234567}), "answer_unreadable"),
    (_set(refundAddress=["bc1q"]), "answer_unreadable"),
    (_deposit(depositAddress=OTHER_XRP_ADDRESS), "deposit_address_invalid"),
    (_deposit(depositAddress=BTC_ADDRESS[:-1] + "5"), "deposit_address_invalid"),
    (_set(destinationAddress=None), "unverified"),
    (_set(destinationAddressMemo=None), "unverified"),
]


def test_an_order_that_differs_from_what_was_asked_is_held_and_shows_no_address(
    service: Service, calls: Calls, faults: Faults, world: World, subtests: pytest.Subtests
) -> None:
    for number, (change, reason) in enumerate(HELD, 1):
        with subtests.test(reason=reason):
            told: list[str] = []

            def spoil(order: dict[str, Any], change: Any = change, told: list[str] = told) -> None:
                change(order)
                told.append(order["depositAddress"]["depositAddress"])

            faults["create"] = spoiling(spoil)
            answer = calls.order(client_order_id=f"order-{number}")
            assert answer.status == 202
            assert (answer.data["status"], answer.data["status_reason"]) == ("creating", "verifying")
            assert answer.data["deposit"] is None
            assert answer.data["amount_to_get"] != "300"
            assert told[0] not in everything_shown(service, calls, answer.data["id"])
            assert len(world.orders()) == number


def test_a_deposit_memo_that_is_missing_is_never_made_up_by_a_look(
    service: Service, calls: Calls, faults: Faults, clock: Clock
) -> None:
    faults["create"] = spoiling(_deposit(depositAddressMemo=None))
    answer = calls.order(
        **{"from": XRP, "to": ETH},
        amount="100",
        destination_address=ETH_ADDRESS,
        destination_memo=...,
        refund_address=...,
    )
    assert (answer.status, answer.data["status_reason"]) == (202, "verifying")
    del faults["create"]
    faults["order"] = spoiling(_deposit(depositAddressMemo=None))
    clock.advance(5)
    look(service, answer.data["id"])
    assert calls.get(f"/v1/orders/{answer.data['id']}").data["deposit"] is None


def test_a_look_that_tells_everything_shows_the_order(
    service: Service, calls: Calls, faults: Faults, clock: Clock
) -> None:
    faults["create"] = spoiling(_set(destinationAddressMemo=None))
    order = calls.order().data
    assert (order["status_reason"], order["deposit"]) == ("verifying", None)
    clock.advance(5)
    look(service, order["id"])
    found = calls.get(f"/v1/orders/{order['id']}").data
    assert found["deposit"]["payable"] is True
    assert found["deposit"]["address"] is not None


def test_a_rate_that_only_one_answer_told_is_not_shown(
    service: Service, calls: Calls, faults: Faults, clock: Clock
) -> None:
    faults["create"] = spoiling(_set(amountToGet="150"))
    order = calls.order().data
    assert order["status_reason"] == "verifying"
    clock.advance(5)
    look(service, order["id"])
    found = calls.get(f"/v1/orders/{order['id']}").data
    assert found["deposit"]["payable"] is True
    assert found["amount_to_get"] == order["amount_to_get"] != "150"


def test_an_order_of_which_two_deposit_addresses_are_told_is_created_again(
    service: Service, calls: Calls, faults: Faults, clock: Clock, world: World
) -> None:
    faults["create"] = spoiling(_set(destinationAddressMemo=None))
    order = calls.order().data
    del faults["create"]
    first = world.orders()[0]
    faults["order"] = spoiling(_deposit(depositAddress=BTC_ADDRESS))
    for _ in range(4):
        clock.advance(6)
        look(service, order["id"])
    found = calls.get(f"/v1/orders/{order['id']}").data
    assert found["deposit"]["address"] == world.orders()[1].place.address
    (spare,) = service.support.unowned_orders()
    assert (spare["role"], spare["upstream_order_id"]) == ("spare", str(first.number))


def test_deposit_details_are_written_once(service: Service, calls: Calls) -> None:
    order = stored(service, calls.order().data["id"])
    for name in ("deposit_address", "deposit_memo", "deposit_link", "deposit_kind"):
        with pytest.raises(ValueError, match="written once"), service.database.write() as session:
            order_rows.move(session, order, {name: "another"}, at=service.clock(), source="test")


def test_an_upstream_id_that_another_order_owns_is_not_taken_over(
    service: Service, calls: Calls, faults: Faults, world: World
) -> None:
    first = calls.order().data
    number = world.orders()[0].number
    faults["create"] = spoiling(_set(orderId=number))
    answer = calls.order(client_order_id="order-2")
    assert answer.status == 202
    assert (answer.data["deposit"], answer.data["upstream_order_id"]) == (None, None)
    assert stored(service, answer.data["id"]).status == "in_doubt"
    assert attempts(service, answer.data["id"])[0].refs == [str(number), world.orders()[1].guid]
    refs = upstream_owners(service.database)
    assert refs == {str(number): first["id"], world.orders()[0].guid: first["id"]}
    assert calls.get(f"/v1/orders/{first['id']}").data == first


# --- one place, one order ---------------------------------------------------------------------------------------------


def test_an_answer_that_names_the_place_of_another_customers_order_is_not_shown(
    service: Service, shop: Shop, api_url: str, clock: Clock, faults: Faults, world: World
) -> None:
    first = shop.place("one")
    other = new_shop(service, api_url, clock, "other shop")
    place = first["deposit"]["address"]
    # In capitals it is the same address (BIP-173).
    faults["create"] = spoiling(lambda body: body["depositAddress"].update(depositAddress=place.upper()))
    with capture_logs() as logs:
        second = other.place("two", amount="0.05", destination_memo="99")
    assert (second["status"], second["deposit"]) == ("creating", None)
    assert [entry["event"] for entry in logs if entry["log_level"] == "critical"] == ["orders.deposit_address_in_use"]
    (orphan,) = service.support.unowned_orders()
    assert (orphan["upstream_order_id"], orphan["order_id"]) == (str(world.orders()[1].number), second["id"])

    # Public-info names another place for it. Of two that were told, neither is shown: it is created again.
    del faults["create"]
    look(service, second["id"])
    shown = other.api.order(second["id"])
    assert (shown["status"], shown["deposit"]["address"]) == ("awaiting_deposit", world.orders()[2].place.address)


def test_an_upstream_that_insists_on_the_place_of_another_order_ends_the_order(
    service: Service, shop: Shop, clock: Clock, faults: Faults, world: World
) -> None:
    place = shop.place("one")["deposit"]["address"]
    spoilt = spoiling(lambda body: body["depositAddress"].update(depositAddress=place))
    faults["create"] = faults["order"] = spoilt
    second = shop.place("two", amount="0.05", destination_memo="99")
    for _ in range(80):
        clock.advance(11)
        look(service, second["id"])
    ended = shop.api.order(second["id"])
    assert (ended["status"], ended["status_reason"], ended["deposit"]) == ("failed", "address_in_use", None)
    assert {orphan["order_id"] for orphan in service.support.unowned_orders()} == {second["id"]}


def test_of_orders_that_are_answered_with_one_place_at_once_only_one_shows_it(
    service: Service, shop: Shop, faults: Faults, world: World
) -> None:
    place = BTC_ADDRESS
    together = threading.Barrier(4)

    def same_place(body: dict[str, Any]) -> None:
        together.wait(10)
        body["depositAddress"]["depositAddress"] = place

    faults["create"] = spoiling(same_place)
    answers: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(shop.place(f"order-{n}", destination_memo=str(n))))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["status"] for answer in answers) == ["awaiting_deposit", "creating", "creating", "creating"]


def test_a_place_is_free_again_after_the_watch_over_its_order(
    service: Service, shop: Shop, faults: Faults, clock: Clock
) -> None:
    first = shop.place("one")
    faults["create"] = spoiling(lambda body: body["depositAddress"].update(depositAddress=first["deposit"]["address"]))
    with service.database.write() as session:
        session.execute(update(Order).where(Order.id == first["id"]).values(next_check_at=None))
    service.housekeeping.clean_due()
    second = shop.place("two", amount="0.05", destination_memo="99")
    assert second["deposit"]["address"] == first["deposit"]["address"]


# --- refused ---------------------------------------------------------------------------------------------------------

SMALL = {
    "status": "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL",
    "message": "Amount Too Small",
    "data": {
        "details": {"field": "claimedDepositAmount", "value": "0.0125", "expected": "0.5", "expectedGeneral": "0.6"}
    },
}
BIG = {"message": "Amount Too Big", "data": {"details": {"expected": "0.001"}}}


REFUSED: list[tuple[Fault, str, str, dict[str, str]]] = [
    (answering(422, SMALL), "AMOUNT_BELOW_MINIMUM", "amount", {"min": "0.6"}),
    (answering(406, SMALL), "AMOUNT_BELOW_MINIMUM", "amount", {"min": "0.6"}),
    (answering(422, BIG), "AMOUNT_ABOVE_MAXIMUM", "amount", {"max": "0.001"}),
    (
        answering(400, {"status": "ERR_HTTP", "message": "Http Exception", "data": {"address": "no"}}),
        "ADDRESS_REFUSED",
        "destination_address",
        {},
    ),
    (
        answering(400, {"status": "ERR_HTTP", "message": "Http Exception", "data": {"memo": "no"}}),
        "MEMO_REFUSED",
        "destination_memo",
        {},
    ),
    (answering(422, {"message": "pair not supported"}), "PAIR_REFUSED", "to", {}),
    (answering(422, {"message": "rate mode FIXED is not available"}), "RATE_MODE_UNAVAILABLE", "rate_mode", {}),
    (answering(400, {"message": "markup requires referrerId key"}), "UPSTREAM_REFUSED", "request", {}),
]


def test_a_refusal_ends_the_order_and_says_why(
    service: Service, calls: Calls, faults: Faults, subtests: pytest.Subtests
) -> None:
    for number, (fault, code, field, bound) in enumerate(REFUSED, 1):
        with subtests.test(code=code, number=number):
            faults["create"] = fault
            answer = calls.order(client_order_id=f"order-{number}")
            assert (answer.status, answer.error["code"]) == (422, code)
            assert answer.codes == {field: [code]}
            assert {k: v for k, v in answer.details["fields"][field][0].items() if k in ("min", "max")} == bound
            assert answer.details["retry"] == "new_request"
            order = stored(service, answer.details["order_id"])
            assert (order.status, order.status_reason, order.next_check_at) == ("failed", code.lower(), None)
            assert attempts(service, order.id)[0].outcome == "refused"
            # The same again finds the failed order, and asks nobody.
            again = calls.order(client_order_id=f"order-{number}")
            assert (again.status, again.data["status"], again.data["final"]) == (200, "failed", True)
            assert faults.seen["create"] == number


# --- not sent --------------------------------------------------------------------------------------------------------

NOT_SENT = [
    (answering(401, {"message": "signature rejected"}), "signing", "5"),
    (answering(403, HTML_403), "connect", "5"),
    (answering(403, {"message": "signature rejected"}), "signing", "5"),
    (answering(429, {"message": "slow down"}, Retry_After="7"), "limit", "7"),
    (answering(429, b""), "limit", "5"),
]


def test_a_create_that_was_not_sent_is_made_by_the_same_request_later(
    service: Service, calls: Calls, faults: Faults, world: World, subtests: pytest.Subtests
) -> None:
    for number, (fault, cause, pause) in enumerate(NOT_SENT, 1):
        with subtests.test(cause=cause, number=number):
            faults["create"] = fault
            answer = calls.order(client_order_id=f"order-{number}")
            assert (answer.status, answer.error["code"]) == (503, "UPSTREAM_NOT_REACHED")
            assert (answer.headers["Retry-After"], answer.details["retry"]) == (pause, "same_request")
            order_id = answer.details["order_id"]
            assert calls.get(f"/v1/orders/{order_id}").data["status"] == "creating"
            first = attempts(service, order_id)[0]
            assert (first.outcome, first.cause) == ("not_sent", cause)
            assert len(world.orders()) == number - 1

            del faults["create"]
            answer = calls.order(client_order_id=f"order-{number}")
            assert (answer.status, answer.data["id"], answer.data["status"]) == (201, order_id, "awaiting_deposit")
            assert [a.outcome for a in attempts(service, order_id)] == ["not_sent", "done"]
            assert len(world.orders()) == number


def test_a_refused_connection_is_not_sent(
    service: Service, calls: Calls, shop: Shop, faults: Faults, other_service: Callable[..., Service], clock: Clock
) -> None:
    """With a quote nothing is asked of the upstream before the next create, so the create itself meets the closed port."""
    quote_id = calls.post("/v1/quotes", {"from": body()["from"], "to": body()["to"], "amount": "0.0125"}).data[
        "quote_id"
    ]
    faults["create"] = answering(403, HTML_403)
    assert calls.order(quote_id=quote_id).status == 503
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    away = other_service(upstream_url=f"http://127.0.0.1:{port}")
    order = only_order(service, shop)
    with pytest.raises(TryAgainLater) as raised:
        away.placer.place(shop.client_id, asked_again(order), ())
    assert raised.value.code == "UPSTREAM_NOT_REACHED"
    assert [(a.outcome, a.cause) for a in attempts(service, order.id)][1] == ("not_sent", "connect")
    del faults["create"]
    assert calls.order(quote_id=quote_id).status == 201


def test_ten_minutes_without_another_try_end_the_order(
    service: Service, calls: Calls, faults: Faults, clock: Clock
) -> None:
    faults["create"] = answering(403, HTML_403)
    order_id = calls.order().details["order_id"]
    due = stored(service, order_id).next_check_at
    assert due is not None
    assert 590 < (due - clock()).total_seconds() <= 600
    clock.advance(601)
    look(service, order_id)
    order = calls.get(f"/v1/orders/{order_id}").data
    assert (order["status"], order["status_reason"], order["final"]) == ("failed", "create_not_sent", True)
    del faults["create"]
    again = calls.order()
    assert (again.status, again.data["status"]) == (200, "failed")
    assert faults.seen["create"] == 1


def test_an_order_whose_quote_ran_out_while_waiting_ends(
    service: Service, calls: Calls, faults: Faults, clock: Clock
) -> None:
    quote_id = calls.post("/v1/quotes", {"from": body()["from"], "to": body()["to"], "amount": "0.0125"}).data[
        "quote_id"
    ]
    faults["create"] = answering(403, HTML_403)
    order_id = calls.order(quote_id=quote_id).details["order_id"]
    clock.advance(61)
    del faults["create"]
    answer = calls.order(quote_id=quote_id)
    assert (answer.status, answer.error["code"], answer.details["order_id"]) == (422, "QUOTE_EXPIRED", order_id)
    assert answer.details["retry"] == "new_request"
    assert calls.get(f"/v1/orders/{order_id}").data["status"] == "failed"
    assert calls.order(quote_id=quote_id).status == 200


def test_an_order_whose_pair_left_the_catalog_while_waiting_ends(
    service: Service, calls: Calls, shop: Shop, faults: Faults, other_service: Callable[..., Service]
) -> None:
    faults["create"] = answering(403, HTML_403)
    order_id = calls.order().details["order_id"]
    faults["instruments"] = spoiling(lambda rows: [row for row in rows if row["currencyTitle"] != "XRP"])
    assert service.catalog.refresh()
    order = stored(service, order_id)
    with pytest.raises(OrderRefused) as raised:
        other_service().placer.place(shop.client_id, asked_again(order), ())
    assert (raised.value.code, raised.value.details["order_id"]) == ("INSTRUMENT_UNKNOWN", order_id)
    assert calls.get(f"/v1/orders/{order_id}").data["status"] == "failed"


def test_one_rate_in_another_mode_does_not_end_an_order_that_waits_to_be_sent(
    service: Service, calls: Calls, faults: Faults
) -> None:
    faults["create"] = answering(403, HTML_403)
    order_id = calls.order().details["order_id"]
    del faults["create"]
    faults["rate"] = spoiling(lambda rate: {**rate, "rateMode": "FIXED"})
    answer = calls.order()
    assert (answer.status, answer.error["code"], answer.details["retry"]) == (503, "RATE_UNAVAILABLE", "same_request")
    del faults["rate"]
    answer = calls.order()
    assert (answer.status, answer.data["id"], answer.data["status"]) == (201, order_id, "awaiting_deposit")


def test_while_the_rate_is_away_no_attempt_is_made(
    service: Service, calls: Calls, faults: Faults, world: World
) -> None:
    faults["create"] = answering(403, HTML_403)
    order_id = calls.order().details["order_id"]
    faults["rate"] = answering(403, HTML_403)
    answer = calls.order()
    assert (answer.status, answer.error["code"], answer.details["retry"]) == (503, "RATE_UNAVAILABLE", "same_request")
    assert len(attempts(service, order_id)) == 1
    del faults["create"]
    del faults["rate"]
    assert calls.order().status == 201
    assert len(world.orders()) == 1


def test_the_next_attempt_is_made_under_the_key_of_today(
    service: Service, calls: Calls, shop: Shop, faults: Faults, world: World, other_service: Callable[..., Service]
) -> None:
    """The list shows orders by the key that made them: one looked for under another would be proved absent."""
    faults["create"] = answering(403, HTML_403)
    order_id = calls.order().details["order_id"]
    del faults["create"]
    world.public_key = "pk_sandbox_next"
    rotated = other_service(upstream_public_key="pk_sandbox_next")
    order = stored(service, order_id)
    assert rotated.placer.place(shop.client_id, asked_again(order), ()).kind == "new"
    assert stored(service, order_id).upstream_key == "pk_sandbox_next"
    assert attempts(service, order_id)[1].upstream_key == "pk_sandbox_next"


def test_many_same_requests_after_one_not_sent_make_one_attempt(
    service: Service, calls: Calls, faults: Faults, world: World
) -> None:
    faults["create"] = answering(403, HTML_403)
    order_id = calls.order().details["order_id"]
    del faults["create"]
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(calls.order())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {a.status for a in answers} <= {200, 201, 202}
    assert [a.status for a in answers].count(201) == 1
    assert len(attempts(service, order_id)) == 2
    assert len(world.orders()) == 1


# --- unknown ---------------------------------------------------------------------------------------------------------


def _no_deposit(order: dict[str, Any]) -> None:
    order["depositAddress"] = None


UNKNOWN: list[tuple[str, Fault, int]] = [
    ("500", answering(500, {"message": "boom"}), 0),
    ("502 html", answering(502, HTML_403), 0),
    ("409", answering(409, {"message": "conflict"}), 0),
    ("404", answering(404, {"message": "not found"}), 0),
    ("an unlisted 400", answering(400, {"message": "Bad Request"}), 0),
    ("a redirect", answering(302, b"", Location="http://127.0.0.1:9/"), 0),
    ("204", answering(204), 0),
    ("200 without body", answering(200), 0),
    ("200 html", answering(200, HTML_403), 0),
    ("200 hello", answering(200, {"hello": 1}), 0),
    ("dropped", dropping, 1),
    ("truncated", cutting(), 1),
    ("no deposit address", spoiling(_no_deposit), 1),
    ("made, then 500", spoiling(lambda order: None, status=500), 1),
]


def test_an_unclear_answer_puts_the_order_in_doubt_and_is_never_tried_again(
    service: Service, calls: Calls, faults: Faults, world: World, clock: Clock, subtests: pytest.Subtests
) -> None:
    for number, (name, fault, made) in enumerate(UNKNOWN, 1):
        with subtests.test(name):
            before = len(world.orders())
            faults["create"] = fault
            answer = calls.order(client_order_id=name)
            assert answer.status == 202
            assert (answer.data["status"], answer.data["status_reason"]) == ("creating", "create_in_doubt")
            assert (answer.data["deposit"], answer.data["upstream_order_id"]) == (None, None)
            assert answer.data["funds"] == "none"
            order_id = answer.data["id"]
            (attempt,) = attempts(service, order_id)
            assert attempt.outcome == "unknown"
            assert attempt.finished_at is not None
            del faults["create"]
            again = calls.order(client_order_id=name)
            assert (again.status, again.data["id"]) == (202, order_id)
            assert faults.seen["create"] == number
            assert len(world.orders()) == before + made
            for order in world.orders()[before:]:
                assert order.place.address is not None
                assert order.place.address not in everything_shown(service, calls, order_id)


def test_ids_found_in_an_incomplete_answer_are_kept_with_the_attempt(
    service: Service, calls: Calls, faults: Faults, world: World
) -> None:
    faults["create"] = spoiling(_no_deposit)
    (attempt,) = attempts(service, calls.order().data["id"])
    (made,) = world.orders()
    assert attempt.refs == [str(made.number), made.guid]
    assert attempt.answer is not None
    assert str(made.number) in attempt.answer


def test_an_answer_that_comes_too_late_leaves_the_outcome_unknown(
    quick: Settings, faults: Faults, world: World, clock: Clock, other_service: Callable[..., Service], shop: Shop
) -> None:
    impatient = other_service(upstream_create_timeout=quick.upstream_create_timeout)
    holding = Holding()
    faults["create"] = holding
    placed = impatient.placer.place(shop.client_id, REQUEST, ())
    holding.let_go()
    assert placed.kind == "pending"
    assert placed.order.status_reason == "create_in_doubt"
    (attempt,) = attempts(impatient, placed.order.id)
    assert (attempt.outcome, attempt.cause) == ("unknown", "timeout")
    assert len(world.orders()) == 1


# --- dying, and being late -------------------------------------------------------------------------------------------


def test_a_create_we_died_in_is_swept_into_doubt_and_never_sent_again(
    service: Service, calls: Calls, shop: Shop, faults: Faults, world: World, clock: Clock, monkeypatch: Any
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise SystemError("the process is gone")

    with monkeypatch.context() as patched:
        patched.setattr(service.upstream, "create_order", die)
        assert calls.order().status == 500
    order = only_order(service, shop)
    assert order.status == "creating"
    assert attempts(service, order.id)[0].outcome is None
    assert calls.order().status == 202
    assert due_ids(service) == []
    clock.advance(service.settings.upstream_create_timeout + 6)
    assert due_ids(service) == [order.id]
    look(service, order.id)
    assert stored(service, order.id).status == "in_doubt"
    again = calls.order()
    assert (again.status, again.data["status_reason"]) == (202, "create_in_doubt")
    assert (faults.seen["create"], world.orders()) == (0, [])


def _while_it_hangs(
    service: Service, calls: Calls, shop: Shop, faults: Faults, meanwhile: Callable[[Order], None], holding: Holding
) -> Answer:
    """Place an order, do something about it while its create waits for the answer, and let the answer through."""
    faults["create"] = holding
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(calls.order()))
    thread.start()
    assert holding.arrived.wait(10)
    meanwhile(only_order(service, shop))
    holding.let_go()
    thread.join()
    return answers[0]


def test_a_done_answer_that_comes_after_the_sweep_is_applied(
    service: Service, calls: Calls, shop: Shop, faults: Faults, clock: Clock
) -> None:
    def sweep(order: Order) -> None:
        clock.advance(60)
        look(service, order.id)
        assert stored(service, order.id).status == "in_doubt"

    answer = _while_it_hangs(service, calls, shop, faults, sweep, Holding())
    assert (answer.status, answer.data["status"], answer.data["status_reason"]) == (201, "awaiting_deposit", None)
    assert answer.data["deposit"]["payable"] is True
    events = calls.get(f"/v1/orders/{answer.data['id']}/events").data["events"]
    assert [e["sequence"] for e in events] == [1, 2, 3]
    assert [e["type"] for e in events] == ["order.created", "order.updated", "order.awaiting_deposit"]


def test_a_not_sent_answer_that_comes_after_the_sweep_takes_the_order_out_of_doubt(
    service: Service, calls: Calls, shop: Shop, faults: Faults, clock: Clock, world: World, monkeypatch: Any
) -> None:
    real = service.upstream.create_order

    def slow(*arguments: Any, **options: Any) -> Any:
        order = only_order(service, shop)
        clock.advance(60)
        look(service, order.id)
        assert stored(service, order.id).status == "in_doubt"
        return real(*arguments, **options)

    faults["create"] = answering(429, b"")
    with monkeypatch.context() as patched:
        patched.setattr(service.upstream, "create_order", slow)
        assert calls.order().status == 503
    order = only_order(service, shop)
    assert (order.status, order.status_reason) == ("creating", None)
    del faults["create"]
    assert calls.order().status == 201
    assert len(world.orders()) == 1


def test_a_done_answer_for_an_order_that_was_ended_meanwhile_changes_nothing(
    service: Service, calls: Calls, shop: Shop, faults: Faults
) -> None:
    def end(order: Order) -> None:
        with service.database.write() as session:
            changes = {"status": "failed", "status_reason": "create_unconfirmed", "next_check_at": None}
            assert order_rows.move(session, order, changes, at=service.clock(), source="test")

    answer = _while_it_hangs(service, calls, shop, faults, end, Holding())
    assert (answer.status, answer.data["status"], answer.data["deposit"]) == (200, "failed", None)
    assert attempts(service, answer.data["id"])[0].outcome == "done"
    (orphan,) = service.support.unowned_orders()
    assert (orphan["order_id"], orphan["refs"]) == (answer.data["id"], attempts(service, answer.data["id"])[0].refs)


def test_while_the_first_call_runs_the_same_request_is_told_to_wait(
    service: Service, calls: Calls, shop: Shop, faults: Faults, world: World
) -> None:
    def ask_again(order: Order) -> None:
        again = calls.order()
        assert (again.status, again.data["status"], again.data["id"]) == (202, "creating", order.id)

    assert _while_it_hangs(service, calls, shop, faults, ask_again, Holding()).status == 201
    assert (faults.seen["create"], len(world.orders())) == (1, 1)


def test_an_answer_in_hand_is_kept_through_a_short_outage_of_the_database(
    service: Service, calls: Calls, monkeypatch: Any
) -> None:
    """Both writes after the answer insist: the attempt's and the order's."""
    real_finish, real_own = attempt_rows.finish_attempt, upstream_orders.show
    failures = {"finish": 2, "own": 2}

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if failures[name]:
                failures[name] -= 1
                raise OperationalError("write", {}, Exception("away"))
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(attempt_rows, "finish_attempt", failing("finish", real_finish))
    monkeypatch.setattr(upstream_orders, "show", failing("own", real_own))
    answer = calls.order()
    assert (answer.status, answer.data["status"]) == (201, "awaiting_deposit")
    assert attempts(service, answer.data["id"])[0].outcome == "done"
    assert failures == {"finish": 0, "own": 0}


def test_an_answer_that_the_database_never_takes_is_logged_with_its_ids_and_swept_up(
    service: Service, calls: Calls, shop: Shop, clock: Clock, world: World, monkeypatch: Any
) -> None:
    """The attempt's write fails for good: the log line is all there is of the answer, and the order is looked for."""

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("write", {}, Exception("away"))

    logged: list[dict[str, Any]] = []
    with monkeypatch.context() as patched:
        patched.setattr("swap.orders.attempts._ANSWER_IN_HAND_SECONDS", 0.2)
        patched.setattr(
            "swap.orders.attempts.log.critical", lambda event, **fields: logged.append({"event": event, **fields})
        )
        patched.setattr(attempt_rows, "finish_attempt", away)
        answer = calls.order()
    assert (answer.status, answer.details["retry"]) == (503, "same_request")
    (made,) = world.orders()
    assert [line["event"] for line in logged] == ["orders.answer_not_stored"]
    assert logged[0]["refs"] == [str(made.number), made.guid]
    order = only_order(service, shop)
    assert (order.status, attempts(service, order.id)[0].outcome) == ("creating", None)
    for seconds in (21, 2):
        clock.advance(seconds)
        look(service, order.id)
    assert stored(service, order.id).deposit_address == made.place.address


def test_an_answer_that_only_its_attempt_took_is_used_by_the_sweep(
    service: Service, calls: Calls, shop: Shop, clock: Clock, world: World, monkeypatch: Any
) -> None:
    """The order's own write fails for good, after the attempt's."""

    def away(*_: Any, **__: Any) -> set[str]:
        raise OperationalError("write", {}, Exception("away"))

    with monkeypatch.context() as patched:
        patched.setattr("swap.orders.attempts._ANSWER_IN_HAND_SECONDS", 0.2)
        patched.setattr(upstream_orders, "show", away)
        assert calls.order().status == 503
    order = only_order(service, shop)
    assert (order.status, attempts(service, order.id)[0].outcome) == ("creating", "done")
    world.chaos.change({"order.bare_info": 1.0})
    clock.advance(21)
    look(service, order.id)
    assert calls.order().data["deposit"]["address"] == world.orders()[0].place.address


def test_an_order_changed_under_our_hands_is_settled_all_the_same(
    service: Service, calls: Calls, monkeypatch: Any
) -> None:
    real = order_rows.move
    left = [3]

    def racing(session: Any, order: Order, *arguments: Any, **options: Any) -> Order | None:
        if left[0]:
            left[0] -= 1
            session.execute(update(Order).where(Order.id == order.id).values(version=Order.version + 1))
        return real(session, order, *arguments, **options)

    monkeypatch.setattr(order_rows, "move", racing)
    assert calls.order().status == 201


def test_every_create_is_in_the_journal_of_calls(service: Service, calls: Calls) -> None:
    order = calls.order().data
    with service.database.read() as session:
        (call,) = session.query(UpstreamCall).filter_by(endpoint="create")
    assert (call.order_ref, call.attempt, call.status, call.outcome) == (order["id"], 1, 201, "OK")
    assert service.settings.upstream_secret_key not in f"{call.request_body}{call.response_body}"


def test_a_markup_without_a_referrer_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="UPSTREAM_REFERRER_ID"):
        CreateOptions(
            upstream_key="pk",
            referrer_id=None,
            markup=Decimal(0),
            max_at_once=1,
        )
