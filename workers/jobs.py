"""The jobs that workers run, named by string in `swap.infra.queue`. Nothing in, nothing out, safe to run twice or never."""

from __future__ import annotations

from swap.push import delivering
from swap.watching import due
from swap.wiring import Service

_service: Service | None = None
_alone = False


def serve_with(service: Service, *, alone: bool = True) -> None:
    """Give the jobs of this process their parts. `alone`: the process serves one queue, so that its jobs take their time."""
    global _service, _alone
    _service, _alone = service, alone


def service() -> Service:
    assert _service is not None, "serve_with() must be called first"
    return _service


def look() -> None:
    claimed = service().due.work(due.JOB_SECONDS if _alone else due.SHARED_JOB_SECONDS)
    # Where it could not begin on anything, because no thread came free, somebody else has to.
    if claimed or not service().due.count(1):
        service().queue.note_finished("look")


def publish() -> None:
    service().feed.publish()


def deliver() -> None:
    seconds = delivering.JOB_SECONDS if _alone else delivering.SHARED_JOB_SECONDS
    service().deliverer.deliver_due(service().feed.publish, seconds)
    service().queue.note_finished("deliver")


BY_NAME = {f"workers.jobs.{work.__name__}": work for work in (look, publish, deliver)}
"""What may be asked for, by the name that stands in Redis. A worker runs nothing else."""
