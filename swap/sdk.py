"""Python client of the swap service for product backends. One file, standard library and `requests`: copy it if you like.

    client = SwapClient("http://127.0.0.1:8080", key="swk_...", secret="sws_...")
    order = client.place_order(client_order_id="checkout-17", source=("BTC", "BTC"), target=("XRP", "XRP"),
                               amount="0.0125", destination_address="r...", destination_memo="1234567")

Amounts are decimal strings. Keep the secret on a server; a browser must never have it.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

Instrument = tuple[str, str]


class SwapApiError(Exception):
    """The service said no, or could not be understood. `retry`: same_request, new_request or never."""

    def __init__(
        self, status: int, code: str, message: str, details: dict[str, Any], retry_after: float | None
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message, self.details = status, code, message, details
        self.retry = details.get("retry", "never")
        self.retry_after = retry_after


def sign(secret: str, method: str, path: str, query: str, timestamp: str, body: bytes) -> str:
    """X-Signature: hex HMAC-SHA256 over METHOD + path + ["?" + query] + timestamp + body. `path` is decoded here and
    re-encoded by RFC 3986; `query` is what stands in the URL."""
    text = method + quote(path, safe="/") + (f"?{query}" if query else "") + timestamp
    return hmac.new(secret.encode(), text.encode() + body, hashlib.sha256).hexdigest()


class _FinalResponse(http.client.HTTPResponse):
    """Skips the interim answers (1xx) that a proxy may send before the real one (RFC 9110, 15.2)."""

    def begin(self) -> None:
        super().begin()
        for _ in range(16):
            if not 100 <= self.status < 200:
                return
            self.headers = self.msg = None  # type: ignore[assignment] # as if nothing had come yet
            super().begin()
        raise http.client.HTTPException("no final answer")


class _Connection(HTTPConnection):
    response_class = _FinalResponse


class _TlsConnection(HTTPSConnection):
    response_class = _FinalResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class SwapClient:
    def __init__(
        self,
        base_url: str,
        key: str,
        secret: str,
        *,
        timeout: float = 35.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`timeout` in seconds; the service answers an order within 30. `clock`: seconds since 1970."""
        self._base_url, self._key, self._secret = base_url.rstrip("/"), key, secret
        self._timeout, self._sleep, self._clock = timeout, sleep, clock
        self._http = requests.Session()
        self._http.trust_env = False
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, _Adapter())
        self._ahead = 0.0  # how far the service's clock is ahead of ours, in seconds

    def __repr__(self) -> str:
        return f"SwapClient({urlsplit(self._base_url).netloc!r}, key={self._key!r})"

    # --- catalog and quotes ------------------------------------------------------------------------------------------

    def time(self) -> int:
        """The service's clock in ms since 1970; requests must be signed within 5 s of it."""
        return int(self._call("GET", "/v1/time")["time"])

    def instruments(self) -> list[dict[str, Any]]:
        return list(self._call("GET", "/v1/instruments")["instruments"])

    def instrument(self, currency: str, network: str) -> dict[str, Any]:
        return dict(self._call("GET", f"/v1/instruments/{currency}/{network}")["instrument"])

    def pairs(self, **filters: str | None) -> Iterator[dict[str, Any]]:
        """All pairs, page by page. Filters: from_currency, from_network, to_currency, to_network."""
        yield from self._pages("/v1/pairs", "pairs", filters)

    def validate_address(
        self, instrument: Instrument, address: str, memo: str | None = None, *, memo_none: bool = False
    ) -> dict[str, Any]:
        """Act on `orderable`: `status` is about the address alone, whose memo may be missing. `memo_none`: the wallet needs
        no memo. A `validation_id` may go to `place_order` as destination_validation_id or refund_validation_id."""
        currency, network = instrument
        body = {"currency": currency, "network": network, "address": address, "memo": memo, "memo_none": memo_none}
        return self._call("POST", "/v1/addresses/validate", body=body)

    def quote(
        self, source: Instrument, target: Instrument, amount: str | None = None, rate_mode: str = "FLOATING"
    ) -> dict[str, Any]:
        body = {"from": _side(source), "to": _side(target), "rate_mode": rate_mode}
        return self._call("POST", "/v1/quotes", body=body if amount is None else {**body, "amount": amount})

    # --- orders ------------------------------------------------------------------------------------------------------

    def place_order(
        self,
        *,
        client_order_id: str,
        source: Instrument,
        target: Instrument,
        amount: str,
        destination_address: str,
        rate_mode: str = "FLOATING",
        attempts: int = 3,
        **options: Any,
    ) -> dict[str, Any]:
        """Place an order, or find the one this `client_order_id` made.

        Sent again with the very same fields, after the pause the service asks for, while it answers `same_request` or
        cannot be reached: that is what `client_order_id` is for. `options`: destination_memo, destination_memo_none,
        refund_address, refund_memo, refund_memo_none, quote_id, destination_validation_id, refund_validation_id, user_id,
        session_id, account_id, search_terms, metadata. Raises SwapApiError.
        """
        body = {
            "client_order_id": client_order_id,
            "from": _side(source),
            "to": _side(target),
            "amount": amount,
            "rate_mode": rate_mode,
            "destination_address": destination_address,
            **{name: value for name, value in options.items() if value is not None},
        }
        for attempt in range(1, attempts + 1):
            try:
                return self._call("POST", "/v1/orders", body=body)
            except SwapApiError as error:
                if error.retry != "same_request" or attempt == attempts:
                    raise
                self._sleep(error.retry_after or 2.0)
            except requests.RequestException:
                if attempt == attempts:
                    raise
                self._sleep(2.0)
        raise AssertionError("unreachable")

    def order(self, order_id: str) -> dict[str, Any]:
        return self._call("GET", f"/v1/orders/{order_id}")

    def order_events(self, order_id: str) -> list[dict[str, Any]]:
        return list(self._call("GET", f"/v1/orders/{order_id}/events")["events"])

    def refresh(self, order_id: str) -> dict[str, Any]:
        """Have the order looked at soon; answers with what is known now."""
        return self._call("POST", f"/v1/orders/{order_id}/refresh")

    def revoke_tracking(self, order_id: str) -> dict[str, Any]:
        """Make every tracking token of the order void; `order` gives a new one."""
        return self._call("POST", f"/v1/orders/{order_id}/revoke-tracking")

    def orders(self, **filters: str | None) -> Iterator[dict[str, Any]]:
        """Orders, newest first, page by page. Filters: status, user_id, search_term, tx_id, ..."""
        yield from self._pages("/v1/orders", "orders", filters)

    def events(self, after: str | None = None, limit: int = 100, **filters: str | None) -> dict[str, Any]:
        """One page of the feed: {"events", "next", "has_more"}. Keep `next`; it is where to go on, even after a
        page without events. Filters: types (a comma list), order_id, since, until (ISO-8601 with a zone)."""
        return self._call("GET", "/v1/events", query={"limit": limit, "after": after, **filters})

    # --- webhooks ----------------------------------------------------------------------------------------------------

    def webhook_endpoints(self) -> list[dict[str, Any]]:
        return list(self._call("GET", "/v1/webhook-endpoints")["endpoints"])

    def add_webhook_endpoint(
        self, url: str, types: Sequence[str] = (), description: str | None = None
    ) -> dict[str, Any]:
        """The answer is the only one with the `secret`."""
        body = {"url": url, "types": list(types), "description": description}
        return self._call("POST", "/v1/webhook-endpoints", body=body)

    def change_webhook_endpoint(self, endpoint_id: str, **changes: Any) -> dict[str, Any]:
        """Changes: url, types, description, enabled."""
        return self._call("PATCH", f"/v1/webhook-endpoints/{endpoint_id}", body=changes)

    def delete_webhook_endpoint(self, endpoint_id: str) -> None:
        self._call("DELETE", f"/v1/webhook-endpoints/{endpoint_id}")

    def rotate_webhook_secret(self, endpoint_id: str, overlap_seconds: int = 86_400) -> dict[str, Any]:
        """The answer is the only one with the new `secret`; until the overlap is over both sign."""
        body = {"overlap_seconds": overlap_seconds}
        return self._call("POST", f"/v1/webhook-endpoints/{endpoint_id}/rotate-secret", body=body)

    def verify_webhook_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """The delivery of a challenge sent now; the endpoint's `verified_at` tells its outcome."""
        return self._call("POST", f"/v1/webhook-endpoints/{endpoint_id}/verify")

    def test_webhook_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """The delivery of a test; read it again with `webhook_delivery`."""
        return self._call("POST", f"/v1/webhook-endpoints/{endpoint_id}/test")

    def webhook_deliveries(self, **filters: str | None) -> Iterator[dict[str, Any]]:
        """Deliveries, newest first, page by page. Filters: endpoint, order_id, status, since."""
        yield from self._pages("/v1/webhook-deliveries", "deliveries", filters)

    def webhook_delivery(self, delivery_id: str) -> dict[str, Any]:
        return self._call("GET", f"/v1/webhook-deliveries/{delivery_id}")

    def redeliver(self, delivery_id: str) -> dict[str, Any]:
        return self._call("POST", f"/v1/webhook-deliveries/{delivery_id}/redeliver")

    def redeliver_all(self, endpoint_id: str, since: str, statuses: Sequence[str] = ("failed",)) -> int:
        """Have everything sent again that was made since then and is failed, skipped or pending. Returns how many."""
        body = {"endpoint": endpoint_id, "since": since, "statuses": list(statuses)}
        total = 0
        while True:
            answer = self._call("POST", "/v1/webhook-deliveries/redeliver", body=body)
            total += int(answer["count"])
            if not answer["has_more"]:
                return total

    # --- the wire ----------------------------------------------------------------------------------------------------

    def _pages(self, path: str, name: str, filters: dict[str, str | None]) -> Iterator[dict[str, Any]]:
        query = dict(filters)
        while True:
            page = self._call("GET", path, query=query)
            yield from page[name]
            if not page["has_more"]:
                return
            query["after"] = page["next"]

    def _call(self, method: str, path: str, *, query: dict[str, Any] | None = None, body: Any = None) -> dict[str, Any]:
        """Raises SwapApiError, and ValueError, which names the field, for what cannot be sent."""
        _check(body)
        content = b"" if body is None else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        encoded = urlencode({name: value for name, value in (query or {}).items() if value is not None})
        try:
            return self._send(method, path, encoded, content)
        except SwapApiError as error:
            theirs = error.details.get("server_time")
            if error.code != "TIMESTAMP_OUTSIDE_WINDOW" or not isinstance(theirs, int):
                raise
        # One of the clocks is wrong; the service's is the one that counts. Once: a second refusal has another reason.
        self._ahead = theirs / 1000 - self._clock()
        return self._send(method, path, encoded, content)

    def _send(self, method: str, path: str, encoded: str, content: bytes) -> dict[str, Any]:
        timestamp = str(int((self._clock() + self._ahead) * 1000))
        answer = self._http.request(
            method,
            self._base_url + quote(path, safe="/") + (f"?{encoded}" if encoded else ""),
            data=content or None,
            headers={
                "Content-Type": "application/json",
                "X-API-Key": self._key,
                "X-Timestamp": timestamp,
                "X-Signature": sign(self._secret, method, path, encoded, timestamp, content),
            },
            timeout=self._timeout,
            allow_redirects=False,
        )
        try:
            parsed = answer.json()
            if parsed["success"]:
                return dict(parsed["data"])
            error = parsed["error"]
            code, message, details = error["code"], error["message"], {**error["details"]}
        except (ValueError, KeyError, TypeError):
            code, message, details = "NOT_UNDERSTOOD", "The answer is not the service's.", {"retry": "same_request"}
        raise SwapApiError(answer.status_code, code, message, details, self._pause(answer.headers))

    def _pause(self, headers: Mapping[str, str]) -> float | None:
        """Retry-After in seconds, at most an hour: a number, rounded up, or a date; None when it is neither."""
        value = headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            return min(float(math.ceil(float(value))), 3600.0)
        then, sent_at = _timestamp(value), _timestamp(headers.get("Date", ""))
        if then is None:
            return None
        if sent_at is None:
            sent_at = self._clock() + self._ahead
        return min(max(float(math.ceil(then - sent_at)), 0.0), 3600.0)


def _check(value: Any, name: str = "") -> None:
    """Raises ValueError for what does not travel: half a surrogate pair, and an amount that is no text."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, f"a name in {name}" if name else "a name")
            _check(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, name)
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name}: the text holds half a surrogate pair")
    elif name == "amount" and not isinstance(value, str | None):
        raise ValueError("amount: amounts are decimal strings, such as '0.0125'")


def _timestamp(http_date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(http_date)
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _side(instrument: Instrument) -> dict[str, str]:
    return {"currency": instrument[0], "network": instrument[1]}
