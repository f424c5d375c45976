"""Answers: one envelope for all of them."""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any, cast

import flask
import orjson
import structlog

from swap.web.limits import Budget, ClientLimits
from swap.web.refusals import Refusals
from swap.wiring import Service

ERROR_DOCUMENT = "docs/errors.md"
"""Where `error.doc_url` leads: the table of codes, as it is named in the source of the service, which serves no documents.
Whoever publishes it puts its address here."""


def current_service() -> Service:
    return cast(Service, flask.current_app.extensions["swap"])


def current_limits() -> ClientLimits:
    return cast(ClientLimits, flask.current_app.extensions["swap.limits"])


def current_page_limits() -> ClientLimits:
    """Of web pages, whose visitors are many: they must not have anybody else's leases forgotten."""
    return cast(ClientLimits, flask.current_app.extensions["swap.page_limits"])


def current_refusals() -> Refusals:
    return cast(Refusals, flask.current_app.extensions["swap.refusals"])


def current_request_id() -> str:
    """Of this request, as the header X-Request-Id tells it."""
    return cast(str, flask.g.get("request_id", ""))


def ok(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> flask.Response:
    """`{"success": true, "data": ..., "timestamp": ms}`."""
    return _respond({"success": True, "data": data, "timestamp": _now_ms()}, status, headers)


def with_etag(data: Any) -> flask.Response:
    """As `ok`, with an ETag over the data; 304 when the caller has it already, also by the weak form that a proxy makes of
    the tag when it compresses (RFC 9110, 13.1.2)."""
    etag = hashlib.sha256(orjson.dumps(data)).hexdigest()[:32]
    response = flask.Response(status=304) if flask.request.if_none_match.contains_weak(etag) else ok(data)
    response.set_etag(etag)
    # The caller alone may keep it, and asks each time whether it is still good: that is what the ETag is for.
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def svg(picture: bytes) -> flask.Response:
    """A picture with an ETag, for the caller alone; opened by itself it may load and run nothing."""
    response = flask.Response(picture, content_type="image/svg+xml")
    response.set_etag(hashlib.sha256(picture).hexdigest()[:32])
    # The browser asks each time: an address that must not be paid to any more must not stay on a page.
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    response.make_conditional(flask.request)
    return response


def failed(
    status: int,
    error: dict[str, Any],
    headers: dict[str, str] | None = None,
    *,
    request_id: str,
    row: str | None = None,
) -> flask.Response:
    """`{"success": false, "error": {...}, "timestamp": ms}`.

    `error`: code, message, details. `request_id` is that of the header X-Request-Id. `row`: the anchor in the document
    of errors, by default the code's own.
    """
    anchor = error["code"].lower() if row is None else row
    error = {**error, "request_id": request_id, "doc_url": f"{ERROR_DOCUMENT}#{anchor}"}
    return _respond({"success": False, "error": error, "timestamp": _now_ms()}, status, headers)


def install(app: flask.Flask) -> None:
    @app.before_request
    def name_request() -> None:
        flask.g.request_id = uuid.uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=flask.g.request_id)

    @app.after_request
    def mark_answer(response: flask.Response) -> flask.Response:
        structlog.contextvars.unbind_contextvars("request_id")
        budget: Budget | None = flask.g.get("budget")
        if budget is not None:
            # The names that most services use; the draft of the IETF is none that clients know yet.
            response.headers["X-RateLimit-Limit"] = str(budget.limit)
            response.headers["X-RateLimit-Remaining"] = str(budget.left)
            response.headers["X-RateLimit-Reset"] = str(budget.full_in)
        return mark(response, current_request_id(), current_service().keys.environment)


def mark(response: flask.Response, request_id: str, environment: str) -> flask.Response:
    """With the headers that every answer has. `environment`: live or test, as the keys of this service."""
    response.headers["X-Request-Id"] = request_id
    response.headers["X-Environment"] = environment
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _respond(body: dict[str, Any], status: int, headers: dict[str, str] | None) -> flask.Response:
    return flask.Response(orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
