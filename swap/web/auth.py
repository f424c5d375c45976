"""Authentication: every route but the open ones needs a signed request, by a key with the scope of its blueprint. A few take
the tracking token of their order instead, and a few a publishable key.
"""

from __future__ import annotations

from typing import cast

import flask

from swap.access.client_address import client_address, visitor_at
from swap.access.keys import Caller
from swap.access.tracking import Tracked, Tracking
from swap.domain.signing import SignedParts
from swap.errors import NotAllowed, NotFound, TooManyRequests
from swap.upstream.rate_budget import ASKING_FOR
from swap.web.body import WAITED, raw_body
from swap.web.limits import COSTS, Budget, ClientLimits
from swap.web.reply import current_limits, current_page_limits, current_service
from swap.wiring import Service

OPEN = frozenset({"system", "api-docs"})
# What a key needs to read, and to change something; None for any key.
SCOPES = {
    "instruments": ("catalog", "catalog"),
    "addresses": ("catalog", "catalog"),
    "quotes": ("quotes", "quotes"),
    "orders": ("orders:read", "orders:write"),
    "events": ("events:read", "events:read"),
    "webhooks": ("webhooks", "webhooks"),
    "limits": (None, None),
    "support": ("support:read", "support:write"),
}
# The same signed bytes again do no harm: an order is idempotent by client_order_id and finds itself, and the others change
# nothing. Two shoppers may well ask the same question in one millisecond.
_REPEATABLE = frozenset({"orders.place", "quotes.quote", "addresses.validate"})


TRACKED = {"orders.get": "GET", "orders.deposit_picture": "GET", "orders.events": "GET", "orders.refresh": "POST"}
"""What a tracking token may do, instead of a signature: endpoint -> method."""
_TRACKED_WEIGHT = 120
# For a refresh on top: a poll costs the upstream's budget.
_REFRESHES_PER_MINUTE = 2

PUBLISHABLE = {
    "instruments.instruments": "GET",
    "instruments.instrument": "GET",
    "instruments.pairs": "GET",
    "quotes.quote": "POST",
    "addresses.validate": "POST",
}
"""What a publishable key opens, instead of a signature: endpoint -> method. Its holder is everybody."""
VISITOR_WEIGHT = 600
"""What one address may spend per minute with one publishable key. A bucket begins with a twentieth of it: enough for a page
that loads the catalog."""

SIGNATURE = {"key": "X-API-Key", "timestamp": "X-Timestamp", "signature": "X-Signature"}
PUBLISHABLE_KEY = "X-Publishable-Key"
FOR_PAGES: dict[str, list[dict[str, list[str]]]] = {
    "security": [{name: [] for name in SIGNATURE}, {"publishable_key": []}]
}
"""In the description of a route that a publishable key opens."""


def tracked() -> Tracked | None:
    """The order whose tracking token came with this request instead of a signature."""
    return cast("Tracked | None", flask.g.get("tracked"))


def caller() -> Caller:
    """The caller of this request."""
    return cast(Caller, flask.g.caller)


def owner_id() -> str:
    """The client that this request is for, whatever it came with: a signature, the tracking token of an order of the client,
    or its publishable key."""
    return cast(str, flask.g.owner_id)


def asker() -> str:
    """Who is counted for what this request asks the upstream: a client, or all its pages."""
    return cast(str, flask.g.asker)


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
        reading = request.method in ("GET", "HEAD", "OPTIONS")
        scope = SCOPES[request.blueprint][0 if reading else 1]
        path = request.environ["PATH_INFO"].encode("latin-1")
        if b"\x00" in path:
            raise NotFound("Nothing here has such a name.")  # and PostgreSQL could not even look for it
        service, limits = current_service(), current_limits()
        address = client_address(
            request.remote_addr or "", request.headers.get("X-Forwarded-For", ""), service.settings.trusted_proxies
        )
        # First: of two credentials the one that opens less counts.
        if PUBLISHABLE_KEY in request.headers:
            _let_page_in(service, visitor_at(address))
            return
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if TRACKED.get(request.endpoint or "") == request.method and kind.lower() == "bearer":
            flask.g.tracked = followed = _follow(service.tracking, token.strip(), limits)
            flask.g.owner_id = followed.order.client_id
            return
        signature = request.headers.get("X-Signature", "")
        timestamp = request.headers.get("X-Timestamp", "")
        parts = SignedParts(request.method, path, request.query_string, timestamp, raw_body())
        authenticated = service.keys.authenticate(
            request.headers.get("X-API-Key", ""), signature, parts, waited=request.environ.get(WAITED, 0.0)
        )
        service.keys.must_be_allowed_from(authenticated, address)
        _spend(limits, authenticated.client_id, authenticated.weight_per_minute)
        service.keys.note_use(authenticated.key, address)
        if scope is not None and scope not in authenticated.scopes:
            raise NotAllowed(f"This key lacks the scope {scope!r}.", scope=scope)
        if not reading and request.endpoint not in _REPEATABLE:
            service.keys.spend(authenticated, signature)
        flask.g.caller = authenticated
        flask.g.owner_id = flask.g.asker = authenticated.client_id
        ASKING_FOR.set(flask.g.asker)


def _let_page_in(service: Service, visitor: str) -> None:
    request = flask.request
    if PUBLISHABLE.get(request.endpoint or "") != request.method:
        raise NotAllowed(
            "A publishable key does not open this: it needs a signed request, by a backend.", code="SECRET_KEY_NEEDED"
        )
    page = request.headers.get("Origin")
    found = service.publishable.open(request.headers[PUBLISHABLE_KEY], page)
    limits = current_page_limits()
    # The visitor's first: what one visitor is refused must not count against the others.
    _spend(limits, f"visitor:{found.key}:{visitor}", VISITOR_WEIGHT)
    budget = flask.g.budget
    _spend(limits, f"page:{found.key}", found.weight_per_minute)
    # What all visitors together have left is the shop's business.
    flask.g.budget = budget
    service.keys.note_use(found.key, page)
    flask.g.owner_id = found.client_id
    # Its backend's own places and turns stay its own.
    flask.g.asker = f"pages of {found.client_id}"
    ASKING_FOR.set(flask.g.asker)


def _spend(limits: ClientLimits, owner: str, weight_per_minute: int) -> None:
    request = flask.request
    cost = COSTS.get(request.endpoint or "", 1)
    if request.endpoint == "orders.page" and set(request.args) - {"limit", "after"}:
        cost //= 2
    try:
        flask.g.budget = limits.spend(owner, weight_per_minute, cost)
    except TooManyRequests as error:
        flask.g.budget = Budget(weight_per_minute, 0, error.retry_after)
        raise


def _follow(tracking: Tracking, token: str, limits: ClientLimits) -> Tracked:
    opened = tracking.open(token)
    order_id = opened.order.id
    # The holder of a token is not a known client; each order has a small budget of its own.
    _spend(limits, f"track:{order_id}", _TRACKED_WEIGHT)
    if flask.request.endpoint == "orders.refresh":
        _spend(limits, f"refresh:{order_id}", _REFRESHES_PER_MINUTE)
    if (flask.request.view_args or {}).get("order_id") != order_id:
        raise NotAllowed("This tracking token is for another order.", code="TOKEN_FOR_ANOTHER_ORDER")
    return opened
