"""Orders and their events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import flask
from flask_smorest import Blueprint

from swap.domain.lifecycle import PROFILES, Status
from swap.domain.times import from_iso, iso
from swap.errors import Conflict, InvalidRequest
from swap.orders.validation import Destination, InstrumentName, OrderRequest, PartialRequest
from swap.store.serializers import tracked_view, view_at
from swap.tables import Order
from swap.web import cursors
from swap.web.auth import caller, owner_id, tracked
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
    other fields; 422 refused; 503 not sent, nothing lost, send the same again. There is no cancel upstream: an order that is
    not paid for expires, and stays watched for a late deposit.

    The operator may have limited how much is ordered (`GET /v1/limits`): 422, with ORDER_TOO_LARGE or DAILY_SUM_REACHED of
    `amount`. An order that exists is found all the same.
    """
    service = current_service()
    content, problems = read(PlaceOrder())
    client_id, limits = caller().client_id, caller().order_limits
    if problems:
        # A malformed field must not hide what is wrong with the others.
        raise InvalidRequest(service.placer.problems(client_id, _partial_request(content), limits) | problems)
    placed = service.placer.place(client_id, _order_request(content), limits)
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
    order = _view(current_service().orders.find(owner_id(), order_id))
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
    """What happened to the order, by `sequence`. With a tracking token each order in it is as such a token shows it."""
    found = current_service().orders.events(owner_id(), order_id)
    if tracked() is not None:
        found = [{**event, "order": tracked_view(event["order"])} for event in found]
    return ok({"events": found})


@blp.post("/v1/orders/<string:order_id>/refresh")
def refresh(order_id: str) -> flask.Response:
    """Have the order polled soon. Answers at once with what is known now. With a tracking token about twice a minute."""
    view = _view(current_service().orders.refresh(owner_id(), order_id))
    return ok(view if tracked() is None else tracked_view(view), 202)


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
    if "ids" in filters:
        filters["ids"] = filters["ids"].split(",")
    position = cursors.decode(after, _position)
    orders = current_service().orders.page(caller().client_id, filters, position, limit + 1)
    shown, more = orders[:limit], len(orders) > limit
    return ok(
        {
            "orders": [_view(order) for order in shown],
            "next": cursors.encode(iso(shown[-1].created_at), shown[-1].id) if more else None,
            "has_more": more,
        }
    )


def _view(order: Order) -> dict[str, Any]:
    return view_at(order, current_service().clock())


def _with_token(order: Order) -> dict[str, Any]:
    return {**_view(order), "tracking": current_service().tracking.issue(order)}


def _order_request(content: dict[str, Any]) -> OrderRequest:
    """The request of a body without problems."""
    return OrderRequest(
        client_order_id=content["client_order_id"],
        source=InstrumentName(**content["from"]),
        target=InstrumentName(**content["to"]),
        amount=content["amount"],
        rate_mode=content["rate_mode"],
        destination=_destination(content, "destination"),
        refund=_refund(content),
        quote_id=content.get("quote_id"),
        user_id=content.get("user_id"),
        session_id=content.get("session_id"),
        account_id=content.get("account_id"),
        search_terms=content.get("search_terms") or [],
        metadata=content.get("metadata") or {},
    )


def _partial_request(content: dict[str, Any]) -> PartialRequest:
    """The request as far as the body is well-formed."""
    return PartialRequest(
        instrument_name(content, "from"),
        instrument_name(content, "to"),
        content.get("amount"),
        _destination(content, "destination"),
        _refund(content),
    )


def instrument_name(content: dict[str, Any], side: str) -> InstrumentName | None:
    """The instrument named under `side` (from or to) of a body, None where a part of its name is missing or malformed."""
    name = content.get(side, {})
    return InstrumentName(name["currency"], name["network"]) if {"currency", "network"} <= name.keys() else None


def _destination(content: dict[str, Any], side: str) -> Destination:
    return Destination(
        content.get(f"{side}_address"),
        content.get(f"{side}_memo"),
        content.get(f"{side}_memo_none", False),
        content.get(f"{side}_validation_id"),
    )


def _refund(content: dict[str, Any]) -> Destination | None:
    refund = _destination(content, "refund")
    return None if refund == Destination() else refund


def _position(parts: list[str]) -> tuple[datetime, str]:
    written, order_id = parts
    created_at = from_iso(written)
    # A time without a zone, or one before the beginning of time in UTC, would break further in.
    if iso(created_at) != written:
        raise ValueError("not a time as the service writes it")
    return created_at, order_id
