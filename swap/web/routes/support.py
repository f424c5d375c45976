"""What support staff look up, over all clients. A key needs the scope `support:read`."""

from __future__ import annotations

from typing import Any

import flask
from flask_smorest import Blueprint

from swap.web.reply import current_service, ok
from swap.web.schemas import Clue

blp = Blueprint("support", __name__, description="Orders of all clients, for support staff.")


@blp.get("/v1/support/orders")
@blp.arguments(Clue, location="query")
def find(query: dict[str, Any]) -> flask.Response:
    """Orders by what a customer tells, whole: an id of ours, the client's or the upstream's, a transaction, an address, a
    memo, a user, session or account, or a search term. The newest first; `matched` says what the clue is of each."""
    return ok(current_service().support.find(query["clue"], query["limit"]))
