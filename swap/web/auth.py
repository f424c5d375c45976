"""Authentication: every route but the open ones needs a signed request, by a key with the scope of its blueprint."""

from __future__ import annotations

from typing import cast

import flask

from swap.access.keys import Caller
from swap.access.tracking import Tracked, Tracking
from swap.domain.signing import SignedParts
from swap.errors import NotAllowed, NotFound
from swap.upstream.rate_budget import ASKING_FOR
from swap.web.body import WAITED, raw_body
from swap.web.limits import KeyLimits
from swap.web.reply import current_limits, current_service

OPEN = frozenset({"system", "api-docs"})
SCOPES = {
    "instruments": "catalog",
    "addresses": "catalog",
    "quotes": "quotes",
    "orders": "orders",
    "events": "orders",
    "webhooks": "webhooks",
}
# The same signed bytes again do no harm: an order is idempotent by client_order_id and finds itself, and the others change
# nothing. Two shoppers may well ask the same question in one millisecond.
_REPEATABLE = frozenset({"orders.place", "quotes.quote", "addresses.validate"})


# What a tracking token may do, instead of a signature.
_TRACKED = "orders.get"
_TRACKED_WEIGHT = 120


def tracked() -> Tracked | None:
    """The order whose tracking token came with this request instead of a signature."""
    return cast("Tracked | None", flask.g.get("tracked"))


def caller() -> Caller:
    """The caller of this request."""
    return cast(Caller, flask.g.caller)


def install(app: flask.Flask) -> None:
    @app.before_request
    def authenticate() -> None:
        request = flask.request
        if request.environ["PATH_INFO"].startswith("//"):
            raise NotFound(
                "Nothing here has such a name."
            )  # werkzeug would drop the slash, and the signature was for it
        # Without a blueprint no route matched (404, 405), and none will run.
        if request.blueprint is None or request.blueprint in OPEN:
            return
        # A blueprint without a scope in SCOPES fails here, with a KeyError: a forgotten line must not open a door.
        scope = SCOPES[request.blueprint]
        path = request.environ["PATH_INFO"].encode("latin-1")
        if b"\x00" in path:
            raise NotFound("Nothing here has such a name.")  # and PostgreSQL could not even look for it
        service, limits = current_service(), current_limits()
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if request.endpoint == _TRACKED and request.method == "GET" and kind.lower() == "bearer":
            flask.g.tracked = _follow(service.tracking, token.strip(), limits)
            return
        signature = request.headers.get("X-Signature", "")
        timestamp = request.headers.get("X-Timestamp", "")
        parts = SignedParts(request.method, path, request.query_string, timestamp, raw_body())
        authenticated = service.keys.authenticate(
            request.headers.get("X-API-Key", ""), signature, parts, waited=request.environ.get(WAITED, 0.0)
        )
        limits.spend(authenticated)
        if scope not in authenticated.scopes:
            raise NotAllowed(f"This key lacks the scope {scope!r}.", scope=scope)
        if request.method not in ("GET", "HEAD", "OPTIONS") and request.endpoint not in _REPEATABLE:
            service.keys.spend(authenticated, signature)
        flask.g.caller = authenticated
        ASKING_FOR.set(authenticated.client_id)


def _follow(tracking: Tracking, token: str, limits: KeyLimits) -> Tracked:
    opened = tracking.open(token)
    order_id = opened.order.id
    # The holder of a token is not a known client; each order has a small budget of its own.
    limits.spend(Caller(f"track:{order_id}", opened.order.client_id, frozenset(), _TRACKED_WEIGHT, secret=""))
    if (flask.request.view_args or {}).get("order_id") != order_id:
        raise NotAllowed("This tracking token is for another order.", code="TOKEN_FOR_ANOTHER_ORDER")
    return opened
