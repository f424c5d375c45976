"""Browsers on other sites: from an origin that SWAP_ALLOWED_ORIGINS names, they may do what the tracking token of one order
allows. Nothing else is open to them."""

from __future__ import annotations

import flask

from swap.web.auth import TRACKED
from swap.web.reply import current_service


def install(app: flask.Flask) -> None:
    def allowed() -> str | None:
        origin = flask.request.headers.get("Origin")
        is_open = flask.request.endpoint in TRACKED and origin in current_service().settings.allowed_origins
        return origin if is_open else None

    @app.before_request
    def preflight() -> flask.Response | None:
        asked = flask.request.headers.get("Access-Control-Request-Method")
        may = TRACKED.get(flask.request.endpoint or "")
        if flask.request.method != "OPTIONS" or asked is None or asked != may or allowed() is None:
            return None
        headers = {
            "Access-Control-Allow-Methods": may,
            "Access-Control-Allow-Headers": "Authorization",
            "Access-Control-Max-Age": "600",
        }
        return flask.Response(status=204, headers=headers)

    @app.after_request
    def allow(response: flask.Response) -> flask.Response:
        if current_service().settings.allowed_origins and flask.request.endpoint in TRACKED:
            response.vary.add("Origin")
        origin = allowed()
        if origin is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
            # When to come back after a 429, and what to tell support: a page reads neither unless it is told that it may.
            response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-Id"
        return response
