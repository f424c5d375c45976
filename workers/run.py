"""A worker: takes jobs off the queues and runs them, one at a time; each job spreads its rows over threads itself."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import DequeueStrategy

from swap.wiring import Service
from workers import jobs

log = structlog.get_logger()

# While Redis is away a worker waits for it, and the scheduler does the work.
_REDIS_PAUSE_SECONDS = 1.0
# A Redis that hangs is noticed after about this long.
_TTL_SECONDS = 60


class _Job(Job):  # type: ignore[misc]
    """A job as Redis holds it, of which nothing is used but its name. RQ would import and call whatever function the job,
    or one of its callbacks, names, with any arguments: whoever can write to Redis could run anything here."""

    success_callback = failure_callback = stopped_callback = None

    @property
    def func(self) -> Callable[[], None] | None:
        """The job of ours that is meant; None for anything else."""
        try:
            foreign = self.args or self.kwargs or self.instance
            return None if foreign else jobs.BY_NAME.get(str(self.func_name))
        except Exception:  # whatever RQ makes of bytes that are no job
            return None

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """None: RQ would call any address that the job names."""


class _Worker(SimpleWorker):  # type: ignore[misc] # RQ's classes carry no types here
    """Runs jobs in this process: jobs are many and short, and a fork for each would cost more than the work."""

    max_connection_wait_time = 2.0
    drain_seconds = 10.0
    stop_requested = False

    def _pubsub_exception_handler(self, exc: BaseException, pubsub: Any, pubsub_thread: Any) -> None:
        """RQ's own handler raises what is no ConnectionError; its thread then prints a traceback instead of a log line."""
        log.warning("worker.redis_away", error=type(exc).__name__, thread="pubsub")
        if not isinstance(exc, RedisError | OSError):
            pubsub_thread.stop()
        time.sleep(_REDIS_PAUSE_SECONDS)

    def execute_job(self, job: _Job, queue: Queue) -> None:
        if job.func is None:
            log.critical("worker.foreign_job", queue=queue.name, job_id=job.id)
            job.delete()
            return
        super().execute_job(job, queue)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        type(self).stop_requested = True
        exit_after(self.drain_seconds)
        # RQ notes the stop in Redis, and Redis may be away.
        with contextlib.suppress(RedisError):
            super().request_stop(signum, frame)


def run(service: Service, queues: Sequence[str]) -> None:
    """Work until SIGTERM or SIGINT; the job at hand has SWAP_DRAIN_SECONDS to finish. If it does not, its leases run out
    and another worker takes over."""
    jobs.serve_with(service, alone=len(queues) == 1)
    _Worker.drain_seconds = service.settings.drain_seconds
    _end_at_once()
    pulse = service.heartbeats.start("worker", queues)
    log.info("worker.started", queues=list(queues))
    assert service.settings.redis_url is not None
    # RQ waits for jobs with a long timeout of its own, and sets it on the whole pool of the connection it is given. So it
    # gets a connection of its own: otherwise a Redis that hangs would hold up polls and deliveries that do not need it.
    try:
        with contextlib.suppress(StopRequested), Redis.from_url(service.settings.redis_url) as redis:
            _work(redis, queues)
    finally:
        pulse.stop()
    log.info("worker.stopped")


def _work(redis: Redis, queues: Sequence[str]) -> None:
    while not _Worker.stop_requested:
        _end_at_once()
        try:
            settings: dict[str, Any] = {"connection": redis, "serializer": JSONSerializer, "job_class": _Job}
            worker = _Worker([Queue(name, **settings) for name in queues], worker_ttl=_TTL_SECONDS, **settings)
            # In turn: a backlog in one queue must not keep the other one waiting.
            turns = DequeueStrategy.ROUND_ROBIN
            worker.work(with_scheduler=False, logging_level="WARNING", dequeue_strategy=turns)
        except (RedisError, OSError) as error:
            log.warning("worker.redis_away", error=type(error).__name__)
        if not _Worker.stop_requested:
            time.sleep(_REDIS_PAUSE_SECONDS)


def _end_at_once() -> None:
    """Exit on SIGTERM and SIGINT. RQ has handlers of its own while it works; before and between there is nothing to
    finish."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


def exit_after(seconds: float) -> None:
    """End this process after this many seconds, no matter what it is doing."""
    timer = threading.Timer(seconds, os._exit, args=(0,))
    timer.daemon = True
    timer.start()
