"""Webhook endpoints and their deliveries, as clients manage them; `swap.push.delivering` sends.

Every public event goes to every endpoint of its client, at least once, in order per order. While an endpoint is disabled, or
nobody has proved to want what is sent there (`swap.push.ownership`), nothing is sent to it; the feed has what it missed.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap.domain.times import iso
from swap.errors import Conflict, FieldProblem, InvalidRequest, NotFound, Problems
from swap.infra.queue import JobQueue
from swap.infra.vault import Vault
from swap.infra.webhook_http import refusal
from swap.push import ownership
from swap.push.payload import DISABLED, TEST, TYPES
from swap.store import clients
from swap.store import deliveries as delivery_rows
from swap.store import endpoints as endpoint_rows
from swap.store.database import Database
from swap.store.serializers import delivery_view, endpoint_view
from swap.tables import WebhookDelivery, WebhookEndpoint

log = structlog.get_logger()

MAX_ENDPOINTS = 20
OVERLAP = timedelta(hours=24)
# Longer than any receiver needs to change a setting; a secret that leaked must end some day.
LONGEST_OVERLAP = timedelta(days=7)
# How many deliveries one call has sent again.
SENT_AGAIN_AT_ONCE = 10_000
REDELIVERABLE = ("failed", "skipped", "pending")


class Endpoints:
    def __init__(
        self,
        database: Database,
        vault: Vault,
        queue: JobQueue,
        clock: Callable[[], datetime],
        *,
        allow_private: bool,
    ) -> None:
        self._database, self._vault, self._queue, self._clock = database, vault, queue, clock
        self._allow_private = allow_private

    # --- endpoints ---------------------------------------------------------------------------------------------------

    def add(
        self, key: str, url: str, types: Sequence[str] = (), *, trusted: bool = False, by: str = "shell"
    ) -> dict[str, Any]:
        """`create` for the client that owns `key`; `trusted`: an operator knows whose URL this is, so that it need not be
        proved. Raises NotFound (KEY_UNKNOWN) as well."""
        with self._database.read() as session:
            found = clients.live_key(session, key, self._clock())
        if found is None:
            raise NotFound("This key is not known, was revoked, or has expired.", code="KEY_UNKNOWN")
        endpoint = self.create(found[0].client_id, url, types, trusted=trusted, by=by)
        return {name: endpoint[name] for name in ("id", "url", "secret", "enabled", "verified_at")}

    def create(
        self,
        client_id: str,
        url: str,
        types: Sequence[str] = (),
        description: str | None = None,
        *,
        trusted: bool = False,
        by: str,
    ) -> dict[str, Any]:
        """Register an endpoint; the answer is the only one with its secret. Unless it is `trusted`, `endpoint.verify` is
        sent there, and events once its token came back. `by`: the key or operator, for the audit.

        Raises InvalidRequest: a type that no event has, or a URL that is not https or not public, unless
        SWAP_WEBHOOK_ALLOW_PRIVATE allows plain and private targets. The addresses behind a host name are judged with each
        delivery, not here. Raises Conflict (TOO_MANY_ENDPOINTS).
        """
        self._check(url=url, types=types)
        secret, now = _new_secret(), self._clock()
        with self._database.write() as session:
            endpoint_rows.lock_endpoints_of(session, client_id)
            if len(endpoint_rows.endpoints_of(session, client_id)) >= MAX_ENDPOINTS:
                message = f"A client may have {MAX_ENDPOINTS} endpoints; delete one first."
                raise Conflict(message, code="TOO_MANY_ENDPOINTS")
            endpoint = endpoint_rows.add_endpoint(
                session,
                client_id=client_id,
                url=url,
                secret_sealed=self._vault.seal(secret),
                types=_unique(types),
                now=now,
                verified_at=now if trusted else None,
                description=description,
            )
            session.flush()
            asked = ownership.challenge(session, endpoint, now)
            clients.write_audit(session, by, "webhooks.add", endpoint.id, now, url=url, trusted=trusted)
        if asked:
            self._queue.enqueue("deliver")
        return {**endpoint_view(endpoint, self._clock()), "secret": secret}

    def endpoints(self, client_id: str) -> list[dict[str, Any]]:
        with self._database.read() as session:
            return [
                endpoint_view(endpoint, self._clock()) for endpoint in endpoint_rows.endpoints_of(session, client_id)
            ]

    def endpoint(self, client_id: str, endpoint_id: str) -> dict[str, Any]:
        """Raises NotFound (ENDPOINT_NOT_FOUND), as does every method here that takes an endpoint's id."""
        with self._database.read() as session:
            return endpoint_view(_found(endpoint_rows.endpoint(session, client_id, endpoint_id)), self._clock())

    def change(self, client_id: str, endpoint_id: str, changes: dict[str, Any], *, by: str) -> dict[str, Any]:
        """Change url, types, description, enabled. Disabling skips what waits; enabling begins with the next event, and
        forgets failures. Another URL has to be proved as a first one has; until then events go to the old one. Raises
        InvalidRequest as `create` does."""
        self._check(**{name: changes[name] for name in ("url", "types") if name in changes})
        asked = None
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            if "description" in changes:
                endpoint.description = changes["description"]
            if "url" in changes:
                _want_url(endpoint, changes["url"])
                clients.write_audit(session, by, "webhooks.url", endpoint_id, self._clock(), url=changes["url"])
            if "types" in changes:
                endpoint.types = _unique(changes["types"])
            if changes.get("enabled") is True and not endpoint.enabled:
                # Deliveries that the publisher added while the endpoint was being disabled.
                delivery_rows.skip_waiting(session, endpoint.id)
                endpoint.enabled, endpoint.failures = True, 0
                endpoint.failing_since = endpoint.held_until = endpoint.disabled_at = endpoint.disabled_reason = None
            if changes.get("enabled") is False:
                disable(session, endpoint, "by_client", self._clock())
            elif {"url", "enabled"} & changes.keys():
                asked = ownership.challenge(session, endpoint, self._clock())
        if asked:
            self._queue.enqueue("deliver")
        return endpoint_view(endpoint, self._clock())

    def delete(self, client_id: str, endpoint_id: str, *, by: str) -> None:
        """Send nothing more there, and forget its secrets. Its deliveries stay listed as long as any."""
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            disable(session, endpoint, "deleted", self._clock())
            endpoint.deleted_at = self._clock()
            endpoint.secret_sealed, endpoint.old_secret_sealed, endpoint.old_secret_until = "", None, None
            clients.write_audit(session, by, "webhooks.delete", endpoint_id, self._clock())

    def rotate(self, client_id: str, endpoint_id: str, overlap: timedelta = OVERLAP, *, by: str) -> dict[str, Any]:
        """Give the endpoint a new secret, shown in this answer alone. During `overlap` the old secret signs as well; an even
        older one no longer does."""
        secret = _new_secret()
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            keeps = overlap > timedelta(0)
            endpoint.old_secret_sealed = endpoint.secret_sealed if keeps else None
            endpoint.old_secret_until = self._clock() + overlap if keeps else None
            endpoint.secret_sealed = self._vault.seal(secret)
            clients.write_audit(session, by, "webhooks.rotate_secret", endpoint_id, self._clock())
        return {**endpoint_view(endpoint, self._clock()), "secret": secret}

    def verify(self, client_id: str, endpoint_id: str) -> dict[str, Any]:
        """Send `endpoint.verify` now to the URL that is still to be proved. Answers with its delivery.

        Raises Conflict (ENDPOINT_DISABLED, ENDPOINT_VERIFIED).
        """
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            _require_enabled(endpoint)
            delivery = ownership.challenge(session, endpoint, self._clock())
            if delivery is None:
                raise Conflict("Nothing is left to be proved: events go to this URL.", code="ENDPOINT_VERIFIED")
            session.flush()
            delivery_rows.send_again(session, delivery, self._clock())
            session.refresh(delivery)
        self._queue.enqueue("deliver")
        return delivery_view(delivery)

    def test(self, client_id: str, endpoint_id: str) -> dict[str, Any]:
        """Send `endpoint.test` there, once. Answers with its delivery; while one waits, with that one.

        Raises Conflict (ENDPOINT_DISABLED, ENDPOINT_UNVERIFIED).
        """
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            _require_wanted(endpoint)
            delivery = delivery_rows.waiting_message(session, endpoint.id, TEST)
            if delivery is None:
                data = {"endpoint_id": endpoint.id, "message": "This is a test. Nothing happened to any order."}
                delivery = delivery_rows.add_message(session, endpoint, TEST, data, self._clock())
        self._queue.enqueue("deliver")
        return delivery_view(delivery)

    # --- deliveries --------------------------------------------------------------------------------------------------

    def deliveries(
        self, client_id: str, filters: dict[str, str], since: datetime | None, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """The client's deliveries, newest first, after the one with the id `after`. `filters`: endpoint_id, order_id,
        status. Raises InvalidRequest (CURSOR_MALFORMED)."""
        with self._database.read() as session:
            last = None if after is None else delivery_rows.get_delivery(session, client_id, after)
            if after is not None and last is None:
                message = "This is no cursor of ours, or its delivery is no longer kept."
                raise InvalidRequest.on("after", "CURSOR_MALFORMED", message)
            return [delivery_view(row) for row in delivery_rows.page(session, client_id, filters, since, last, limit)]

    def delivery(self, client_id: str, delivery_id: str) -> dict[str, Any]:
        """Raises NotFound (DELIVERY_NOT_FOUND)."""
        with self._database.read() as session:
            return delivery_view(_kept(delivery_rows.get_delivery(session, client_id, delivery_id)))

    def redeliver(self, client_id: str, delivery_id: str) -> dict[str, Any]:
        """Send the delivery again now, whatever its status. A delivery that waits for its next attempt is tried at once.

        Raises NotFound (DELIVERY_NOT_FOUND) and Conflict (ENDPOINT_DISABLED, ENDPOINT_UNVERIFIED).
        """
        with self._database.write() as session:
            delivery = _kept(delivery_rows.get_delivery(session, client_id, delivery_id))
            endpoint = _found(endpoint_rows.endpoint(session, client_id, delivery.endpoint_id, lock=True))
            _require_wanted(endpoint)
            delivery_rows.send_again(session, delivery, self._clock())
            session.refresh(delivery)
        self._queue.enqueue("deliver")
        return delivery_view(delivery)

    def redeliver_all(
        self, client_id: str, endpoint_id: str, since: datetime, statuses: Sequence[str] = ("failed",)
    ) -> dict[str, Any]:
        """Send again what was made since then and is failed, skipped, or pending for a later time (REDELIVERABLE).

        Up to SENT_AGAIN_AT_ONCE in one call, the oldest first; `has_more` asks for another. Raises Conflict
        (ENDPOINT_DISABLED, ENDPOINT_UNVERIFIED).
        """
        with self._changing(client_id, endpoint_id) as (session, endpoint):
            _require_wanted(endpoint)
            now = self._clock()
            count = delivery_rows.send_all_again(session, endpoint, statuses, since, now, SENT_AGAIN_AT_ONCE)
        if count:
            self._queue.enqueue("deliver")
        return {"count": count, "has_more": count == SENT_AGAIN_AT_ONCE}

    @contextmanager
    def _changing(self, client_id: str, endpoint_id: str) -> Iterator[tuple[Session, WebhookEndpoint]]:
        with self._database.write() as session:
            yield session, _found(endpoint_rows.endpoint(session, client_id, endpoint_id, lock=True))

    def _check(self, *, url: str | None = None, types: Sequence[str] = ()) -> None:
        """Raises InvalidRequest with the problems of both."""
        problems = Problems()
        refused = None if url is None else refusal(url, allow_private=self._allow_private)
        if refused is not None:
            problems.add("url", FieldProblem("URL_NOT_ALLOWED", refused))
        unknown = sorted(set(types) - TYPES)
        if unknown:
            choices = ", ".join(sorted(TYPES))
            message = f"There are no such events: {', '.join(unknown)[:200]}. There are: {choices}."
            problems.add("types", FieldProblem("TYPE_UNKNOWN", message))
        if problems:
            raise InvalidRequest(problems)


def disable(session: Session, endpoint: WebhookEndpoint, reason: str, now: datetime) -> None:
    """Disable the endpoint. Unless its owner did so, send `endpoint.disabled` to the owner's other endpoints."""
    session.flush()
    if not endpoint_rows.disable(session, endpoint.id, reason, now):
        return
    if endpoint in session:
        session.refresh(endpoint)
    if reason not in ("no_success", "gone"):
        return
    log.error("webhooks.endpoint_disabled", endpoint_id=endpoint.id, client_id=endpoint.client_id, reason=reason)
    data = {
        "endpoint_id": endpoint.id,
        "description": endpoint.description,
        "reason": reason,
        "disabled_at": iso(now),
    }
    for other in endpoint_rows.endpoints_for(session, {endpoint.client_id}):
        if not other.types or DISABLED in other.types:
            delivery_rows.add_message(session, other, DISABLED, data, now)


def _new_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode("ascii")


def _unique(types: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(types))


def _found(endpoint: WebhookEndpoint | None) -> WebhookEndpoint:
    if endpoint is None:
        raise NotFound("There is no such endpoint.", code="ENDPOINT_NOT_FOUND")
    return endpoint


def _kept(delivery: WebhookDelivery | None) -> WebhookDelivery:
    if delivery is None:
        raise NotFound("There is no such delivery, or it is no longer kept.", code="DELIVERY_NOT_FOUND")
    return delivery


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    """For what its owner wants sent now, which ends a hold."""
    if not endpoint.enabled:
        raise Conflict("The endpoint is disabled; enable it first.", code="ENDPOINT_DISABLED")
    endpoint.held_until = None


def _require_wanted(endpoint: WebhookEndpoint) -> None:
    """For what is no challenge."""
    _require_enabled(endpoint)
    if endpoint.verified_at is None:
        message = "Nobody has proved yet to want what is sent there: answer endpoint.verify first."
        raise Conflict(message, code="ENDPOINT_UNVERIFIED")


def _want_url(endpoint: WebhookEndpoint, url: str) -> None:
    """A URL that works goes on being used until the new one is proved; of one that does not, nothing is lost."""
    if url == endpoint.url:
        endpoint.new_url = None
    elif endpoint.enabled and endpoint.verified_at is not None:
        endpoint.new_url = url
    else:
        endpoint.url, endpoint.new_url, endpoint.verified_at = url, None, None
