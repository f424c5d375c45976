"""Errors as answers: the one place that knows HTTP statuses. Never a stack trace, never a secret, never a 500 for input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flask
import structlog
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, UnprocessableEntity

from swap.errors import (
    BadJson,
    BodyTooLarge,
    BodyTooSlow,
    Conflict,
    CursorGone,
    FieldProblem,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    OrderRefused,
    Problems,
    ServiceError,
    TooManyRequests,
    TryAgainLater,
)
from swap.web.reply import current_refusals, current_request_id, failed

log = structlog.get_logger()

# The first that fits counts.
STATUSES: tuple[tuple[type[ServiceError], int], ...] = (
    (BadJson, 400),
    (BodyTooSlow, 408),
    (BodyTooLarge, 413),
    (CursorGone, 410),
    (InvalidRequest, 422),
    (NotFound, 404),
    (Conflict, 409),
    (OrderRefused, 422),
    (TryAgainLater, 503),
    (NotAuthenticated, 401),
    (NotAllowed, 403),
    (TooManyRequests, 429),
)
_HTTP_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE", 415: "ENCODING_NOT_TAKEN"}


def install(app: flask.Flask) -> None:
    app.register_error_handler(ServiceError, _service_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(DBAPIError, _database_away)
    app.register_error_handler(PoolTimeout, _database_away)
    # These two mean that the database was there and we asked it something wrong: sending the same again would not help.
    app.register_error_handler(DataError, _unexpected)
    app.register_error_handler(IntegrityError, _unexpected)
    app.register_error_handler(Exception, _unexpected)


def field_problems(messages: Mapping[str, Any], prefix: str = "") -> Problems:
    """marshmallow's nested messages, each a text or a FieldProblem, by dotted field name."""
    problems = Problems()
    for name, content in messages.items():
        dotted = f"{prefix}{name}" if name != "_schema" else prefix.rstrip(".") or "body"
        if isinstance(content, Mapping):
            problems.update(field_problems(content, f"{dotted}."))
        else:
            problems[dotted] = [_problem(message) for message in content]
    return problems


def _problem(message: str | FieldProblem) -> FieldProblem:
    if isinstance(message, FieldProblem):
        return message
    codes = {"Missing data for required field.": "REQUIRED", "Unknown field.": "UNKNOWN_FIELD"}
    return FieldProblem(codes.get(message, "INVALID"), message)


def service_error(error: ServiceError, request_id: str) -> flask.Response:
    """The answer that tells a caller of this error."""
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 400)
    headers = {}
    if isinstance(error, TryAgainLater | TooManyRequests):
        headers["Retry-After"] = str(error.retry_after)
    told = {"code": error.code, "message": error.message, "details": error.details}
    return failed(status, told, headers, request_id=request_id)


def _service_error(error: ServiceError) -> flask.Response:
    answer = service_error(error, current_request_id())
    _note(error.code, answer.status_code)
    return answer


def _note(code: str, status: int) -> None:
    """Errors of our own have lines of their own."""
    request = flask.request
    key = key_in(request.headers)
    route = None if request.url_rule is None else request.url_rule.rule
    current_refusals().note(code, status, key=key, method=request.method, route=route)


def key_in(headers: Any) -> str:
    """The id of the key that came with a request, as it was given; empty where none did. `headers`: a mapping of them."""
    return headers.get("x-publishable-key") or headers.get("x-api-key") or ""


def _http_error(error: HTTPException) -> flask.Response:
    messages = getattr(error, "data", {}).get("messages") if isinstance(error, UnprocessableEntity) else None
    if messages:
        # The query reader puts its problems one level down, under "query".
        flat = {name: content for part in messages.values() for name, content in part.items()}
        return _service_error(InvalidRequest(field_problems(flat)))
    status = error.code or 500
    code = _HTTP_CODES.get(status, error.name.upper().replace(" ", "_"))
    told = {"code": code, "message": error.description or error.name, "details": {"retry": "never"}}
    # A 405 and a 415 have to say what is allowed.
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Accept-Encoding")}
    _note(code, status)
    # One that has no row is called by the name of its status, which the document says in a sentence.
    row = None if status in _HTTP_CODES else "others"
    return failed(status, told, headers, request_id=current_request_id(), row=row)


def _database_away(error: Exception) -> flask.Response:
    log.error("web.database_away", error=type(getattr(error, "orig", None) or error).__name__)
    told = {
        "code": "DATABASE_UNAVAILABLE",
        "message": "The service cannot reach its database right now. Send the same request again.",
        "details": {"retry": "same_request"},
    }
    return failed(503, told, {"Retry-After": "2"}, request_id=current_request_id())


def _unexpected(error: Exception) -> flask.Response:
    log.error("web.unexpected", exc_info=error)
    request_id = current_request_id()
    told = {
        "code": "INTERNAL",
        "message": "Something broke on our side; it was written down under the request id.",
        "details": {"retry": "same_request", "request_id": request_id},
    }
    return failed(500, told, request_id=request_id)
