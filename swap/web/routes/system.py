"""Health, readiness, time."""

from __future__ import annotations

from typing import Any

import flask
import orjson
from flask_smorest import Blueprint

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
    database does. 503 as well while the process is about to end: `"api": "draining"`. Answered within a second, also while a
    part hangs: what is silent is away."""
    service = current_service()
    is_ready, state = service.readiness.look()
    if service.draining.is_set():
        state["api"], is_ready = "draining", False
    answer: dict[str, Any] = {"ready": is_ready, "parts": state}
    return flask.Response(orjson.dumps(answer), status=200 if is_ready else 503, content_type="application/json")


@blp.get("/v1/time")
def server_time() -> flask.Response:
    """Our clock, in milliseconds since 1970 in UTC; request timestamps must be within 5 seconds of it."""
    return ok({"time": to_ms(current_service().clock())})
