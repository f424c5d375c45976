"""The scheduler: finds what is due and rings for it, or does it itself. Leases keep any number of them apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from swap.store import clients
from swap.store import orders as order_rows
from swap.tables import Order, OrderEvent, UpstreamCall, UsedSignature, WebhookDelivery
from swap.watching.due import BATCH, LEASE
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import make_client, make_order, make_orders, read_order
from tests.receivers import Receiver, receiving
from workers.schedule import Scheduler

UNREACHED = "redis://127.0.0.1:1"

MakeScheduler = Callable[[Service], Scheduler]


@pytest.fixture
def scheduler_of() -> Iterator[MakeScheduler]:
    made: list[Scheduler] = []

    def make(service: Service) -> Scheduler:
        made.append(Scheduler(service))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def rung(redis: Redis, queue: str) -> list[tuple[str, list[str]]]:
    """The jobs that wait: name, and the ids they carry."""
    jobs = Queue(queue, connection=redis, serializer=JSONSerializer).jobs
    return [(job.func_name.rpartition(".")[2], [each for batch in job.args for each in batch]) for job in jobs]


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not within its time"
        time.sleep(0.01)


def due(service: Service, count: int) -> list[str]:
    """Orders that are due now, their events published already."""
    ids = make_orders(service.database, count)
    service.feed.publish()
    return ids


def test_a_tick_rings_for_looks_in_batches_and_for_the_push(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, clock: Clock
) -> None:
    ids = make_orders(service.database, BATCH + 5)
    made = service.keys.create("shop")  # the client of these orders
    service.endpoints.add(made.key, "https://hooks.example")
    scheduler = scheduler_of(service)
    scheduler.tick()
    looks = rung(redis, "watch")
    assert [(name, len(batch)) for name, batch in looks] == [("look", BATCH), ("look", 5)]
    assert sorted(each for _, batch in looks for each in batch) == sorted(ids)
    # It publishes itself, for that is short and the workers may be held up by a slow endpoint.
    until(lambda: rung(redis, "push") == [("deliver", [])])
    redis.flushall()
    scheduler.tick()
    assert rung(redis, "push") == [("deliver", [])]
    assert rung(redis, "watch") == [], "leased"


def test_with_nothing_due_a_tick_rings_for_nothing(service: Service, redis: Redis, scheduler_of: MakeScheduler) -> None:
    make_order(service.database, next_check_at=service.clock() + timedelta(hours=1))
    service.feed.publish()
    redis.flushall()
    scheduler_of(service).tick()
    assert rung(redis, "watch") == rung(redis, "push") == []


def test_two_schedulers_never_lease_one_order_twice(
    service: Service, other_service: Callable[..., Service], redis: Redis, scheduler_of: MakeScheduler
) -> None:
    ids = due(service, 90)
    schedulers = [scheduler_of(service), scheduler_of(other_service())]
    for _ in range(3):
        for scheduler in schedulers:
            scheduler.tick()
    found = [each for _, batch in rung(redis, "watch") for each in batch]
    assert sorted(found) == sorted(ids)


def test_what_a_flush_of_redis_took_is_due_again_after_the_lease(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, clock: Clock
) -> None:
    (order_id,) = due(service, 1)
    scheduler = scheduler_of(service)
    scheduler.tick()
    assert rung(redis, "watch") == [("look", [order_id])]
    redis.flushall()
    clock.advance(LEASE - timedelta(seconds=5))
    scheduler.tick()
    assert rung(redis, "watch") == []
    clock.advance(6)
    scheduler.tick()
    assert rung(redis, "watch") == [("look", [order_id])]


def test_no_more_is_leased_than_can_be_asked_for_before_the_leases_run_out(
    service: Service, other_service: Callable[..., Service], redis: Redis, scheduler_of: MakeScheduler
) -> None:
    slow = other_service(upstream_rps=Decimal(2))
    due(slow, 5 * BATCH)
    scheduler = scheduler_of(slow)
    for _ in range(3):
        scheduler.tick()
    assert len(rung(redis, "watch")) == 2, "ten seconds' worth at two requests a second"


def test_without_redis_the_scheduler_looks_publishes_and_delivers_itself(
    service: Service,
    other_service: Callable[..., Service],
    shop: Shop,
    receiver: Receiver,
    scheduler_of: MakeScheduler,
    clock: Clock,
) -> None:
    alone = other_service(redis_url=UNREACHED)
    service.endpoints.add(shop.key, receiver.url)
    order_id = shop.place()["id"]
    clock.advance(190)
    scheduler = scheduler_of(alone)

    def arrived() -> bool:
        scheduler.tick()
        return any(b'"order.exchanging"' in request.body for request in receiver.got)

    until(arrived)
    assert read_order(service.database, order_id).status == "exchanging"

    def recorded() -> bool:
        with service.database.read() as session:
            return session.scalars(select(WebhookDelivery.status).distinct()).all() == ["delivered"]

    until(recorded)


def test_an_outage_of_redis_with_a_backlog_of_looks_does_not_stop_the_push(
    service: Service,
    other_service: Callable[..., Service],
    receiver: Receiver,
    scheduler_of: MakeScheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = other_service(redis_url=UNREACHED)
    make_orders(service.database, 3 * BATCH, make_client(service.database))
    made = service.keys.create("shop")
    service.endpoints.add(made.key, receiver.url)
    looked: list[list[str]] = []
    over = False

    def slow(order_ids: list[str]) -> None:
        looked.append(order_ids)
        until(lambda: over)

    monkeypatch.setattr(alone.due, "run_all", slow)
    scheduler = scheduler_of(alone)

    def all_arrived() -> bool:
        scheduler.tick()
        return len(receiver.got) == 3 * BATCH

    try:
        until(all_arrived)
        assert [len(batch) for batch in looked] == [BATCH], "the rest is not leased before it can be looked at"
    finally:
        over = True


def test_without_redis_a_hanging_endpoint_holds_up_neither_looks_nor_publishing(
    service: Service,
    other_service: Callable[..., Service],
    scheduler_of: MakeScheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = other_service(redis_url=UNREACHED, fallback_threads=1)
    make_order(service.database, next_check_at=service.clock() + timedelta(hours=1))
    service.endpoints.add(service.keys.create("shop").key, "https://hooks.example")
    service.feed.publish()
    hanging, looked, over = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        over.wait(60)

    def published() -> bool:
        with service.database.read() as session:
            return session.scalar(select(func.count()).where(OrderEvent.position.is_(None))) == 0

    def looks() -> bool:
        scheduler.tick()
        return looked.is_set()

    monkeypatch.setattr(alone.deliverer, "deliver_due", hang)
    monkeypatch.setattr(alone.due, "run_all", lambda _ids: looked.set())
    scheduler = scheduler_of(alone)
    try:
        scheduler.tick()
        assert hanging.wait(20)
        make_order(service.database)
        until(looks)
        until(published)
    finally:
        over.set()


def test_a_full_queue_leaves_the_rest_for_later_and_does_nothing_itself(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.due, "run_all", lambda _ids: pytest.fail("that is the workers' work"))
    for _ in range(200):
        service.queue.enqueue("look", [])
    (order_id,) = due(service, 1)
    scheduler_of(service).tick()
    assert all(batch == [] for _, batch in rung(redis, "watch"))
    with service.database.read() as session:
        assert order_rows.has_due(session, service.clock())
    assert read_order(service.database, order_id).failures == 0


def test_a_database_that_is_away_does_not_end_the_scheduler(
    service: Service, scheduler_of: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = scheduler_of(service)
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 1:
            raise OperationalError("SELECT", None, OSError("away"))
        if len(ticks) == 2:
            raise RuntimeError("a mistake of ours")
        stop[15](15, None)

    stop: dict[int, Callable[..., object]] = {}
    monkeypatch.setattr("workers.schedule.signal.signal", lambda number, handler: stop.update({int(number): handler}))
    ends: list[float] = []
    monkeypatch.setattr("workers.schedule.exit_after", ends.append)
    monkeypatch.setattr("workers.schedule._TICK_SECONDS", 0.05)
    monkeypatch.setattr(scheduler, "tick", tick)
    scheduler.run()
    assert len(ticks) == 3
    assert ends == [service.settings.drain_seconds], "from the signal on, whatever the tick is waiting for"


def test_what_has_served_its_time_is_forgotten_and_no_order_or_event_ever_is(
    service: Service, shop: Shop, clock: Clock
) -> None:
    shop.place()
    with service.database.write() as session:
        clients.spend_signature(session, "old", clock() + timedelta(seconds=10))
        clients.spend_signature(session, "new", clock() + timedelta(days=365))

    def counted() -> list[int]:
        kinds = (Order, OrderEvent, UpstreamCall)
        with service.database.read() as session:
            return [session.scalar(select(func.count()).select_from(kind)) or 0 for kind in kinds]

    before = counted()
    assert before[2] > 0
    clock.advance(timedelta(days=1))
    service.housekeeping.clean()
    assert counted() == before
    clock.advance(timedelta(days=90))
    service.housekeeping.clean()
    assert counted() == [*before[:2], 0]
    with service.database.read() as session:
        assert session.scalars(select(UsedSignature.signature)).all() == ["new"]


def test_the_clock_of_the_service_decides_what_is_due(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, clock: Clock
) -> None:
    order = make_order(service.database)
    service.endpoints.add(service.keys.create("shop").key, "https://hooks.example")
    service.feed.publish()
    with service.database.write() as session:
        session.execute(update(WebhookDelivery).values(next_attempt_at=clock() + timedelta(hours=1)))
        session.execute(update(Order).values(next_check_at=clock() + timedelta(hours=1)))
    redis.flushall()
    scheduler = scheduler_of(service)
    scheduler.tick()
    assert rung(redis, "push") == rung(redis, "watch") == []
    clock.advance(3601)
    scheduler.tick()
    assert rung(redis, "push") == [("deliver", [])]
    assert rung(redis, "watch") == [("look", [order.id])]
