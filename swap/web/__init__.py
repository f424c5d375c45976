"""The JSON API. `create_app` puts its parts together: one routes file per noun."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import flask
from flask_smorest import Api, Blueprint
from marshmallow import RAISE, Schema, fields

from swap.settings import SECRETS
from swap.web import auth, cors, problems, reply
from swap.web.body import MAX_BODY_BYTES
from swap.web.limits import ClientLimits
from swap.web.refusals import Refusals
from swap.web.routes import addresses, catalog, feed, limits, orders, quotes, support, system, webhooks
from swap.web.schemas import Amount
from swap.wiring import Service

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SCHEMES = {**auth.SIGNATURE, "publishable_key": auth.PUBLISHABLE_KEY}


class _Error(Schema):
    code = fields.String(required=True)
    message = fields.String(required=True)
    details = fields.Dict(required=True, metadata={"description": "`retry` always; `fields` for problems of fields."})
    request_id = fields.String(required=True, metadata={"description": "As X-Request-Id; tell it to support."})
    doc_url = fields.String(required=True, metadata={"description": "Where the code is explained."})


class Failure(Schema):
    """The form of every answer that reports a failure."""

    success = fields.Boolean(required=True)
    error = fields.Nested(_Error, required=True)
    timestamp = fields.Integer(required=True, metadata={"description": "Milliseconds since 1970 in UTC."})


class _Api(Api):  # type: ignore[misc] # flask-smorest carries no types
    ERROR_SCHEMA = Failure


def _without_secrets(inner: WSGIApplication) -> WSGIApplication:
    """Some servers copy the environment into every request, wsgiref even before the settings took the secrets out."""

    def outer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for name in SECRETS:
            environ.pop(name, None)
        return inner(environ, start_response)

    return outer


def serve(app: flask.Flask, service: Service) -> None:
    """Have the application answer from these parts. Nothing that it spent or remembered with earlier parts stays."""
    app.extensions["swap"] = service
    app.extensions["swap.limits"] = ClientLimits(service.shared_bucket)
    app.extensions["swap.page_limits"] = ClientLimits(service.shared_bucket)
    app.extensions["swap.refusals"] = Refusals()


def create_app(service: Service) -> flask.Flask:
    # Left to itself it drops names it does not know: a misspelt filter would answer with everything.
    Blueprint.ARGUMENTS_PARSER.unknown = RAISE
    app = flask.Flask("swap", static_folder=None)
    # A redirect would lose the signature on the way; "//v1/time" is simply not a route of ours.
    app.url_map.merge_slashes = False
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
        API_TITLE="Swap service",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {"description": "Instruments, rates and exchange orders. Amounts are decimal strings, times UTC."},
            "components": {
                "securitySchemes": {
                    name: {"type": "apiKey", "in": "header", "name": header} for name, header in _SCHEMES.items()
                }
            },
            "security": [{name: [] for name in auth.SIGNATURE}],
        },
    )
    serve(app, service)
    app.wsgi_app = _without_secrets(app.wsgi_app)  # type: ignore[assignment,method-assign] # flask's own way to wrap an app
    reply.install(app)
    cors.install(app)
    auth.install(app)
    api = _Api(app)
    # After Api, which installs a handler, with an envelope of its own, for every refusal of HTTP itself.
    problems.install(app)
    api.register_field(Amount, "string", "decimal")
    for routes in (system, catalog, addresses, quotes, orders, feed, webhooks, limits, support):
        api.register_blueprint(routes.blp)
    return app
