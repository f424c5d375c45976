"""Web pages of other sites, as the API sees them: with a publishable key and the origin that a browser tells."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import requests

from swap.wiring import Service
from tests.signed_client import QUOTE, XRP_ADDRESS, Answer, raw

SHOP_SITE, OTHER_SITE, EVIL = "https://shop.example", "https://other.example", "https://evil.example"
ADDRESS = {"currency": "XRP", "network": "XRP", "address": XRP_ADDRESS, "memo": "7"}
# Written down here too: what opens a route to everybody must be meant.
OPENED = {
    ("GET", "/v1/instruments"),
    ("GET", "/v1/instruments/<string:currency>/<string:network>"),
    ("GET", "/v1/pairs"),
    ("POST", "/v1/quotes"),
    ("POST", "/v1/addresses/validate"),
}
QUESTIONS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/v1/instruments", None),
    ("GET", "/v1/instruments/BTC/BTC", None),
    ("GET", "/v1/pairs?limit=2", None),
    ("POST", "/v1/quotes", QUOTE),
    ("POST", "/v1/addresses/validate", ADDRESS),
]


@dataclass(frozen=True)
class Page:
    """Requests as a browser sends them for a page of `origin`; None for what is no browser."""

    url: str
    key: str
    origin: str | None = SHOP_SITE

    def __call__(self, method: str, target: str, content: object = None, **more: str | bytes) -> Answer:
        headers: dict[str, str | bytes] = {"X-Publishable-Key": self.key, "Content-Type": "application/json"}
        if self.origin is not None:
            headers["Origin"] = self.origin
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        return raw(self.url, method, target, b"" if content is None else json.dumps(content).encode(), headers)


def key_of(service: Service, *origins: str, client: str = "shop", **options: Any) -> str:
    return str(service.publishable.create("checkout", client, origins or (SHOP_SITE,), **options)["key"])


def seen_by_browsers(answer: Answer | requests.Response) -> str | None:
    """The origin whose pages may read the answer; checks what else such an answer must have."""
    headers = answer.headers
    told = headers.get("Access-Control-Allow-Origin")
    others = [name for name in headers if name.lower().startswith("access-control")]
    assert "Access-Control-Allow-Credentials" not in headers
    if told is None:
        assert others == []
    else:
        assert "Origin" in headers["Vary"]
        exposed = set(headers["Access-Control-Expose-Headers"].split(", "))
        assert {
            "Retry-After",
            "X-Request-Id",
            *(f"X-RateLimit-{part}" for part in ("Limit", "Remaining", "Reset")),
        } == exposed
    return told
