"""Never a 500 for input, never a signature twice, and honest words when it is we who are broken: on both databases."""

from __future__ import annotations

import gzip
import json
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from swap.infra.vault import Vault
from swap.tables import ApiKey, UsedSignature
from swap.web.body import MAX_BODY_BYTES
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.servers import served
from tests.signed_client import ORDER, POSTS, QUOTE, XRP_ADDRESS, Answer, Calls, raw

NOBODY_POSTGRES = "postgresql+psycopg://nobody:pg-password-1@127.0.0.1:1/none"


# --- the same bytes twice --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v1/quotes", QUOTE),
        ("/v1/addresses/validate", {"currency": "XRP", "network": "XRP", "address": XRP_ADDRESS, "memo": "7"}),
    ],
)
def test_a_question_may_be_asked_again_with_its_signature_and_writes_nothing(
    calls: Calls, api_url: str, service: Service, path: str, content: dict[str, Any]
) -> None:
    body = json.dumps(content).encode()
    assert calls("POST", path, body=body).status == 200
    assert [raw(api_url, "POST", path, body, calls.last).status for _ in range(3)] == [200] * 3
    with service.database.read() as session:
        assert session.scalars(select(UsedSignature)).all() == []


def test_a_change_signed_once_is_made_once(calls: Calls, api_url: str) -> None:
    body = json.dumps({"url": "http://127.0.0.1:9/hook"}).encode()
    assert calls("POST", "/v1/webhook-endpoints", body=body).status == 201
    again = raw(api_url, "POST", "/v1/webhook-endpoints", body, calls.last)
    assert (again.status, again.code) == (401, "SIGNATURE_USED")
    assert again.json["error"]["details"]["retry"] == "new_request"


def test_an_order_signed_once_may_be_sent_again_and_finds_itself(calls: Calls, api_url: str) -> None:
    body = json.dumps(ORDER).encode()
    first = calls("POST", "/v1/orders", body=body)
    assert first.status == 201, first.json
    again = raw(api_url, "POST", "/v1/orders", body, calls.last)
    assert (again.status, again.data["id"]) == (200, first.data["id"])


def test_a_read_may_be_sent_again(calls: Calls, api_url: str, service: Service) -> None:
    assert calls("GET", "/v1/orders").status == 200
    assert raw(api_url, "GET", "/v1/orders", b"", calls.last).status == 200
    with service.database.read() as session:
        assert session.scalars(select(UsedSignature)).all() == []


def test_a_compressed_body_is_refused_with_what_is_taken(calls: Calls) -> None:
    body = gzip.compress(json.dumps(QUOTE).encode())
    answer = calls("POST", "/v1/quotes", body=body, Content_Encoding="gzip")
    assert (answer.status, answer.code, answer.headers["Accept-Encoding"]) == (415, "ENCODING_NOT_TAKEN", "identity")


def test_a_time_whose_plus_became_a_blank_is_explained(calls: Calls) -> None:
    assert calls.get("/v1/events?since=2026-11-27T00:00:00%2B01:00").status == 200
    for odd in ("2026-11-27T00:00:00+01:00", "2026-11-27T00:00:00"):
        answer = calls.get(f"/v1/events?since={odd}")
        assert answer.status == 422
        assert "%2B" in answer.text


# --- bodies ----------------------------------------------------------------------------------------------------------

BAD_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "a space": b" ",
    "no JSON": b"{",
    "single quotes": b"{'a': 1}",
    "a comment": b"{} // x",
    "two values": b"{}{}",
    "an array": b"[]",
    "a string": b'"x"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "NaN": b'{"amount": NaN}',
    "Infinity": b'{"amount": -Infinity}',
    "an infinite float": b'{"metadata": {"a": 1e999}}',
    "an integer beyond 64 bits": b'{"metadata": {"a": 18446744073709551616}}',
    "a negative one": b'{"metadata": {"a": -9223372036854775808}}',
    "thousands of digits": b'{"amount": ' + b"1" * 5000 + b"}",
    "a key twice": b'{"amount": "1", "amount": "2"}',
    "a key twice inside": b'{"from": {"currency": "a", "currency": "b"}}',
    "latin-1": b'{"a": "\xe4"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-32": '{"a": 1}'.encode("utf-32-le"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a surrogate": b'{"metadata": {"a": "\\ud800"}}',
    "a surrogate as a name": b'{"\\udfff": 1}',
    "an encoded surrogate": b'{"a": "\xed\xa0\x80"}',
    "NUL": b'{"metadata": {"a": "\\u0000"}}',
    "NUL as a name": b'{"metadata": {"\\u0000": 1}}',
    "a raw control character": b'{"a": "\n"}',
    "40 levels": b'{"metadata":' * 40 + b"1" + b"}" * 40,
    "300 levels": b'{"metadata": {"a":' + b"[" * 300 + b"]" * 300 + b"}}",
    "30000 levels": b"[" * 30_000 + b"]" * 30_000,
    "a form": b"a=1&b=2",
    "gzip": b"\x1f\x8b\x08\x00\x00",
}


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_not_strict_json_is_told_so(path: str, calls: Calls) -> None:
    for name, body in BAD_BODIES.items():
        answer = calls("POST", path, body=body)
        assert (answer.status, answer.code) == (400, "BAD_JSON"), name
        assert answer.fields == {"body"}, name


@pytest.mark.parametrize("path", POSTS)
def test_a_body_of_strict_json_that_means_nothing_is_refused_field_by_field(path: str, calls: Calls) -> None:
    answer = calls(
        "POST", path, body=b'{"nonsense": "\xf0\x9f\x90\x8d", "from": [], "to": 1, "amount": 0.1, "memo": {}}'
    )
    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
    problems = answer.json["error"]["details"]["fields"]
    assert problems["nonsense"][0]["code"] == "UNKNOWN_FIELD"
    assert len(problems) >= 3
    assert all(problem["code"] and problem["message"] for found in problems.values() for problem in found)


def test_the_content_type_does_not_matter_since_the_bytes_are_signed(calls: Calls) -> None:
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "\xff"]:
        answer = calls("POST", "/v1/quotes", body=QUOTE, Content_Type=content_type.encode("latin-1"))
        assert answer.status == 200, answer.json


def test_numbers_at_the_edge_of_what_can_be_stored_come_back_as_they_were(calls: Calls) -> None:
    metadata = {"big": 2**53 - 1, "small": 1 - 2**53, "float": 0.1, "deep": [[[[[[{"ä": "🐍"}]]]]]]}
    order = calls("POST", "/v1/orders", body={**ORDER, "metadata": metadata})
    assert order.status == 201, order.json
    assert calls("GET", f"/v1/orders/{order.data['id']}").data["metadata"] == metadata


def test_a_body_too_large_is_refused_before_it_is_read(calls: Calls) -> None:
    assert calls("POST", "/v1/quotes", body=b" " * MAX_BODY_BYTES).code == "BAD_JSON"
    headers: dict[str, str | bytes] = {**calls.last, "Content-Length": str(MAX_BODY_BYTES + 1)}
    answer = raw(calls.url, "GET", "/v1/orders", b"", headers)
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")


# --- queries ----------------------------------------------------------------------------------------------------------


def test_a_name_with_nul_in_it_is_nobodys(calls: Calls) -> None:
    for path in ("/v1/orders/ord_%00", "/v1/orders/%00/events", "/v1/instruments/%00/x"):
        answer = calls("GET", path.replace("%00", "\x00"), target=path)
        assert (answer.status, answer.code) == (404, "NOT_FOUND")


QUERIES = [
    ("limit=0", {"limit"}),
    ("limit=1001", {"limit"}),
    ("limit=-1", {"limit"}),
    ("limit=x", {"limit"}),
    ("limit=", {"limit"}),
    ("limit=1.5", {"limit"}),
    ("limit=" + "9" * 5000, {"limit"}),
    ("limit=%00", {"limit"}),
    ("limit=%ff", {"limit"}),
    ("after=%00", {"after"}),
    ("after=", {"after"}),
    ("after=x", {"after"}),
    ("after=%ff%fe", {"after"}),
    ("after=" + "A" * 2000, {"after"}),
    ("nonsense=1", {"nonsense"}),
    ("nonsense=1&limit=0&after=", {"nonsense", "limit", "after"}),
    ("%00=1", {"\x00"}),
    ("%ff=1", {"%FF"}),
]


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/events", "/v1/pairs"])
def test_every_problem_of_a_query_is_named_in_the_usual_envelope(path: str, calls: Calls) -> None:
    for query, names in QUERIES:
        answer = calls("GET", path, query)
        assert (answer.status, answer.code) == (422, "VALIDATION_FAILED"), query
        assert answer.fields == names, query


def test_queries_in_strange_bytes_are_read_or_refused(calls: Calls) -> None:
    for path in ("/v1/orders", "/v1/events", "/v1/pairs"):
        for query in ("&", "=", "&&=&", "limit=1&limit=x", "limit=2;a", "a=%zz", "%", "limit", "?limit=1"):
            answer = calls("GET", path, query)
            assert answer.status in (200, 422), (path, query, answer.content)
            told_properly(answer)


# --- never a 500 for input -------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["BTC", "XRP", "FIXED", "0.0125", "1e5", "\x00", "9" * 21, "0." + "1" * 24, "\u202e", "x" * 600]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        *ORDER,
        *("destination_memo_none", "refund_address", "refund_memo", "quote_id", "user_id", "search_terms", "metadata"),
        *("currency", "network", "address", "memo"),
    ]
)
SIDES = st.fixed_dictionaries({"currency": st.sampled_from(["BTC", "btc", "XRP", "ẞ", "\x00"])}) | JSON_VALUES


def fuzz(examples: int) -> Callable[[Any], Any]:
    return hypothesis_settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def told_properly(answer: Answer) -> None:
    if answer.status < 400:
        return
    assert answer.code
    if answer.status >= 500:
        assert answer.status == 503, answer.content
        assert answer.code != "DATABASE_UNAVAILABLE", answer.content
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", POSTS)
def test_no_body_makes_the_service_break(path: str, calls: Calls) -> None:
    start = {"/v1/addresses/validate": {"currency": "BTC", "network": "BTC", "address": "x"}}.get(
        path, QUOTE if path == "/v1/quotes" else ORDER
    )

    @fuzz(60)
    @given(st.dictionaries(NAMES, JSON_VALUES | SIDES, max_size=3), st.lists(NAMES, max_size=2))
    def run(changes: dict[str, Any], left_out: list[str]) -> None:
        body = {name: value for name, value in {**start, **changes}.items() if name not in left_out}
        told_properly(calls("POST", path, body=json.dumps(body).encode("utf-8", "surrogatepass")))

    run()


@pytest.mark.parametrize("path", POSTS)
def test_no_bytes_make_the_service_break(path: str, calls: Calls) -> None:
    @fuzz(30)
    @given(st.binary(max_size=60))
    def run(body: bytes) -> None:
        answer = calls("POST", path, body=body)
        assert answer.status in (400, 422)
        told_properly(answer)

    run()


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/events", "/v1/pairs"])
def test_no_query_makes_the_service_break(path: str, calls: Calls) -> None:
    names = st.sampled_from(
        [
            "limit",
            "after",
            "status",
            "user_id",
            "search_term",
            "tx_id",
            "destination_address",
            "from_currency",
            "to_network",
            "client_order_id",
        ]
    )

    @fuzz(60)
    @given(st.lists(st.tuples(names, st.text(max_size=20) | st.binary(max_size=8)), max_size=3))
    def run(pairs: list[tuple[str, Any]]) -> None:
        clean = [(n, v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v) for n, v in pairs]
        told_properly(calls("GET", path, urlencode(clean)))

    run()


def cursor(content: bytes) -> str:
    return urlsafe_b64encode(content).decode()


FOREIGN_CURSORS = [
    *[
        ("/v1/orders", cursor(content))
        for content in (
            *(b"", b"x", b"\xff", b'["2026-01-01T00:00:00","ord_x"]', b'["2026-01-01","ord_x"]'),
            *(b'["0001-01-01T00:00:00.000+14:00","ord_x"]', b'["9999-12-31T23:59:59.000-14:00","ord_x"]'),
            *(b'["2026-01-01T00:00:00.000Z","ord\\u0000"]', b'["2026-01-01T00:00:00.000Z","a","b"]'),
            *(b'["2026-01-01T00:00:00.000Z"]', b'["2026-01-01T00:00:00.000Z",null]', b'{"a":"b"}'),
        )
    ],
    *[
        ("/v1/pairs", cursor(content))
        for content in (
            *(
                b"",
                b"1",
                b"null",
                b"true",
                b"{}",
                b"[]",
                b'["a"]',
                b"[1,2,3,4]",
                b'"abcd"',
                b"[null,null,null,null]",
            ),
            *(b'["a","b","c","\\u0000"]', b"[[],{},1,2]", b"\xff"),
        )
    ],
    *[("/v1/events", after) for after in ("0" * 12, "1" * 64, "٣" * 12, "-00000000001", "000000000001x")],
    *[(path, after) for path in ("/v1/orders", "/v1/pairs") for after in ("=", "a", "ä", "A" * 255)],
]


def test_a_cursor_made_by_somebody_else_is_read_or_refused(calls: Calls) -> None:
    for path, after in FOREIGN_CURSORS:
        answer = calls("GET", path, urlencode({"after": after}))
        assert answer.status in (200, 410, 422), (path, after, answer.content)
        told_properly(answer)


# --- when we are the problem -----------------------------------------------------------------------------------------


def unavailable(answer: Answer) -> None:
    assert (answer.status, answer.code) == (503, "DATABASE_UNAVAILABLE")
    assert answer.json["error"]["details"]["retry"] == "same_request"
    assert int(answer.headers["retry-after"]) > 0
    for secret in (b"pg-password-1", b"Traceback", b"psycopg", b"sqlite", b"SELECT"):
        assert secret not in answer.content


def test_a_database_that_nobody_answers_for_is_unavailable(
    shop: Shop, clock: Clock, other_service: Callable[..., Service]
) -> None:
    with served(other_service(database_url=NOBODY_POSTGRES)) as url:
        unavailable(Calls(shop, url, clock)("GET", "/v1/orders"))
        unavailable(Calls(shop, url, clock)("POST", "/v1/orders", body=ORDER))


def test_a_database_that_was_never_migrated_is_unavailable(
    shop: Shop, clock: Clock, other_service: Callable[..., Service], tmp_path: Path
) -> None:
    with served(other_service(database_url=f"sqlite:///{tmp_path}/empty.db")) as url:
        unavailable(Calls(shop, url, clock)("GET", "/v1/orders"))


def test_a_database_lost_on_the_way_stops_writes_but_not_the_catalog(
    calls: Calls, service: Service, other_service: Callable[..., Service], tmp_path: Path, backend: str, clock: Clock
) -> None:
    if backend != "sqlite":
        pytest.skip("a file can be taken away, a server cannot; the other two cover it")
    copy = tmp_path / "copy.db"
    with service.database.write():  # nobody writes while it is copied
        shutil.copy(tmp_path / "swap.db", copy)
        for more in ("-wal", "-shm"):
            if (tmp_path / f"swap.db{more}").exists():
                shutil.copy(tmp_path / f"swap.db{more}", tmp_path / f"copy.db{more}")
    parts = other_service(database_url=f"sqlite:///{copy}")
    with served(parts) as url:
        elsewhere = Calls(calls.shop, url, clock)
        assert elsewhere("GET", "/v1/instruments").status == 200
        parts.database.close()
        copy.unlink()
        copy.mkdir()
        assert elsewhere("GET", "/v1/instruments").status == 200
        assert elsewhere("POST", "/v1/quotes", body=QUOTE).status == 200, "a question needs no database"
        unavailable(elsewhere("POST", "/v1/orders", body=ORDER))
        unavailable(elsewhere("GET", "/v1/orders"))
        clock.advance(6)
        unavailable(elsewhere("GET", "/v1/instruments"))
        assert raw(url, "GET", "/healthz").status == 200
        assert raw(url, "GET", "/readyz").status == 503


def test_what_breaks_on_our_side_is_a_500_with_a_request_id_and_no_story(
    calls: Calls, service: Service, clock: Clock
) -> None:
    # SWAP_SECRET_KEYS was rotated, and the old text taken out too early.
    sealed = Vault(["another text, of at least 32 characters"]).seal("sws_elsewhere")
    with service.database.write() as session:
        session.execute(update(ApiKey).values(secret_sealed=sealed))
    clock.advance(5)
    answer = calls("GET", "/v1/orders")
    assert (answer.status, answer.code) == (500, "INTERNAL")
    assert answer.json["error"]["details"]["request_id"] == answer.headers["x-request-id"]
    assert b"Traceback" not in answer.content
    assert b"SWAP_SECRET_KEYS" not in answer.content


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("types=order.none", "types"),
        ("types=", "types"),
        ("since=2025-10-09", "since"),
        ("since=2025-10-09T12:00:00", "since"),
        ("until=0001-01-01T00:00:00%2B23:00", "until"),
        ("until=9999-12-31T23:59:59-23:00", "until"),
        ("order_id=%00", "order_id"),
        ("type=order.created", "type"),
    ],
)
def test_a_filter_of_the_feed_that_makes_no_sense_is_refused(query: str, field: str, calls: Calls) -> None:
    answer = calls("GET", "/v1/events", query)
    assert (answer.status, answer.fields) == (422, {field})


def test_the_feed_can_be_filtered_over_http(calls: Calls) -> None:
    query = "types=order.created,order.updated&since=2025-10-09T12:00:00Z&until=2999-01-01T00:00:00Z&order_id=ord_x"
    assert calls("GET", "/v1/events", query).data["events"] == []
