"""Signed calls over real HTTP of which every byte is the test's, and the whole answer."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from requests.structures import CaseInsensitiveDict

from swap.domain.signing import sign_request

if TYPE_CHECKING:
    from tests.conftest import Clock, Shop

BTC = {"currency": "BTC", "network": "BTC"}
XRP = {"currency": "XRP", "network": "XRP"}
RUNE = {"currency": "RUNE", "network": "RUNE"}
ETH = {"currency": "ETH", "network": "ERC20"}
USDT = {"currency": "USDT", "network": "TRC20"}
EUR = {"currency": "EUR", "network": "EUR"}
BTC_ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
XRP_ADDRESS = "rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw"
ETH_ADDRESS = "0x52908400098527886E0F7030069857D2E4169EE7"

QUOTE = {"from": BTC, "to": XRP, "amount": "0.0125", "rate_mode": "FLOATING"}
ORDER = {**QUOTE, "client_order_id": "o-1", "destination_address": XRP_ADDRESS, "destination_memo": "7"}
POSTS = ("/v1/addresses/validate", "/v1/quotes", "/v1/orders")


def body(**changed: Any) -> dict[str, Any]:
    """A good order, BTC to XRP, unless changed; a field set to ... is left out."""
    content: dict[str, Any] = {
        **QUOTE,
        "client_order_id": "order-1",
        "destination_address": XRP_ADDRESS,
        "destination_memo": "1234567",
        "refund_address": BTC_ADDRESS,
        **changed,
    }
    return {name: value for name, value in content.items() if value is not ...}


@cache
def explained(document: str) -> set[str]:
    """The anchors of one of our documents."""
    text = (Path(__file__).resolve().parents[1] / document).read_text(encoding="utf-8")
    return set(re.findall(r'<a id="([a-z0-9_]+)"></a>', text))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CaseInsensitiveDict[str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def json(self) -> dict[str, Any]:
        """Empty for an answer without a body."""
        parsed: dict[str, Any] = json.loads(self.content or b"{}")
        return parsed

    @property
    def data(self) -> dict[str, Any]:
        assert self.json["success"] is True, self.json
        return dict(self.json["data"])

    @property
    def error(self) -> dict[str, Any]:
        """What an error's envelope holds; the envelope is checked on the way."""
        envelope = self.json
        assert set(envelope) == {"success", "error", "timestamp"}, envelope
        assert envelope["success"] is False
        error: dict[str, Any] = envelope["error"]
        assert set(error) == {"code", "message", "details", "request_id", "doc_url"}
        assert error["details"]["retry"] in ("same_request", "new_request", "never")
        assert error["code"].upper() == error["code"]
        assert self.headers["Content-Type"] == "application/json"
        assert len(self.headers["X-Request-Id"]) == 32
        assert self.headers["X-Environment"] == "test"
        assert error["request_id"] == self.headers["X-Request-Id"]
        document, _, anchor = error["doc_url"].partition("#")
        assert anchor in explained(document), error["doc_url"]
        return error

    @property
    def code(self) -> str:
        return str(self.error["code"])

    @property
    def details(self) -> dict[str, Any]:
        return dict(self.error["details"])

    @property
    def codes(self) -> dict[str, list[str]]:
        """Field -> codes of its problems."""
        return {name: [p["code"] for p in problems] for name, problems in self.details["fields"].items()}

    @property
    def fields(self) -> set[str]:
        return set(self.details["fields"])


def raw(url: str, method: str, target: str, body: bytes = b"", headers: dict[str, str | bytes] | None = None) -> Answer:
    """One request exactly as given: nothing is quoted, added or followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=35)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body or method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, CaseInsensitiveDict(answer.getheaders()), answer.read())
    finally:
        connection.close()


@dataclass
class Calls:
    """A shop's calls to the API at `url`. `last` keeps the headers of the latest one."""

    shop: Shop
    url: str
    clock: Clock
    last: dict[str, str | bytes] = field(default_factory=dict)

    def __call__(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes | object = b"",
        *,
        target: str | None = None,
        offset_ms: int = 0,
        **changed: str | bytes | None,
    ) -> Answer:
        """`path` is what the signature means, `target` what stands in the request line. `body`: bytes as they are, anything
        else as JSON. `changed`: headers with `_` for `-`; None leaves one out."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._send(method, path, query, content, quote(path) if target is None else target, offset_ms, changed)

    def get(self, target: str, **headers: str) -> Answer:
        """`target`: path and query as they stand in a URL."""
        path, _, query = target.partition("?")
        return self._send("GET", unquote(path), query, b"", path, 0, headers)

    def post(self, path: str, content: object) -> Answer:
        return self("POST", path, "", content)

    def order(self, **changed: Any) -> Answer:
        return self.post("/v1/orders", body(**changed))

    def _send(
        self,
        method: str,
        path: str,
        query: str,
        content: bytes,
        target: str,
        offset_ms: int,
        changed: Mapping[str, str | bytes | None],
    ) -> Answer:
        timestamp = str(int(self.clock.time() * 1000) + offset_ms)
        headers: dict[str, str | bytes | None] = {
            "X-API-Key": self.shop.key,
            "X-Timestamp": timestamp,
            "X-Signature": sign_request(self.shop.secret, method, path, query, timestamp, content),
            "Content-Type": "application/json",
        }
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        # Calls may run beside one another: each sends headers of its own.
        sent = {name: value for name, value in headers.items() if value is not None}
        self.last = sent
        return raw(self.url, method, target + (f"?{query}" if query else ""), content, sent)
