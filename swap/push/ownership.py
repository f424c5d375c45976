"""Whose is a webhook endpoint: nothing but a challenge goes to a URL until whoever answers there has sent its token back.

Without this anybody with a key could aim the service at a third party.
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime

import structlog
from sqlalchemy.orm import Session

from swap.infra.webhook_http import Sent
from swap.push.payload import VERIFY
from swap.store import deliveries as delivery_rows
from swap.store import endpoints as endpoint_rows
from swap.tables import WebhookDelivery, WebhookEndpoint

log = structlog.get_logger()


def challenge(session: Session, endpoint: WebhookEndpoint, now: datetime) -> WebhookDelivery | None:
    """Send `endpoint.verify` to the URL that is still to be proved, in place of one that waits for an earlier URL.

    Returns its delivery, or the one that waits already; None where nothing is left to be proved.
    """
    url = unproved(endpoint)
    waiting = delivery_rows.waiting_message(session, endpoint.id, VERIFY)
    if waiting is not None and asked(waiting) == url:
        return waiting
    delivery_rows.skip_waiting(session, endpoint.id, VERIFY)
    if url is None:
        return None
    data = {
        "endpoint_id": endpoint.id,
        "url": url,
        "token": secrets.token_urlsafe(32),
        "message": 'Answer 200 with {"token": "..."}, this token, and events will be sent to this URL.',
    }
    return delivery_rows.add_message(session, endpoint, VERIFY, data, now)


def unproved(endpoint: WebhookEndpoint) -> str | None:
    """The URL that is still to be proved."""
    return endpoint.new_url or (endpoint.url if endpoint.verified_at is None else None)


def asked(delivery: WebhookDelivery) -> str:
    """The URL that this challenge is for."""
    assert delivery.message is not None
    return str(delivery.message["url"])


def record_proof(session: Session, delivery: WebhookDelivery, now: datetime) -> None:
    """The token came back: events go to that URL from now on, unless the client wants another one by now."""
    if endpoint_rows.record_proof(session, delivery.endpoint_id, asked(delivery), now):
        log.info("webhooks.endpoint_verified", endpoint_id=delivery.endpoint_id)


def answers_challenge(delivery: WebhookDelivery, sent: Sent) -> bool:
    """Whether the answer is a JSON object whose `token` is the one that was sent. A body that only comes back as it was, as
    from a service that echoes, has its token elsewhere."""
    assert delivery.message is not None
    try:
        answer = json.loads(sent.excerpt or "")
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.get("token") == delivery.message["token"]
