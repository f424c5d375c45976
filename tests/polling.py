"""Looking at orders in tests, and a clock-driven walk."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import or_, select

from swap.sandbox.scenarios import scenario_addresses
from swap.store.serializers import order_view
from swap.tables import Order, OrderEvent
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import read_order

ADDRESSES = {name: by_network["XRP"] for name, by_network in scenario_addresses().items()}
DAY = 86_400


def place(shop: Shop, scenario: str = "completes", **changed: Any) -> str:
    order_id: str = shop.place(destination_address=ADDRESSES[scenario], **changed)["id"]
    return order_id


def watch_due(service: Service) -> list[str]:
    """One round of what scheduler and workers do together. Returns who was looked at."""
    found = due_ids(service)
    service.due.work(60)
    return found


def due_ids(service: Service) -> list[str]:
    """Who waits to be looked at, the longest overdue first."""
    now = service.clock()
    free = or_(Order.leased_until.is_(None), Order.leased_until <= now)
    with service.database.read() as session:
        due = select(Order.id).where(Order.next_check_at <= now, free)
        return list(session.scalars(due.order_by(Order.next_check_at)))


def walk(service: Service, clock: Clock, order_id: str, moments: Iterable[float]) -> list[dict[str, Any]]:
    """Look at each of these moments, in seconds after creation. Returns the order after each."""
    seen = []
    born = read_order(service.database, order_id).created_at
    for moment in moments:
        clock.advance(born + timedelta(seconds=moment) - clock())
        assert watch_due(service) == [order_id]
        seen.append(view(service, order_id))
        assert seen[-1]["final"] or seen[-1]["next_check_at"] is not None, "whoever may still wait is looked after"
    return seen


def types(service: Service, order_id: str) -> list[str]:
    client_id = read_order(service.database, order_id).client_id
    found = service.orders.events(client_id, order_id)
    assert [e["sequence"] for e in found] == list(range(1, len(found) + 1))
    return [e["type"].removeprefix("order.") for e in found]


def view(service: Service, order_id: str) -> dict[str, Any]:
    return order_view(service.orders.find(read_order(service.database, order_id).client_id, order_id))


def all_of(service: Service, row: Any, *where: Any) -> list[Any]:
    with service.database.read() as session:
        return list(session.scalars(select(row).where(*where)))


def journal(service: Service, order_id: str) -> list[str]:
    found = all_of(service, OrderEvent, OrderEvent.order_id == order_id, OrderEvent.sequence.is_(None))
    return [e.type for e in found]


START = ["created", "awaiting_deposit"]


def quiet(scenario: str) -> bytes:
    """Public-info that tells nothing but which order it is about: that of the scenario."""
    told = {"orderEvents": [], "deposits": [], "withdrawals": [], "state": "created"}
    return json.dumps({**told, "destinationAddress": ADDRESSES[scenario]}).encode()
