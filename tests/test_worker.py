"""The worker as a real process: does its jobs, survives what is no job, and stops when told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import update

from swap.processes.supervise import Supervisor, start_redis
from swap.settings import Settings
from swap.store.leases import LEASE
from swap.tables import Order
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import read_order
from tests.faults import Looks
from tests.receivers import Receiver, receiving, speaking
from tests.waiting import until
from workers import jobs

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
DRAIN_SECONDS = 2
STARTED = '"event": "worker.started"'


class Worker:
    """`swap worker` on a test's database, Redis and sandbox. Its log is read back as text."""

    def __init__(self, settings: Settings, folder: Path, **changed: str) -> None:
        keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environ = {
            **keep,
            "DATABASE_URL": settings.database_url.replace("postgresql+psycopg://", "postgresql://"),
            "REDIS_URL": settings.redis_url or "",
            "UPSTREAM_URL": settings.upstream_url,
            "UPSTREAM_PUBLIC_KEY": settings.upstream_public_key,
            "UPSTREAM_SECRET_KEY": settings.upstream_secret_key,
            "UPSTREAM_RPS": str(settings.upstream_rps),
            "SWAP_SECRET_KEYS": ",".join(settings.secret_keys),
            "SWAP_WEBHOOK_ALLOW_PRIVATE": "1",
            "SWAP_DRAIN_SECONDS": str(DRAIN_SECONDS),
            **changed,
        }
        self.path = folder / f"worker{len(list(folder.glob('worker*.log')))}.log"
        with self.path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "swap.cli", "worker"], cwd=ROOT, env=environ, stdout=log, stderr=log
            )

    def log(self) -> str:
        return self.path.read_text(errors="replace")

    def until(self, true: Callable[[], object], seconds: float = 20) -> None:
        def holds() -> object:
            assert self.process.poll() is None, self.log()
            return true()

        until(holds, seconds, self.log)

    def started(self) -> Worker:
        self.until(lambda: STARTED in self.log())
        return self

    def terminate(self, within: float = DRAIN_SECONDS + 2) -> int:
        """SIGTERM, and how the process ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


Start = Callable[..., Worker]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a key that can be written in the environment, where a comma ends one."""
    return replace(settings, secret_keys=("a key for tests of at least 32 characters",))


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    running: list[Worker] = []

    def make(**changed: str) -> Worker:
        running.append(Worker(settings, tmp_path, **changed))
        return running[-1].started()

    yield make
    for worker in running:
        worker.kill()


def idle(redis: Redis) -> bool:
    """Whether RQ knows of a worker that waits for jobs."""
    return any(redis.hget(key, "state") == b"idle" for key in redis.scan_iter("rq:worker:*"))


def test_a_worker_looks_publishes_and_delivers_when_rung_for(
    service: Service, shop: Shop, clock: Clock, start: Start
) -> None:
    with receiving() as receiver:
        service.endpoints.add(shop.key, receiver.url, trusted=True)
        order_id = shop.place()["id"]  # this rings for the publisher
        worker = start()
        worker.until(lambda: _heard(receiver) == ["order.created", "order.awaiting_deposit"])
        # The world of the sandbox goes by the test's clock, the worker by its own: a refund is news for both.
        clock.advance(190)
        with service.database.write() as session:
            session.execute(update(Order).values(next_check_at=Order.created_at))
        service.queue.enqueue("look")
        worker.until(lambda: read_order(service.database, order_id).status == "exchanging")
        worker.until(lambda: _heard(receiver)[2:] == ["order.exchanging"])
        assert worker.terminate() == 0
    assert "Traceback" not in worker.log()


def _heard(receiver: Receiver) -> list[str]:
    return [json.loads(request.body)["type"] for request in receiver.got]


def test_what_is_no_job_does_not_end_a_worker(service: Service, redis: Redis, start: Start) -> None:
    worker = start()
    worker.until(lambda: idle(redis))
    queue = Queue("push", connection=redis, serializer=JSONSerializer)
    queue.enqueue_call("workers.jobs.unheard_of")
    queue.enqueue_call("workers.jobs.look", args=("no", "such", "arguments"))
    queue.enqueue_call("nowhere.at_all")
    redis.rpush("rq:queue:push", "garbage", b"\xff\x00", "another")
    redis.hset("rq:job:another", mapping={"data": b"no zlib", "created_at": "never"})
    redis.rpush("rq:queue:watch", "garbage")
    service.queue.enqueue("publish")
    order_before = service.feed.publish()
    assert order_before == 0
    worker.until(lambda: redis.llen("rq:queue:push") == 0 and redis.llen("rq:queue:watch") == 0)
    made = service.keys.create("later")
    assert made.key
    service.queue.enqueue("deliver")
    worker.until(lambda: redis.llen("rq:queue:push") == 0 and idle(redis))
    assert worker.terminate() == 0


def test_whoever_can_write_to_redis_runs_nothing_in_a_worker_but_its_own_jobs(
    redis: Redis, start: Start, tmp_path: Path
) -> None:
    """RQ imports and calls what a job names, and what its callbacks name; and it posts to the webhooks of a job."""
    mark = tmp_path / "ran"
    command = f"touch {mark}"
    worker = start()
    with receiving() as receiver:
        queue = Queue("push", connection=redis, serializer=JSONSerializer)
        queue.enqueue_call("os.system", args=(command,))
        queue.enqueue_call("builtins.exec", args=(f"open({str(mark)!r}, 'w')",))
        queue.enqueue_call("workers.jobs.service")
        queue.enqueue_call("workers.jobs.publish", kwargs={"then": command})
        good = queue.enqueue_call("workers.jobs.publish", failure_ttl=60)
        redis.hset(good.key, "success_callback_name", "os.mkdir")
        redis.hset(good.key, "failure_callback_name", "os.mkdir")
        redis.hset(good.key, "webhooks", json.dumps([{"url": receiver.url, "job_status": "finished"}]))
        worker.until(lambda: redis.llen("rq:queue:push") == 0 and idle(redis))
        worker.until(lambda: worker.log().count("worker.foreign_job") == 4)
        assert not mark.exists()
        assert not receiver.got
        assert redis.zcard("rq:failed:push") == 0, "what failed here was a callback"
    assert worker.terminate() == 0


def test_a_worker_whose_jobs_were_flushed_goes_on_with_the_next(service: Service, redis: Redis, start: Start) -> None:
    worker = start()
    worker.until(lambda: idle(redis))
    service.queue.enqueue("publish")
    redis.flushall()
    service.queue.enqueue("publish")
    worker.until(lambda: redis.llen("rq:queue:push") == 0)
    assert worker.terminate() == 0


def test_what_a_killed_worker_was_looking_at_is_taken_up_after_its_lease_and_no_sooner(
    service: Service, shop: Shop, clock: Clock, looks: Looks, start: Start
) -> None:
    order_id = shop.place()["id"]
    clock.advance(190)
    with service.database.write() as session:
        session.execute(update(Order).values(next_check_at=Order.created_at))
    looks.hold = threading.Event()
    worker = start()
    service.queue.enqueue("look")
    worker.until(lambda: looks.asked)
    worker.kill()
    looks.hold.set()
    # The worker goes by the real time, 190 s behind the test's.
    clock.advance(-190)
    assert service.due.work() == 0
    clock.advance(190 + LEASE.total_seconds())
    assert service.due.work() == 1
    assert read_order(service.database, order_id).status == "exchanging"
    states = {part.name: part for part in service.heartbeats.parts()}
    assert (states["worker watch"].alive, states["worker watch"].silent) == (0, 1)


def test_a_worker_shows_that_it_lives_until_it_is_told_to_end(service: Service, start: Start) -> None:
    worker = start()
    worker.until(lambda: service.heartbeats.alive("worker watch") and service.heartbeats.alive("worker push"))
    assert worker.terminate() == 0
    states = {part.name: part for part in service.heartbeats.parts()}
    assert (states["worker push"].alive, states["worker push"].silent) == (0, 0)


def test_an_idle_worker_does_not_wait_for_its_time_to_be_over(redis: Redis, start: Start) -> None:
    worker = start(SWAP_DRAIN_SECONDS="90")
    worker.until(lambda: idle(redis))
    assert worker.terminate(within=30) == 0


def test_a_worker_in_the_middle_of_a_job_stops_in_its_time_and_loses_nothing(
    service: Service, shop: Shop, redis: Redis, clock: Clock, start: Start
) -> None:
    """The receiver hangs for longer than the worker may still run; the lease brings the delivery back."""

    def hang() -> int:
        time.sleep(DRAIN_SECONDS + 3)
        return 204

    with receiving() as receiver:
        service.endpoints.add(shop.key, receiver.url, trusted=True)
        order = shop.place()
        worker = start()
        receiver.answers["/"] = hang
        worker.until(lambda: receiver.got)
        began = time.monotonic()
        assert worker.terminate() == 0
        assert time.monotonic() - began < DRAIN_SECONDS + 2
        receiver.answers.clear()
        clock.advance(timedelta(seconds=70))
        service.deliverer.deliver_due()
        numbers = [json.loads(r.body)["data"]["sequence"] for r in receiver.got]
    assert numbers == [1, 1, 2], f"of {order['id']}"


def test_a_worker_stops_as_well_while_redis_is_away(start: Start) -> None:
    worker = start(REDIS_URL="redis://127.0.0.1:1")
    worker.until(lambda: "worker.redis_away" in worker.log())
    assert worker.terminate() == 0


def test_a_worker_stops_as_well_while_redis_hangs(start: Start) -> None:
    with speaking(lambda connection, over: over.wait(30)) as url:
        worker = start(REDIS_URL=url.replace("http://", "redis://"))
        assert worker.terminate() == 0


def test_a_worker_finds_redis_again_and_stops_when_it_goes_away(service: Service, start: Start, tmp_path: Path) -> None:
    supervisor = Supervisor(logs=tmp_path)
    try:
        url = start_redis(supervisor, tmp_path)
        worker = start(REDIS_URL=url)
        with Redis.from_url(url) as redis:
            worker.until(lambda: idle(redis))
        supervisor.stop()
        worker.until(lambda: "worker.redis_away" in worker.log() or "could not connect" in worker.log())
        assert start_redis(supervisor, tmp_path) == url
        with Redis.from_url(url) as redis:
            queue = Queue("push", connection=redis, serializer=JSONSerializer)
            queue.enqueue_call("workers.jobs.publish")
            worker.until(lambda: redis.llen("rq:queue:push") == 0)
        supervisor.stop()
        worker.until(lambda: worker.log().count("worker.redis_away") + worker.log().count("could not connect") > 1)
        assert worker.terminate() == 0
    finally:
        supervisor.stop()


def test_every_line_of_a_worker_is_json_also_when_redis_is_killed_under_it(start: Start, tmp_path: Path) -> None:
    supervisor = Supervisor(logs=tmp_path)
    try:
        url = start_redis(supervisor, tmp_path)
        worker = start(REDIS_URL=url)
        with Redis.from_url(url) as redis:
            worker.until(lambda: idle(redis))
        (server,) = (part.process for part in supervisor._parts)
        server.kill()
        server.wait(20)
        # Its main thread and the one that listens for commands each find out for themselves.
        worker.until(lambda: '"thread": "pubsub"' in worker.log() and worker.log().count("worker.redis_away") > 3, 60)
    finally:
        supervisor.stop()
    worker.kill()
    lines = [json.loads(line) for line in worker.log().splitlines()]
    assert {line["part"] for line in lines} == {"worker"}


def test_the_jobs_do_what_their_names_say(service: Service, shop: Shop, clock: Clock) -> None:
    jobs.serve_with(service)
    with receiving() as receiver:
        service.endpoints.add(shop.key, receiver.url, trusted=True)
        shop.place()
        clock.advance(190)
        for _ in range(2):  # safe to run twice
            jobs.look()
            jobs.publish()
            jobs.deliver()
        assert _heard(receiver) == ["order.created", "order.awaiting_deposit", "order.exchanging"]
