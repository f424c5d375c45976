"""A real HTTP server on loopback that answers from a script, for the tests of the upstream client.

A step is an `Answer`-like tuple made by `reply`, or a function that gets the handler and does what it likes with the
connection. Requests are kept in the order of their arrival.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from swap.domain.times import Timing
from swap.upstream.client import UpstreamClient
from swap.upstream.exchange import OnCall, Take
from swap.upstream.journal import Call
from swap.upstream.key_pair import KeyPair
from swap.upstream.transport import Transport

PUBLIC = "pk_test_4f0c2b7e9a"
SECRET = "sk_test_0d5e81c3a6f24b79"
AGENT = "Mozilla/5.0 (compatible; swap-service/0.1)"
NOW = 1760000000.0


@dataclass
class Seen:
    method: str
    path: str
    raw_query: str
    headers: dict[str, str]
    body: bytes
    connection: tuple[str, int]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def signed(self) -> bool:
        return "x-api-signature" in self.headers


Step = Callable[[BaseHTTPRequestHandler], None]


def reply(status: int, body: object = None, **headers: str) -> Step:
    """`body`: bytes as they are, text as HTML, anything else as JSON; None sends no body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        kind = "application/json"
        if body is None:
            content = b""
        elif isinstance(body, bytes):
            content = body
        elif isinstance(body, str):
            content, kind = body.encode(), "text/html"
        else:
            content = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection with a RST, after the request was read."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())  # close() would wait for the handler's files and say goodbye politely
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close without a word."""
    handler.close_connection = True


def raw(*pieces: bytes, every: float = 0.0) -> Step:
    """Bytes as they are, `every` so many seconds, until the client has had enough; then close."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        pause = threading.Event()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            for piece in pieces:
                handler.wfile.write(piece)
                if every:
                    pause.wait(every)

    return answer


class Script(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None) -> None:
        self.steps = list(steps)
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.tls = tls is not None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # broken connections are what half of the tests are about

    @property
    def last(self) -> Seen:
        return self.seen[-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            self.server.seen.append(Seen(self.command, parts.path, parts.query, headers, body, self.client_address))
            step = self.server.steps.pop(0) if self.server.steps else reply(599)
        step(self)

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(int(NOW) if timestamp is None else timestamp)


@contextlib.contextmanager
def serving(*steps: Step, tls: ssl.SSLContext | None = None) -> Iterator[Script]:
    with Script(*steps, tls=tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass
class World:
    """A clock that moves only by sleeping, and what the client told."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    taken: list[tuple[str, float]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def client(
        self,
        url: str,
        *,
        proxy: str | None = None,
        take: Take | None = None,
        on_call: OnCall | None = None,
        clock: Callable[[], float] | None = None,
        **timing: Any,
    ) -> UpstreamClient:
        """`clock`: seconds since 1970. `timing`: other fields of Timing than those of this world."""
        clock = clock or (lambda: NOW + self.now)
        chosen: dict[str, Any] = {
            "now": lambda: datetime.fromtimestamp(clock(), UTC),
            "monotonic": lambda: self.now,
            "sleep": self.sleep,
            "rng": random.Random(7),
            **timing,
        }
        return UpstreamClient(
            Transport(url, user_agent=AGENT, proxy=proxy),
            KeyPair(PUBLIC, SECRET),
            Timing(**chosen),
            take=take or (lambda priority, max_wait: self.taken.append((priority, max_wait))),
            on_call=on_call or self.calls.append,
        )


@contextlib.contextmanager
def asking(*steps: Step, **options: Any) -> Iterator[tuple[UpstreamClient, Script, World]]:
    """A client and the server it talks to."""
    world = World()
    with serving(*steps) as server:
        client = world.client(server.url, **options)
        try:
            yield client, server, world
        finally:
            client.close()


ORDER: dict[str, Any] = {
    "orderId": 90210,
    "legacyOrderId": "8d0f4a52-1111-4c3e-9a55-0123456789ab",
    "createdAt": "2025-10-09T08:53:25.120Z",
    "refundAddress": "bc1qexamplerefund",
    "destinationAddress": "rExampleDestination",
    "destinationAddressMemo": "1234567",
    "rateMode": "FIXED",
    "claimedDepositAmount": "0.0125",
    "amountToGet": "262.3",
    "pair": {
        "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC", "precisionDecimals": 8},
        "instrumentTo": {"currencyTitle": "XRP", "networkTitle": "XRP", "precisionDecimals": 6},
    },
    "orderEvents": [{"kind": "CREATION_END", "createdAt": "2025-10-09T08:53:25.120Z"}],
    "depositAddress": {
        "instrument": {"currencyTitle": "BTC", "networkTitle": "BTC"},
        "depositAddress": "bc1qexampledeposit",
        "depositAddressMemo": None,
    },
    "deposits": [],
    "withdrawals": [],
    "KYCFormLink": None,
}

RATE: dict[str, Any] = {
    "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC", "slug": "btc", "precisionDecimals": 8},
    "instrumentTo": {"currencyTitle": "USDT", "networkTitle": "TRC20", "slug": "usdttrc20", "precisionDecimals": 6},
    "rateMode": "FLOATING",
    "enableFixedRate": True,
    "amountToGive": "0.0125",
    "amountToGiveCurrencyTitle": "BTC",
    "amountToGet": "811.42",
    "price": "65010.5",
    "finalNetworkFeeAmount": "1.2",
    "platformFee_Absolute": "0.4",
    "generalMinAmount": "0.0008",
    "generalMaxAmount": "2.5",
    "depositRules": {"minAmount": "0.0009", "maxAmount": "0"},
    "minConfirmationsToTrade": 2,
    "updatedAt": 1760000000000,
    "quotes": {
        "sellQuote": {"baseValue": "1", "quoteValue": "65010"},
        "buyQuote": {"baseValue": "1", "quoteValue": "65020"},
    },
}

LISTED: dict[str, Any] = {
    "orderId": 90210,
    "destinationAddress": "TExample",
    "refundAddress": None,
    "claimedDepositAmount": "0.0125",
    "amountToGet": "811.42",
    "amountToWithdrawFact": "0",
    "instrumentFromCurrencyTitle": "BTC",
    "instrumentFromNetworkTitle": "BTC",
    "instrumentToCurrencyTitle": "USDT",
    "instrumentToNetworkTitle": "TRC20",
    "createdAt": "2025-12-10T10:00:00.000Z",
    "updatedAt": "2025-12-10T10:00:05.000Z",
    "completed": False,
    "state": "created",
}
