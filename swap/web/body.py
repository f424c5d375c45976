"""Request bodies: strict JSON, then a schema.

Strict means I-JSON (RFC 7493) and a bit more: UTF-8 only, no key twice, no lone surrogates or NUL, no numbers that our own
JSON writer or the databases cannot give back, nesting up to 32 levels. What gets past here can be stored and echoed.
"""

from __future__ import annotations

import json
import math
from typing import Any

import flask
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from swap.errors import InvalidRequest
from swap.web.problems import field_problems

Problems = dict[str, list[dict[str, Any]]]

_MAX_DEPTH = 32
_MAX_INTEGER = 2**63 - 1


def raw_body() -> bytes:
    """The body as it came. Raises RequestEntityTooLarge."""
    request = flask.request
    found = request.get_data(cache=True)
    # Without a Content-Length (chunks) the reader stops at the limit and says nothing; whether there is more is asked here.
    full = request.content_length is None and len(found) == request.max_content_length
    if full and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return found


def read(schema: Schema) -> tuple[dict[str, Any], Problems]:
    """The well-formed fields of the body, and the problems of the others.

    Raises InvalidRequest (BAD_JSON) when the body is no JSON object or not strict. The Content-Type is not looked at: a
    signed request means its bytes.
    """
    try:
        # Decoded here: json.loads would guess UTF-16 and UTF-32 too, and let surrogates pass.
        content = json.loads(
            raw_body().decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constants,
            parse_float=_finite,
            parse_int=_small,
        )
        _check(content)
    except UnicodeDecodeError:
        raise _bad_json("The body is not UTF-8.") from None
    except RecursionError:
        raise _bad_json("The body is nested too deeply.") from None
    except ValueError as error:
        raise _bad_json(f"The body is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise _bad_json("The body must be a JSON object.")
    try:
        return schema.load(content), {}
    except ValidationError as error:
        valid = error.valid_data if isinstance(error.valid_data, dict) else {}
        messages = error.messages if isinstance(error.messages, dict) else {"body": error.messages}
        return valid, field_problems(messages)


def body(schema: Schema) -> dict[str, Any]:
    """The body, if it fits the schema. Raises InvalidRequest with every problem."""
    content, problems = read(schema)
    if problems:
        raise InvalidRequest(problems)
    return content


def _bad_json(message: str) -> InvalidRequest:
    return InvalidRequest({"body": [{"code": "BAD_JSON", "message": message}]}, message, code="BAD_JSON")


def _check(value: Any, depth: int = 1) -> None:
    """Raises ValueError for lone surrogates, NUL (PostgreSQL stores neither) and nesting beyond the limit."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text holds a NUL character")
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError("a text holds half a surrogate pair")
        return
    if not isinstance(value, dict | list):
        return
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")
    for item in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
        _check(item, depth + 1)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constants(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too big")
    return number


def _small(text: str) -> int:
    # The length first: Python refuses to read thousands of digits, with a sentence about its own settings.
    if len(text) > 20 or abs(int(text)) > _MAX_INTEGER:
        raise ValueError("an integer is too big; send it as text")
    return int(text)
