"""What a client may do, and what is left of it."""

from __future__ import annotations

import flask
from flask_smorest import Blueprint

from swap.push.endpoints import MAX_ENDPOINTS
from swap.web.auth import caller
from swap.web.limits import COSTS, Budget
from swap.web.reply import current_service, ok

blp = Blueprint("limits", __name__, description="What a client may do; for any key.")


@blp.get("/v1/limits")
def limits() -> flask.Response:
    """The budget that all keys of the client share, what requests cost, and how much a process does at once for everybody.

    `remaining` is about right: other processes spend of the budget too. `full_in` in seconds. A cost is 1 where none is
    named.
    """
    budget: Budget = flask.g.budget
    return ok(
        {
            "key": caller().key,
            "scopes": sorted(caller().scopes),
            "weight_per_minute": budget.limit,
            "remaining": budget.left,
            "full_in": budget.full_in,
            "costs": {"GET /v1/orders": COSTS["orders.page"], "GET /v1/pairs": COSTS["instruments.pairs"]}
            | {"GET /v1/webhook-deliveries": COSTS["webhooks.deliveries"]},
            "creates_at_once": current_service().settings.max_creates,
            "webhook_endpoints": MAX_ENDPOINTS,
        }
    )
