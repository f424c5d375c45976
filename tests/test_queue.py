"""The job queue: wakes workers, and never costs more than a moment while Redis is away."""

from __future__ import annotations

import json
import socket
import time
import zlib
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from swap.infra.queue import JOBS, PUSH, WATCH, JobQueue
from swap.infra.redis_guard import RedisGuard
from workers import jobs


def queued(redis: Redis, name: str) -> list[Job]:
    jobs_in_order: list[Job] = Queue(name, connection=redis, serializer=JSONSerializer).jobs
    return jobs_in_order


@pytest.fixture
def away() -> Iterator[Redis]:
    """A Redis that nobody runs."""
    with Redis.from_url("redis://127.0.0.1:1", socket_timeout=2, socket_connect_timeout=1) as redis:
        yield redis


def test_a_ring_puts_a_job_by_name_alone_in_its_queue(redis: Redis) -> None:
    assert JobQueue(redis, RedisGuard()).enqueue("look")
    (job,) = queued(redis, WATCH)
    assert (job.func_name, list(job.args), job.kwargs) == ("workers.jobs.look", [], {})
    assert (job.timeout, job.result_ttl, job.failure_ttl, job.retries_left) == (170, 0, 3600, None)
    raw = redis.hget(job.key, "data")
    assert isinstance(raw, bytes)
    assert json.loads(zlib.decompress(raw)) == ["workers.jobs.look", None, [], {}], "JSON, never pickle"


@pytest.mark.parametrize(("job", "queue"), [("look", WATCH), ("publish", PUSH), ("deliver", PUSH)])
def test_every_job_has_its_queue_and_its_function(redis: Redis, job: str, queue: str) -> None:
    assert JobQueue(redis, RedisGuard()).enqueue(job)
    assert len(queued(redis, queue)) == 1
    assert callable(getattr(jobs, job))
    assert set(JOBS) == {"look", "publish", "deliver"}


def test_a_full_queue_is_not_rung_again(redis: Redis) -> None:
    queue = JobQueue(redis, RedisGuard())
    _, limit = JOBS["publish"]
    assert [queue.enqueue("publish") for _ in range(limit + 2)] == [True] * limit + [False] * 2
    assert queue.depth("publish") == limit
    assert not queue.enqueue("deliver"), "they share it"
    assert queue.enqueue("look")


@pytest.mark.db
def test_without_redis_nothing_rings_and_nothing_raises(away: Redis) -> None:
    queue = JobQueue(away, RedisGuard())
    began = time.monotonic()
    assert not queue.enqueue("publish")
    assert queue.depth("look") is None
    assert not queue.ping()
    assert time.monotonic() - began < 0.5


def test_a_redis_that_hangs_costs_one_timeout_and_is_then_left_alone(redis: Redis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        with Redis.from_url(url, socket_timeout=0.2, socket_connect_timeout=0.2) as hanging:
            moment = 100.0
            queue = JobQueue(hanging, RedisGuard(monotonic=lambda: moment))
            began = time.monotonic()
            assert not queue.enqueue("publish")
            first = time.monotonic() - began
            assert 0.1 < first < 1.5
            began = time.monotonic()
            for _ in range(50):
                assert not queue.enqueue("publish")
                assert queue.depth("look") is None
            assert time.monotonic() - began < 0.1
            moment += 1.1
            began = time.monotonic()
            assert queue.depth("look") is None
            assert time.monotonic() - began > 0.1, "asked again after a second"


def test_it_rings_again_once_redis_is_back(redis: Redis, away: Redis) -> None:
    moment = 100.0
    queue = JobQueue(away, RedisGuard(monotonic=lambda: moment))
    assert not queue.enqueue("publish")
    for each in queue._queues.values():
        each.connection = redis
    assert not queue.enqueue("publish")
    moment += 1.1
    assert queue.enqueue("publish")


def test_something_else_in_the_queues_place_is_like_redis_being_away(redis: Redis) -> None:
    redis.set("rq:queue:push", "no list")
    queue = JobQueue(redis, RedisGuard())
    assert not queue.enqueue("publish")
    redis.delete("rq:queue:push")


def test_a_flush_takes_the_jobs_and_nothing_else(redis: Redis) -> None:
    queue = JobQueue(redis, RedisGuard())
    assert queue.enqueue("publish")
    redis.flushall()
    assert queue.depth("publish") == 0
    assert queue.enqueue("publish")
    assert json.dumps([job.func_name for job in queued(redis, PUSH)]) == '["workers.jobs.publish"]'
