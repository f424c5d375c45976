"""A product backend's way to the service: signed requests, and answers as they are. Written from the documents alone, so
that a mistake in the service's own client would not be shared."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import requests


@dataclass(frozen=True)
class Key:
    """`client` counts from 0."""

    client: int
    key: str
    secret: str


@dataclass(frozen=True)
class Answer:
    """`retry` is what `details.retry` says, `pause` the Retry-After in seconds; `data` what the API answered, or {}."""

    status: int
    data: dict[str, Any]
    code: str | None = None
    details: dict[str, Any] | None = None
    pause: float | None = None

    @property
    def retry(self) -> str | None:
        return (self.details or {}).get("retry")


class Api:
    """One caller with one key. Not for several threads at once."""

    def __init__(self, base_url: str, key: Key, *, timeout: float = 35.0) -> None:
        self._base_url, self._key, self._timeout = base_url, key, timeout
        self._http = requests.Session()
        self._http.trust_env = False

    def call(
        self, method: str, path: str, body: bytes = b"", query: dict[str, Any] | None = None, *, forged: bool = False
    ) -> Answer:
        """Raises requests.RequestException where nothing, or nothing readable, came back. `forged`: signed with another
        secret."""
        path = quote(path, safe="/")
        target = path + (f"?{urlencode(query)}" if query else "")
        timestamp = str(int(time.time() * 1000))
        secret = self._key.secret[::-1] if forged else self._key.secret
        signed = (method + target + timestamp).encode() + body
        headers = {
            "Content-Type": "application/json",
            "X-API-Key": self._key.key,
            "X-Timestamp": timestamp,
            "X-Signature": hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest(),
        }
        got = self._http.request(
            method, self._base_url + target, data=body or None, headers=headers, timeout=self._timeout
        )
        parsed = got.json()
        if parsed.get("success"):
            return Answer(got.status_code, parsed["data"])
        pause = got.headers.get("Retry-After", "")
        error = parsed["error"]
        details = error.get("details") or {}
        return Answer(got.status_code, {}, error["code"], details, float(pause) if pause.isdigit() else None)

    def get(self, path: str, **query: Any) -> Answer:
        """A read that may be repeated: over a restart of the API, or the database's absence, for some seconds."""
        for again in range(10):
            try:
                answer = self.call("GET", path, query=query or None)
            except (requests.RequestException, ValueError):
                if again == 9:
                    raise
            else:
                if answer.status not in (429, 503) or again == 9:
                    return answer
            time.sleep(0.5)
        raise AssertionError("unreachable")

    def orders(self) -> Iterator[dict[str, Any]]:
        """All orders of the client, newest first."""
        yield from self._pages("/v1/orders", "orders")

    def feed(self) -> Iterator[dict[str, Any]]:
        """All events of the client, oldest first."""
        yield from self._pages("/v1/events", "events")

    def _pages(self, path: str, name: str) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {"limit": 1000}
        while True:
            page = self.get(path, **query)
            if page.status != 200:
                raise requests.RequestException(f"{path} answered {page.status} {page.code}")
            yield from page.data[name]
            if not page.data["has_more"]:
                return
            query["after"] = page.data["next"]


def to_bytes(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
