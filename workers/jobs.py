"""The jobs that workers run; `swap.infra.queue` names them by string. Ids in, nothing out, safe to run twice or never."""

from __future__ import annotations

from swap.push.delivering import JOB_SECONDS
from swap.wiring import Service

_service: Service | None = None
_deliver_seconds = JOB_SECONDS


def serve_with(service: Service, deliver_seconds: float = JOB_SECONDS) -> None:
    """Give the jobs of this process their parts."""
    global _service, _deliver_seconds
    _service, _deliver_seconds = service, deliver_seconds


def service() -> Service:
    assert _service is not None, "serve_with() must be called first"
    return _service


def resolve(order_ids: list[str]) -> None:
    service().due.run_all(order_ids)


def look(order_ids: list[str]) -> None:
    service().due.run_all(order_ids)


def publish() -> None:
    service().feed.publish()


def deliver() -> None:
    service().deliverer.deliver_due(service().feed.publish, _deliver_seconds)
