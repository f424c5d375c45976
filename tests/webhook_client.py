"""Requests over real HTTP of which every byte is ours, and what comes back."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import flask
from werkzeug.serving import make_server

from swap.domain.signing import sign_request
from swap.web import create_app
from swap.wiring import Service
from tests.conftest import Clock, Shop

QUOTE = {
    "from": {"currency": "BTC", "network": "BTC"},
    "to": {"currency": "XRP", "network": "XRP"},
    "amount": "0.0125",
    "rate_mode": "FLOATING",
}
ORDER = {
    **QUOTE,
    "client_order_id": "o-1",
    "destination_address": "rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw",
    "destination_memo": "7",
}
POSTS = ("/v1/addresses/validate", "/v1/quotes", "/v1/orders")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.content)
        return found

    @property
    def data(self) -> Any:
        assert self.json["success"] is True, self.json
        return self.json["data"]

    @property
    def code(self) -> str:
        """The error's code; the envelope is looked at on the way."""
        body = self.json
        assert set(body) == {"success", "error", "timestamp"}, body
        assert body["success"] is False
        assert set(body["error"]) == {"code", "message", "details"}
        assert body["error"]["details"]["retry"] in ("same_request", "new_request", "never")
        assert self.headers["content-type"] == "application/json"
        assert len(self.headers["x-request-id"]) == 32
        code: str = body["error"]["code"]
        assert code.upper() == code
        return code

    @property
    def fields(self) -> set[str]:
        return set(self.json["error"]["details"]["fields"])


def raw(url: str, method: str, target: str, body: bytes = b"", headers: dict[str, str | bytes] | None = None) -> Answer:
    """One request exactly as given: nothing is quoted, added or followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body or method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass
class Caller:
    """Signs by hand. `path` is what the signature means, `target` what stands in the request line."""

    url: str
    shop: Shop
    clock: Clock
    last: dict[str, str | bytes] = field(default_factory=dict)

    def __call__(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes | dict[str, Any] = b"",
        *,
        target: str | None = None,
        offset_ms: int = 0,
        **changed: str | bytes | None,
    ) -> Answer:
        """`changed`: headers with `_` for `-`; None leaves one out."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        timestamp = str(int(self.clock.time() * 1000) + offset_ms)
        headers: dict[str, str | bytes | None] = {
            "X-API-Key": self.shop.key,
            "X-Timestamp": timestamp,
            "X-Signature": sign_request(self.shop.secret, method, path, query, timestamp, content),
            "Content-Type": "application/json",
        }
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        self.last = {name: value for name, value in headers.items() if value is not None}
        where = (quote(path) if target is None else target) + (f"?{query}" if query else "")
        return raw(self.url, method, where, content, self.last)


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The API of these parts, as an address."""
    with served_app(create_app(service)) as url:
        yield url


@contextmanager
def served_app(app: flask.Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
