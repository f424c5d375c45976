"""Quotes."""

from __future__ import annotations

import flask
from flask_smorest import Blueprint

from swap.errors import InvalidRequest
from swap.orders import validation
from swap.web.auth import caller
from swap.web.body import read
from swap.web.reply import current_service, ok
from swap.web.routes.orders import flat
from swap.web.schemas import QuoteRequest

blp = Blueprint("quotes", __name__, description="What a swap would pay out.")

_SECONDS = 15.0


@blp.post("/v1/quotes")
@blp.doc(requestBody={"content": {"application/json": {"schema": QuoteRequest}}})
def quote() -> flask.Response:
    """The payout for an amount, with limits and fees, and a `quote_id` that an order may present until it expires.
    Without an amount: limits only."""
    service = current_service()
    content, problems = read(QuoteRequest())
    asked = flat(content)
    # A malformed field is no less so while the catalog is away, and must not hide what is wrong with the others.
    snapshot = service.catalog.snapshot() if problems else service.catalog.usable()
    problems = {**validation.route_problems(snapshot, asked), **problems} if snapshot.as_of else problems
    if problems:
        raise InvalidRequest(problems)
    source = snapshot.instrument(asked["from_currency"], asked["from_network"])
    target = snapshot.instrument(asked["to_currency"], asked["to_network"])
    assert source is not None and target is not None
    return ok(
        service.quotes.quote(caller().client_id, source, target, asked.get("amount"), asked["rate_mode"], _SECONDS)
    )
