"""Finding orders: one, a page of them, an order's events; and asking for a fresh poll."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from swap.domain.lifecycle import Status
from swap.domain.schedules import Slowdown
from swap.errors import NotFound
from swap.orders.validation import sent_form
from swap.store import events, leases
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order

# Between two polls of an order, however often a client asks for one.
_APART = timedelta(seconds=5)


class OrderReader:
    """`slowdown`: how far polls are spread out at this time."""

    def __init__(self, database: Database, clock: Callable[[], datetime], slowdown: Callable[[], Slowdown]) -> None:
        self._database, self._clock, self._slowdown = database, clock, slowdown

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
        """Make a watched order due soon, and return it as it is known; a worker polls it.

        Soon is at once, but 5 seconds after its last poll at the soonest, and later by the factor by which all polls are
        spread out. An order that is being polled, was put off or backs off after failures is left as it is. Raises NotFound
        (ORDER_NOT_FOUND).
        """
        order = load(self._database, order_id, client_id)
        if order.next_check_at is None or order.upstream_order_id is None:
            return order
        now = self._clock()
        apart = _APART * self._slowdown().factor(Status(order.status), now - order.created_at)
        due_at = max(now, order.as_of + apart) if order.as_of is not None else now
        if order.next_check_at > due_at:
            with self._database.write() as session:
                leases.bring_forward(session, [order.id], due_at)
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
