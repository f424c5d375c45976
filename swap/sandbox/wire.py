"""JSON text, decimal text and time text as the upstream writes them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Context, Decimal
from typing import Any

# 20 digits before the point and 24 after it, with room for a product of two.
MONEY = Context(prec=60)
_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,24})?", re.ASCII)


def plain(amount: Decimal) -> str:
    """Plain notation without exponent and trailing zeros (docs/upstream.md T9)."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") or "0" if "." in text else text


def cut(amount: Decimal, places: int) -> Decimal:
    """Rounded down to `places` digits after the point: the upstream never promises more than it computed."""
    return amount.quantize(Decimal(1).scaleb(-places), rounding=ROUND_DOWN, context=MONEY)


def decimal_of(value: object) -> Decimal | None:
    """A decimal string or a JSON number (read as int or Decimal) as a Decimal, None for anything else, signs and
    exponents included."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    if isinstance(value, Decimal) and not -30 < value.adjusted() < 30:
        return None  # written out in full, 1e999999999 would fill the memory
    text = value if isinstance(value, str) else plain(Decimal(value))
    return Decimal(text) if _DECIMAL.fullmatch(text) else None


def iso(seconds: float) -> str:
    """Unix seconds as ISO-8601 UTC with milliseconds: `2025-10-09T08:53:25.120Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dump(value: Any) -> bytes:
    """Compact UTF-8 JSON. What a client sent may be echoed: its Decimals become strings, its lone surrogates `?`."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str).encode(errors="replace")


def json_number(memo: str | None) -> int | None:
    """A memo as a JSON number (docs/upstream.md C8: the SDK has integers), None where that would lose something: text, and
    leading zeros, which belong to a memo."""
    if memo is None or not re.fullmatch(r"0|[1-9][0-9]{0,18}", memo, re.ASCII):
        return None
    return int(memo)
