"""Webhooks: registered, published, delivered at least once, in order per order and endpoint, and recorded once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook

from swap.domain.lifecycle import PUBLIC
from swap.domain.schedules import JITTER, WEBHOOK_RETRIES
from swap.domain.times import iso
from swap.errors import InvalidRequest, NotFound
from swap.push.delivering import TIMEOUT_SECONDS
from swap.push.endpoints import Endpoints
from swap.push.payload import TYPES
from swap.store import deliveries as delivery_rows
from swap.store.database import Database
from swap.tables import OrderEvent, WebhookDelivery, WebhookEndpoint
from tests.conftest import Clock
from tests.factories import make_client, make_order, make_orders, move, read_order
from tests.product import NoQueue, Product, bodies
from tests.receivers import Receiver, speaking
from tests.waiting import until


@pytest.fixture
def product(database: Database, clock: Clock) -> Product:
    return Product(database, clock)


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_the_body_is_exactly_the_contracts(product: Product, receiver: Receiver) -> None:
    product.add(receiver.url)
    order_id = product.order()
    assert product.deliver() == 1
    (event,) = product.feed.page(product.client_id, None, 10)["events"]
    (request,) = receiver.got
    assert json.loads(request.body) == {
        "type": "order.created",
        "timestamp": event["created_at"],
        "data": {
            "event_id": event["id"],
            "order_id": order_id,
            "sequence": 1,
            "cursor": event["cursor"],
            "order": event["order"],
        },
    }
    assert list(orjson.loads(request.body)) == ["type", "timestamp", "data"]
    assert request.headers["content-type"] == "application/json"


def test_a_receiver_can_verify_it_by_the_standard_and_nobody_else_can_make_it(
    product: Product, receiver: Receiver
) -> None:
    made = product.add(receiver.url)
    product.order()
    product.deliver()
    (request,) = receiver.got
    assert made["secret"].startswith("whsec_")
    assert Webhook(made["secret"]).verify(request.body, request.headers) == json.loads(request.body)
    for secret, body in ((product.add(receiver.url)["secret"], request.body), (made["secret"], request.body + b" ")):
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(secret).verify(body, request.headers)
    assert request.headers["webhook-id"] == json.loads(request.body)["data"]["event_id"]


def test_every_retry_has_the_same_id_and_bytes_but_its_own_time_and_signature(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    made = product.add(receiver.url)
    receiver.answers["/"] = 503
    product.order()
    product.deliver()
    clock.advance(60)
    product.deliver()
    one, other = receiver.got
    assert one.headers["webhook-id"] == other.headers["webhook-id"]
    assert one.body == other.body
    stamps = [int(request.headers["webhook-timestamp"]) for request in (one, other)]
    assert 59 <= stamps[1] - stamps[0] <= 65
    assert one.headers["webhook-signature"] != other.headers["webhook-signature"]
    for request, stamp in zip((one, other), stamps, strict=True):
        signed = Webhook(made["secret"]).sign(
            request.headers["webhook-id"], datetime.fromtimestamp(stamp, clock().tzinfo), request.body.decode()
        )
        assert signed == request.headers["webhook-signature"]


def test_an_endpoint_hears_only_the_types_it_asked_for(product: Product, receiver: Receiver) -> None:
    product.add(f"{receiver.url}/some", ["order.completed", "order.expired"])
    product.add(f"{receiver.url}/all")
    product.order("confirming", "completed")
    product.deliver()
    product.deliver()
    assert [b["type"] for b in bodies(receiver, "/some")] == ["order.completed"]
    assert [b["type"] for b in bodies(receiver, "/all")] == ["order.created", "order.confirming", "order.completed"]


def test_a_client_hears_of_its_own_orders_alone(product: Product, receiver: Receiver, database: Database) -> None:
    product.add(receiver.url)
    make_order(database, make_client(database, "somebody else"))
    assert product.deliver() == 0
    assert receiver.got == []


# --- order -----------------------------------------------------------------------------------------------------------


def test_the_events_of_one_order_come_one_after_the_other_by_sequence(product: Product, receiver: Receiver) -> None:
    product.add(receiver.url)
    ids = [product.order("confirming", "exchanging", "sending", "completed") for _ in range(4)]
    assert product.deliver() == 20
    got = bodies(receiver)
    for order_id in ids:
        assert [b["data"]["sequence"] for b in got if b["data"]["order_id"] == order_id] == [1, 2, 3, 4, 5]
    assert {d.status for d in product.deliveries()} == {"delivered"}


def test_a_delivery_that_fails_holds_back_its_own_orders_later_events_alone(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    product.add(receiver.url)
    unlucky = product.order("confirming")
    receiver.answers["/"] = 500
    product.deliver()
    receiver.answers["/"] = lambda: 500 if unlucky in receiver.got[-1].body.decode() else 204
    other = product.order("confirming", "completed")
    product.deliver()
    assert [b["data"]["sequence"] for b in bodies(receiver) if b["data"]["order_id"] == other] == [1, 2, 3]
    assert [(d.sequence, d.status, d.attempts) for d in product.deliveries(order_id=unlucky)] == [
        (1, "pending", 1),
        (2, "pending", 0),
    ]
    receiver.answers["/"] = 204
    clock.advance(10)
    product.deliver()
    sent = [b["data"]["sequence"] for b in bodies(receiver) if b["data"]["order_id"] == unlucky]
    assert sent == [1, 1, 2]


def test_one_endpoint_that_fails_does_not_hold_back_another(product: Product, receiver: Receiver) -> None:
    bad, good = product.add(f"{receiver.url}/bad"), product.add(f"{receiver.url}/good")
    receiver.answers["/bad"] = 500
    product.order("confirming")
    product.deliver()
    assert [d.status for d in product.deliveries(endpoint_id=bad["id"])] == ["pending", "pending"]
    assert [d.status for d in product.deliveries(endpoint_id=good["id"])] == ["delivered", "delivered"]


def test_endpoints_that_hang_leave_room_for_the_others(database: Database, clock: Clock, receiver: Receiver) -> None:
    product = Product(database, clock, timeout=60)
    with speaking(lambda connection, over: over.wait(60)) as hanging:
        bad = [product.add(hanging)["id"] for _ in range(5)]
        make_orders(database, 30, product.client_id)
        product.feed.publish()
        good = product.add(receiver.url)["id"]
        make_orders(database, 8, product.client_id)
        product.feed.publish()
        with database.write() as session:  # all of the others' are due before any of the good one's
            session.execute(
                update(WebhookDelivery)
                .where(WebhookDelivery.endpoint_id.in_(bad))
                .values(next_attempt_at=clock() - timedelta(minutes=1))
            )
        thread = threading.Thread(target=product.deliverer.deliver_due)
        thread.start()
        until(lambda: len(receiver.got) == 8)
        until(lambda: {d.status for d in product.deliveries(endpoint_id=good)} == {"delivered"})
        found = [d for each in bad for d in product.deliveries(endpoint_id=each)]
        assert {d.attempts for d in found} == {0}, "while not one of theirs has come to its end"
        assert all(1 <= sum(d.leased_until is not None for d in found if d.endpoint_id == each) <= 10 for each in bad)
        with database.write() as session:  # enough for this test
            session.execute(update(WebhookDelivery).values(status="skipped"))
    thread.join()


def test_what_is_published_while_an_endpoint_hangs_goes_out_at_once(
    database: Database, clock: Clock, receiver: Receiver
) -> None:
    product = Product(database, clock, timeout=60)
    with speaking(lambda connection, over: over.wait(60)) as hanging:
        bad = product.add(hanging)["id"]
        product.order()
        product.feed.publish()
        product.endpoints.change(product.client_id, bad, {"types": ["order.expired"]}, by="shop")
        product.add(receiver.url)
        thread = threading.Thread(target=product.deliverer.deliver_due, args=(product.feed.publish,))
        thread.start()
        until(lambda: any(d.leased_until for d in product.deliveries()))
        product.order("confirming", "completed")
        until(lambda: len(receiver.got) == 3)
        assert product.deliveries(endpoint_id=bad)[0].attempts == 0
        product.set_endpoint(bad, enabled=False)
    thread.join()


def test_no_more_than_ten_are_under_way_for_one_endpoint_in_all_processes(
    product: Product, receiver: Receiver, twin: Database
) -> None:
    product.add(receiver.url)
    make_orders(product.database, 40, product.client_id)
    product.feed.publish()
    lock, now, most = threading.Lock(), [0], [0]
    full = threading.Event()

    def answer() -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 10:
                full.set()
        full.wait(20)  # nobody leaves before ten are there
        with lock:
            now[0] -= 1
        return 204

    receiver.answers["/"] = answer
    threads = [
        threading.Thread(target=each.deliver_due) for each in (product.deliverer, product.another_deliverer(twin))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    product.deliverer.deliver_due()
    assert most == [10]
    assert {d.status for d in product.deliveries()} == {"delivered"}


def test_after_twenty_failures_in_a_row_one_probe_at_a_time_finds_out_when_it_is_back(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    made = product.add(receiver.url)
    make_orders(product.database, 15, product.client_id)
    product.feed.publish()

    def claimed() -> int:
        with product.database.write() as session:
            found = delivery_rows.claim_due(session, clock(), timedelta(seconds=60), 32, at_once=10, probe_from=20)
        return len(found)

    receiver.answers["/"] = 500
    product.deliverer.deliver_due()
    assert product.endpoint(made["id"]).failures == 15
    clock.advance(10)
    assert claimed() == 10, "they are more than fifteen in all, so this is not for want of deliveries"
    clock.advance(61)
    product.deliverer.deliver_due()
    assert product.endpoint(made["id"]).failures == 30
    clock.advance(timedelta(minutes=7))
    assert (claimed(), claimed()) == (1, 0)
    clock.advance(61)
    receiver.answers["/"] = 204
    lock, now, seen = threading.Lock(), [0], list[int]()

    def answer() -> int:
        with lock:
            now[0] += 1
            seen.append(now[0])
        with product.database.read() as session:
            session.scalars(select(WebhookEndpoint)).all()
        with lock:
            now[0] -= 1
        return 204

    receiver.answers["/"] = answer
    assert product.deliverer.deliver_due() == 15
    assert seen[0] == 1
    assert (product.endpoint(made["id"]).failures, product.endpoint(made["id"]).failing_since) == (0, None)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    answers=st.lists(st.sampled_from([204, 204, 500, 302]), max_size=25),
    moves=st.lists(st.tuples(st.integers(0, 2), st.integers(2, 4)), min_size=3, max_size=3),
)
def test_whatever_fails_every_order_is_told_by_sequence(
    answers: list[int], moves: list[tuple[int, int]], product: Product, receiver: Receiver, clock: Clock
) -> None:
    receiver.got.clear()
    statuses = ("confirming", "exchanging", "sending", "completed")
    left = list(answers)
    made = product.add(receiver.url)
    accepted: dict[str, list[int]] = {}
    lock = threading.Lock()

    def answer() -> int:
        with lock:
            return left.pop() if left else 204

    receiver.answers["/"] = answer
    ids = [product.order(*statuses[:before]) for before, _ in moves]
    product.deliver()
    for order_id, (_, until_then) in zip(ids, moves, strict=True):
        for status in statuses[2:until_then]:
            move(product.database, read_order(product.database, order_id), status=status)
    for _ in range(30):
        product.deliver()
        if {d.status for d in product.deliveries(endpoint_id=made["id"])} == {"delivered"}:
            break
        clock.advance(timedelta(hours=13))
    for request in receiver.got:
        content = json.loads(request.body)["data"]
        heard = accepted.setdefault(content["order_id"], [])
        if not heard or heard[-1] != content["sequence"]:
            heard.append(content["sequence"])
    for order_id in ids:
        sequence = read_order(product.database, order_id).sequence
        assert accepted[order_id] == list(range(1, sequence + 1))
    product.endpoints.delete(product.client_id, made["id"], by="shop")


# --- failing ---------------------------------------------------------------------------------------------------------


def test_retries_follow_the_schedule_and_then_the_delivery_is_given_up_and_the_next_one_goes_out(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    product.add(receiver.url)
    receiver.answers["/"] = 500
    product.order("confirming")
    for number, pause in enumerate(WEBHOOK_RETRIES, 1):
        assert product.deliver() == 1
        first, second = product.deliveries()
        assert (first.status, first.attempts, first.response_status) == ("pending", number, 500)
        assert (second.status, second.attempts) == ("pending", 0)
        assert first.next_attempt_at is not None
        wait = first.next_attempt_at - clock()
        assert pause * (1 - JITTER) - timedelta(seconds=2) <= wait <= pause * (1 + JITTER)
        clock.advance(wait - timedelta(seconds=1))
        assert product.deliver() == 0
        clock.advance(1.5)
    receiver.answers["/"] = lambda: 500 if json.loads(receiver.got[-1].body)["data"]["sequence"] == 1 else 204
    assert product.deliver() == 2
    first, second = product.deliveries()
    assert (first.status, first.attempts, first.next_attempt_at) == ("failed", 8, None)
    assert (second.status, second.attempts, second.next_attempt_at) == ("delivered", 1, None)
    assert product.deliver() == 0


@pytest.mark.parametrize(("status", "delivered"), [(200, True), (204, True), (299, True), (302, False), (404, False)])
def test_only_a_2xx_is_delivered(product: Product, receiver: Receiver, status: int, delivered: bool) -> None:
    product.add(receiver.url)
    receiver.answers["/"] = status
    receiver.headers["Location"] = f"{receiver.url}/elsewhere"
    product.order()
    product.deliver()
    (found,) = product.deliveries()
    assert (found.status, found.response_status, found.attempts) == (
        "delivered" if delivered else "pending",
        status,
        1,
    )
    assert (found.delivered_at is not None) is delivered
    assert receiver.on("/elsewhere") == []


def test_an_endpoint_that_drips_holds_no_thread_longer_than_the_limit(database: Database, clock: Clock) -> None:
    product = Product(database, clock, timeout=0.3)

    def drip(connection: Any, over: threading.Event) -> None:
        connection.recv(65_536)
        while not over.wait(0.02):
            connection.sendall(b"H")

    with speaking(drip) as url:
        product.add(url)
        product.order()
        product.feed.publish()
        began = time.monotonic()
        product.deliverer.deliver_due()
        assert time.monotonic() - began < 2
    (found,) = product.deliveries()
    assert (found.status, found.attempts, found.error) == ("pending", 1, "TimedOut")
    assert found.duration_ms is not None
    assert 250 <= found.duration_ms < 1500
    assert TIMEOUT_SECONDS == 15.0


def test_an_answer_is_kept_in_part_and_never_a_secret(
    product: Product, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    made = product.add(receiver.url)
    receiver.body = b"no" * 5000
    receiver.answers["/"] = 500
    product.order()
    with structlog.testing.capture_logs() as logs:
        product.deliver()
    (found,) = product.deliveries()
    assert found.response_excerpt == "no" * 250
    with product.database.read() as session:
        endpoint = session.scalars(select(WebhookEndpoint)).one()
    secret = made["secret"].removeprefix("whsec_")
    kept = [str(vars(row)) for row in (found, endpoint)]
    assert not [text for text in (*kept, str(logs), caplog.text) if secret in text]
    assert [entry["event"] for entry in logs] == ["webhooks.not_delivered"]


def test_a_secret_that_can_no_longer_be_opened_fails_like_any_attempt(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    product.add(receiver.url)
    product.order("confirming")
    with product.database.write() as session:
        session.execute(update(WebhookEndpoint).values(secret_sealed="sealed under a key that is gone"))
    assert product.deliver() == 1
    first, _ = product.deliveries()
    assert (first.status, first.attempts, first.response_status) == ("pending", 1, None)
    assert first.error
    for pause in WEBHOOK_RETRIES:
        clock.advance(pause * 1.3)
        product.deliver()
    assert product.deliveries()[0].status == "failed", "it does not hold back its order for ever"


@pytest.mark.parametrize(("asked", "pause"), [("60", 60), ("1", 4), ("999999999999", 86_400), ("soon", 4)])
def test_a_pause_that_the_answer_asks_for_is_kept(
    product: Product, receiver: Receiver, clock: Clock, asked: str, pause: int
) -> None:
    product.add(receiver.url)
    receiver.answers["/"] = 429
    receiver.headers["Retry-After"] = asked
    product.order("confirming")
    before = clock()
    product.deliver()
    first, second = product.deliveries()
    assert first.next_attempt_at is not None
    waited = (first.next_attempt_at - before).total_seconds()
    assert pause - 1 <= waited
    if pause > 4:
        assert waited <= pause + 60
    assert second.next_attempt_at == first.next_attempt_at, "it need not be found due before"


def test_events_that_wait_behind_one_that_failed_are_not_found_due(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    product.add(receiver.url)
    receiver.answers["/"] = 500
    order_id = product.order("confirming")
    product.deliver()
    clock.advance(10)
    product.deliver()
    move(product.database, read_order(product.database, order_id), status="exchanging")
    product.feed.publish()
    times = {d.next_attempt_at for d in product.deliveries()}
    assert len(product.deliveries()) == 3
    assert len(times) == 1


def test_an_endpoint_without_any_success_in_five_days_is_disabled_and_the_others_are_told(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    bad = product.endpoints.create(
        product.client_id, f"{receiver.url}/bad", description="the old shop", trusted=True, by="shop"
    )
    product.add(f"{receiver.url}/other")
    product.add(f"{receiver.url}/picky", ["order.completed"])
    product.add(f"{receiver.url}/listening", ["endpoint.disabled"])
    receiver.answers["/bad"] = 500
    product.order("confirming")
    product.deliver()
    failing_since = product.endpoint(bad["id"]).failing_since
    assert failing_since is not None
    for _ in range(8):
        clock.advance(timedelta(hours=13))
        product.deliver()
    assert product.endpoint(bad["id"]).enabled, "not yet five days"
    product.order("confirming", "completed")
    with structlog.testing.capture_logs() as logs:
        for _ in range(8):
            clock.advance(timedelta(hours=13))
            product.deliver()
    found = product.endpoints.endpoint(product.client_id, bad["id"])
    assert (found["enabled"], found["disabled_reason"]) == (False, "no_success")
    assert found["disabled_at"] > found["failing_since"] == iso(failing_since)
    assert [e["log_level"] for e in logs if e["event"] == "webhooks.endpoint_disabled"] == ["error"]
    assert "pending" not in {d.status for d in product.deliveries(endpoint_id=bad["id"])}
    for path, count in (("/other", 1), ("/listening", 1), ("/picky", 0)):
        told = [b for b in bodies(receiver, path) if b["type"] == "endpoint.disabled"]
        assert len(told) == count
        for body in told:
            assert body["data"] == {
                "endpoint_id": bad["id"],
                "description": "the old shop",
                "reason": "no_success",
                "disabled_at": found["disabled_at"],
            }
    sent = len(receiver.on("/bad"))
    product.order()
    clock.advance(timedelta(days=1))
    product.deliver()
    assert len(receiver.on("/bad")) == sent, "while disabled nothing is sent"


def test_a_receiver_that_is_gone_is_disabled_at_once_and_the_others_are_told(
    product: Product, receiver: Receiver
) -> None:
    gone = product.endpoints.create(product.client_id, f"{receiver.url}/gone", trusted=True, by="shop")
    product.endpoints.create(product.client_id, f"{receiver.url}/other", trusted=True, by="shop")
    receiver.answers["/gone"] = 410
    product.order()
    with structlog.testing.capture_logs() as logs:
        product.deliver()
    for _ in range(4):
        product.order()
    product.deliver()
    found = product.endpoints.endpoint(product.client_id, gone["id"])
    assert (found["enabled"], found["disabled_reason"]) == (False, "gone")
    assert len(receiver.on("/gone")) == 1
    assert {d.status for d in product.deliveries(endpoint_id=gone["id"])} == {"failed"}
    assert [e["reason"] for e in logs if e["event"] == "webhooks.endpoint_disabled"] == ["gone"]
    (told,) = [b for b in bodies(receiver, "/other") if b["type"] == "endpoint.disabled"]
    assert (told["data"]["endpoint_id"], told["data"]["reason"]) == (gone["id"], "gone")


def test_a_test_that_finds_nobody_disables_nothing(product: Product, receiver: Receiver) -> None:
    endpoint = product.endpoints.create(product.client_id, f"{receiver.url}/gone", trusted=True, by="shop")
    receiver.answers["/gone"] = 410
    product.endpoints.test(product.client_id, endpoint["id"])
    product.deliver()
    assert product.endpoints.endpoint(product.client_id, endpoint["id"])["enabled"]


@pytest.mark.parametrize(
    ("status", "asked_for", "held"),
    [(429, "3600", 3600), (429, None, 0), (502, None, 0), (504, "120", 120), (503, "3600", 3600)],
)
def test_an_overloaded_receiver_is_left_alone_as_a_whole_and_then_tried_by_one(
    product: Product, receiver: Receiver, clock: Clock, status: int, asked_for: str | None, held: int
) -> None:
    product.endpoints.create(product.client_id, f"{receiver.url}/busy", trusted=True, by="shop")
    product.endpoints.create(product.client_id, f"{receiver.url}/other", trusted=True, by="shop")
    receiver.answers["/busy"] = status
    receiver.headers = {} if asked_for is None else {"Retry-After": asked_for}
    for _ in range(30):
        product.order()
    product.deliver()
    first = len(receiver.on("/busy"))
    assert first <= 10, "no more than were under way at once"
    clock.advance(timedelta(seconds=held / 2))
    until(lambda: product.deliver() == 0)
    assert (len(receiver.on("/busy")), len(receiver.on("/other"))) == (first, 30)
    clock.advance(timedelta(days=1))
    product.deliver()
    assert len(receiver.on("/busy")) == first + 1, "one finds out whether it is over"
    receiver.answers["/busy"] = 204
    clock.advance(timedelta(days=1))
    product.deliver()
    assert {d.status for d in product.deliveries()} == {"delivered"}


def test_a_busy_answer_without_a_time_holds_its_own_delivery_alone(product: Product, receiver: Receiver) -> None:
    product.endpoints.create(product.client_id, f"{receiver.url}/busy", trusted=True, by="shop")
    receiver.answers["/busy"] = 503
    for _ in range(15):
        product.order()
    product.deliver()
    assert len(receiver.on("/busy")) == 15


def test_what_its_owner_wants_sent_now_ends_a_hold(product: Product, receiver: Receiver) -> None:
    endpoint = product.endpoints.create(product.client_id, f"{receiver.url}/busy", trusted=True, by="shop")
    receiver.answers["/busy"], receiver.headers = 429, {"Retry-After": "3600"}
    product.order()
    product.deliver()
    receiver.answers["/busy"] = 204
    product.endpoints.test(product.client_id, endpoint["id"])
    product.deliver()
    assert len(receiver.on("/busy")) == 2


def test_a_quiet_endpoint_is_not_disabled_by_a_failure_here_and_there(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    endpoint = product.endpoints.create(product.client_id, f"{receiver.url}/shop", trusted=True, by="shop")
    receiver.answers["/shop"] = 500
    product.endpoints.test(product.client_id, endpoint["id"])
    product.deliver()
    assert product.endpoint(endpoint["id"]).failing_since is None, "a test is no success, but no failure either"
    product.order()
    for _ in range(9):
        product.deliver()
        clock.advance(timedelta(hours=13))
    assert {d.status for d in product.deliveries() if d.event_id} == {"failed"}
    clock.advance(timedelta(days=3))
    product.order()
    product.deliver()
    assert product.endpoint(endpoint["id"]).enabled
    receiver.answers["/shop"] = 204
    clock.advance(timedelta(minutes=1))
    product.deliver()
    assert product.endpoint(endpoint["id"]).failing_since is None


def test_one_success_begins_the_five_days_anew(product: Product, receiver: Receiver, clock: Clock) -> None:
    made = product.add(receiver.url)
    for status in (500, 204, 500):
        receiver.answers["/"] = status
        product.order()
        product.deliver()
        clock.advance(timedelta(days=3))
    product.deliver()
    assert product.endpoint(made["id"]).enabled
    assert product.endpoint(made["id"]).failures == 2


# --- several at once -------------------------------------------------------------------------------------------------


def test_two_workers_with_one_delivery_send_it_twice_at_most_and_record_it_once(
    product: Product, receiver: Receiver, twin: Database
) -> None:
    product.add(receiver.url)
    product.order()
    product.feed.publish()
    (delivery,) = product.deliveries()
    together = threading.Barrier(2)

    def both() -> int:
        together.wait(5)
        return 204

    receiver.answers["/"] = both
    threads = [
        threading.Thread(target=deliverer.deliver, args=(delivery.id,))
        for deliverer in (product.deliverer, product.another_deliverer(twin))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({request.headers["webhook-id"] for request in receiver.got}) == 1
    (found,) = product.deliveries()
    assert (found.status, found.attempts) == ("delivered", 1)
    product.deliverer.deliver(delivery.id)
    assert len(receiver.got) == 2, "what was delivered is not sent again"


def test_a_result_that_comes_after_anothers_is_not_written(product: Product, receiver: Receiver) -> None:
    product.add(receiver.url)
    product.order()
    product.feed.publish()
    (stale,) = product.deliveries()
    with product.database.write() as session:
        assert delivery_rows.record(session, stale, status="delivered", next_attempt_at=None)
        assert not delivery_rows.record(session, stale, status="failed", next_attempt_at=None)
    assert product.deliveries()[0].status == "delivered"


def test_workers_at_the_same_queue_keep_the_order_of_each_order(
    product: Product, receiver: Receiver, twin: Database
) -> None:
    product.add(receiver.url)
    ids = [product.order("confirming", "exchanging", "completed") for _ in range(6)]
    product.feed.publish()
    work: list[Callable[[], int]] = [product.deliverer.deliver_due, product.another_deliverer(twin).deliver_due]
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    product.deliverer.deliver_due()
    got = bodies(receiver)
    assert len(got) == 24
    for order_id in ids:
        assert [b["data"]["sequence"] for b in got if b["data"]["order_id"] == order_id] == [1, 2, 3, 4]


def test_a_worker_that_dies_in_a_delivery_leaves_it_to_be_sent_again(
    product: Product, receiver: Receiver, clock: Clock
) -> None:
    product.add(receiver.url)
    product.order()
    product.feed.publish()
    with product.database.write() as session:
        assert len(delivery_rows.claim_due(session, clock(), timedelta(seconds=60), 10, at_once=10, probe_from=20)) == 1
    assert product.deliverer.deliver_due() == 0
    clock.advance(61)
    assert product.deliverer.deliver_due() == 1


def test_publishing_again_makes_no_second_delivery(product: Product, receiver: Receiver) -> None:
    product.add(receiver.url)
    product.order()
    product.feed.publish()
    with product.database.write() as session:
        session.execute(update(OrderEvent).values(position=None))
    product.feed.publish()
    assert len(product.deliveries()) == 1


def test_a_job_goes_on_only_so_long(database: Database, clock: Clock, receiver: Receiver) -> None:
    moments = iter([0.0, 0.0, 61.0])
    product = Product(database, clock, monotonic=lambda: next(moments, 100.0))
    product.add(receiver.url)
    product.order("confirming", "exchanging")
    assert product.deliver() == 1, "the scheduler rings again for the rest"
    until(lambda: product.deliveries()[0].status == "delivered")
    assert product.deliverer.deliver_due() == 2


# --- registering -----------------------------------------------------------------------------------------------------


def test_an_endpoint_belongs_to_the_client_of_the_key(product: Product) -> None:
    made = product.add("https://hooks.example/swap")
    assert list(made) == ["id", "url", "secret", "enabled", "verified_at"]
    assert made["id"].startswith("whe_")
    with product.database.read() as session:
        endpoint = session.scalars(select(WebhookEndpoint)).one()
    assert (endpoint.client_id, endpoint.enabled, endpoint.types) == (product.client_id, True, [])
    assert iso(endpoint.created_at)
    with pytest.raises(NotFound, match="not known"):
        product.endpoints.add("swk_nobody", "https://hooks.example")


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://app.localhost./",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://user:pass@hooks.example.com/",
        "https://:pass@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com/hook ",
        " https://hooks.example.com/hook",
        "https://hooks.example.com/a hook",
        "https://hooks.example.com/hook\u00a0",
        "https://hooks/",
        "https://hooks.local/",
        "https://hooks.internal/",
        "https://hooks.invalid/",
        "https://hooks.test./",
        "https://hooks..example.com/",
        f"https://{'h' * 64}.example.com/",
        "ftp://hooks.example.com/",
        "https://[bad",
        "https://h.example.com:99999/",
        "https://hooks.example.com/\u200bhook",
        "https://hooks.example.com/\u202ehook",
        "https://hooks.example.com/\x07",
        "https://-hooks.example.com/",
        "https://hooks-.example.com/",
        "https://ho%20oks.example.com/",
        "https://hooks!.example.com/",
        "https://hooks,example.com/",
        "https://hooks.example/",
        "https://hooks.home.arpa/",
        "hooks.example",
        "",
    ],
)
def test_a_target_that_is_no_public_https_url_is_refused(product: Product, url: str) -> None:
    strict = Endpoints(product.database, product.vault, NoQueue(), product.clock, allow_private=False)  # type: ignore[arg-type] # a stand-in
    with pytest.raises(InvalidRequest) as caught:
        strict.add(product.key, url)
    assert [problem.code for problem in caught.value.fields["url"]] == ["URL_NOT_ALLOWED"]


def test_a_type_that_no_event_has_is_refused_with_every_other_problem(product: Product) -> None:
    with pytest.raises(InvalidRequest) as caught:
        product.endpoints.add(product.key, "ftp://x", ["order.complete", "order.completed"])
    assert sorted(caught.value.fields) == ["types", "url"]
    assert "order.complete." in caught.value.fields["types"][0].message


def test_every_type_that_an_event_may_have_can_be_asked_for(product: Product) -> None:
    assert product.add("https://hooks.example", sorted(TYPES))["enabled"] is True
    assert {f"order.{status}" for status in PUBLIC} - TYPES == {"order.creating"}
