"""Checks the signature of a request as the upstream does, as far as that is known (docs/upstream.md section 2).

string = timestamp + signed text + public key; signature = Base64(HMAC-SHA256(secret as text, string)).
For a POST the signed text is the body: the bytes received, or their canonical form, which is what JavaScript's
`JSON.stringify(JSON.parse(body))` would give. The vendor's own client only verifies against the second.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Any

WINDOW_SECONDS = 300
"""How far a timestamp may be from the server's clock. The upstream's window is UNKNOWN; this one is the sandbox's
choice, wide enough for any honest clock and narrow enough to notice a client that signs with a wrong unit."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


@dataclass(frozen=True)
class SignatureHeaders:
    """`X-Api-Public-Key`, `X-Api-Timestamp`, `X-Api-Signature` as received; None when absent."""

    public_key: str | None
    timestamp: str | None
    signature: str | None


def sign(secret_key: str, public_key: str, timestamp: str, signed_text: bytes) -> str:
    """The Base64 signature, 44 characters."""
    string = timestamp.encode() + signed_text + public_key.encode()
    return base64.b64encode(hmac.digest(secret_key.encode(), string, hashlib.sha256)).decode()


def problem(
    headers: SignatureHeaders,
    signed_texts: list[bytes],
    *,
    public_key: str,
    secret_key: str,
    clocks: tuple[float, ...] | None,
) -> str | None:
    """Why the request is refused, as the message to answer, or None when one of `signed_texts` verifies.

    `clocks`: Unix seconds that count as the server's time; None switches the window off.
    """
    if not (headers.public_key and headers.timestamp and headers.signature):
        return "API key and signature headers are required"
    if headers.public_key != public_key:
        return "unknown API key"
    given = headers.signature.encode(errors="replace")
    valid = [
        hmac.compare_digest(sign(secret_key, public_key, headers.timestamp, text).encode(), given)
        for text in signed_texts
    ]
    if not any(valid):
        return "signature rejected"
    if clocks is not None and not _is_fresh(headers.timestamp, clocks):
        return "signature rejected: timestamp is too far from the server's clock"
    return None


def _is_fresh(timestamp: str, clocks: tuple[float, ...]) -> bool:
    """10 digits are seconds, 13 are milliseconds (docs/upstream.md C5: both are accepted)."""
    if not re.fullmatch(r"[0-9]{10}|[0-9]{13}", timestamp, re.ASCII):
        return False
    seconds = int(timestamp) / (1000 if len(timestamp) == 13 else 1)
    return any(abs(seconds - clock) <= WINDOW_SECONDS for clock in clocks)


def body_texts(body: bytes) -> list[bytes]:
    """What a POST may have signed: its raw bytes and their canonical form."""
    canonical = canonical_json(body)
    return [body] if canonical is None else [body, canonical]


def canonical_json(body: bytes) -> bytes | None:
    """`JSON.stringify(JSON.parse(body))`, or None when the body is not JSON."""
    try:
        parsed = json.loads(body, parse_int=float, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return _stringify(parsed).encode("utf-8")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _stringify(value: Any) -> str:
    if isinstance(value, dict):
        # JavaScript objects list integer-like keys first, ascending, then the others as inserted.
        indexes = sorted((key for key in value if _is_array_index(key)), key=int)
        keys = indexes + [key for key in value if not _is_array_index(key)]
        return "{" + ",".join(f"{_quoted(key)}:{_stringify(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_stringify, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        return _javascript_number(value)
    return json.dumps(value)


def _is_array_index(key: str) -> bool:
    return bool(_ARRAY_INDEX.fullmatch(key)) and int(key) < 2**32 - 1


def _quoted(text: str) -> str:
    """Non-ASCII raw, control characters escaped, lone surrogates as `\\ud800` (well-formed JSON.stringify)."""
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _javascript_number(number: float) -> str:
    """Number::toString of ECMAScript: plain from 1e-6 up to 1e21, shortest digits, `1e+21` and `1e-7` outside.

    These are JSON numbers of a request as JavaScript would read them, not amounts: nothing is computed with them.
    """
    if number == 0:
        return "0"
    if number in (float("inf"), float("-inf")):
        return "null"
    sign_text, digits, exponent = re.fullmatch(r"(-?)([0-9.]+?)(?:e([+-][0-9]+))?", repr(number)).groups()  # type: ignore[union-attr]
    whole, _, fraction = digits.partition(".")
    point = len(whole) + int(exponent or 0)
    figures = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(figures)
    figures = figures.rstrip("0")
    if len(figures) <= point <= 21:
        return sign_text + figures.ljust(point, "0")
    if 0 < point <= 21:
        return f"{sign_text}{figures[:point]}.{figures[point:]}"
    if -6 < point <= 0:
        return f"{sign_text}0.{'0' * -point}{figures}"
    mantissa = figures[0] + ("." + figures[1:] if len(figures) > 1 else "")
    return f"{sign_text}{mantissa}e{point - 1:+d}"
