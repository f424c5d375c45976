"""Address validation."""

from __future__ import annotations

import flask
from flask_smorest import Blueprint

from swap import addresses
from swap.errors import InvalidRequest
from swap.web.body import body
from swap.web.reply import ok, service
from swap.web.schemas import ValidateAddress

blp = Blueprint("addresses", __name__, description="Whether a payout can be sent there.")


@blp.post("/v1/addresses/validate")
@blp.doc(requestBody={"content": {"application/json": {"schema": ValidateAddress}}})
def validate() -> flask.Response:
    """The offline verdict on an address and memo. `unchecked`: no rule is known for the network; an order there needs
    the upstream's own yes."""
    asked = body(ValidateAddress())
    catalog = service().catalog
    snapshot = catalog.snapshot()
    if snapshot.as_of is None:
        # Nothing is unknown before anything is known.
        snapshot = catalog.usable()
    instrument = snapshot.instrument(asked["currency"], asked["network"])
    if instrument is None:
        message = f"There is no active instrument {asked['currency']} on {asked['network']}."
        raise InvalidRequest({"network": [{"code": "INSTRUMENT_UNKNOWN", "message": message}]})
    verdict = addresses.validate(instrument.currency, instrument.network, asked["address"], asked.get("memo"))
    rule = verdict.memo_rule
    return ok(
        {
            "status": verdict.status,
            "valid": verdict.valid,
            "field": verdict.field,
            "reason": verdict.reason,
            "message": verdict.message,
            "hint": verdict.hint,
            "normalised": verdict.normalised,
            "embedded_memo": verdict.embedded_memo,
            "warnings": list(verdict.warnings),
            "memo": {
                "name": rule.name,
                "required": instrument.requires_memo and verdict.embedded_memo is None,
                "allowed": rule.kind != "none",
                "format": rule.description,
            },
        }
    )
