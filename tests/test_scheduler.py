"""The scheduler: finds what is due and rings for it, or does it itself. Leases keep any number of them apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from swap.infra.queue import JOBS
from swap.ops import housekeeping
from swap.sandbox.world import World
from swap.store import calls as upstream_calls
from swap.store import clients
from swap.tables import Heartbeat, Order, OrderEvent, UpstreamCall, UsedSignature, WebhookDelivery
from swap.watching.due import AT_ONCE
from swap.wiring import Service
from tests.conftest import Clock, Shop, alive
from tests.factories import make_client, make_order, make_orders, read_order
from tests.polling import due_ids
from tests.receivers import Receiver
from tests.waiting import until
from workers import jobs
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


def rung(redis: Redis, queue: str) -> list[str]:
    """The jobs that wait, by name. None carries anything."""
    jobs = Queue(queue, connection=redis, serializer=JSONSerializer).jobs
    assert all(not job.args and not job.kwargs for job in jobs)
    return [job.func_name.rpartition(".")[2] for job in jobs]


def hear(redis: Redis, queue: str) -> None:
    """As a worker that takes the next job, and dies of it."""
    Queue(queue, connection=redis, serializer=JSONSerializer).pop_job_id()


@pytest.fixture
def workers(service: Service) -> Iterator[None]:
    """A worker that lives, with both queues; it takes no jobs."""
    with alive(service, "worker", "watch", "push"):
        yield


def due(service: Service, count: int) -> list[str]:
    """Orders that are due now, their events published already."""
    ids = make_orders(service.database, count)
    service.feed.publish()
    return ids


def test_a_tick_rings_once_for_as_many_looks_as_a_worker_starts_at_once_and_claims_none(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, workers: None
) -> None:
    ids = make_orders(service.database, AT_ONCE + 5)
    made = service.keys.create("shop")  # the client of these orders
    service.endpoints.add(made.key, "https://hooks.example", trusted=True)
    scheduler = scheduler_of(service)
    scheduler.tick()
    assert rung(redis, "watch") == ["look", "look"]
    assert due_ids(service) == ids, "a ring carries no claim"
    # It publishes itself, for that is short and the workers may be held up by a slow endpoint.
    until(lambda: rung(redis, "push") == ["deliver"])
    scheduler.tick()
    assert rung(redis, "watch") == ["look", "look"]
    assert rung(redis, "push") == ["deliver"]


def test_with_nothing_due_a_tick_rings_for_nothing(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, workers: None
) -> None:
    make_order(service.database, next_check_at=service.clock() + timedelta(hours=1))
    service.feed.publish()
    redis.flushall()
    scheduler_of(service).tick()
    assert rung(redis, "watch") == rung(redis, "push") == []


def test_rings_that_wait_are_for_what_is_due_now_however_many_schedulers_tick(
    service: Service, other_service: Callable[..., Service], redis: Redis, scheduler_of: MakeScheduler, workers: None
) -> None:
    due(service, 2)
    schedulers = [scheduler_of(service), scheduler_of(other_service())]
    for _ in range(12):
        for scheduler in schedulers:
            scheduler.tick()
    assert rung(redis, "watch") == ["look"]
    make_orders(service.database, 20 * AT_ONCE)
    for scheduler in schedulers:
        scheduler.tick()
    assert len(rung(redis, "watch")) == JOBS["look"][1], "a backlog of any size"


def test_after_a_flush_of_redis_the_next_tick_rings_again(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, workers: None
) -> None:
    due(service, 1)
    scheduler = scheduler_of(service)
    scheduler.tick()
    redis.flushall()
    scheduler.tick()
    assert rung(redis, "watch") == ["look"]


def test_a_job_that_comes_late_or_twice_looks_at_nothing_twice(
    service: Service, other_service: Callable[..., Service], shop: Shop, world: World, clock: Clock
) -> None:
    shop.place()
    clock.advance(30)
    other = other_service()
    jobs = [threading.Thread(target=each.due.work) for each in (service, other) * 3]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert service.due.work() == 0
    assert sum(second["endpoints"].get("info", 0) for second in world.load.report()["seconds"]) == 1


def test_a_step_that_hangs_keeps_its_lease_for_two_minutes_and_a_half_at_most_and_then_raises_an_alarm_once(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (order_id,) = due(service, 1)
    over = threading.Event()
    monkeypatch.setattr(service.due, "run", lambda order: over.wait(60))
    try:
        service.due.work(0.1)
        with capture_logs() as logs:
            for _ in range(40):
                clock.advance(4)
                service.due.renew()
        assert due_ids(service) == [order_id], "free for another process"
        assert [line["order_id"] for line in logs if line["event"] == "watch.step_stuck"] == [order_id]
    finally:
        over.set()


def test_leases_are_renewed_while_a_claim_waits_for_the_database(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, _ = due(service, 2)  # the longer overdue is claimed first
    over, claiming = threading.Event(), threading.Event()
    monkeypatch.setattr(service.due, "run", lambda order: over.wait(60))

    def count_slowly(limit: int) -> int:
        claiming.set()
        over.wait(60)
        return 0

    service.due.work(0.1, at_once=1)
    monkeypatch.setattr(service.due, "count", count_slowly)
    another = threading.Thread(target=service.due.work, args=(0.1,))
    another.start()
    try:
        assert claiming.wait(20)
        before = read_order(service.database, held).leased_until
        clock.advance(4)
        renewing = threading.Thread(target=service.due.renew)
        renewing.start()
        renewing.join(10)
        after = read_order(service.database, held).leased_until
        assert before is not None and after is not None
        assert after >= before + timedelta(seconds=4)
    finally:
        over.set()
        another.join()


# --- nobody hears the bell -------------------------------------------------------------------------------------------


def test_where_no_worker_lives_the_scheduler_does_the_work_itself_although_redis_does(
    service: Service, shop: Shop, world: World, scheduler_of: MakeScheduler, clock: Clock
) -> None:
    world.chaos.force("create.accept_then_drop")
    doubt = shop.place("doubt")["id"]
    paid = shop.place("paid", destination_memo="5")["id"]
    scheduler = scheduler_of(service)

    def both_are_done() -> bool:
        clock.advance(30)
        scheduler.tick()
        read = [read_order(service.database, order_id) for order_id in (doubt, paid)]
        return read[0].status != "in_doubt" and read[1].status == "completed"

    until(both_are_done, 60)

    def all_is_published() -> bool:
        scheduler.tick()
        return not service.feed.has_unpublished()

    until(all_is_published)


def test_a_worker_of_the_other_queue_is_no_worker_for_looks(
    service: Service, shop: Shop, scheduler_of: MakeScheduler, clock: Clock
) -> None:
    order_id = shop.place()["id"]
    clock.advance(190)
    with alive(service, "worker", "push"):
        scheduler_of(service).tick()
        until(lambda: read_order(service.database, order_id).status == "exchanging")


def test_a_worker_that_lives_but_finishes_no_jobs_is_not_waited_for_longer_than_fifteen_seconds_and_a_job(
    service: Service,
    redis: Redis,
    scheduler_of: MakeScheduler,
    workers: None,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    due(service, 1)
    worked: list[float] = []
    monkeypatch.setattr(service.due, "work", lambda *_: worked.append(clock.time()))
    scheduler = scheduler_of(service)

    def tick(after: float) -> None:
        clock.advance(after)
        service.heartbeats.beat(beating)
        scheduler.tick()

    with service.database.read() as session:
        beating = session.scalars(select(Heartbeat)).one()
    tick(0)
    for _ in range(12):
        tick(10)
        hear(redis, "watch")
        service.queue.note_finished("look")
    assert worked == [], "finished each time"
    tick(1)
    tick(19)
    assert worked == []
    with capture_logs() as logs:
        tick(2)
        until(lambda: len(worked) == 1)
    assert [line["job"] for line in logs if line["event"] == "bell.not_heard"] == ["look"]
    service.queue.note_finished("look")
    tick(1)
    tick(1)
    assert len(worked) == 1, "and once it finishes one again it is left to its work"


def test_where_workers_take_every_job_and_die_of_it_the_scheduler_does_the_work_itself(
    service: Service, shop: Shop, redis: Redis, scheduler_of: MakeScheduler, workers: None, clock: Clock
) -> None:
    order_id = shop.place()["id"]
    redis.flushall()
    scheduler = scheduler_of(service)
    with service.database.read() as session:
        beating = session.scalars(select(Heartbeat)).one()

    def is_completed() -> bool:
        clock.advance(30)
        service.heartbeats.beat(beating)
        scheduler.tick()
        for _ in rung(redis, "watch"):
            hear(redis, "watch")
        return read_order(service.database, order_id).status == "completed"

    until(is_completed, 60)


def test_a_job_that_could_begin_on_nothing_does_not_count_as_finished(
    service: Service, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(service, 1)
    monkeypatch.setattr(jobs, "_service", service)
    with monkeypatch.context() as stuck:
        stuck.setattr(service.due, "work", lambda *_: 0)
        jobs.look()
    assert service.queue.finished("look") == 0
    monkeypatch.setattr(service.due, "run", lambda order: None)
    jobs.look()
    assert service.queue.finished("look") == 1


def test_without_redis_the_scheduler_looks_publishes_and_delivers_itself(
    service: Service,
    other_service: Callable[..., Service],
    shop: Shop,
    receiver: Receiver,
    scheduler_of: MakeScheduler,
    clock: Clock,
) -> None:
    alone = other_service(redis_url=UNREACHED)
    service.endpoints.add(shop.key, receiver.url, trusted=True)
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
    alone = other_service(redis_url=UNREACHED, fallback_threads=3)
    ids = make_orders(service.database, 24, make_client(service.database))
    made = service.keys.create("shop")
    service.endpoints.add(made.key, receiver.url, trusted=True)
    looked: list[str] = []
    over = threading.Event()

    def slow(order: Order) -> None:
        looked.append(order.id)
        over.wait(60)

    monkeypatch.setattr(alone.due, "run", slow)
    scheduler = scheduler_of(alone)

    def all_arrived() -> bool:
        scheduler.tick()
        return len(receiver.got) == 24

    try:
        until(all_arrived)
        assert sorted(looked) == ids[:3], "the rest is not leased before it can be looked at"
        assert due_ids(service) == ids[3:]
    finally:
        over.set()


def test_without_redis_a_hanging_endpoint_holds_up_neither_looks_nor_publishing(
    service: Service,
    other_service: Callable[..., Service],
    scheduler_of: MakeScheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = other_service(redis_url=UNREACHED, fallback_threads=1)
    make_order(service.database, next_check_at=service.clock() + timedelta(hours=1))
    service.endpoints.add(service.keys.create("shop").key, "https://hooks.example", trusted=True)
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
    monkeypatch.setattr(alone.due, "work", lambda *_: looked.set())
    scheduler = scheduler_of(alone)
    try:
        scheduler.tick()
        assert hanging.wait(20)
        make_order(service.database)
        until(looks)
        until(published)
    finally:
        over.set()


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
    service.housekeeping.clean_due()
    assert counted() == before
    clock.advance(timedelta(days=90))
    service.housekeeping.clean_due()
    assert counted() == [*before[:2], 0]
    with service.database.read() as session:
        assert session.scalars(select(UsedSignature.signature)).all() == ["new"]


def test_a_step_of_housekeeping_that_fails_undoes_no_other_and_is_left_alone_for_an_hour(
    service: Service, other_service: Callable[..., Service], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend(signature: str) -> None:
        with service.database.write() as session:
            clients.spend_signature(session, signature, clock() - timedelta(seconds=1))

    def left() -> list[str]:
        with service.database.read() as session:
            return list(session.scalars(select(UsedSignature.signature)))

    tried: list[int] = []

    def too_much(*_: object) -> None:
        tried.append(1)
        raise OperationalError("DELETE", None, TimeoutError("statement timeout"))

    monkeypatch.setitem(housekeeping._STEPS, "signatures", too_much)
    monkeypatch.setattr(service.feed, "forget_old", lambda: tried.append(100))
    spend("old")
    with service.database.write() as session:
        old = {"at": clock() - timedelta(days=91), "endpoint": "orders", "method": "GET", "attempt": 1}
        upstream_calls.add_call(session, order_ref="ord_1", ms=1, outcome="UPSTREAM_TIMEOUT", **old)
    for each in (service, other_service()):
        each.housekeeping.clean_due()
    assert tried == [1, 100], "the last step came, and one process does it for all"
    with service.database.read() as session:
        assert session.scalars(select(UpstreamCall.id).where(UpstreamCall.order_ref == "ord_1")).all() == []
    for _ in range(5):
        clock.advance(601)
        service.housekeeping.clean_due()
    assert tried == [1] + [100] * 6
    monkeypatch.setitem(housekeeping._STEPS, "signatures", clients.forget_signatures)
    assert left() == ["old"]
    clock.advance(601)
    service.housekeeping.clean_due()
    assert left() == []


def test_housekeeping_that_hangs_holds_up_no_ring(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    begun = threading.Event()

    def hang(*_: object) -> None:
        begun.set()
        over.wait(60)

    monkeypatch.setattr(service.feed, "forget_old", hang)
    scheduler = scheduler_of(service)
    try:
        scheduler.tick()
        assert begun.wait(20)
        due(service, 1)
        scheduler.tick()
        assert rung(redis, "watch") == ["look"]
    finally:
        over.set()


def test_the_clock_of_the_service_decides_what_is_due(
    service: Service, redis: Redis, scheduler_of: MakeScheduler, clock: Clock, workers: None
) -> None:
    make_order(service.database)
    service.endpoints.add(service.keys.create("shop").key, "https://hooks.example", trusted=True)
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
    assert rung(redis, "push") == ["deliver"]
    assert rung(redis, "watch") == ["look"]
