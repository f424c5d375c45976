"""Webhooks: every public event to every endpoint of its client, at least once, in order per order.

Bodies and headers after the Standard Webhooks specification. A failing delivery delays the later events of its own order
only; `sequence` in the body shows the receiver what it missed.
"""

from __future__ import annotations

import secrets
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog
from standardwebhooks.webhooks import Webhook

from swap import cadence
from swap.errors import InvalidRequest, NotFoundHere
from swap.lifecycle import PUBLIC, Status
from swap.outgoing import Sent, canonical, is_private, post
from swap.store import clients, events
from swap.store import webhooks as rows
from swap.store.database import Database
from swap.tables import OrderEvent, WebhookEndpoint, iso
from swap.vault import Vault

log = structlog.get_logger()

TIMEOUT_SECONDS = 15.0
# What an endpoint may ask for (DESIGN.md, Contract).
TYPES = frozenset(
    {"order.created", "order.updated", "order.action_required", "order.late_deposit"}
    | {f"order.{status}" for status in PUBLIC if status is not Status.CREATING}
)
_LEASE = timedelta(seconds=60)
_AT_ONCE = 10
# One endpoint is given no more while so many of its deliveries are under way: one that hangs must leave room for others.
_CROWDED = 5
# How long one job goes on delivering before it makes room for others; the scheduler rings again for the rest.
_JOB_SECONDS = 60.0


class Webhooks:
    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Callable[[], datetime],
        rng: Random,
        *,
        allow_private: bool,
        scale: Decimal,
        timeout: float = TIMEOUT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._vault, self._clock, self._rng = database, vault, clock, rng
        self._allow_private, self._scale = allow_private, scale
        self._timeout, self._monotonic = timeout, monotonic

    def add(self, key: str, url: str, types: Sequence[str] = ()) -> dict[str, Any]:
        """Register an endpoint for the client that owns `key`; the answer is the only time its secret is shown.

        Raises NotFoundHere (KEY_UNKNOWN) and InvalidRequest: a type that no event has, or a URL that is not https or not
        public, unless SWAP_WEBHOOK_ALLOW_PRIVATE allows plain and private targets. What a name stands for is judged when
        it is used, not here.
        """
        problems = {"url": _url_problem(url, self._allow_private), "types": _types_problem(types)}
        found = {name: [problem] for name, problem in problems.items() if problem is not None}
        if found:
            raise InvalidRequest(found)
        secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode("ascii")
        with self._database.write() as session:
            owner = clients.live_key(session, key)
            if owner is None:
                raise NotFoundHere("This key is not known, or was revoked.", code="KEY_UNKNOWN")
            endpoint = rows.add_endpoint(
                session,
                client_id=owner.client_id,
                url=url,
                secret_sealed=self._vault.seal(secret),
                types=list(types),
                now=self._clock(),
            )
            return {"id": endpoint.id, "url": url, "secret": secret, "enabled": True}

    # --- delivering --------------------------------------------------------------------------------------------------

    def deliver_due(self) -> int:
        """Send what is due, several at once, until nothing is left or the job's time is over. Returns how many."""
        until = self._monotonic() + _JOB_SECONDS
        total = 0
        under_way: dict[Future[None], str] = {}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="deliver") as pool:
            while True:
                while (free := _AT_ONCE - len(under_way)) and self._monotonic() < until:
                    claimed = self._claim(min(free, _CROWDED), under_way.values())
                    if not claimed:
                        break
                    for delivery_id, endpoint_id in claimed:
                        under_way[pool.submit(self._deliver_safely, delivery_id)] = endpoint_id
                    total += len(claimed)
                if not under_way:
                    return total
                # Whoever is done makes room; and while a slow one is waited for, the others' next events come due.
                done, _ = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    del under_way[future]

    def _claim(self, limit: int, under_way: Iterable[str]) -> Sequence[tuple[str, str]]:
        crowded = [endpoint for endpoint, count in Counter(under_way).items() if count >= _CROWDED]
        with self._database.read() as session:
            if not rows.has_due(session, self._clock()):
                return []
        with self._database.write() as session:
            return rows.claim_due(session, self._clock(), _LEASE, limit, but_not=crowded)

    def _deliver_safely(self, delivery_id: str) -> None:
        try:
            self.deliver(delivery_id)
        except Exception:
            # Its lease runs out and it is tried again; the others must not wait for it.
            log.exception("webhooks.delivery_broke", delivery_id=delivery_id)

    def deliver(self, delivery_id: str) -> None:
        """Make one attempt and write down what came of it."""
        with self._database.read() as session:
            found = rows.to_send(session, delivery_id)
            epoch = events.head(session).epoch
        if found is None:
            return
        delivery, endpoint, event = found
        body = webhook_body(event, epoch)
        started = self._monotonic()
        sent = self._send(endpoint, event, body)
        result: dict[str, Any] = {
            "response_status": sent.status,
            "response_excerpt": sent.excerpt,
            "error": sent.error,
            "duration_ms": round((self._monotonic() - started) * 1000),
        }
        now = self._clock()
        if sent.status is not None and 200 <= sent.status < 300:
            result |= {"status": "delivered", "delivered_at": now, "next_attempt_at": None}
        else:
            delay = cadence.retry_delay(delivery.attempts + 1, cadence.WEBHOOK_RETRIES, self._rng, self._scale)
            gone = {"next_attempt_at": None, "status": "failed"}
            result |= gone if delay is None else {"next_attempt_at": now + delay}
            log.warning(
                "webhooks.not_delivered",
                delivery_id=delivery.id,
                order_id=delivery.order_id,
                attempt=delivery.attempts + 1,
                given_up=delay is None,
                status=sent.status,
                error=sent.error,
            )
        with self._database.write() as session:
            rows.record(session, delivery, **result)

    def _send(self, endpoint: WebhookEndpoint, event: OrderEvent, body: bytes) -> Sent:
        try:
            signature = Webhook(self._vault.unseal(endpoint.secret_sealed))
            now = self._clock()
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "swap-service-webhooks/1",
                "webhook-id": event.id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": signature.sign(event.id, now, body.decode()),
            }
            return post(endpoint.url, body, headers, limit=self._timeout, allow_private=self._allow_private)
        except Exception as error:
            # Such as a secret sealed under a key we no longer have: it fails as any attempt does, and is given up in the
            # end, or it would be tried every minute for ever and hold back its order's later events.
            log.exception("webhooks.not_sent", endpoint_id=endpoint.id, event_id=event.id)
            return Sent(None, None, type(error).__name__)


def _url_problem(url: str, allow_private: bool) -> dict[str, Any] | None:
    try:
        parts = urlsplit(canonical(url))
    except ValueError:
        return _not_allowed("This is no URL.")
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("https", "http") or not host or "@" in parts.netloc or parts.fragment:
        return _not_allowed("An endpoint is an https URL without user, password or fragment.")
    try:
        private = is_private(host)
    except ValueError:
        private = host == "localhost" or host.endswith(".localhost")
    if not allow_private and (parts.scheme != "https" or private):
        return _not_allowed(
            "An endpoint must be https and public; SWAP_WEBHOOK_ALLOW_PRIVATE=1 allows others for development."
        )
    return None


def _not_allowed(message: str) -> dict[str, Any]:
    return {"code": "URL_NOT_ALLOWED", "message": message}


def _types_problem(types: Sequence[str]) -> dict[str, Any] | None:
    unknown = sorted(set(types) - TYPES)
    if not unknown:
        return None
    message = f"There are no such events: {', '.join(unknown)[:200]}. There are: {', '.join(sorted(TYPES))}."
    return {"code": "TYPE_UNKNOWN", "message": message}


def webhook_body(event: OrderEvent, epoch: str) -> bytes:
    """The Contract's webhook body; the same bytes on every attempt."""
    view = events.event_view(event, epoch)
    return orjson.dumps(
        {
            "type": event.type,
            "timestamp": iso(event.created_at),
            "data": {
                "event_id": event.id,
                "order_id": event.order_id,
                "sequence": event.sequence,
                "cursor": view["cursor"],
                "order": event.order,
            },
        }
    )
