"""Health, readiness, time."""

from __future__ import annotations

from typing import Any

import flask
import orjson
from flask_smorest import Blueprint
from sqlalchemy.exc import SQLAlchemyError

from swap.domain.times import to_ms
from swap.web.reply import current_service, ok

blp = Blueprint("system", __name__, description="Health, readiness and time; open to all.")


@blp.get("/healthz")
def health() -> flask.Response:
    """200 while the process is alive."""
    return ok({"alive": True})


@blp.get("/readyz")
def ready() -> flask.Response:
    """200 when requests can be served. Redis, the upstream, a scheduler or a worker being away does not stop us; the
    database does. 503 as well while the process is about to end: `"api": "draining"`."""
    service = current_service()
    state: dict[str, str] = {"database": "away", "catalog": "unknown", "redis": "away", "upstream": "unknown"}
    try:
        if service.database.migrated():
            state["database"] = "ok"
            snapshot = service.catalog.snapshot()
            staleness = snapshot.staleness(service.clock())
            state["catalog"] = "ok" if staleness == "fresh" else staleness
            if service.upstream_access.state != "ok":
                state["upstream"] = service.upstream_access.state
            elif service.catalog.refresh_fails():
                state["upstream"] = "away"
            elif snapshot.as_of is not None:
                state["upstream"] = "ok"
            for part in service.heartbeats.parts():
                kind = part.name.partition(" ")[0]
                if kind in ("scheduler", "worker") and state.get(kind) != "silent":
                    state[kind] = "silent" if part.missing else "ok"
        else:
            state["database"] = "not_migrated"
    except SQLAlchemyError:
        pass
    if service.queue.ping():
        state["redis"] = "ok"
    is_ready = state["database"] == "ok" and state["catalog"] != "never_loaded"
    if service.draining.is_set():
        state["api"], is_ready = "draining", False
    answer: dict[str, Any] = {"ready": is_ready, "parts": state}
    return flask.Response(orjson.dumps(answer), status=200 if is_ready else 503, content_type="application/json")


@blp.get("/v1/time")
def server_time() -> flask.Response:
    """Our clock, in milliseconds since 1970 in UTC; request timestamps must be within 5 seconds of it."""
    return ok({"time": to_ms(current_service().clock())})
