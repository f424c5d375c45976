"""One POST to an address that somebody else chose: whatever the other side does, it ends, and soon."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swap.infra.webhook_http import Sent, canonical, is_private, post, refusal
from tests.receivers import receiving, speaking

pytestmark = pytest.mark.server

LIMIT = 0.4
HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_1"}

Say = Callable[[socket.socket, threading.Event], None]


def send(url: str, *, limit: float = LIMIT, allow_private: bool = True, body: bytes = b"{}") -> Sent:
    return post(url, body, HEADERS, limit=limit, allow_private=allow_private)


def timed(url: str) -> Sent:
    """The answer, which must have come within the limit and a little."""
    began = time.monotonic()
    sent = send(url)
    assert time.monotonic() - began < LIMIT + 0.5
    return sent


def drip(first: bytes, then: bytes = b"x") -> Say:
    def say(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(65_536)
        connection.sendall(first)
        while not over.wait(0.02):
            connection.sendall(then)

    return say


def test_the_request_arrives_as_it_was_given() -> None:
    with receiving() as receiver:
        sent = send(f"{receiver.url}/hook/a%20b?x=1", body=b'{"a": "\xc3\xbc"}')
    (request,) = receiver.got
    assert sent == Sent(204, "", None)
    assert (request.path, request.body) == ("/hook/a%20b?x=1", b'{"a": "\xc3\xbc"}')
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["host"] == receiver.url.removeprefix("http://")
    assert request.headers["connection"] == "close"


def test_the_answer_is_kept_as_bounded_text_without_nul() -> None:
    with receiving() as receiver:
        receiver.body = b"\x00bad \xff " + b"x" * 100_000
        receiver.answers["/"] = 500
        sent = send(receiver.url)
    assert sent.status == 500
    assert sent.excerpt is not None
    assert sent.excerpt.startswith("bad \ufffd x")
    assert len(sent.excerpt) < 500


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with receiving() as receiver:
        receiver.answers["/"] = 307
        receiver.headers["Location"] = f"{receiver.url}/elsewhere"
        sent = send(receiver.url)
    assert sent.status == 307
    assert [request.path for request in receiver.got] == ["/"]


def test_no_proxy_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with receiving() as receiver:
        assert send(receiver.url).status == 204


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(drip(b""), id="garbage"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), id="headers without end"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nX-A: "), id="a header without end"),
        pytest.param(drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="continue for ever"),
        pytest.param(lambda connection, over: over.wait(5), id="silence"),
    ],
)
def test_a_server_that_never_gets_to_its_answer_is_given_up_in_time(say: Say) -> None:
    with speaking(say) as url:
        sent = timed(url)
    assert (sent.status, sent.excerpt) == (None, None)
    assert sent.error in ("TimedOut", "BadStatusLine", "HTTPException")


@pytest.mark.parametrize("length", [b"", b"Content-Length: 100000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_answer_counts_once_its_headers_are_there_whatever_becomes_of_its_body(length: bytes) -> None:
    with speaking(drip(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")) as url:
        sent = timed(url)
    assert (sent.status, sent.error) == (200, None)


def test_a_server_that_never_reads_is_given_up_in_time() -> None:
    with speaking(lambda connection, over: over.wait(5)) as url:
        began = time.monotonic()
        sent = send(url, body=b"x" * 50_000_000)
    assert sent.error == "TimedOut"
    assert time.monotonic() - began < LIMIT + 1


def test_a_tls_handshake_that_drips_is_given_up_in_time() -> None:
    # The header of a TLS record that never comes to its end.
    with speaking(drip(b"\x16\x03\x03\x3f\xff", b"\x00")) as url:
        sent = timed(url.replace("http://", "https://"))
    assert sent.error == "TimedOut"


@pytest.mark.parametrize(
    ("say", "error"),
    [
        (lambda connection, over: None, ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError")),
        (drip(b"SSH-2.0-x\r\n\r\n"), ("BadStatusLine", "TimedOut")),
    ],
)
def test_what_is_no_http_is_an_error_in_one_word(say: Say, error: tuple[str, ...]) -> None:
    with speaking(say) as url:
        assert timed(url).error in error


def test_nobody_at_home_and_no_tls_are_errors_in_one_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert send(f"http://127.0.0.1:{port}").error == "ConnectionRefusedError"
    with receiving() as receiver:
        assert send(receiver.url.replace("http://", "https://")).error == "SSLError"


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    found = [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 443)) for a in addresses]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        ("10.1.2.3",),
        ("169.254.169.254",),
        ("93.184.216.34", "192.168.0.1"),
        ("::1",),
        ("fd00::1",),
        ("::ffff:10.0.0.1",),
    ],
)
def test_a_name_that_stands_for_our_own_network_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    names(monkeypatch, *addresses)
    monkeypatch.setattr("socket.socket", lambda *_, **__: pytest.fail("connected"))
    assert send("https://hooks.example/", allow_private=False).error == "PrivateTarget"


def test_the_addresses_of_a_name_share_the_time_and_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        port = int(receiver.url.rpartition(":")[2])
        tried = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in (1, port)]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: tried)
        assert send(f"http://hooks.example:{port}/").status == 204
    assert receiver.got[0].headers["host"] == f"hooks.example:{port}"


class Names:
    """A name server that answers otherwise each time it is asked."""

    def __init__(self, *answers: tuple[str, int]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int, **_: Any) -> Any:
        self.asked += 1
        address = self.answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]


def test_a_name_is_looked_up_once_for_each_request_and_what_was_judged_is_what_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "swap.infra.webhook_http.is_private", lambda address: address != "127.0.0.1"
    )  # which is public, here
    monkeypatch.setattr("swap.infra.webhook_http._tls", _NoTls)
    with receiving() as public, receiving() as inside:
        ports = [int(each.url.rpartition(":")[2]) for each in (public, inside)]
        resolve = Names(("127.0.0.1", ports[0]), ("127.0.0.2", ports[1]), ("127.0.0.1", ports[0]))
        sent = [
            post("https://hooks.example/", b"{}", HEADERS, limit=5, allow_private=False, resolve=resolve)
            for _ in range(3)
        ]
    assert [each.error for each in sent] == [None, "PrivateTarget", None]
    assert resolve.asked == 3
    assert (len(public.got), len(inside.got)) == (2, 0)


class _NoTls:
    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> socket.socket:
        assert server_hostname == "hooks.example"
        return plain


def test_a_public_answer_that_is_private_by_the_next_lookup_never_leads_inside() -> None:
    with receiving() as inside:
        port = int(inside.url.rpartition(":")[2])
        resolve = Names(("127.0.0.1", port), ("127.0.0.1", port))
        for url in ("https://hooks.example/", "https://hooks.example/"):
            sent = post(url, b"{}", HEADERS, limit=LIMIT, allow_private=False, resolve=resolve)
            assert sent.error == "PrivateTarget"
    assert (inside.got, resolve.asked) == ([], 2)


def test_plain_http_is_not_sent_where_only_https_is_allowed() -> None:
    def resolve(*_: Any, **__: Any) -> Any:
        pytest.fail("not even the name is looked up")

    sent = post("http://hooks.example/", b"{}", HEADERS, limit=LIMIT, allow_private=False, resolve=resolve)
    assert sent.error == "NotHttps"


@pytest.mark.parametrize(
    ("asked", "date", "seconds"),
    [
        ("120", None, 120.0),
        ("0", None, 0.0),
        ("99999999999999999999", None, 86_400.0),
        ("Sat, 31 Jan 2026 12:01:00 GMT", "Sat, 31 Jan 2026 12:00:00 GMT", 60.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", "Sat, 31 Jan 2026 12:00:00 GMT", 0.0),
        ("Sat, 31 Jan 2026 12:01:00 -0000", "Sat, 31 Jan 2026 12:00:00 GMT", None),
        ("soon", None, None),
        ("-5", None, None),
        ("1.5", None, 2.0),
        ("²", None, None),
        ("", None, None),
    ],
)
def test_the_pause_that_an_answer_asks_for_is_read_in_both_forms(
    asked: str, date: str | None, seconds: float | None
) -> None:
    def say(connection: socket.socket, _over: threading.Event) -> None:
        connection.recv(65_536)
        lines = ["HTTP/1.1 503 Busy", f"Retry-After: {asked}", *([f"Date: {date}"] if date else []), "", ""]
        connection.sendall("\r\n".join(lines).encode("latin-1"))

    with speaking(say) as url:
        assert send(url, limit=5).retry_after == seconds


@pytest.mark.parametrize(
    "url",
    [
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://168.63.129.16/",
    ],
)
def test_another_spelling_of_a_private_address_is_refused_when_it_is_registered(url: str) -> None:
    assert refusal(url, allow_private=False) is not None
    assert refusal("https://hooks.example.com/", allow_private=False) is None


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("64:ff9b::808:808", False),
        ("::ffff:8.8.8.8", False),
        ("192.168.1.1", True),
        ("10.255.255.255", True),
        ("169.254.169.254", True),  # AWS, Google, Azure, Oracle
        ("169.254.170.2", True),  # AWS, of containers
        ("100.100.100.200", True),  # Alibaba
        ("192.0.0.192", True),  # Oracle, once
        ("168.63.129.16", True),  # Azure
        ("fd00:ec2::254", True),  # AWS
        ("fd20:ce::254", True),  # Google
        ("198.18.0.1", True),
        ("192.0.2.1", True),
        ("192.88.99.1", True),
        ("203.0.113.1", True),
        ("239.255.255.250", True),
        ("240.0.0.1", True),
        ("255.255.255.255", True),
        ("::", True),
        ("::1", True),
        ("::127.0.0.1", True),
        ("fc00::1", True),
        ("fe80::1", True),
        ("fec0::1", True),
        ("ff02::1", True),
        ("64:ff9b::7f00:1", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("64:ff9b:1::1", True),
        ("2001:db8::1", True),
        ("3fff::1", True),
        ("::ffff:169.254.169.254", True),
        ("2002:a9fe:a9fe::", True),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", True),  # Teredo, of 127.0.0.1
        ("127.0.0.1", True),
        ("0.0.0.0", True),
        ("100.64.0.1", True),
        ("224.0.0.1", True),
        ("172.16.0.1", True),
        ("fe80::1%eth0", True),
        ("::ffff:127.0.0.1", True),
        ("2002:7f00:1::", True),
    ],
)
def test_which_addresses_are_public(address: str, private: bool) -> None:
    assert is_private(address) is private


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://hooks.example", "https://hooks.example/"),
        ("https://hooks.example/a b?c=d e", "https://hooks.example/a%20b?c=d%20e"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
    ],
)
def test_a_url_is_sent_in_ascii(url: str, written: str) -> None:
    assert canonical(url) == written


@pytest.mark.parametrize(
    "url", ["", "hooks.example", "https://", "https://[bad", "https://h:99999/", "https://h:0/", "https://h:x/"]
)
def test_what_is_no_url_is_refused_and_sends_nothing(url: str) -> None:
    with pytest.raises(ValueError):
        canonical(url)
    sent = send(url)
    assert (sent.status, bool(sent.error)) == (None, True)


def test_nothing_is_left_open(recwarn: Any) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with speaking(drip(b"HTTP/1.1 200 OK\r\n\r\n")) as dripping, receiving() as receiver:
        send(receiver.url)
        before = open_files()
        for url in (receiver.url, dripping, dripping.replace("http://", "https://"), "http://127.0.0.1:1"):
            send(url, limit=0.1)
        del recwarn
        gc.collect()
        # What the other side still holds is not ours: it learns of our going one step later.
        assert open_files() - before <= 2
