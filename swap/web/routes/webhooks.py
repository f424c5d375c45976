"""Webhook endpoints and deliveries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import flask
from flask_smorest import Blueprint
from marshmallow import Schema

from swap.web.auth import caller
from swap.web.body import body, raw_body
from swap.web.reply import current_service, ok
from swap.web.schemas import ChangeEndpoint, CreateEndpoint, DeliveriesQuery, RedeliverAll, RotateSecret

blp = Blueprint("webhooks", __name__, description="Where a client's events are sent, and what was sent there.")


def _takes(schema: type[Schema], *, required: bool = True) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}, "required": required}


# --- endpoints -------------------------------------------------------------------------------------------------------


@blp.get("/v1/webhook-endpoints")
def endpoints() -> flask.Response:
    """The client's endpoints, oldest first."""
    return ok({"endpoints": current_service().endpoints.endpoints(caller().client_id)})


@blp.post("/v1/webhook-endpoints")
@blp.doc(requestBody=_takes(CreateEndpoint))
def create() -> flask.Response:
    """Register an endpoint. `secret` is in this answer alone. `endpoint.verify` is sent there; events are once its token
    came back (`verified_at`)."""
    asked = body(CreateEndpoint())
    endpoint = current_service().endpoints.create(
        caller().client_id, asked["url"], asked.get("types", ()), asked.get("description"), by=caller().key
    )
    return ok(endpoint, 201)


@blp.get("/v1/webhook-endpoints/<string:endpoint_id>")
def endpoint(endpoint_id: str) -> flask.Response:
    """One endpoint; `disabled_reason` is by_client, gone (it answered 410) or no_success (5 days without any)."""
    return ok(current_service().endpoints.endpoint(caller().client_id, endpoint_id))


@blp.patch("/v1/webhook-endpoints/<string:endpoint_id>")
@blp.doc(requestBody=_takes(ChangeEndpoint))
def change(endpoint_id: str) -> flask.Response:
    """Change what is given. Disabling skips the deliveries that wait; enabling begins with the next event. Another `url` is
    `new_url` until it has answered `endpoint.verify`."""
    changes = body(ChangeEndpoint())
    return ok(current_service().endpoints.change(caller().client_id, endpoint_id, changes, by=caller().key))


@blp.delete("/v1/webhook-endpoints/<string:endpoint_id>")
def delete(endpoint_id: str) -> flask.Response:
    """Send nothing more there. Its deliveries stay listed."""
    current_service().endpoints.delete(caller().client_id, endpoint_id, by=caller().key)
    return ok({"id": endpoint_id, "deleted": True})


@blp.post("/v1/webhook-endpoints/<string:endpoint_id>/rotate-secret")
@blp.doc(requestBody=_takes(RotateSecret, required=False))
def rotate_secret(endpoint_id: str) -> flask.Response:
    """A new `secret`, in this answer alone. Until `old_secret_until` every webhook has both signatures."""
    asked = body(RotateSecret()) if raw_body() else RotateSecret().load({})
    overlap = timedelta(seconds=asked["overlap_seconds"])
    return ok(current_service().endpoints.rotate(caller().client_id, endpoint_id, overlap, by=caller().key))


@blp.post("/v1/webhook-endpoints/<string:endpoint_id>/verify")
def verify(endpoint_id: str) -> flask.Response:
    """Send `endpoint.verify` now, where its token has not come back yet. Answers with the delivery; the endpoint's
    `verified_at` tells the outcome."""
    return ok(current_service().endpoints.verify(caller().client_id, endpoint_id), 202)


@blp.post("/v1/webhook-endpoints/<string:endpoint_id>/test")
def test(endpoint_id: str) -> flask.Response:
    """Send `endpoint.test` there, once, whatever its `types`. Answers with the delivery; read that again for its outcome."""
    return ok(current_service().endpoints.test(caller().client_id, endpoint_id), 202)


# --- deliveries ------------------------------------------------------------------------------------------------------


@blp.get("/v1/webhook-deliveries")
@blp.arguments(DeliveriesQuery, location="query")
def deliveries(query: dict[str, Any]) -> flask.Response:
    """What was sent and with which outcome, newest first, by pages; kept for 90 days."""
    limit = query["limit"]
    columns = {"endpoint": "endpoint_id", "order_id": "order_id", "status": "status"}
    filters = {column: query[name] for name, column in columns.items() if query.get(name) is not None}
    rows = current_service().endpoints.deliveries(
        caller().client_id, filters, query.get("since"), query.get("after"), limit + 1
    )
    shown, more = rows[:limit], len(rows) > limit
    return ok({"deliveries": shown, "next": shown[-1]["id"] if more else None, "has_more": more})


@blp.get("/v1/webhook-deliveries/<string:delivery_id>")
def delivery(delivery_id: str) -> flask.Response:
    """One delivery."""
    return ok(current_service().endpoints.delivery(caller().client_id, delivery_id))


@blp.post("/v1/webhook-deliveries/<string:delivery_id>/redeliver")
def redeliver(delivery_id: str) -> flask.Response:
    """Send one again now, with the whole retry schedule before it."""
    return ok(current_service().endpoints.redeliver(caller().client_id, delivery_id), 202)


@blp.post("/v1/webhook-deliveries/redeliver")
@blp.doc(requestBody=_takes(RedeliverAll))
def redeliver_all() -> flask.Response:
    """Send again everything of an endpoint that failed since a time; or what was skipped, or waits for a later attempt.
    Up to 10,000 in one call: call again while `has_more`."""
    asked = body(RedeliverAll())
    return ok(
        current_service().endpoints.redeliver_all(
            caller().client_id, asked["endpoint"], asked["since"], asked["statuses"]
        ),
        202,
    )
