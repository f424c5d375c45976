"""Webhooks: every public event to every endpoint of its client, at least once, in order per order.

Bodies and headers after the Standard Webhooks specification. A failing delivery delays the later events of its own order
only; `sequence` in the body shows the receiver what it missed. While an endpoint is disabled nothing is sent to it; the
feed has what it missed.
"""

from __future__ import annotations

import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap import cadence, messages
from swap.bell import Bell
from swap.errors import Conflict, InvalidRequest, NotFoundHere
from swap.messages import DISABLED, TEST, TYPES
from swap.outgoing import Resolve, Sent, post, refusal
from swap.store import clients
from swap.store import webhooks as rows
from swap.store.database import Database
from swap.store.views import delivery_view, endpoint_view
from swap.tables import OrderEvent, WebhookDelivery, WebhookEndpoint, iso
from swap.vault import Vault

log = structlog.get_logger()

TIMEOUT_SECONDS = 15.0
MAX_ENDPOINTS = 20
OVERLAP = timedelta(hours=24)
# Longer than any receiver needs to change a setting; a secret that leaked must end some day.
LONGEST_OVERLAP = timedelta(days=7)
# So long an endpoint may fail without any success; and so many deliveries one call has sent again.
DISABLED_AFTER = timedelta(days=5)
SENT_AGAIN_AT_ONCE = 10_000
# How long settled deliveries are kept.
KEPT = timedelta(days=90)
REDELIVERABLE = ("failed", "skipped", "pending")

_LEASE = timedelta(seconds=60)
# Of one endpoint in all processes, and after how many failures in a row only one, to see whether it is back.
_IN_FLIGHT = 10
_PROBE_FROM = 20
# Threads of this process. They wait for the network nearly all of the time.
_THREADS = 32
# While some are under way: how soon what came due meanwhile is found.
_POLL_SECONDS = 0.2
_GATHER_SECONDS = 0.02
# How long one job goes on delivering before it makes room for others; the scheduler rings again for the rest. A worker
# with other queues besides is wanted there sooner.
JOB_SECONDS, SHARED_JOB_SECONDS = 60.0, 2.0


class Webhooks:
    def __init__(
        self,
        database: Database,
        vault: Vault,
        bell: Bell,
        clock: Callable[[], datetime],
        rng: Random,
        *,
        allow_private: bool,
        scale: Decimal,
        timeout: float = TIMEOUT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        resolve: Resolve | None = None,
    ) -> None:
        self._database, self._vault, self._bell = database, vault, bell
        self._clock, self._rng = clock, rng
        self._allow_private, self._scale, self._resolve = allow_private, scale, resolve
        self._timeout, self._monotonic = timeout, monotonic
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="deliver")
        self._busy = 0
        self._lock = threading.Lock()

    # --- endpoints ---------------------------------------------------------------------------------------------------

    def add(self, key: str, url: str, types: Sequence[str] = ()) -> dict[str, Any]:
        """`create` for the client that owns `key`. Raises NotFoundHere (KEY_UNKNOWN) as well."""
        with self._database.read() as session:
            owner = clients.live_key(session, key)
        if owner is None:
            raise NotFoundHere("This key is not known, or was revoked.", code="KEY_UNKNOWN")
        made = self.create(owner.client_id, url, types)
        return {name: made[name] for name in ("id", "url", "secret", "enabled")}

    def create(
        self, client_id: str, url: str, types: Sequence[str] = (), description: str | None = None
    ) -> dict[str, Any]:
        """Register an endpoint; the answer is the only one with its secret.

        Raises InvalidRequest: a type that no event has, or a URL that is not https or not public, unless
        SWAP_WEBHOOK_ALLOW_PRIVATE allows plain and private targets. What a name stands for is judged when it is used,
        not here. Raises Conflict (TOO_MANY_ENDPOINTS).
        """
        self._check(url=url, types=types)
        secret = _new_secret()
        with self._database.write() as session:
            if len(rows.endpoints_of(session, client_id)) >= MAX_ENDPOINTS:
                message = f"A client may have {MAX_ENDPOINTS} endpoints; delete one first."
                raise Conflict(message, code="TOO_MANY_ENDPOINTS")
            endpoint = rows.add_endpoint(
                session,
                client_id=client_id,
                url=url,
                secret_sealed=self._vault.seal(secret),
                types=_unique(types),
                now=self._clock(),
                description=description,
            )
        return {**endpoint_view(endpoint, self._clock()), "secret": secret}

    def endpoints(self, client_id: str) -> list[dict[str, Any]]:
        with self._database.read() as session:
            return [endpoint_view(endpoint, self._clock()) for endpoint in rows.endpoints_of(session, client_id)]

    def endpoint(self, client_id: str, endpoint_id: str) -> dict[str, Any]:
        """Raises NotFoundHere (ENDPOINT_NOT_FOUND), as everything here that takes an endpoint's id."""
        with self._database.read() as session:
            return endpoint_view(_found(rows.endpoint(session, client_id, endpoint_id)), self._clock())

    def change(self, client_id: str, endpoint_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change url, types, description, enabled. Disabling skips what waits; enabling begins with the next event, and
        forgets failures. Raises InvalidRequest as `create` does."""
        self._check(**{name: changes[name] for name in ("url", "types") if name in changes})
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            for name in ("url", "description"):
                if name in changes:
                    setattr(endpoint, name, changes[name])
            if "types" in changes:
                endpoint.types = _unique(changes["types"])
            if changes.get("enabled") is True and not endpoint.enabled:
                # Whatever the publisher put there while the endpoint was being disabled.
                rows.skip_waiting(session, endpoint.id)
                endpoint.enabled, endpoint.failures = True, 0
                endpoint.failing_since = endpoint.disabled_at = endpoint.disabled_reason = None
            if changes.get("enabled") is False:
                self._disable(session, endpoint, "by_client")
        return endpoint_view(endpoint, self._clock())

    def delete(self, client_id: str, endpoint_id: str) -> None:
        """Send nothing more there, and forget its secrets. Its deliveries stay listed for as long as others."""
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            self._disable(session, endpoint, "deleted")
            endpoint.deleted_at = self._clock()
            endpoint.secret_sealed, endpoint.old_secret_sealed, endpoint.old_secret_until = "", None, None

    def rotate(self, client_id: str, endpoint_id: str, overlap: timedelta = OVERLAP) -> dict[str, Any]:
        """Give the endpoint a new secret, shown in this answer alone. For as long as `overlap` the old one signs as well;
        the one before it no longer does."""
        secret = _new_secret()
        with self._changing(client_id, endpoint_id) as (_, endpoint):
            keeps = overlap > timedelta(0)
            endpoint.old_secret_sealed = endpoint.secret_sealed if keeps else None
            endpoint.old_secret_until = self._clock() + overlap if keeps else None
            endpoint.secret_sealed = self._vault.seal(secret)
        return {**endpoint_view(endpoint, self._clock()), "secret": secret}

    def test(self, client_id: str, endpoint_id: str) -> dict[str, Any]:
        """Send `endpoint.test` there, once. Answers with its delivery; while one waits, with that one.

        Raises Conflict (ENDPOINT_DISABLED).
        """
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            _require_enabled(endpoint)
            delivery = rows.waiting_message(session, endpoint.id, TEST)
            if delivery is None:
                data = {"endpoint_id": endpoint.id, "message": "This is a test. Nothing happened to any order."}
                delivery = rows.add_message(session, endpoint, TEST, data, self._clock())
        self._bell.ring("deliver")
        return delivery_view(delivery)

    # --- deliveries --------------------------------------------------------------------------------------------------

    def deliveries(
        self, client_id: str, filters: dict[str, str], since: datetime | None, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """The client's deliveries, newest first, after the one with the id `after`. `filters`: endpoint_id, order_id,
        status. Raises InvalidRequest (CURSOR_MALFORMED)."""
        with self._database.read() as session:
            last = None if after is None else rows.get_delivery(session, client_id, after)
            if after is not None and last is None:
                message = "This is no cursor of ours, or its delivery is no longer kept."
                raise InvalidRequest({"after": [{"code": "CURSOR_MALFORMED", "message": message}]})
            return [delivery_view(found) for found in rows.page(session, client_id, filters, since, last, limit)]

    def delivery(self, client_id: str, delivery_id: str) -> dict[str, Any]:
        """Raises NotFoundHere (DELIVERY_NOT_FOUND)."""
        with self._database.read() as session:
            return delivery_view(_kept(rows.get_delivery(session, client_id, delivery_id)))

    def redeliver(self, client_id: str, delivery_id: str) -> dict[str, Any]:
        """Send the delivery again now, whatever became of it; one that waits for its next attempt is tried at once.

        Raises NotFoundHere (DELIVERY_NOT_FOUND) and Conflict (ENDPOINT_DISABLED).
        """
        with self._database.write() as session:
            delivery = _kept(rows.get_delivery(session, client_id, delivery_id))
            endpoint = _found(rows.endpoint(session, client_id, delivery.endpoint_id, lock=True))
            _require_enabled(endpoint)
            rows.send_again(session, delivery, self._clock())
            session.refresh(delivery)
        self._bell.ring("deliver")
        return delivery_view(delivery)

    def redeliver_all(
        self, client_id: str, endpoint_id: str, since: datetime, statuses: Sequence[str] = ("failed",)
    ) -> dict[str, Any]:
        """Send again what was made since then and is failed, skipped, or pending for a later time (REDELIVERABLE).

        Up to SENT_AGAIN_AT_ONCE in one call, the oldest first; `has_more` asks for another. Raises Conflict
        (ENDPOINT_DISABLED).
        """
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            _require_enabled(endpoint)
            now = self._clock()
            count = rows.send_all_again(session, endpoint, statuses, since, now, SENT_AGAIN_AT_ONCE)
        if count:
            self._bell.ring("deliver")
        return {"count": count, "has_more": count == SENT_AGAIN_AT_ONCE}

    # --- delivering --------------------------------------------------------------------------------------------------

    def deliver_due(self, publish: Callable[[], object] = lambda: None, seconds: float = JOB_SECONDS) -> int:
        """Send what is due, many at once, until nothing is left or that many seconds are over. Returns how many.

        `publish` is called again and again meanwhile, for a hanging endpoint keeps this going and the publisher waiting.
        What is under way when the time is over goes on by itself: the next job need not wait for it either.
        """
        until = self._monotonic() + seconds
        total = 0
        under_way: set[Future[None]] = set()
        while self._monotonic() < until:
            publish()
            claimed = self._claim()
            total += len(claimed)
            under_way.update(self._pool.submit(self._deliver_safely, delivery_id) for delivery_id in claimed)
            if not under_way:
                break
            if claimed:
                continue
            # Whoever is done makes room; and while a slow one is waited for, the others' next events come due.
            _, under_way = wait(under_way, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            if under_way:
                # A claim for each that is done would cost the database more than the deliveries do.
                _, under_way = wait(under_way, timeout=_GATHER_SECONDS)
        return total

    def close(self) -> None:
        """Begin nothing more. What is under way ends by itself, within its timeout."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _claim(self) -> Sequence[str]:
        with self._database.read() as session:
            if not rows.has_due(session, self._clock()):
                return []
        with self._lock:
            free = _THREADS - self._busy
            if free <= 0:
                return []
            with self._database.write() as session:
                claimed = rows.claim_due(
                    session, self._clock(), _LEASE, free, at_once=_IN_FLIGHT, probe_from=_PROBE_FROM
                )
            self._busy += len(claimed)
        return claimed

    def _deliver_safely(self, delivery_id: str) -> None:
        try:
            self.deliver(delivery_id)
        except Exception:
            # Its lease runs out and it is tried again; the others must not wait for it.
            log.exception("webhooks.delivery_broke", delivery_id=delivery_id)
        finally:
            with self._lock:
                self._busy -= 1

    def deliver(self, delivery_id: str) -> None:
        """Make one attempt and write down what came of it."""
        with self._database.read() as session:
            found = rows.to_send(session, delivery_id)
        if found is None:
            return
        delivery, endpoint, event, epoch = found
        body = messages.body(delivery, event, epoch)
        started = self._monotonic()
        sent = self._send(endpoint, delivery, event, body)
        result: dict[str, Any] = {
            "response_status": sent.status,
            "response_excerpt": sent.excerpt,
            "error": sent.error,
            "duration_ms": round((self._monotonic() - started) * 1000),
        }
        if sent.status is not None and 200 <= sent.status < 300:
            with self._database.write() as session:
                if endpoint.failures:
                    rows.worked(session, endpoint.id)
                rows.record(
                    session, delivery, status="delivered", delivered_at=self._clock(), next_attempt_at=None, **result
                )
        else:
            self._failed(delivery, endpoint, sent, result)

    def _failed(self, delivery: WebhookDelivery, endpoint: WebhookEndpoint, sent: Sent, result: dict[str, Any]) -> None:
        schedule = cadence.WEBHOOK_RETRIES if delivery.type != TEST else ()
        delay = cadence.retry_delay(delivery.tries + 1, schedule, self._rng, self._scale)
        log.warning(
            "webhooks.not_delivered",
            delivery_id=delivery.id,
            order_id=delivery.order_id,
            attempt=delivery.attempts + 1,
            given_up=delay is None,
            status=sent.status,
            error=sent.error,
        )
        now = self._clock()
        with self._database.write() as session:
            # A test is asked for while somebody is at work there.
            since = rows.failed(session, endpoint.id, now) if delivery.type != TEST else None
            if delay is not None:
                again_at = now + max(delay, timedelta(seconds=sent.retry_after or 0))
                if rows.record(session, delivery, next_attempt_at=again_at, **result):
                    rows.hold_back(session, delivery, again_at)
                return
            rows.record(session, delivery, status="failed", next_attempt_at=None, **result)
            # Only now: on an endpoint where little happens, one failure may be all there was since another days ago.
            if since is not None and now - since >= DISABLED_AFTER:
                self._disable(session, endpoint, "no_success")

    def _send(
        self, endpoint: WebhookEndpoint, delivery: WebhookDelivery, event: OrderEvent | None, body: bytes
    ) -> Sent:
        now = self._clock()
        try:
            secrets = [self._vault.unseal(endpoint.secret_sealed)]
            if endpoint.old_secret_sealed and endpoint.old_secret_until and now < endpoint.old_secret_until:
                secrets.append(self._vault.unseal(endpoint.old_secret_sealed))
            headers = messages.headers(event.id if event else delivery.id, now, secrets, body)
            return post(
                endpoint.url,
                body,
                headers,
                limit=self._timeout,
                allow_private=self._allow_private,
                resolve=self._resolve,
            )
        except Exception as error:
            # Such as a secret sealed under a key we no longer have: it fails as any attempt does, and is given up in the
            # end, or it would be tried every minute for ever and hold back its order's later events.
            log.exception("webhooks.not_sent", endpoint_id=endpoint.id, delivery_id=delivery.id)
            return Sent(None, None, type(error).__name__)

    # --- shared ------------------------------------------------------------------------------------------------------

    def _disable(self, session: Session, endpoint: WebhookEndpoint, reason: str) -> None:
        """Disable the endpoint, and unless its owner did so, tell the owner's other endpoints."""
        now = self._clock()
        session.flush()
        if not rows.disable(session, endpoint.id, reason, now):
            return
        if endpoint in session:
            session.refresh(endpoint)
        if reason != "no_success":
            return
        log.error("webhooks.endpoint_disabled", endpoint_id=endpoint.id, client_id=endpoint.client_id, reason=reason)
        data = {
            "endpoint_id": endpoint.id,
            "description": endpoint.description,
            "reason": reason,
            "disabled_at": iso(now),
        }
        for other in rows.endpoints_for(session, {endpoint.client_id}):
            if not other.types or DISABLED in other.types:
                rows.add_message(session, other, DISABLED, data, now)

    @contextmanager
    def _changing(self, client_id: str, endpoint_id: str) -> Iterator[tuple[Session, WebhookEndpoint]]:
        with self._database.write() as session:
            yield session, _found(rows.endpoint(session, client_id, endpoint_id, lock=True))

    def _check(self, *, url: str | None = None, types: Sequence[str] = ()) -> None:
        """Raises InvalidRequest with the problems of both."""
        problems: dict[str, list[dict[str, Any]]] = {}
        refused = None if url is None else refusal(url, allow_private=self._allow_private)
        if refused is not None:
            problems["url"] = [{"code": "URL_NOT_ALLOWED", "message": refused}]
        unknown = sorted(set(types) - TYPES)
        if unknown:
            choices = ", ".join(sorted(TYPES))
            message = f"There are no such events: {', '.join(unknown)[:200]}. There are: {choices}."
            problems["types"] = [{"code": "TYPE_UNKNOWN", "message": message}]
        if problems:
            raise InvalidRequest(problems)


def _new_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode("ascii")


def _unique(types: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(types))


def _found(endpoint: WebhookEndpoint | None) -> WebhookEndpoint:
    if endpoint is None:
        raise NotFoundHere("There is no such endpoint.", code="ENDPOINT_NOT_FOUND")
    return endpoint


def _kept(delivery: WebhookDelivery | None) -> WebhookDelivery:
    if delivery is None:
        raise NotFoundHere("There is no such delivery, or it is no longer kept.", code="DELIVERY_NOT_FOUND")
    return delivery


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if not endpoint.enabled:
        raise Conflict("The endpoint is disabled; enable it first.", code="ENDPOINT_DISABLED")
