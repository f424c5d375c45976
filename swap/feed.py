"""The feed: the order in which everybody hears of changes.

The publisher runs in every worker. Under the lock of one row, held to commit, it gives public events their place and makes
their webhook deliveries. The lock is never skipped: a reader that has seen position n must never meet a smaller one later.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from swap.bell import Bell
from swap.errors import InvalidRequest
from swap.store import events, webhooks
from swap.store.database import Database
from swap.tables import FeedHead

_AT_ONCE = 500


class Feed:
    def __init__(self, database: Database, bell: Bell, clock: Callable[[], datetime]) -> None:
        self._database, self._bell, self._clock = database, bell, clock

    def publish(self) -> int:
        """Give every waiting event its place. Returns how many were published."""
        total = 0
        while True:
            count = self._publish_some()
            total += count
            if count < _AT_ONCE:
                break
        if total:
            self._bell.ring("deliver")
        return total

    def _publish_some(self) -> int:
        with self._database.read() as session:
            if not events.has_unpublished(session):
                return 0
        now = self._clock()
        with self._database.write() as session:
            head = events.lock_head(session)
            waiting = events.unpublished(session, _AT_ONCE)
            endpoints = webhooks.endpoints_for(session, {event.client_id for event in waiting})
            for event in waiting:
                head.position += 1
                events.place(session, event.id, head.position)
                for endpoint in endpoints:
                    if endpoint.client_id == event.client_id and (not endpoint.types or event.type in endpoint.types):
                        webhooks.add_delivery(session, endpoint, event, now)
            return len(waiting)

    def page(self, client_id: str, after: str | None, limit: int) -> dict[str, Any]:
        """The client's events after the cursor (exclusive; None: from the oldest kept).

        Raises InvalidRequest on `after`: CURSOR_MALFORMED, or CURSOR_RESET when the cursor is of another life of the
        database, such as before a restore. A cursor ahead of the feed is one too: a restored copy kept its epoch.
        """
        with self._database.read() as session:
            head = events.head(session)
            position = _position(after, head)
            found = events.feed_page(session, client_id, position, limit + 1)
        more = len(found) > limit
        shown = [events.event_view(event, head.epoch) for event in found[:limit]]
        following = shown[-1]["cursor"] if shown else after or events.cursor_text(0, head.epoch)
        return {"events": shown, "next": following, "has_more": more}


def _position(cursor: str | None, head: FeedHead) -> int:
    if cursor is None:
        return 0
    digits, mark = cursor[:12], cursor[12:]
    if len(digits) != 12 or not digits.isascii() or not digits.isdigit():
        message = "This is no cursor of ours; begin without one."
        raise InvalidRequest({"after": [{"code": "CURSOR_MALFORMED", "message": message}]})
    if mark != head.epoch or int(digits) > head.position:
        message = "The feed was restored since this cursor was made; begin without one and reconcile."
        raise InvalidRequest({"after": [{"code": "CURSOR_RESET", "message": message}]}, code="CURSOR_RESET")
    return int(digits)
