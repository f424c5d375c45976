"""`swap listen`: a developer watches a client's feed, and has it forwarded to a program under construction as webhooks.

It reads the feed through the public API like any other consumer, so it works with a service on another machine, and needs
no endpoint that the service could reach. Nothing is registered: the secret is made up for this run.
"""

from __future__ import annotations

import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import requests
from standardwebhooks.webhooks import Webhook

from swap.domain.times import iso
from swap.sdk import SwapApiError, SwapClient

_POLL_SECONDS = 1.0
_LONGEST_PAUSE = 15.0
_FORWARD_SECONDS = 15.0


class Forward:
    """Posts events to one URL as the service would, with a throw-away secret."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self.url, self._clock = url, clock
        self.secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode("ascii")
        self._http = requests.Session()
        self._http.trust_env = False

    def send(self, event: dict[str, Any]) -> str:
        """One attempt. Returns what came of it in a word: the status, or the error."""
        body = orjson.dumps(
            {
                "type": event["type"],
                "timestamp": event["created_at"],
                "data": {
                    "event_id": event["id"],
                    "order_id": event["order_id"],
                    "sequence": event["sequence"],
                    "cursor": event["cursor"],
                    "order": event["order"],
                },
            }
        )
        now = datetime.fromtimestamp(self._clock(), UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "swap-service-webhooks/1",
            "webhook-id": event["id"],
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self.secret).sign(event["id"], now, body.decode()),
        }
        try:
            answer = self._http.post(
                self.url, data=body, headers=headers, timeout=_FORWARD_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            return type(error).__name__
        return str(answer.status_code)


def follow(
    client: SwapClient,
    after: str | None,
    *,
    on_trouble: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> Iterator[dict[str, Any]]:
    """Events after the cursor as they come, for ever; None: what happens from now on.

    While the service cannot be reached it tries again, later and later, and calls `on_trouble`. Raises SwapApiError for
    what trying again does not help: a wrong key, a cursor that is void.
    """
    filters: dict[str, str | None] = {}
    if after is None:
        # Only to find the end of the feed; the cursor it gives stands behind everything older.
        filters = {"since": iso(datetime.fromtimestamp(clock(), UTC))}
    pause = _POLL_SECONDS
    while True:
        try:
            page = client.events(after=after, limit=100, **filters)
        except (requests.RequestException, SwapApiError) as error:
            if isinstance(error, SwapApiError) and error.retry != "same_request":
                raise
            on_trouble(f"{type(error).__name__}: {error}" if isinstance(error, SwapApiError) else type(error).__name__)
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            continue
        pause = _POLL_SECONDS
        yield from page["events"]
        after = page["next"]
        if not page["has_more"]:
            filters = {}
            sleep(_POLL_SECONDS)
