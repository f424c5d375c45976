"""The job queue: tells workers that there is something to do. Used after commit; a lost job costs delay, nothing else.

Jobs are named by string and carry nothing: the worker that hears of one claims in the database what it can start on. So a
job may run twice or never. RQ's own retry and `unique` are not used: minutes and hours are due times in the database.
"""

from __future__ import annotations

from typing import Final

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

from swap.infra.redis_guard import RedisGuard

log = structlog.get_logger()

WATCH: Final = "watch"
PUSH: Final = "push"
# The pub/sub channel on which the streams learn that the feed has grown.
FEED: Final = "swap:feed"

_FINISHED = "swap:finished:{}"

# job -> (queue, how many may wait in it). A full queue takes no more: a job carries nothing, so the one that waits already
# finds all that is there when it runs.
JOBS: Final = {
    "look": (WATCH, 8),
    "publish": (PUSH, 20),
    "deliver": (PUSH, 20),
}


class JobQueue:
    """One per process; thread-safe."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._queues = {
            name: Queue(name, connection=redis, serializer=JSONSerializer, default_timeout=170)
            for name in (WATCH, PUSH)
        }
        self._redis, self._guard = redis, guard

    def enqueue(self, job: str) -> bool:
        """Ask the workers to run `workers.jobs.<job>`. False when Redis is away or the queue is full."""
        name, limit = JOBS[job]
        queue = self._queues[name]

        def add() -> bool:
            if queue.count >= limit:
                return False
            queue.enqueue_call(f"workers.jobs.{job}", timeout=170, result_ttl=0, failure_ttl=3600)
            return True

        def report(error: RedisError) -> None:
            log.warning("bell.not_rung", job=job, error=type(error).__name__)

        return bool(self._guard.ask(add, report))

    def announce(self, position: int) -> None:
        """Tell the streams that listen right now that the feed has grown to this position. None may be listening."""

        def report(error: RedisError) -> None:
            log.warning("bell.not_told", error=type(error).__name__)

        self._guard.ask(lambda: self._redis.publish(FEED, position), report)

    def depth(self, job: str) -> int | None:
        """How many jobs wait in this one's queue; None while Redis is away."""
        return self._guard.ask(lambda: int(self._queues[JOBS[job][0]].count))

    def note_finished(self, job: str) -> None:
        """Count a job that a worker has run to its end: only so whoever rings for it knows that it is heard."""
        self._guard.ask(lambda: self._redis.incr(_FINISHED.format(job)))

    def finished(self, job: str) -> int | None:
        """How many of these jobs were run to their end, since Redis was last empty; None while it is away."""
        return self._guard.ask(lambda: int(self._redis.get(_FINISHED.format(job)) or 0))

    def ping(self) -> bool:
        """Whether Redis is there; False without asking while it is left alone."""
        return bool(self._guard.ask(self._redis.ping))
