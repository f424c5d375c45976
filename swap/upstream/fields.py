"""The scalars of the v2 upstream's answers, read tolerantly: any JSON value in, a value of one type or None out.

None stands for absent, null, "", a sentinel, another type: any value of no use (docs/upstream.md section 7, T9).
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from swap import addresses
from swap.upstream.replies import RateMode

_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LINK = re.compile(r"https?://[^\s\"'<>]{1,2000}")
_LONGEST_TEXT = addresses.LONGEST  # whatever may be sent must be readable when it is echoed


def parse_json(body: bytes) -> Any:
    """The body as JSON; numbers with a point or exponent as Decimal. Raises ValueError for anything that is no JSON:
    no body, HTML, truncation, NaN, bytes that are no UTF-8, absurd nesting. Duplicate keys: the last one counts."""
    try:
        return json.loads(body.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_refuse_constant)
    except (RecursionError, InvalidOperation):
        raise ValueError("no usable JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def text(value: object) -> str | None:
    """Text that says something: None for null, "", other types, unreasonable length, and what no database can store:
    NUL and halves of surrogate pairs, without which it would be another text. Whole numbers become text, since ids and
    memos come as either (C7, C8), and JSON has one type of number: 90210, 90210.0 and 9.021e4 are one id (RFC 8259,
    section 6). A number with a fraction is no text."""
    value = whole(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_TEXT or _UNSTORABLE.search(value):
        return None
    return value


def whole(value: object) -> object:
    """A Decimal without a fraction as the int that it is; every other value as it came."""
    size = number(value) if isinstance(value, Decimal) else None
    return int(size) if size is not None and size == size.to_integral_value() else value


def told(value: object) -> bool:
    """Whether a field says anything at all: not absent, null, or empty in any way."""
    return not (value is None or value in ("", [], {}) or (isinstance(value, str) and not value.strip()))


def string(value: object) -> str | None:
    """As `text`, for fields that are never numbers."""
    return text(value) if isinstance(value, str) else None


def number(value: object) -> Decimal | None:
    """A finite Decimal from a JSON number or a numeric string (T9), or None. Bounded, so that `1e999999` cannot become
    a gigabyte of zeros when it is printed."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    spelled = str(value).strip()
    return Decimal(spelled) if _NUMBER.fullmatch(spelled) else None


def amount(value: object) -> Decimal | None:
    """A positive amount; None for everything else, which includes the sentinels "-1" and "0" (T9, C15)."""
    size = number(value)
    return size if size is not None and size > 0 else None


def fee(value: object) -> Decimal | None:
    """As `amount`, but zero is a fee too."""
    size = number(value)
    return size if size is not None and size >= 0 else None


def count(value: object) -> int | None:
    """A whole number from 0 to a million, as a number or as text; None for everything else."""
    size = number(value)
    return int(size) if size is not None and 0 <= size <= 1_000_000 and size == size.to_integral_value() else None


def flag(value: object) -> bool | None:
    """True or false, even when spelled as text; None for everything else."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def moment(value: object) -> datetime | None:
    """An aware UTC time, cut to milliseconds, from an ISO string or from epoch milliseconds (C6); seconds are read too.

    A time without a zone is taken as UTC. None for what is no time, or lies outside 2000 to 2100.
    """
    time: datetime | None = None
    epoch = number(value)
    try:
        if epoch is not None:
            milliseconds = int(epoch) if epoch >= 100_000_000_000 else int(epoch * 1000)
            time = datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)
        elif isinstance(value, str):
            time = datetime.fromisoformat(value.strip())
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if time is None or not 2000 <= time.year <= 2100:
        return None
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def link(value: object) -> str | None:
    """A plain web address. Links end up in front of customers, so nothing else may pass."""
    return value if isinstance(value, str) and _LINK.fullmatch(value) and not _UNSTORABLE.search(value) else None


def mode(value: object) -> RateMode | None:
    """FLOATING or FIXED, from either spelling (C17)."""
    modes: dict[str, RateMode] = {"floating": "FLOATING", "fixed": "FIXED"}
    return modes.get(value.strip().lower()) if isinstance(value, str) else None
