"""Finding orders: one, a page of them, an order's events; and asking for a fresh poll."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from swap.errors import NotFound
from swap.orders.validation import sent_form
from swap.store import events
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order


class OrderReader:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def find(self, client_id: str, order_id: str) -> Order:
        """The client's order. Raises NotFound (ORDER_NOT_FOUND), even where another client has such an order."""
        return load(self._database, order_id, client_id)

    def page(
        self, client_id: str, filters: dict[str, Any], after: tuple[datetime, str] | None, limit: int
    ) -> list[Order]:
        """The client's orders, newest first; `filters` as `store.orders.page` takes them. An X- or M-address finds its
        orders as the classic one and its memo do."""
        filters = {**filters, **sent_form(filters.get("destination_address", ""))}
        with self._database.read() as session:
            return list(order_rows.page(session, client_id, filters, after, limit))

    def owned(self, client_id: str, order_ids: Collection[str]) -> set[str]:
        """Which of these orders belong to the client."""
        with self._database.read() as session:
            return order_rows.owned_by(session, client_id, order_ids)

    def events(self, client_id: str, order_id: str) -> list[dict[str, Any]]:
        """The order's public events by sequence. Raises NotFound."""
        load(self._database, order_id, client_id)
        with self._database.read() as session:
            epoch = events.head(session).epoch
            return [events.event_view(e, epoch) for e in events.events_of(session, order_id, public_only=True)]

    def refresh(self, client_id: str, order_id: str) -> Order:
        """Make a watched order due now, and return it as it is known; a worker polls it.

        An order polled within the last 5 seconds is left as it is. Raises NotFound (ORDER_NOT_FOUND).
        """
        order = load(self._database, order_id, client_id)
        now = self._clock()
        recent = order.as_of is not None and now - order.as_of < timedelta(seconds=5)
        if order.next_check_at is not None and order.upstream_order_id is not None and not recent:
            with self._database.write() as session:
                order_rows.reschedule(session, order.id, now, failures=order.failures)
        return load(self._database, order_id, client_id)


def load(database: Database, order_id: str, client_id: str | None = None) -> Order:
    """The order as it is stored, of this client where one is given. Raises NotFound (ORDER_NOT_FOUND)."""
    order = None
    # What holds a NUL is no id of ours, and PostgreSQL would not even compare it.
    if order_id.isprintable():
        with database.read() as session:
            order = order_rows.get(session, order_id, client_id)
    if order is None:
        raise NotFound(f"There is no order {order_id[:64]}.", code="ORDER_NOT_FOUND")
    return order
