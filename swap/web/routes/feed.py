"""The feed of a client's events."""

from __future__ import annotations

from typing import Any

import flask
from flask_smorest import Blueprint

from swap.web.auth import caller
from swap.web.reply import ok, service
from swap.web.schemas import EventsQuery

blp = Blueprint("events", __name__, description="Everything that happened to a client's orders, in one order.")


@blp.get("/v1/events")
@blp.arguments(EventsQuery, location="query")
def page(query: dict[str, Any]) -> flask.Response:
    """Events after a cursor (exclusive), oldest first; without one, from the oldest kept."""
    return ok(service().feed.page(caller().client_id, query.get("after"), query["limit"]))
