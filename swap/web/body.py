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
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from swap.errors import BadJson, InvalidRequest, Problems
from swap.web.problems import field_problems

MAX_BODY_BYTES = 64 * 1024
WAITED = "swap.waited"
"""In the environment of a request: seconds since it had come in whole."""
_MAX_DEPTH = 32
_MAX_INTEGER = 2**63 - 1


class EncodedBody(UnsupportedMediaType):
    """The body is compressed. RFC 9110, 15.5.16: the answer names the encodings that are taken."""

    description = "The body must come as it is signed: without a Content-Encoding."

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **kwargs), ("Accept-Encoding", "identity")]


def raw_body() -> bytes:
    """The body as it came. Raises RequestEntityTooLarge."""
    request = flask.request
    content = request.get_data(cache=True)
    # Without a Content-Length (chunks) the reader stops at the limit and reports nothing, so we ask here for one byte more.
    full = request.content_length is None and len(content) == request.max_content_length
    if full and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return content


def read(schema: Schema) -> tuple[dict[str, Any], Problems]:
    """The well-formed fields of the body, and the problems of the others.

    Raises BadJson when the body is no JSON object or not strict, EncodedBody when it is compressed. The Content-Type does
    not count: a signed request means its bytes.
    """
    if flask.request.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        raise EncodedBody
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
        raise BadJson("The body is not UTF-8.") from None
    except RecursionError:
        raise BadJson("The body is nested too deeply.") from None
    except ValueError as error:
        raise BadJson(f"The body is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise BadJson("The body must be a JSON object.")
    try:
        return schema.load(content), Problems()
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
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is given twice")
    return content


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
