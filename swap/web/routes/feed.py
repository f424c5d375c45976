"""The feed of a client's events."""

from __future__ import annotations

from typing import Any

import flask
from flask_smorest import Blueprint

from swap.store.events import EventFilter
from swap.web.auth import caller
from swap.web.reply import current_service, ok
from swap.web.schemas import EventsQuery

blp = Blueprint("events", __name__, description="Everything that happened to a client's orders, in one order.")


@blp.get("/v1/events")
@blp.arguments(EventsQuery, location="query")
def page(query: dict[str, Any]) -> flask.Response:
    """Events after a cursor (exclusive), oldest first; without one, from the oldest kept.

    Go on from `next`, with the same filters, even after a page without events; `has_more` says whether to go on at once.
    410 CURSOR_EXPIRED or CURSOR_RESET: begin without a cursor, and reconcile by `GET /v1/orders`.
    """
    only = EventFilter(
        types=tuple(name.strip() for name in query.get("types", "").split(",") if name.strip()),
        order_ids=(query["order_id"],) if query.get("order_id") else (),
        since=query.get("since"),
        until=query.get("until"),
    )
    return ok(current_service().feed.page(caller().client_id, query.get("after"), query["limit"], only))
