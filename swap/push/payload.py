"""What a webhook says and how it proves who said it: types, bodies, headers, after the Standard Webhooks specification."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import orjson
from standardwebhooks.webhooks import Webhook

from swap.domain.lifecycle import PUBLIC, Status
from swap.domain.times import iso
from swap.store.events import event_view
from swap.tables import OrderEvent, WebhookDelivery

TEST = "endpoint.test"
VERIFY = "endpoint.verify"
DISABLED = "endpoint.disabled"
# What an endpoint may ask for (docs/webhooks.md; the last is about endpoints). A test and a challenge go to the endpoint
# that they are about.
TYPES = frozenset(
    {"order.created", "order.updated", "order.action_required", "order.late_deposit", DISABLED}
    | {f"order.{status}" for status in PUBLIC if status is not Status.CREATING}
)
MAX_BODY_BYTES = 20_000
_NEWEST_TRANSFERS = 10


def body(delivery: WebhookDelivery, event: OrderEvent | None, epoch: str) -> bytes:
    """The body of a delivery; the same bytes on every attempt."""
    if event is not None:
        return webhook_body(event, epoch)
    return orjson.dumps({"type": delivery.type, "timestamp": iso(delivery.created_at), "data": delivery.message})


def webhook_body(event: OrderEvent, epoch: str) -> bytes:
    """The webhook body (docs/webhooks.md, "What is sent"), of at most MAX_BODY_BYTES.

    An order that would not fit loses its older transfers first, then its metadata, at last everything; `data.shortened`
    then names what is not whole, to be read by GET /v1/orders/{id}.
    """
    view = event_view(event, epoch)
    data = {
        "event_id": event.id,
        "order_id": event.order_id,
        "sequence": event.sequence,
        "cursor": view["cursor"],
        "order": event.order,
    }
    content = {"type": event.type, "timestamp": iso(event.created_at), "data": data}
    whole = orjson.dumps(content)
    if len(whole) <= MAX_BODY_BYTES:
        return whole
    order = dict(event.order or {})
    shortened: list[str] = []
    data |= {"order": order, "shortened": shortened}
    for name in ("deposits", "withdrawals"):
        if len(order.get(name, ())) > _NEWEST_TRANSFERS:
            order[name] = order[name][-_NEWEST_TRANSFERS:]
            shortened.append(name)
    if len(orjson.dumps(content)) > MAX_BODY_BYTES:
        order["metadata"] = {}
        shortened.append("metadata")
    if len(orjson.dumps(content)) > MAX_BODY_BYTES:
        data |= {"order": None, "shortened": ["order"]}
    return orjson.dumps(content)


def headers(message_id: str, now: datetime, secrets: Sequence[str], content: bytes) -> dict[str, str]:
    """`message_id` is the same on every attempt; time and signature are the attempt's own. One signature per secret,
    separated by spaces: while a secret is being rotated a receiver may know either."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "swap-service-webhooks/1",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(each).sign(message_id, now, content.decode()) for each in secrets),
    }
