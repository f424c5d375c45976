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
    """The budget that all keys of the client share, what requests cost, how much a process does at once for everybody, and
    how much the client may order.

    `remaining` is about right: other processes spend of the budget too. `full_in` in seconds. A cost is 1 where none is
    named.

    `order_limits`, one for each currency that has any, on whatever network: `largest_order` is what one order may be over,
    `daily_sum` what the orders of any 24 hours may come to, of which `used` is ordered and `left` may be. Amounts are
    decimal strings of the currency that is sent; null: no such limit.
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
            "order_limits": current_service().order_limits.shown(caller().client_id),
            "creates_at_once": current_service().settings.max_creates,
            "webhook_endpoints": MAX_ENDPOINTS,
        }
    )
