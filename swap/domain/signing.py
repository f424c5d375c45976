"""Signatures: bytes in, headers or a verdict out. No clock, no network, no settings.

Two schemes live here and must never be mixed up:

* **Outwards**, towards the v2 upstream (docs/upstream.md section 2): Base64 HMAC-SHA256 over timestamp + body + public key.
  Neither method nor path is covered, so the body is all that protects a create.
* **Inwards**, towards our callers (README.md, "Calling the API"): hex HMAC-SHA256 over
  METHOD + path + ["?" + raw query] + timestamp + raw body.

In both, the secret is used **as text**: a secret that looks like hex is not decoded.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Any, NamedTuple
from urllib.parse import quote

WINDOW_MS = 5_000
"""How far an inward timestamp may lie before or after our clock, in milliseconds; both ends belong to the window."""

_TIMESTAMP_MS = re.compile(r"[0-9]{13}")
_INTEGER_LIKE = re.compile(r"0|[1-9][0-9]*")

# 2**53 - 1: beyond it a JavaScript server that signs over its own re-serialisation reads another number than the one sent.
_LARGEST_JSON_INTEGER = 9_007_199_254_740_991


# --- outwards: the v2 upstream ---------------------------------------------------------------------------------------


def sign_v2(public_key: str, secret_key: str, timestamp: str, body: bytes) -> dict[str, str]:
    """The three headers that sign a v2 request.

    `timestamp`: epoch milliseconds as text, sent and signed identically (C5: we send milliseconds). `body`: exactly the
    bytes that go over the wire; for a GET without query the empty bytes, never `{}` (vector V2!); for a GET whose query
    is signed, the raw query without "?" (C13). Source: docs/upstream.md section 2, vectors V1 to V5e.
    """
    text = timestamp.encode() + body + public_key.encode()
    digest = hmac.new(secret_key.encode(), text, hashlib.sha256).digest()
    return {
        "X-Api-Public-Key": public_key,
        "X-Api-Timestamp": timestamp,
        "X-Api-Signature": base64.b64encode(digest).decode("ascii"),
    }


def compact_json(value: object) -> bytes:
    """JSON as the upstream has to see it: no spaces, UTF-8 left raw, keys in the order given.

    Raises ValueError for everything that a JavaScript `JSON.parse` + `JSON.stringify` would write back differently, because
    a server that verifies over its own re-serialisation would then refuse the signature (docs/upstream.md section 2):
    floats (1.0 becomes 1), integers beyond 2**53, integer-like keys (they are moved to the front), text that is not valid
    Unicode. Decimal is refused too: amounts travel as decimal strings.
    """
    _check_stable(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def _check_stable(value: Any) -> None:
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        if abs(value) > _LARGEST_JSON_INTEGER:
            raise ValueError("an integer beyond 2**53 does not survive the upstream's JSON reader; send it as text")
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"a JSON key must be text, not {type(key).__name__}")
            if _INTEGER_LIKE.fullmatch(key):
                raise ValueError("an integer-like JSON key changes its place in the upstream's JSON reader")
            _check_stable(item)
        return
    if isinstance(value, list | tuple):
        for item in value:
            _check_stable(item)
        return
    raise ValueError(f"{type(value).__name__} has no stable JSON form; send amounts and times as text")


# --- inwards: our own callers ----------------------------------------------------------------------------------------


def canonical_path(decoded_path: str | bytes) -> str:
    """The path as it is signed: percent-encoded by RFC 3986, only unreserved characters and "/" left as they are.

    Takes the **decoded** path, as text (encoded as UTF-8 here) or as bytes. A WSGI server hands the decoded path over as
    latin-1 text, so a server passes `environ["PATH_INFO"].encode("latin-1")`. Both sides encode it anew, because the path
    as typed is lost: clients differ in whether they escape "(" or "~", and servers keep only the decoded form. An escaped
    slash cannot be distinguished from a slash; no name in our API contains one.

    `/v1/instruments/DOT/Asset Hub(Polkadot)` -> `/v1/instruments/DOT/Asset%20Hub%28Polkadot%29`
    """
    return quote(decoded_path, safe="/")


def sign_request(secret: str, method: str, path: str | bytes, query: str | bytes, timestamp: str, body: bytes) -> str:
    """The hex signature (64 lower-case characters) of a request to our own API.

    `path`: decoded, as for `canonical_path`. `query`: raw, as it stands in the URL, without "?"; empty when there is
    none. `timestamp`: exactly 13 ASCII digits, epoch milliseconds. `body`: the raw bytes, empty when there are none.
    Raises ValueError for another form of timestamp.
    """
    if not _TIMESTAMP_MS.fullmatch(timestamp):
        raise ValueError("the timestamp must be exactly 13 digits: epoch milliseconds")
    raw_query = query.encode() if isinstance(query, str) else query
    text = b"".join(
        (
            method.upper().encode(),
            canonical_path(path).encode("ascii"),
            b"?" + raw_query if raw_query else b"",
            timestamp.encode("ascii"),
            body,
        )
    )
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def within_window(timestamp: str, now_ms: int) -> bool:
    """Whether `timestamp` is exactly 13 ASCII digits and at most 5 seconds before or after `now_ms` (epoch ms)."""
    return _TIMESTAMP_MS.fullmatch(timestamp) is not None and abs(int(timestamp) - now_ms) <= WINDOW_MS


class SignedParts(NamedTuple):
    """What a signature of our own API covers, in its order; each part as for `sign_request`."""

    method: str
    path: str | bytes
    query: str | bytes
    timestamp: str
    body: bytes


def verify_request(secret: str, signature: str, parts: SignedParts, now_ms: int) -> bool:
    """Whether `signature` is the one `sign_request` makes and the timestamp lies within the window around `now_ms`.

    Compares in constant time and never raises on what a caller sent. Upper-case hex is refused on purpose: a signature
    works once on a call that changes something, and one signature must not have two spellings.
    """
    if not within_window(parts.timestamp, now_ms):
        return False
    expected = sign_request(secret, *parts)
    return hmac.compare_digest(expected.encode("ascii"), signature.encode("utf-8", "surrogatepass"))
