"""What is kept about a call: enough to argue with the upstream's support, nothing that signs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

_LARGEST_EXCERPT = 4096


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP attempt. `attempt` counts from 1. `status` None: no answer. `ms`: until the answer or the error.

    `outcome`: "OK" or the code of the error. `request_body`: for a GET, its query. Both bodies are redacted and at most
    4 kB. `at`: when the attempt began, our clock, aware UTC. `retry_after`: seconds, where the answer asked for a pause.
    `requests_left`: see `swap.upstream.refusals.requests_left`. `subject`: what it was about, for the circuit breaker: the
    pair or instrument; empty for a whole list.
    """

    endpoint: str
    method: str
    order_ref: str | None
    attempt: int
    status: int | None
    ms: int
    request_id: str | None
    outcome: str
    request_body: str | None
    response_body: str | None
    at: datetime
    retry_after: float | None = None
    requests_left: tuple[int, float | None] | None = None
    subject: str = ""


def excerpt(body: object, secrets: Iterable[str] = ()) -> str | None:
    """The start of a body as text of at most 4 kB, every one of `secrets` in it replaced. None for no body.

    `body`: bytes as they travelled, or a parsed answer such as `OrderReply.raw`, which is written as JSON. An upstream,
    or a proxy in front of it, may echo headers in an error page; so answers are cleaned as well as requests.
    """
    if body is None or body == b"":
        return None
    if not isinstance(body, bytes):
        # Decimal is the only type of a parsed answer that JSON does not know.
        body = json.dumps(body, separators=(",", ":"), ensure_ascii=False, default=str).encode("utf-8", "replace")
    # More than is kept is cleaned, or the cut could leave the first half of a secret.
    text = body[: 2 * _LARGEST_EXCERPT].decode("utf-8", "replace")
    for secret in filter(None, secrets):
        text = text.replace(secret, "[redacted]")
    # PostgreSQL takes no NUL in text.
    return text.encode()[:_LARGEST_EXCERPT].decode("utf-8", "ignore").replace("\x00", "")
