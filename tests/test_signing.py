"""Vectors V1 to V5e of docs/upstream.md section 2, and our own scheme against values computed with openssl:

printf '%s' STRING | openssl dgst -sha256 -hmac SECRET -hex
"""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest

from swap.domain.signing import (
    WINDOW_MS,
    SignedParts,
    canonical_path,
    compact_json,
    sign_request,
    sign_v2,
    verify_request,
    within_window,
)

PUBLIC = "pk_test_4f0c2b7e9a"
SECRET = "sk_test_0d5e81c3a6f24b79"
MS = "1760000000000"
S = "1760000000"

V1_BODY = (
    b'{"instrumentFrom":{"currencyTitle":"BTC","networkTitle":"BTC"},"instrumentTo":{"currencyTitle":"USDT",'
    b'"networkTitle":"TRC20"},"destinationAddress":"TExampleDestination0000000000000001","refundAddress":'
    b'"bc1qexamplerefund0000000000000000000001","claimedDepositAmount":"0.0125","rateMode":"FLOATING",'
    b'"referrerId":"aff_1"}'
)

VECTORS = {
    "V1": (MS, V1_BODY, "nqzpN/XwC6GWDgZLW18xnyg6E+D8qNLnSA6wFFeNpJg="),
    "V2": (MS, b"", "7Kp72Cg1Jt5tY10oASrd/PyityzhBblERVr99TbFhD8="),
    "V2!": (MS, b"{}", "fcOpfnh1Esfzsf4kNDqOp8P8GNbYen3J3oSgmuDU1vo="),
    "V3": (
        MS,
        b"orderId=90210&destinationAddress=TExampleDestination0000000000000001",
        "MV9cVWFtVxH2sMd6X4yGK5gfEU3lBLeX81Oo8Yqy5Ps=",
    ),
    "V4": (S, b'{"currencyTitle":"USDT","networkTitle":"TRC20"}', "RfLjABpR6LIq5irvrlJr7CeRg1rj45wi8iCbLhVM1tM="),
    "V4!": (S, b'{"currencyTitle": "USDT", "networkTitle": "TRC20"}', "GRiCb68gcZg7KMc9pB8AVEKu9XLkbsjlGrkoVbnmFKc="),
    "V5": (MS, '{"note":"ä"}'.encode(), "/Xzxd83IoQz75SBKWHgLFF2+IhWvzyhwWVrAXU4rLeI="),
    "V5e": (MS, b'{"note":"\\u00e4"}', "7PDiv5melJEJ1LRuoWOpwpy9+kfAbJFokc9GmIHFH2M="),
}
HEX = {
    "V1": "9eace937f5f00ba1960e064b5b5f319f283a13e0fca8d2e7480eb014578da498",
    "V2": "ecaa7bd8283526de6d635d28012addfcfca2b72ce105b944455afdf536c5843f",
    "V3": "315f5c55616d5711f6b0c77a5f8c862b981f114de504b797f353a8f18ab2e4fb",
}


@pytest.mark.parametrize("name", VECTORS)
def test_every_published_vector_is_reproduced(name: str) -> None:
    timestamp, signed, expected = VECTORS[name]
    headers = sign_v2(PUBLIC, SECRET, timestamp, signed)
    assert headers == {"X-Api-Public-Key": PUBLIC, "X-Api-Timestamp": timestamp, "X-Api-Signature": expected}
    assert len(expected) == 44
    if name in HEX:
        assert base64.b64decode(expected).hex() == HEX[name]


def test_v1_has_the_stated_length_and_is_what_compact_json_makes() -> None:
    assert len(V1_BODY) == 318
    assert compact_json(json.loads(V1_BODY)) == V1_BODY


def test_the_wrong_variants_are_not_what_we_send() -> None:
    def signature(timestamp: str, signed: bytes) -> str:
        return sign_v2(PUBLIC, SECRET, timestamp, signed)["X-Api-Signature"]

    assert signature(MS, b"") != VECTORS["V2!"][2]
    assert signature(S, compact_json({"currencyTitle": "USDT", "networkTitle": "TRC20"})) == VECTORS["V4"][2]
    assert signature(MS, compact_json({"note": "ä"})) == VECTORS["V5"][2] != VECTORS["V5e"][2]


def test_a_secret_that_looks_like_hex_is_used_as_text() -> None:
    looks_like_hex = "00ff" * 16
    # printf '%s' 1760000000000pk | openssl dgst -sha256 -hmac 00ff...00ff -binary | openssl base64 -A
    assert sign_v2("pk", looks_like_hex, MS, b"")["X-Api-Signature"] == HEX_LOOKING_SECRET


@pytest.mark.parametrize(
    "value",
    [
        {"amount": 1.0},
        {"deep": [{"amount": 0.1}]},
        {"amount": Decimal("1")},
        {"1": "a"},
        {"deep": {"0": "a"}},
        {1: "a"},
        {"big": 2**53},
        {"text": "\ud800"},
        float("nan"),
        {"when": b"bytes"},
    ],
)
def test_compact_json_refuses_what_a_javascript_reader_would_write_back_differently(value: object) -> None:
    with pytest.raises(ValueError):
        compact_json(value)


def test_compact_json_keeps_order_nulls_and_raw_text() -> None:
    assert (
        compact_json({"b": None, "a": [True, 7, "ä/\u2028\n"], "01": ("x",)})
        == '{"b":null,"a":[true,7,"ä/\u2028\\n"],"01":["x"]}'.encode()
    )


# --- our own scheme --------------------------------------------------------------------------------------------------

OWN_SECRET = "ssk_test_5f1d0c9ab2e84736"

OWN_VECTORS = [
    # over GET/v1/instruments/DOT/Asset%20Hub%28Polkadot%291760000000000
    (
        ("GET", "/v1/instruments/DOT/Asset Hub(Polkadot)", "", b""),
        "413f8aef5dc4b6f049456fc0844135cb957b4703e8c46b5b7ad5aa57ab3fea72",
    ),
    # over GET/v1/orders?limit=2&after=a%2Bb1760000000000
    (
        ("GET", "/v1/orders", "limit=2&after=a%2Bb", b""),
        "f98daa380ae461d746228413662fa7b4d8c86c58f546517b9f02341e78975c67",
    ),
    # over POST/v1/orders1760000000000{"client_order_id":"o-1","amount":"0.01"}
    (
        ("POST", "/v1/orders", "", b'{"client_order_id":"o-1","amount":"0.01"}'),
        "083087732dc9fbb2bf2cf601356416517c79399b7ed7c6d713eb6a9d9ecfdc28",
    ),
    # over POST/v1/orders/ord_1/refresh1760000000000
    (
        ("POST", "/v1/orders/ord_1/refresh", "", b""),
        "44f91577150c84b27367aa4658aa97fbde9cf8369e07b432c87236e969f1f6f8",
    ),
    # over GET/v1/instruments/Z%C3%BC/~1760000000000 ("~" is unreserved)
    (
        ("GET", "/v1/instruments/Zü/~", "", b""),
        "0a2e7ed623c643904dff6d467e24d30a276917541c8d59d8cee56a8041ddbb8e",
    ),
]


@pytest.mark.parametrize(("request_", "expected"), OWN_VECTORS)
def test_our_scheme_agrees_with_openssl(request_: tuple[str, str, str, bytes], expected: str) -> None:
    method, path, query, body = request_
    assert sign_request(OWN_SECRET, method, path, query, MS, body) == expected
    assert sign_request(OWN_SECRET, method.lower(), path.encode(), query.encode(), MS, body) == expected
    assert verify_request(OWN_SECRET, expected, SignedParts(method, path, query, MS, body), int(MS))


def test_a_path_from_wsgi_is_read_as_bytes() -> None:
    path_info = "/v1/instruments/Zü/~".encode().decode("latin-1")  # as a WSGI server hands it over
    assert canonical_path(path_info.encode("latin-1")) == "/v1/instruments/Z%C3%BC/~"


def test_canonical_path_leaves_only_unreserved_characters_and_slashes() -> None:
    assert canonical_path("/aZ09-._~/") == "/aZ09-._~/"
    assert canonical_path("/!$&'()*+,;=:@ %") == "/%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A%40%20%25"


@pytest.mark.parametrize(
    ("timestamp", "inside"),
    [
        (str(int(MS) - WINDOW_MS), True),
        (str(int(MS) + WINDOW_MS), True),
        (str(int(MS) - WINDOW_MS - 1), False),
        (str(int(MS) + WINDOW_MS + 1), False),
        ("0" + MS, False),
        (S, False),
        (" " + S + "00", False),
        (MS + "\n", False),
        ("+76000000000 ", False),
        ("１７６００００００００００", False),  # 13 digits, but not ASCII
        ("", False),
    ],
)
def test_the_window_is_five_seconds_both_ways_and_takes_exactly_thirteen_digits(timestamp: str, inside: bool) -> None:
    assert within_window(timestamp, int(MS)) is inside


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "0" * 64},
        {"signature": OWN_VECTORS[1][1].upper()},
        {"signature": ""},
        {"signature": "é" * 64},
        {"signature": "\ud800"},
        {"method": "POST"},
        {"path": "/v1/orders/"},
        {"query": "limit=2"},
        {"query": ""},
        {"body": b" "},
        {"timestamp": "1760000000001"},
        {"timestamp": "x"},
        {"now_ms": int(MS) + 5001},
        {"now_ms": int(MS) - 5001},
    ],
)
def test_any_change_to_a_signed_request_is_refused(change: dict[str, Any]) -> None:
    (method, path, query, body), signature = OWN_VECTORS[1]
    parts = SignedParts(method, path, query, MS, body)
    good: dict[str, Any] = {**parts._asdict(), "signature": signature, "now_ms": int(MS)}
    assert verified(**good)
    assert not verified(**{**good, **change})


def verified(*, signature: str, now_ms: int, **parts: Any) -> bool:
    return verify_request(OWN_SECRET, signature, SignedParts(**parts), now_ms)


def test_signing_refuses_a_timestamp_that_could_never_verify() -> None:
    with pytest.raises(ValueError, match="13 digits"):
        sign_request(OWN_SECRET, "GET", "/v1/time", "", S, b"")


HEX_LOOKING_SECRET = "6lsl4GRnJPvgTYuWV7c+VfP1JcQ7LS4qpBWPWQyFHYI="
