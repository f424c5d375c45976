"""The client that product backends copy: what it signs, retries and refuses to misread."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from swap.domain import signing
from swap.sdk import SwapApiError, SwapClient, sign
from tests.conftest import BITCOIN, XRP, XRP_ADDRESS, Shop, look

pytestmark = pytest.mark.sqlite_only

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, st.sampled_from(["GET", "POST"]), TEXT, st.binary(max_size=30))
def test_the_client_signs_as_the_service_verifies(path: str, method: str, query: str, body: bytes) -> None:
    arguments = ("secret", method, f"/v1/{path}", query, "1760000000000", body)
    assert sign(*arguments) == signing.sign_request(*arguments)


class Script:
    """A server that gives the answers of a list, one per request, and remembers what was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.bodies: list[bytes] = []
        self.signatures: list[str] = []
        self.slept: list[float] = []
        self.timestamps: list[str] = []
        self.interim, self.date = b"", ""
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                script.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                script.signatures.append(self.headers["X-Signature"])
                script.timestamps.append(self.headers["X-Timestamp"])
                self.wfile.write(script.interim)
                status, headers, content = script.answers.pop(0)
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST

            def date_time_string(self, timestamp: float | None = None) -> str:
                return script.date or super().date_time_string(timestamp)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.now = 1_760_000_000.0

    def client(self) -> SwapClient:
        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.now += seconds

        url = f"http://127.0.0.1:{self.server.server_port}"
        return SwapClient(url, "swk_1", "sws_secret", sleep=sleep, clock=lambda: self.now)

    def fail(self, status: int, retry: str, after: str | None = None, code: str = "SOME_CODE", **details: Any) -> None:
        error = {"code": code, "message": "m", "details": {**details, "retry": retry}}
        content = json.dumps({"success": False, "error": error, "timestamp": 1}).encode()
        self.answers.append((status, {} if after is None else {"Retry-After": after}, content))

    def done(self, data: Any) -> None:
        self.answers.append((200, {}, json.dumps({"success": True, "data": data, "timestamp": 1}).encode()))


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    thread = threading.Thread(target=script.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield script
    script.server.shutdown()
    thread.join()
    script.server.server_close()


def place(client: SwapClient, **more: Any) -> dict[str, Any]:
    return client.place_order(
        client_order_id="o-1",
        source=BITCOIN,
        target=XRP,
        amount="0.0125",
        destination_address=XRP_ADDRESS,
        **more,
    )


@pytest.mark.server
def test_an_order_is_sent_again_with_the_same_bytes_and_a_new_signature(script: Script) -> None:
    script.fail(503, "same_request", "7")
    script.answers.append((0, {}, b""))
    script.done({"id": "ord_1"})
    assert place(script.client()) == {"id": "ord_1"}
    assert script.slept == [7.0, 2.0]
    assert len(set(script.bodies)) == 1
    assert len(set(script.signatures)) == 3


@pytest.mark.parametrize("retry", ["new_request", "never"])
@pytest.mark.server
def test_an_order_that_was_refused_is_not_sent_again(retry: str, script: Script) -> None:
    script.fail(422, retry)
    with pytest.raises(SwapApiError) as caught:
        place(script.client())
    assert (caught.value.status, caught.value.retry, script.slept) == (422, retry, [])


@pytest.mark.server
def test_the_last_attempt_ends_with_what_it_heard(script: Script) -> None:
    for _ in range(2):
        script.fail(503, "same_request")
    with pytest.raises(SwapApiError):
        place(script.client(), attempts=2)
    script.answers.append((0, {}, b""))
    with pytest.raises(requests.RequestException):
        place(script.client(), attempts=1)
    assert script.slept == [2.0]


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (200, {}, b""),
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b"null"),
        (200, {}, b'{"success": true}'),
        (200, {}, b'{"success": true, "data": 1}'),
        (502, {}, b"<html>Bad Gateway</html>"),
        (500, {}, b'{"success": false}'),
        (500, {}, b'{"success": false, "error": null}'),
        (500, {}, b'{"success": false, "error": {"code": "X", "message": "m", "details": null}}'),
        (500, {}, b'{"success": false, "error": {"code": "X", "message": "m", "details": []}}'),
        (302, {"Location": "http://127.0.0.1:1/stolen"}, b""),
        (503, {"Retry-After": "tomorrow"}, b"away"),
    ],
)
@pytest.mark.server
def test_an_answer_that_is_not_the_services_is_not_taken_for_one(
    status: int, headers: dict[str, str], content: bytes, script: Script
) -> None:
    script.answers.append((status, headers, content))
    with pytest.raises(SwapApiError) as caught:
        script.client().order("ord_1")
    assert (caught.value.status, caught.value.code) == (status, "NOT_UNDERSTOOD")
    assert caught.value.retry == "same_request"
    assert caught.value.retry_after is None


@pytest.mark.server
def test_secrets_do_not_show(script: Script) -> None:
    assert "sws_secret" not in repr(script.client())


def test_all_pages_are_walked_and_filters_left_out_when_none(shop: Shop) -> None:
    placed = [shop.place(f"order-{number}")["id"] for number in range(3)]
    found = [order["id"] for order in shop.api.orders(limit="1", status=None, user_id=None)]
    assert sorted(found) == sorted(placed)
    assert [pair["to"]["currency"] for pair in shop.api.pairs(from_currency="BTC", to_currency="XRP")] == ["XRP"]
    assert len(list(shop.api.pairs(limit="100"))) == len(list(shop.api.pairs()))


def test_every_call_of_the_client_is_answered(shop: Shop, service: Any, clock: Callable[[], Any]) -> None:
    assert abs(shop.api.time() - clock().timestamp() * 1000) < 5000
    assert len(shop.api.instruments()) > 10
    assert shop.api.instrument("btc", "btc")["currency"] == "BTC"
    assert shop.api.validate_address(XRP, XRP_ADDRESS, "7")["valid"] is True
    assert shop.api.quote(BITCOIN, XRP)["quote_id"] is None
    quote = shop.api.quote(BITCOIN, XRP, "0.0125")
    order = shop.place(quote_id=quote["quote_id"], metadata={"ä": ["🐍", None, 1]})
    assert shop.api.order(order["id"])["metadata"] == {"ä": ["🐍", None, 1]}
    assert shop.api.refresh(order["id"])["id"] == order["id"]
    look(service, order["id"])
    assert [event["sequence"] for event in shop.api.order_events(order["id"])] == [1, 2]
    service.feed.publish()
    page = shop.api.events(limit=1)
    assert (len(page["events"]), page["has_more"]) == (1, True)
    rest = shop.api.events(after=page["next"])
    assert (len(rest["events"]), rest["has_more"]) == (1, False)


@pytest.mark.server
def test_an_interim_answer_is_not_the_answer(script: Script) -> None:
    script.interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
    script.done({"id": "ord_1"})
    script.done({"id": "ord_2"})
    client = script.client()
    assert [client.order(each)["id"] for each in ("ord_1", "ord_2")] == ["ord_1", "ord_2"]


@pytest.mark.server
@pytest.mark.parametrize(
    ("header", "slept"),
    [
        ("1.5", 2.0),
        ("0", 2.0),
        ("Thu, 09 Oct 2025 08:53:25 GMT", 5.0),
        ("9" * 9, 3600.0),
        ("\u00b2", 2.0),
        ("soon", 2.0),
    ],
)
def test_every_form_of_a_pause_is_read_and_rubbish_is_none(script: Script, header: str, slept: float) -> None:
    script.date = "Thu, 09 Oct 2025 08:53:20 GMT"
    script.fail(503, "same_request", header)
    script.done({"id": "ord_1"})
    assert place(script.client()) == {"id": "ord_1"}
    assert script.slept == [slept]


@pytest.mark.server
def test_a_clock_that_is_wrong_is_put_right_once_by_the_services(script: Script) -> None:
    theirs = int((script.now + 10) * 1000)
    script.fail(401, "new_request", code="TIMESTAMP_OUTSIDE_WINDOW", server_time=theirs)
    script.done({"id": "ord_1"})
    script.done({"id": "ord_1"})
    client = script.client()
    client.order("ord_1")
    client.order("ord_1")
    assert [int(each) - theirs for each in script.timestamps[1:]] == [0, 0]
    for _ in range(2):
        script.fail(401, "new_request", code="TIMESTAMP_OUTSIDE_WINDOW", server_time=theirs)
    with pytest.raises(SwapApiError):
        client.order("ord_1")
    assert script.answers == []


def test_what_cannot_be_sent_is_refused_by_the_name_of_its_field() -> None:
    client = SwapClient("http://127.0.0.1:9", "swk_1", "sws_secret")
    with pytest.raises(ValueError, match=r"metadata\.note"):
        place(client, metadata={"note": "\ud800"})
    with pytest.raises(ValueError, match="amount"):
        client.quote(BITCOIN, XRP, 0.0125)  # type: ignore[arg-type]
