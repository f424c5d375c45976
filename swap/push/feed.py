"""The feed: all public events in one order, the same for every reader.

The publisher runs in every worker. Under the lock of one row, held to commit, it gives public events their place and makes
their webhook deliveries. The lock is never skipped: a reader that has seen position n must never meet a smaller one later.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from swap.domain import lifecycle
from swap.domain.lifecycle import Facts, Status
from swap.errors import CursorGone, InvalidRequest
from swap.infra.queue import JobQueue
from swap.store import deliveries, events
from swap.store import endpoints as endpoint_rows
from swap.store.database import Database
from swap.store.events import EventFilter
from swap.tables import FeedHead, Order, OrderEvent

RETENTION = timedelta(days=90)
"""How far back the feed goes, and how long the events of an order are kept after it has come to its end."""

_AT_ONCE = 500
_EXPIRED = "The feed no longer goes back that far; begin without a cursor and reconcile."
# A page with filters looks at no more of the client's events than this, whether they fit or not.
_SCAN = 10_000
_FORGET_AT_ONCE = 200
EVERYTHING = EventFilter()


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A part of the feed. `end`: every wanted event up to this position was read; `more`: there may be more behind it."""

    events: Sequence[OrderEvent]
    end: int
    more: bool
    epoch: str


class Feed:
    def __init__(self, database: Database, queue: JobQueue, clock: Callable[[], datetime]) -> None:
        self._database, self._queue, self._clock = database, queue, clock

    def has_unpublished(self) -> bool:
        with self._database.read() as session:
            return events.has_unpublished(session)

    def publish(self) -> int:
        """Give every waiting event its place. Returns how many were published."""
        total = 0
        while True:
            count = self._publish_some()
            total += count
            if count < _AT_ONCE:
                break
        if total:
            self._queue.enqueue("deliver")
        return total

    def _publish_some(self) -> int:
        if not self.has_unpublished():
            return 0
        now = self._clock()
        with self._database.write() as session:
            head = events.lock_head(session)
            waiting = events.unpublished(session, _AT_ONCE)
            endpoints = endpoint_rows.endpoints_for(session, {event.client_id for event in waiting})
            positions = {event.id: head.position + nth for nth, event in enumerate(waiting, 1)}
            deliveries_due = [
                (endpoint, event)
                for event in waiting
                for endpoint in endpoints
                if endpoint.client_id == event.client_id and (not endpoint.types or event.type in endpoint.types)
            ]
            deliveries.add_deliveries(session, deliveries_due, now)
            if positions:
                events.assign_positions(session, positions)
            position = head.position = head.position + len(positions)
        self._queue.announce(position)
        return len(waiting)

    # --- reading -----------------------------------------------------------------------------------------------------

    def page(self, client_id: str, after: str | None, limit: int, only: EventFilter = EVERYTHING) -> dict[str, Any]:
        """The client's events after the cursor (exclusive; None: from the oldest kept).

        `next` stands behind every event that was looked at, even those of other clients and those that the filters left
        out, so a page may be empty and have more behind it. Raises as `position` does.
        """
        stretch = self.read(client_id, self.position(after), limit, only)
        return {
            "events": [events.event_view(event, stretch.epoch) for event in stretch.events],
            "next": events.cursor_text(stretch.end, stretch.epoch),
            "has_more": stretch.more,
        }

    def read(self, client_id: str, position: int, limit: int, only: EventFilter = EVERYTHING) -> FeedPage:
        """The client's events after that position. Raises CursorGone (CURSOR_EXPIRED)."""
        with self._database.read() as session:
            # Read first: all up to its position is committed, so what the query finds has no holes up to there.
            head = events.head(session)
            border = None if only == EVERYTHING else events.position_after(session, client_id, position, _SCAN)
            rows = events.feed_page(session, client_id, position, limit + 1, only, border)
            # Read last: what was forgotten while we read must not look as if it had never been.
            floor = events.head(session).floor
        if 0 < position < floor:
            raise CursorGone("CURSOR_EXPIRED", _EXPIRED)
        shown = rows[:limit]
        if len(rows) > limit:
            return FeedPage(shown, shown[-1].position or 0, True, head.epoch)
        if border is not None:
            return FeedPage(shown, border, True, head.epoch)
        last = shown[-1].position or 0 if shown else 0
        return FeedPage(shown, max(head.position, position, last), False, head.epoch)

    def position(self, cursor: str | None) -> int:
        """The place a cursor stands for; None: before the oldest kept.

        Raises InvalidRequest (CURSOR_MALFORMED); CursorGone: CURSOR_RESET when the cursor is of another life of the
        database, such as before a restore (a cursor ahead of the feed is one too: a restored copy kept its epoch);
        CURSOR_EXPIRED when the feed no longer goes back that far.
        """
        head = self.head()
        if cursor is None:
            # Not before: events left below the floor belong to orders that go on, and no cursor there would be accepted.
            return head.floor
        digits, mark = cursor[:12], cursor[12:]
        if len(digits) != 12 or not digits.isascii() or not digits.isdigit():
            raise InvalidRequest.on("after", "CURSOR_MALFORMED", "This is no cursor of ours; begin without one.")
        if mark != head.epoch or int(digits) > head.position:
            message = "The feed was restored since this cursor was made; begin without one and reconcile."
            raise CursorGone("CURSOR_RESET", message)
        if int(digits) < head.floor:
            raise CursorGone("CURSOR_EXPIRED", _EXPIRED)
        return int(digits)

    def head(self) -> FeedHead:
        with self._database.read() as session:
            return events.head(session)

    def all_clients(self, position: int, limit: int) -> tuple[FeedHead, Sequence[OrderEvent]]:
        """The head, and the events of all clients after that position: for the stream, which feeds many sockets from one
        read."""
        with self._database.read() as session:
            return events.head(session), events.all_clients(session, position, limit)

    # --- housekeeping ------------------------------------------------------------------------------------------------

    def new_epoch(self) -> str:
        """Make every existing cursor answer CURSOR_RESET. For after a restore, before any process runs: the positions given
        out since the backup will be given out again, to other events. Returns the new epoch."""
        with self._database.write() as session:
            head = events.lock_head(session)
            old = head.epoch
            while head.epoch == old:
                head.epoch = secrets.token_hex(3)
            return head.epoch

    def forget_old(self) -> int:
        """Raise the floor to the events older than RETENTION, and delete those below it whose orders have come to their end
        for good. Returns how many events were deleted."""
        with self._database.read() as session:
            head = events.head(session)
            floor = events.floor_for(session, head, self._clock() - RETENTION)
        if floor > head.floor:
            with self._database.write() as session:
                head = events.lock_head(session)
                head.floor = max(head.floor, floor)
        total, position = 0, 0
        while True:
            with self._database.read() as session:
                begun = events.begun_below(session, position, floor, _FORGET_AT_ONCE)
            if not begun:
                return total
            position = begun[-1][0]
            ended = [order.id for _, order in begun if _ended(order)]
            if ended:
                with self._database.write() as session:
                    total += events.forget(session, ended, floor)


def _ended(order: Order) -> bool:
    if order.next_check_at is not None:
        return False
    facts = Facts.from_json(order.facts)
    left = lifecycle.account(facts).remaining
    return lifecycle.is_final(Status(order.status), facts.deposit_seen, watched=False, left=left)
