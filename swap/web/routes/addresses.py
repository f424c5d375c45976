"""Address validation."""

from __future__ import annotations

import flask
from flask_smorest import Blueprint

from swap.errors import InvalidRequest
from swap.orders.validation import Destination
from swap.web.auth import FOR_PAGES, asker, owner_id
from swap.web.body import body
from swap.web.reply import current_service, ok
from swap.web.schemas import AddressAnswer, ValidateAddress

blp = Blueprint("addresses", __name__, description="Whether a payout can be sent there.")


@blp.post("/v1/addresses/validate")
@blp.doc(
    requestBody={"content": {"application/json": {"schema": ValidateAddress}}},
    responses={"200": {"description": "`data` of it.", "content": {"application/json": {"schema": AddressAnswer}}}},
    **FOR_PAGES,
)
def validate() -> flask.Response:
    """Both verdicts on an address and memo: ours, made offline, and the upstream's, where it could be asked in time.

    `status` is valid, invalid or unchecked (neither could tell; an order needs the upstream's yes). It is about the address:
    whether an order to it would be accepted, memo and all, is `orderable`. A `validation_id` is given where the upstream
    said yes; an order that presents it within 10 minutes is not asked about again.
    """
    service = current_service()
    asked = body(ValidateAddress())
    snapshot = service.catalog.snapshot()
    if snapshot.as_of is None:
        # Before the first catalog is loaded, no instrument can be called unknown.
        snapshot = service.catalog.usable()
    instrument = snapshot.instrument(asked["currency"], asked["network"])
    if instrument is None:
        message = f"There is no active instrument {asked['currency']} on {asked['network']}."
        raise InvalidRequest.on("network", "INSTRUMENT_UNKNOWN", message)
    destination = Destination(asked["address"], asked.get("memo"), asked.get("memo_none", False))
    return ok(service.destinations.preview(owner_id(), instrument, destination, asker=asker()))
