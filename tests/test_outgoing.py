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

from swap.outgoing import Sent, canonical, is_private, post
from tests.receivers import receiving, speaking

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


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
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
