"""The doorbell: tells workers that there is something to do. Rung after commit; a lost ring costs delay, nothing else.

Jobs are named by string and carry ids at most, so a job may run twice or never. RQ's own retry and `unique` are not used:
minutes and hours are due times in the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

log = structlog.get_logger()

URGENT: Final = "urgent"
WATCH: Final = "watch"
PUSH: Final = "push"
# The pub/sub channel on which the streams hear that the feed has grown.
FEED: Final = "swap:feed"

# job -> (queue, how many may wait in it). A full queue is not rung again: whoever empties it finds the rows anyway.
JOBS: Final = {
    "resolve": (URGENT, 50),
    "look": (WATCH, 200),
    "publish": (PUSH, 20),
    "deliver": (PUSH, 20),
}

_AWAY_SECONDS = 1.0


class JobQueue:
    def __init__(self, redis: Redis, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queues = {
            name: Queue(name, connection=redis, serializer=JSONSerializer, default_timeout=170)
            for name in (URGENT, WATCH, PUSH)
        }
        self._redis = redis
        self._monotonic = monotonic
        self._away_until = 0.0

    def enqueue(self, job: str, *arguments: object) -> bool:
        """Ask the workers to run `workers.jobs.<job>`. False when Redis is away or the queue is full.

        After a failure Redis is left alone for a second, so that an outage does not cost every request its timeout.
        """
        if self._monotonic() < self._away_until:
            return False
        name, limit = JOBS[job]
        queue = self._queues[name]
        try:
            if queue.count >= limit:
                return False
            queue.enqueue_call(f"workers.jobs.{job}", args=arguments, timeout=170, result_ttl=0, failure_ttl=3600)
        except RedisError as error:
            self._away_until = self._monotonic() + _AWAY_SECONDS
            log.warning("bell.not_rung", job=job, error=type(error).__name__)
            return False
        return True

    def announce(self, position: int) -> None:
        """Tell whoever listens right now that the feed has grown to this position. Nobody may be listening."""
        if self._monotonic() < self._away_until:
            return
        try:
            self._redis.publish(FEED, position)
        except RedisError as error:
            self._away_until = self._monotonic() + _AWAY_SECONDS
            log.warning("bell.not_told", error=type(error).__name__)

    def depth(self, job: str) -> int | None:
        """How many jobs wait in this one's queue; None while Redis is away."""
        if self._monotonic() < self._away_until:
            return None
        try:
            return int(self._queues[JOBS[job][0]].count)
        except RedisError:
            self._away_until = self._monotonic() + _AWAY_SECONDS
            return None

    def ping(self) -> bool:
        """Whether Redis is there."""
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False
