"""Reads what a request brings, as strictly as the upstream is known to (docs/upstream.md section 3, E2 to E6).

Refuses what does not fit with 400 and shape C. Nothing here knows instruments, prices or orders.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from flask import request

from swap.sandbox.rates import RateMode
from swap.sandbox.refusals import refused
from swap.sandbox.wire import decimal_of

Body = dict[str, Any]


def json_body() -> Body:
    """The JSON object of a POST; JSON numbers with a point are read as Decimal."""
    try:
        body = json.loads(request.get_data(), parse_float=Decimal)
    except (ValueError, RecursionError):
        raise refused(400, "Body is not JSON") from None
    if not isinstance(body, dict):
        raise refused(400, "Body must be a JSON object")
    return body


def page_number(name: str, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise refused(400, f"{name} must be a whole number")
    return int(text)


def text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise refused(400, f"{name} is required")
    return value


def optional_text(body: Body, name: str) -> str | None:
    """Missing, null and empty are the same. Memos may be JSON integers (docs/upstream.md C8)."""
    value = body.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise refused(400, f"{name} must be a string")
    return value


def rate_mode(body: Body) -> RateMode:
    """Any case is read (docs/upstream.md C17); absent means FLOATING."""
    text = (optional_text(body, "rateMode") or "FLOATING").upper()
    if text == "FIXED":
        return "FIXED"
    if text == "FLOATING":
        return "FLOATING"
    raise refused(400, "rateMode must be FLOATING or FIXED")


def amount(body: Body, name: str) -> Decimal | None:
    value = body.get(name)
    if value is None or value == "":
        return None
    amount = decimal_of(value)
    if amount is None:
        raise refused(400, f"{name} must be a decimal")
    return amount


def markup(body: Body) -> Decimal | None:
    markup = amount(body, "markup")
    if markup is not None and markup >= 100:
        raise refused(400, "markup must be below 100")
    return markup


def side_titles(body: Body, side: str) -> tuple[str, str]:
    titles = body.get(side)
    if not isinstance(titles, dict):
        raise refused(400, f"{side} is required")
    return text(titles, "currencyTitle"), text(titles, "networkTitle")


def claimed_rate(body: Body) -> dict[str, object] | None:
    """Checked as far as the protocol says: an object whose `updatedAt` is an ISO string (docs/upstream.md E6)."""
    rate = body.get("claimedPublicRate")
    if rate is None:
        return None
    if not isinstance(rate, dict):
        raise refused(400, "claimedPublicRate must be an object")
    for name in ("claimedAmountToReceive", "price", "updatedAt"):
        text(rate, name)
    return rate
