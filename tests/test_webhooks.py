"""Webhooks: registered, published, delivered at least once, in order per order and endpoint, and recorded once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import orjson
import pytest
import structlog
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook

from swap.cadence import JITTER, WEBHOOK_RETRIES
from swap.errors import InvalidRequest, NotFoundHere
from swap.feed import Feed
from swap.keys import Keys
from swap.lifecycle import PUBLIC
from swap.store import webhooks as rows
from swap.store.database import Database
from swap.tables import OrderEvent, WebhookDelivery, WebhookEndpoint, iso
from swap.vault import Vault
from swap.webhooks import TIMEOUT_SECONDS, TYPES, Webhooks
from tests.conftest import Clock
from tests.made import make_client, make_order, make_orders, move, read_order
from tests.receivers import Receiver, receiving, speaking

SECRET_KEY = "a key for tests, of at least 32 characters"


class Bell:
    def ring(self, _job: str, *_arguments: object) -> bool:
        return False


class Product:
    """A client with its orders, its endpoints and the parts that serve it."""

    def __init__(self, database: Database, clock: Clock, **options: Any) -> None:
        self.database, self.clock = database, clock
        self.vault = Vault([SECRET_KEY])
        self.keys = Keys(database, self.vault, clock)
        made = self.keys.create("shop")
        caller = self.keys.caller(made.key)
        assert caller is not None
        self.key, self.client_id = made.key, caller.client_id
        self.feed = Feed(database, Bell(), clock)  # type: ignore[arg-type]
        self.webhooks = self.parts(database, **options)

    def parts(self, database: Database, **options: Any) -> Webhooks:
        settings = {"allow_private": True, "scale": Decimal(1), "timeout": 5.0, **options}
        return Webhooks(database, self.vault, Bell(), self.clock, Random(1), **settings)  # type: ignore[arg-type]

    def add(self, url: str, types: list[str] | None = None) -> dict[str, Any]:
        return self.webhooks.add(self.key, url, types or [])

    def deliver(self) -> int:
        self.feed.publish()
        return self.webhooks.deliver_due()

    def deliveries(self, **where: Any) -> list[WebhookDelivery]:
        query = select(WebhookDelivery).order_by(WebhookDelivery.order_id, WebhookDelivery.sequence)
        with self.database.read() as session:
            return list(session.scalars(query.filter_by(**where)))

    def order(self, *statuses: str) -> str:
        """An order that went through these statuses."""
        order_id = make_order(self.database, self.client_id).id
        for status in statuses:
            move(self.database, read_order(self.database, order_id), status=status)
        return order_id


@pytest.fixture
def product(database: Database, clock: Clock) -> Product:
    return Product(database, clock)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def bodies(receiver: Receiver, path: str = "/") -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.on(path)]


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


def test_an_endpoint_that_hangs_leaves_room_for_the_others(
    database: Database, clock: Clock, receiver: Receiver
) -> None:
    product = Product(database, clock, timeout=1.5)
    with speaking(lambda connection, over: over.wait(10)) as hanging:
        product.add(hanging)
        make_orders(database, 30, product.client_id)
        product.feed.publish()
        product.add(receiver.url)
        make_orders(database, 8, product.client_id)
        product.feed.publish()
        with database.write() as session:  # all of the other's are due before any of the good one's
            session.execute(update(WebhookDelivery).values(next_attempt_at=clock() - timedelta(minutes=1)))
        thread = threading.Thread(target=product.webhooks.deliver_due)
        began = time.monotonic()
        thread.start()
        while len(receiver.got) < 8 and time.monotonic() - began < 20:
            time.sleep(0.01)
        took = time.monotonic() - began
        with database.write() as session:  # enough for this test
            session.execute(update(WebhookDelivery).values(status="failed"))
        thread.join()
    assert took < 1.4, "before the first of the hanging ones has timed out"


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
        product.webhooks.deliver_due()
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


# --- several at once -------------------------------------------------------------------------------------------------


@pytest.fixture
def twin(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


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
        threading.Thread(target=webhooks.deliver, args=(delivery.id,))
        for webhooks in (product.webhooks, product.parts(twin))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({request.headers["webhook-id"] for request in receiver.got}) == 1
    (found,) = product.deliveries()
    assert (found.status, found.attempts) == ("delivered", 1)
    product.webhooks.deliver(delivery.id)
    assert len(receiver.got) == 2, "what was delivered is not sent again"


def test_a_result_that_comes_after_anothers_is_not_written(product: Product, receiver: Receiver) -> None:
    product.add(receiver.url)
    product.order()
    product.feed.publish()
    (stale,) = product.deliveries()
    with product.database.write() as session:
        assert rows.record(session, stale, status="delivered", next_attempt_at=None)
        assert not rows.record(session, stale, status="failed", next_attempt_at=None)
    assert product.deliveries()[0].status == "delivered"


def test_workers_at_the_same_queue_keep_the_order_of_each_order(
    product: Product, receiver: Receiver, twin: Database
) -> None:
    product.add(receiver.url)
    ids = [product.order("confirming", "exchanging", "completed") for _ in range(6)]
    product.feed.publish()
    work: list[Callable[[], int]] = [product.webhooks.deliver_due, product.parts(twin).deliver_due]
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    product.webhooks.deliver_due()
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
        assert len(rows.claim_due(session, clock(), timedelta(seconds=60), 10, at_once=10, probe_from=20)) == 1
    assert product.webhooks.deliver_due() == 0
    clock.advance(61)
    assert product.webhooks.deliver_due() == 1


def test_publishing_again_makes_no_second_delivery(product: Product, receiver: Receiver) -> None:
    product.add(receiver.url)
    product.order()
    product.feed.publish()
    with product.database.write() as session:
        session.execute(update(OrderEvent).values(position=None))
    product.feed.publish()
    assert len(product.deliveries()) == 1


def test_an_endpoint_that_is_switched_off_is_left_alone_and_its_deliveries_are_kept(
    product: Product, receiver: Receiver
) -> None:
    product.add(receiver.url)
    product.order()
    product.feed.publish()
    for enabled, sent in ((False, 0), (True, 1)):
        with product.database.write() as session:
            session.execute(update(WebhookEndpoint).values(enabled=enabled))
        assert product.webhooks.deliver_due() == sent


def test_a_job_goes_on_only_so_long(database: Database, clock: Clock, receiver: Receiver) -> None:
    moments = iter([0.0, 0.0, 61.0])
    product = Product(database, clock, monotonic=lambda: next(moments, 100.0))
    product.add(receiver.url)
    product.order("confirming", "exchanging")
    assert product.deliver() == 1, "the scheduler rings again for the rest"
    assert product.webhooks.deliver_due() == 2


# --- registering -----------------------------------------------------------------------------------------------------


def test_an_endpoint_belongs_to_the_client_of_the_key(product: Product) -> None:
    made = product.add("https://hooks.example/swap")
    assert list(made) == ["id", "url", "secret", "enabled"]
    assert made["id"].startswith("whe_")
    with product.database.read() as session:
        endpoint = session.scalars(select(WebhookEndpoint)).one()
    assert (endpoint.client_id, endpoint.enabled, endpoint.types) == (product.client_id, True, [])
    assert iso(endpoint.created_at)
    with pytest.raises(NotFoundHere, match="not known"):
        product.webhooks.add("swk_nobody", "https://hooks.example")


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://app.localhost./",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://user:pass@hooks.example/",
        "https://:pass@hooks.example/",
        "https://hooks.example/#part",
        "ftp://hooks.example/",
        "https://[bad",
        "https://h:99999/",
        "hooks.example",
        "",
    ],
)
def test_a_target_that_is_no_public_https_url_is_refused(product: Product, url: str) -> None:
    strict = product.parts(product.database, allow_private=False)
    with pytest.raises(InvalidRequest) as caught:
        strict.add(product.key, url)
    assert [p["code"] for p in caught.value.fields["url"]] == ["URL_NOT_ALLOWED"]


def test_a_type_that_no_event_has_is_refused_with_every_other_problem(product: Product) -> None:
    with pytest.raises(InvalidRequest) as caught:
        product.webhooks.add(product.key, "ftp://x", ["order.complete", "order.completed"])
    assert sorted(caught.value.fields) == ["types", "url"]
    assert "order.complete." in caught.value.fields["types"][0]["message"]


def test_every_type_that_an_event_may_have_can_be_asked_for(product: Product) -> None:
    assert product.add("https://hooks.example", sorted(TYPES))["enabled"] is True
    assert {f"order.{status}" for status in PUBLIC} - TYPES == {"order.creating"}
