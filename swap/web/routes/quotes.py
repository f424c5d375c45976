"""Quotes."""

from __future__ import annotations

import flask
from flask_smorest import Blueprint

from swap.errors import InvalidRequest, Problems
from swap.market.quotes import Swap
from swap.orders.validation import PartialRequest, examine
from swap.web.auth import FOR_PAGES, asker, owner_id
from swap.web.body import read
from swap.web.reply import current_service, ok
from swap.web.routes.orders import instrument_name
from swap.web.schemas import QuoteRequest

blp = Blueprint("quotes", __name__, description="What a swap would pay out.")

_SECONDS = 15.0


@blp.post("/v1/quotes")
@blp.doc(requestBody={"content": {"application/json": {"schema": QuoteRequest}}}, **FOR_PAGES)
def quote() -> flask.Response:
    """The payout for an amount, with limits and fees, and a `quote_id` that an order may present until it expires.
    Without an amount: limits only."""
    service = current_service()
    content, problems = read(QuoteRequest())
    request = PartialRequest(instrument_name(content, "from"), instrument_name(content, "to"), content.get("amount"))
    # A malformed field is no less so while the catalog is away, and must not hide what is wrong with the others.
    snapshot = service.catalog.snapshot() if problems else service.catalog.usable()
    examined = examine(snapshot, request, service.clock())
    if snapshot.as_of is not None:
        problems = Problems(examined.problems | problems)
    if problems:
        raise InvalidRequest(problems)
    assert examined.source is not None and examined.target is not None
    swap = Swap(examined.source, examined.target, request.amount, content["rate_mode"])
    return ok(service.quotes.quote(owner_id(), swap, _SECONDS, asker=asker()))
