"""Browsers on other sites: from an origin that SWAP_ALLOWED_ORIGINS names, they may read one order with its tracking token.
Nothing else is open to them."""

from __future__ import annotations

import flask

_TRACKED = "orders.get"


def install(app: flask.Flask, origins: frozenset[str]) -> None:
    def allowed() -> str | None:
        origin = flask.request.headers.get("Origin")
        return origin if flask.request.endpoint == _TRACKED and origin in origins else None

    @app.before_request
    def preflight() -> flask.Response | None:
        asked = flask.request.headers.get("Access-Control-Request-Method")
        if flask.request.method != "OPTIONS" or asked != "GET" or allowed() is None:
            return None
        headers = {
            "Access-Control-Allow-Methods": "GET",
            "Access-Control-Allow-Headers": "Authorization",
            "Access-Control-Max-Age": "600",
        }
        return flask.Response(status=204, headers=headers)

    @app.after_request
    def allow(response: flask.Response) -> flask.Response:
        if origins and flask.request.endpoint == _TRACKED:
            response.vary.add("Origin")
        origin = allowed()
        if origin is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
        return response
