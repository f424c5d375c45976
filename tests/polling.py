"""Looking at orders in tests: what stands between sandbox and service, and a clock-driven walk."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from swap.sandbox.scenarios import scenario_addresses
from swap.store.serializers import order_view
from swap.tables import OrderEvent
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import read_order

ADDRESSES = {name: by_network["XRP"] for name, by_network in scenario_addresses().items()}
DAY = 86_400

StartResponse = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Looks:
    """What stands between the world and the service on public-info alone. `edit` changes the answer's JSON; `answer`
    replaces it (status, type, body); `hold` is waited for before answering."""

    def __init__(self) -> None:
        self.edit: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self.answer: tuple[str, str, bytes] | None = None
        self.hold: threading.Event | None = None
        self.asked: list[str] = []

    def wrap(self, app: Wsgi) -> Wsgi:
        def wrapped(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            if not environ["PATH_INFO"].endswith("/public-info"):
                return app(environ, start_response)
            self.asked.append(environ["QUERY_STRING"])
            if self.hold is not None:
                self.hold.wait(5)
            if self.answer is not None:
                status, type_, body = self.answer
                start_response(status, [("Content-Type", type_)])
                return [body]
            if self.edit is None:
                return app(environ, start_response)
            told: list[Any] = []
            body = b"".join(app(environ, lambda *given: told.extend(given)))
            if told[0].startswith("200"):
                body = json.dumps(self.edit(json.loads(body))).encode()
            start_response(told[0], [("Content-Type", "application/json")])
            return [body]

        return wrapped


def place(shop: Shop, scenario: str = "completes", **changed: Any) -> str:
    order_id: str = shop.place(destination_address=ADDRESSES[scenario], **changed)["id"]
    return order_id


def watch_due(service: Service) -> list[str]:
    """One round of what scheduler and workers do together. Returns who was looked at."""
    batches = service.due.claim_due(100)
    for batch in batches:
        service.due.run_all(batch)
    return [order_id for batch in batches for order_id in batch]


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
