"""The API's door, as strangers meet it: nothing slow, endless, silent, too large or foreign stops anybody else."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from swap.domain.signing import sign_request
from swap.sdk import SwapClient
from swap.web import create_app, door
from swap.web.body import MAX_BODY_BYTES, WAITED
from swap.web.door import Door
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.test_processes import Processes, fast_world, gate, processes
from tests.waiting import until

__all__ = ["fast_world", "gate", "processes"]

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
UNFINISHED = {
    "an order without credentials": b"POST /v1/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{",
    "an order under a key": b"POST /v1/orders HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\nContent-Length: 1000\r\n\r\n{",
    "chunks without an end": b"POST /v1/quotes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a body for no route": b"POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
    "a body for an open route": b"GET /v1/time HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
    "headers without an end": b"GET /v1/time HTTP/1.1\r\nHost: a\r\nX: ",
    "nothing at all": b"",
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
}


def opened(processes: Processes) -> dict[str, str]:
    """The API alone, and a key for it."""
    made: dict[str, str] = processes.tool("keys", "create", "--name", "shop", "--json")
    processes.start("api")
    until(lambda: answers(processes.api_url), 30)
    return made


def answers(url: str) -> bool:
    try:
        return exchange(url, HEALTH)[0] == 200
    except OSError:
        return False


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    assert address.hostname is not None and address.port is not None
    return socket.create_connection((address.hostname, address.port), timeout=20)


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def exchange(url: str, said: bytes) -> tuple[int, dict[str, Any]]:
    with connect(url) as connection:
        connection.sendall(said)
        head, _, content = everything(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), orjson.loads(content) if content else {}


@pytest.mark.process
@pytest.mark.sqlite_only
def test_whatever_strangers_leave_unfinished_the_api_answers_others_and_lets_them_go(processes: Processes) -> None:
    made = opened(processes)
    client = SwapClient(processes.api_url, made["key"], made["secret"])
    with ExitStack() as stack:
        strangers = []
        for name, said in UNFINISHED.items():
            for _ in range(100):
                strangers.append((name, stack.enter_context(connect(processes.api_url))))
                strangers[-1][1].sendall(said.replace(b"%s", made["key"].encode()))
        begun = time.monotonic()
        assert list(client.orders()) == []
        assert exchange(processes.api_url, HEALTH)[0] == 200
        assert time.monotonic() - begun < door.BODY_SECONDS, "they were waited for"
        for name, connection in strangers:
            answer = everything(connection)
            assert not answer or answer.split()[1] in (b"400", b"408"), (name, answer)


@pytest.mark.process
@pytest.mark.sqlite_only
def test_what_cannot_be_a_request_of_ours_is_refused_at_the_door_in_our_words(processes: Processes) -> None:
    opened(processes)
    url = processes.api_url
    head = b"POST /v1/orders HTTP/1.1\r\nHost: a\r\n"
    told = head + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
    size = MAX_BODY_BYTES // 2
    chunks = head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"%x\r\n" % size + b"a" * size + b"\r\n") * 3
    for said in (told, chunks):
        status, answer = exchange(url, said)
        assert (status, answer["error"]["code"], answer["error"]["details"]["retry"]) == (
            413,
            "BODY_TOO_LARGE",
            "never",
        )
    status, answer = exchange(url, head + b"Content-Length: 5\r\n\r\n{")
    assert (status, answer["error"]["code"]) == (408, "BODY_TOO_SLOW")
    assert answer["error"]["details"]["retry"] == "same_request"


@pytest.mark.process
@pytest.mark.sqlite_only
def test_headers_and_paths_count_under_their_own_names_alone(processes: Processes) -> None:
    """A proxy that takes X-API-Key out of what strangers send would let X_API_Key pass."""
    made = opened(processes)
    stamp = str(int(time.time() * 1000))
    signature = sign_request(made["secret"], "GET", b"/v1/orders", b"", stamp, b"")

    def headers(between: str) -> bytes:
        names = {"Key": made["key"], "Timestamp": stamp, "Signature": signature}
        lines = [
            f"X{between}{'API' + between if name == 'Key' else ''}{name}: {value}" for name, value in names.items()
        ]
        return "\r\n".join(["Host: a", "Connection: close", *lines]).encode() + b"\r\n\r\n"

    assert exchange(processes.api_url, b"GET /v1/orders HTTP/1.1\r\n" + headers("-"))[0] == 200
    status, answer = exchange(processes.api_url, b"GET /v1/orders HTTP/1.1\r\n" + headers("_"))
    assert (status, answer["error"]["code"]) == (401, "CREDENTIALS_MISSING")
    for path in (b"//v1/orders", b"/v1//orders", b"/v1/orders/", b"/V1/orders"):
        status, answer = exchange(processes.api_url, b"GET " + path + b" HTTP/1.1\r\n" + headers("-"))
        assert (status, answer["error"]["code"]) == (404, "NOT_FOUND"), path


def test_a_request_is_judged_by_the_clock_of_its_arrival(service: Service, shop: Shop, clock: Clock) -> None:
    stamp = str(int(clock.time() * 1000) - 7_000)
    signature = sign_request(shop.secret, "GET", b"/v1/orders", b"", stamp, b"")
    headers = {"X-API-Key": shop.key, "X-Timestamp": stamp, "X-Signature": signature}
    client = create_app(service).test_client()
    assert client.get("/v1/orders", headers=headers).status_code == 401
    assert client.get("/v1/orders", headers=headers, environ_overrides={WAITED: 3.0}).status_code == 200


# --- threads and lines -----------------------------------------------------------------------------------------------


class Held:
    """A WSGI application of which every POST waits until it is let go; counts those that came in."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.inside = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.inside += 1
        if environ["REQUEST_METHOD"] == "POST":
            assert self.go.wait(30)
        start_response("200 OK", [])
        return [b"done"]


class Protocol:
    """What granian gives with a request: its body, and a place for the answer."""

    def __init__(self) -> None:
        self.answered: tuple[int, list[tuple[str, str]], bytes] | None = None

    def response_bytes(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.answered = status, headers, content


def scope(method: str, path: str) -> Any:
    return SimpleNamespace(
        method=method, path=path, query_string="", headers={}, server="127.0.0.1:80", client="127.0.0.1:1",
        scheme="http", http_version="1.1",
    )  # fmt: skip


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go.set()


def test_creates_that_wait_stand_before_no_read_and_before_no_quote(held: Held) -> None:
    async def scene() -> None:
        one = Door(held, 2, "test", lambda: None)
        waiting = [asyncio.create_task(one.__rsgi__(scope("POST", "/v1/orders"), Protocol())) for _ in range(4 * 9)]
        await asyncio.to_thread(until, lambda: held.inside == 4)
        read, refused, quote = Protocol(), Protocol(), Protocol()
        await one.__rsgi__(scope("GET", "/v1/orders"), read)
        assert read.answered == (200, [], b"done")
        await one.__rsgi__(scope("POST", "/v1/orders"), refused)
        assert refused.answered is not None
        assert (refused.answered[0], dict(refused.answered[1])["Retry-After"]) == (503, "1")
        error = orjson.loads(refused.answered[2])["error"]
        assert (error["code"], error["doc_url"]) == ("OVERLOADED", "docs/errors.md#overloaded")
        assert error["request_id"] == dict(refused.answered[1])["X-Request-Id"]
        asked = asyncio.create_task(one.__rsgi__(scope("POST", "/v1/quotes"), quote))
        await asyncio.to_thread(until, lambda: held.inside == 6)
        held.go.set()
        await asyncio.gather(asked, *waiting)
        assert quote.answered == (200, [], b"done")

    asyncio.run(scene())


def test_what_waited_too_long_for_a_thread_is_refused_before_it_has_done_anything(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "LINE_SECONDS", 0.0)

    async def scene() -> None:
        late = Protocol()
        await Door(held, 1, "test", lambda: None).__rsgi__(scope("POST", "/v1/orders"), late)
        assert late.answered is not None
        assert orjson.loads(late.answered[2])["error"]["code"] == "OVERLOADED"

    asyncio.run(scene())
    assert held.inside == 0
