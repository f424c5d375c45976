"""Delivering webhooks: what is due is claimed, sent, and written down; at least once, in order per order.

A failing delivery delays the later events of its own order only; `sequence` in the body shows the receiver what it missed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import structlog

from swap.domain import schedules
from swap.domain.times import Timing
from swap.infra.deadline import Resolve
from swap.infra.vault import Vault
from swap.infra.webhook_http import Sent, post
from swap.push import ownership, payload
from swap.push.endpoints import disable
from swap.push.payload import TEST, VERIFY
from swap.store import deliveries as delivery_rows
from swap.store import endpoints as endpoint_rows
from swap.store.database import Database
from swap.tables import OrderEvent, WebhookDelivery, WebhookEndpoint

log = structlog.get_logger()

TIMEOUT_SECONDS = 15.0
# An endpoint that has failed for this long without any success is disabled.
DISABLED_AFTER = timedelta(days=5)
# How long settled deliveries are kept.
KEPT = timedelta(days=90)

_LEASE = timedelta(seconds=60)
# Of one endpoint in all processes, and after how many failures in a row only one, to see whether it is back.
_IN_FLIGHT = 10
# What the receiver's answer means for the whole endpoint (Standard Webhooks, "Delivery success and failure"). A 503 holds it
# only where it says for how long; by itself it may be about one message.
_GONE = 410
_OVERLOADED, _BUSY_FOR_A_TIME = (429, 502, 504), 503
_LONGEST_HOLD = timedelta(minutes=5)
_PROBE_FROM = 20
# Threads of this process. They wait for the network nearly all of the time.
_THREADS = 32
# While some are under way: how soon what came due meanwhile is found.
_POLL_SECONDS = 0.2
_GATHER_SECONDS = 0.02
# How long one job goes on delivering before it makes room for others; the scheduler enqueues a job for the rest. A worker
# with other queues besides is wanted there sooner.
JOB_SECONDS, SHARED_JOB_SECONDS = 60.0, 2.0


class Deliverer:
    """Sends what is due, on threads of its own. `allow_private`: SWAP_WEBHOOK_ALLOW_PRIVATE; `timeout`: seconds that one
    receiver has to answer; `resolve`: as `socket.getaddrinfo`."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        timing: Timing,
        *,
        allow_private: bool,
        timeout: float = TIMEOUT_SECONDS,
        resolve: Resolve | None = None,
    ) -> None:
        self._database, self._vault = database, vault
        self._timing, self._timeout = timing, timeout
        self._allow_private, self._resolve = allow_private, resolve
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="deliver")
        self._busy = 0
        self._lock = threading.Lock()

    def has_due(self) -> bool:
        with self._database.read() as session:
            return delivery_rows.has_due(session, self._timing.now())

    def deliver_due(self, publish: Callable[[], object] = lambda: None, seconds: float = JOB_SECONDS) -> int:
        """Send what is due, many at once, until nothing is left or that many seconds are over. Returns how many.

        `publish` is called again and again meanwhile, for a hanging endpoint keeps this going and the publisher waiting.
        What is under way when the time is over goes on by itself: the next job need not wait for it either.
        """
        until = self._timing.monotonic() + seconds
        total = 0
        under_way: set[Future[None]] = set()
        while self._timing.monotonic() < until:
            publish()
            claimed = self._claim()
            total += len(claimed)
            under_way.update(self._pool.submit(self._deliver_safely, delivery_id) for delivery_id in claimed)
            if not under_way:
                break
            if claimed:
                continue
            # A delivery that is done makes room; and while a slow one is waited for, later events of other orders come due.
            _, under_way = wait(under_way, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            if under_way:
                # A claim after each one that is done would cost the database more than the deliveries do.
                _, under_way = wait(under_way, timeout=_GATHER_SECONDS)
        return total

    def close(self) -> None:
        """Begin nothing more. What is under way ends by itself, within its timeout."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _claim(self) -> Sequence[str]:
        if not self.has_due():
            return []
        with self._lock:
            free = _THREADS - self._busy
            if free <= 0:
                return []
            with self._database.write() as session:
                claimed = delivery_rows.claim_due(
                    session, self._timing.now(), _LEASE, free, at_once=_IN_FLIGHT, probe_from=_PROBE_FROM
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
            loaded = delivery_rows.load_for_sending(session, delivery_id)
        if loaded is None:
            return
        delivery, endpoint, event, epoch = loaded
        body = payload.body(delivery, event, epoch)
        started = self._timing.monotonic()
        sent = self._send(endpoint, delivery, event, body)
        result: dict[str, Any] = {
            "response_status": sent.status,
            "response_excerpt": sent.excerpt,
            "error": sent.error,
            "duration_ms": round((self._timing.monotonic() - started) * 1000),
        }
        if sent.status is not None and 200 <= sent.status < 300 and sent.error is None:
            with self._database.write() as session:
                if delivery.type == VERIFY:
                    ownership.record_proof(session, delivery, self._timing.now())
                elif endpoint.failures:
                    endpoint_rows.record_success(session, endpoint.id, self._timing.now())
                delivery_rows.record(
                    session,
                    delivery,
                    status="delivered",
                    delivered_at=self._timing.now(),
                    next_attempt_at=None,
                    **result,
                )
        else:
            self._failed(delivery, endpoint, sent, result)

    def _failed(self, delivery: WebhookDelivery, endpoint: WebhookEndpoint, sent: Sent, result: dict[str, Any]) -> None:
        schedule = schedules.WEBHOOK_RETRIES if delivery.type != TEST else ()
        delay = schedules.retry_delay(delivery.tries + 1, schedule, self._timing)
        log.warning(
            "webhooks.not_delivered",
            delivery_id=delivery.id,
            order_id=delivery.order_id,
            attempt=delivery.attempts + 1,
            given_up=delay is None,
            status=sent.status,
            error=sent.error,
        )
        now = self._timing.now()
        # What is asked for while the client is at work on its endpoint says nothing of the endpoint when it fails.
        counts = delivery.type not in (TEST, VERIFY)
        with self._database.write() as session:
            since = endpoint_rows.record_failure(session, endpoint.id, now) if counts else None
            if counts and sent.status == _GONE:
                delivery_rows.record(session, delivery, status="failed", next_attempt_at=None, **result)
                disable(session, endpoint, "gone", now)
                return
            held = self._held(sent, delay) if delivery.type != VERIFY else None
            if held is not None:
                endpoint_rows.hold(session, endpoint.id, now + held)
            if delay is not None:
                again_at = now + max(delay, timedelta(seconds=sent.retry_after or 0))
                if delivery_rows.record(session, delivery, next_attempt_at=again_at, **result):
                    delivery_rows.hold_back(session, delivery, again_at)
                return
            delivery_rows.record(session, delivery, status="failed", next_attempt_at=None, **result)
            # Only when a delivery is given up: on a quiet endpoint one failure may be the first since another one days ago.
            if since is not None and now - since >= DISABLED_AFTER:
                disable(session, endpoint, "no_success", now)

    def _held(self, sent: Sent, delay: timedelta | None) -> timedelta | None:
        """For how long nothing more goes to the endpoint; None when only this delivery failed."""
        if sent.status in _OVERLOADED:
            return max(min(delay or _LONGEST_HOLD, _LONGEST_HOLD), timedelta(seconds=sent.retry_after or 0))
        if sent.status == _BUSY_FOR_A_TIME and sent.retry_after:
            return timedelta(seconds=sent.retry_after)
        return None

    def _send(
        self, endpoint: WebhookEndpoint, delivery: WebhookDelivery, event: OrderEvent | None, body: bytes
    ) -> Sent:
        now = self._timing.now()
        try:
            secrets = [self._vault.unseal(endpoint.secret_sealed)]
            if endpoint.old_secret_sealed and endpoint.old_secret_until and now < endpoint.old_secret_until:
                secrets.append(self._vault.unseal(endpoint.old_secret_sealed))
            headers = payload.headers(event.id if event else delivery.id, now, secrets, body)
            url = ownership.asked(delivery) if delivery.type == VERIFY else endpoint.url
            sent = post(
                url,
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
        if delivery.type == VERIFY and sent.error is None and not ownership.answers_challenge(delivery, sent):
            return Sent(sent.status, sent.excerpt, "TokenMissing", sent.retry_after)
        return sent
