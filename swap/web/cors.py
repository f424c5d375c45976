"""Browsers on other sites: from an origin that SWAP_ALLOWED_ORIGINS names they may do what the tracking token of one order
allows, and from an origin of a publishable key what such a key opens. Nothing else is open to them."""

from __future__ import annotations

import flask

from swap.web.auth import PUBLISHABLE, PUBLISHABLE_KEY, TRACKED
from swap.web.reply import current_service
from swap.wiring import Service

_OPEN = TRACKED | PUBLISHABLE
# What is left, when to come back after a 429, and what to tell support: a page reads none of it unless told that it may.
_EXPOSED = "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, X-Request-Id"


def install(app: flask.Flask) -> None:
    @app.before_request
    def preflight() -> flask.Response | None:
        request = flask.request
        endpoint, page = request.endpoint or "", request.headers.get("Origin")
        asked = request.headers.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or asked is None or page is None or _OPEN.get(endpoint) != asked:
            return None
        # A preflight names no key: those of the origin may be new.
        service, by_key = current_service(), endpoint in PUBLISHABLE
        if not (service.publishable.allows(page) if by_key else page in service.settings.allowed_origins):
            return None
        headers = {
            "Access-Control-Allow-Methods": asked,
            "Access-Control-Allow-Headers": f"{PUBLISHABLE_KEY}, Content-Type" if by_key else "Authorization",
            "Access-Control-Max-Age": "600",
        }
        return flask.Response(status=204, headers=headers)

    @app.after_request
    def allow(response: flask.Response) -> flask.Response:
        endpoint, service = flask.request.endpoint or "", current_service()
        page, sites = flask.request.headers.get("Origin"), service.settings.allowed_origins
        if endpoint in PUBLISHABLE or (endpoint in TRACKED and sites):
            response.vary.add("Origin")
            may = service.publishable.knows(page or "") if endpoint in PUBLISHABLE else page in sites
            if page is not None and may:
                let_read(response, page)
        return response


def may_read(service: Service, page: str) -> bool:
    """Whether pages of this origin may do anything at all, as far as is known without asking the database."""
    return service.publishable.knows(page) or page in service.settings.allowed_origins


def let_read(response: flask.Response, page: str) -> flask.Response:
    """With the headers by which a browser shows the answer to a page of this origin. It sends no credentials of its own."""
    response.headers["Access-Control-Allow-Origin"] = page
    response.headers["Access-Control-Expose-Headers"] = _EXPOSED
    return response
