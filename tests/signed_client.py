"""Signed calls as they travel: any body, and the whole answer with its status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import requests

from swap.sdk import sign
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS, Clock, Shop

BTC = {"currency": "BTC", "network": "BTC"}
XRP = {"currency": "XRP", "network": "XRP"}
RUNE = {"currency": "RUNE", "network": "RUNE"}
ETH = {"currency": "ETH", "network": "ERC20"}
USDT = {"currency": "USDT", "network": "TRC20"}
EUR = {"currency": "EUR", "network": "EUR"}
ETH_ADDRESS = "0x52908400098527886E0F7030069857D2E4169EE7"


def body(**changed: Any) -> dict[str, Any]:
    """A good order, BTC to XRP, unless changed; a field set to ... is left out."""
    content: dict[str, Any] = {
        "client_order_id": "order-1",
        "from": BTC,
        "to": XRP,
        "amount": "0.0125",
        "rate_mode": "FLOATING",
        "destination_address": XRP_ADDRESS,
        "destination_memo": "1234567",
        "refund_address": BTC_ADDRESS,
        **changed,
    }
    return {name: value for name, value in content.items() if value is not ...}


@dataclass(frozen=True)
class Answer:
    status: int
    json: dict[str, Any]
    headers: dict[str, str]
    text: str = ""

    @property
    def data(self) -> dict[str, Any]:
        assert self.json["success"] is True, self.json
        return dict(self.json["data"])

    @property
    def error(self) -> dict[str, Any]:
        assert self.json["success"] is False, self.json
        return dict(self.json["error"])

    @property
    def details(self) -> dict[str, Any]:
        return dict(self.error["details"])

    @property
    def codes(self) -> dict[str, list[str]]:
        """Field -> codes of its problems."""
        return {name: [p["code"] for p in problems] for name, problems in self.details["fields"].items()}


class Calls:
    def __init__(self, shop: Shop, api_url: str, clock: Clock) -> None:
        self._shop, self._url, self._clock = shop, api_url, clock

    def post(self, path: str, content: object) -> Answer:
        """`content`: bytes as they are, anything else as JSON."""
        return self._send("POST", path, content if isinstance(content, bytes) else json.dumps(content).encode())

    def get(self, path: str, **headers: str) -> Answer:
        return self._send("GET", path, b"", headers)

    def order(self, **changed: Any) -> Answer:
        return self.post("/v1/orders", body(**changed))

    def _send(self, method: str, path: str, raw: bytes, extra: dict[str, str] | None = None) -> Answer:
        stamp = str(int(self._clock.time() * 1000))
        plain, _, query = path.partition("?")
        headers = {
            "X-API-Key": self._shop.key,
            "X-Timestamp": stamp,
            "X-Signature": sign(self._shop.secret, method, unquote(plain), query, stamp, raw),
            **{name.replace("_", "-"): value for name, value in (extra or {}).items()},
        }
        answer = requests.request(method, self._url + path, data=raw or None, headers=headers, timeout=35)
        is_json = answer.headers.get("Content-Type") == "application/json"
        return Answer(answer.status_code, answer.json() if is_json else {}, dict(answer.headers), answer.text)
