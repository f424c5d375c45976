"""Orders and their events."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any

import flask
from flask_smorest import Blueprint

from swap.domain.lifecycle import PROFILES, Status
from swap.domain.times import iso
from swap.errors import Conflict, InvalidRequest
from swap.orders.validation import OrderRequest
from swap.store.serializers import order_view
from swap.tables import Order
from swap.web.auth import caller, tracked
from swap.web.body import read
from swap.web.deposit_svg import deposit_svg
from swap.web.reply import current_service, ok, svg
from swap.web.schemas import OrdersQuery, PlaceOrder

blp = Blueprint("orders", __name__, description="Placing orders, finding them, and what happened to them.")

_STATUS_CODES = {"new": 201, "pending": 202, "again": 200}


@blp.post("/v1/orders")
@blp.doc(requestBody={"content": {"application/json": {"schema": PlaceOrder}}})
def place() -> flask.Response:
    """Place an order. Safe to send again with the same `client_order_id` and fields: it finds the order it made.

    201 new, with where to pay; 202 still being created, or in doubt; 200 made before; 409 `client_order_id` used with
    other fields; 422 refused; 503 not sent, nothing lost, send the same again. There is no cancel upstream: an order
    nobody pays for expires, and stays watched for a late deposit.
    """
    service = current_service()
    content, problems = read(PlaceOrder())
    asked = flat(content)
    if problems:
        # A malformed field must not hide what is wrong with the others.
        more = service.placer.problems(asked)
        raise InvalidRequest({**{k: v for k, v in more.items() if k not in problems}, **problems})
    asked["metadata"] = asked.get("metadata") or {}
    placed = service.placer.place(caller().client_id, OrderRequest(**asked))
    return ok(_with_token(placed.order), _STATUS_CODES[placed.kind])


@blp.get("/v1/orders/<string:order_id>")
def get(order_id: str) -> flask.Response:
    """One order as we know it; never asks the upstream. `as_of` says how old that knowledge is.

    Its owner also gets `tracking`, a token for the customer's browser. Instead of a signature such a token may come as
    `Authorization: Bearer trk_...`; its holder sees the order without what is between client and service.
    """
    follower = tracked()
    if follower is not None:
        return ok(follower.view())
    return ok(_with_token(current_service().orders.find(caller().client_id, order_id)))


@blp.get("/v1/orders/<string:order_id>/deposit.svg")
@blp.doc(responses={"200": {"description": "The picture.", "content": {"image/svg+xml": {}}}})
def deposit_picture(order_id: str) -> flask.Response:
    """Where to pay, as a picture with a QR code: of `deposit.uri`, else of the address. 409 DEPOSIT_NOT_PAYABLE while there
    is nothing to be paid, and once there no longer is."""
    order = current_service().orders.find(caller().client_id, order_id)
    deposit = order["deposit"]
    if deposit is None or not deposit["payable"]:
        reason = (order["status_reason"] or order["status"]) if deposit is None else deposit["payable_reason"]
        may_come = order["status"] == "creating" or reason == "unverified"
        raise Conflict(
            "Nothing can be paid to this order now.",
            code="DEPOSIT_NOT_PAYABLE",
            retry="same_request" if may_come else "never",
            payable_reason=reason,
        )
    return svg(deposit_svg(order))


@blp.get("/v1/orders/<string:order_id>/events")
def events(order_id: str) -> flask.Response:
    """What happened to the order, by `sequence`."""
    return ok({"events": current_service().orders.events(caller().client_id, order_id)})


@blp.post("/v1/orders/<string:order_id>/refresh")
def refresh(order_id: str) -> flask.Response:
    """Have the order looked at soon. Answers at once with what is known now."""
    return ok(current_service().orders.refresh(caller().client_id, order_id), 202)


@blp.post("/v1/orders/<string:order_id>/revoke-tracking")
def revoke_tracking(order_id: str) -> flask.Response:
    """Make every tracking token of the order void, for open streams within 10 seconds. `GET` gives a new one."""
    current_service().tracking.revoke(caller().client_id, order_id)
    return ok({"order_id": order_id, "revoked": True})


@blp.get("/v1/orders")
@blp.arguments(OrdersQuery, location="query")
def page(query: dict[str, Any]) -> flask.Response:
    """The client's orders, newest first, by pages."""
    limit, after = query.pop("limit"), query.pop("after", None)
    filters = {name: value for name, value in query.items() if value is not None}
    if "status" in filters:
        filters["status"] = [s for s in Status if PROFILES[s].public == filters["status"]]
    found = current_service().orders.page(caller().client_id, filters, _after(after), limit + 1)
    shown, more = found[:limit], len(found) > limit
    return ok(
        {
            "orders": [order_view(order) for order in shown],
            "next": _cursor(shown[-1]) if more else None,
            "has_more": more,
        }
    )


def _with_token(order: dict[str, Any]) -> dict[str, Any]:
    return {**order, "tracking": current_service().tracking.issue(order["id"])}


def flat(content: dict[str, Any]) -> dict[str, Any]:
    """The body's nested instruments as the flat fields that the use cases take."""
    asked = {name: value for name, value in content.items() if name not in ("from", "to")}
    for side in ("from", "to"):
        for part, value in content.get(side, {}).items():
            asked[f"{side}_{part}"] = value
    return asked


def _cursor(order: Order) -> str:
    return _encoded(order.created_at, order.id)


def _encoded(at: datetime, order_id: str) -> str:
    return urlsafe_b64encode(f"{iso(at)} {order_id}".encode()).decode("ascii")


def _after(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    try:
        written, order_id = urlsafe_b64decode(cursor).decode("ascii").split(" ")
        at = datetime.fromisoformat(written)
        # Only what we would have written ourselves: the decoder skips over what it does not know, and a time without a
        # zone, or one at the end of time, would break further in.
        if at.tzinfo is UTC and order_id.isprintable() and _encoded(at, order_id) == cursor:
            return at, order_id
    except (ValueError, OverflowError):
        pass
    message = "This is no cursor of ours."
    raise InvalidRequest({"after": [{"code": "CURSOR_MALFORMED", "message": message}]})
