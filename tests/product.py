"""A client with orders and webhook endpoints, and the parts that serve it."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from sqlalchemy import select, update

from swap.access.keys import Keys
from swap.domain.times import Timing
from swap.infra.vault import Vault
from swap.push.delivering import Deliverer
from swap.push.endpoints import Endpoints
from swap.push.feed import Feed
from swap.store.database import Database
from swap.tables import WebhookDelivery, WebhookEndpoint
from tests.conftest import Clock
from tests.factories import make_order, move, read_order
from tests.receivers import Receiver

SECRET_KEY = "a key for tests, of at least 32 characters"


class NoQueue:
    """Redis is away."""

    def enqueue(self, _job: str) -> bool:
        return False

    def announce(self, *_: object) -> None:
        pass


class Product:
    """A client with its orders, its endpoints and the parts that serve it."""

    def __init__(self, database: Database, clock: Clock, **options: Any) -> None:
        self.database, self.clock = database, clock
        self.vault = Vault([SECRET_KEY])
        self.keys = Keys(database, self.vault, clock)
        made = self.keys.create("shop")
        caller = self.keys.caller(made.key)
        assert caller is not None
        self.key, self.client_id = made.key, caller.client_id
        self.feed = Feed(database, NoQueue(), clock)  # type: ignore[arg-type] # a stand-in
        allow_private = options.get("allow_private", True)
        self.endpoints = Endpoints(database, self.vault, NoQueue(), clock, allow_private=allow_private)  # type: ignore[arg-type] # a stand-in
        self.deliverer = self.another_deliverer(database, **options)

    def another_deliverer(self, database: Database, **options: Any) -> Deliverer:
        """As another process has it. `options`: those of Timing, and of Deliverer."""
        own = {name: options.pop(name) for name in ("allow_private", "timeout", "resolve") if name in options}
        timing = Timing(now=self.clock, rng=Random(1), **options)
        return Deliverer(database, self.vault, timing, **{"allow_private": True, "timeout": 5.0, **own})

    def add(self, url: str, types: list[str] | None = None) -> dict[str, Any]:
        return self.endpoints.add(self.key, url, types or [], trusted=True)

    def deliver(self) -> int:
        self.feed.publish()
        return self.deliverer.deliver_due()

    def endpoint(self, endpoint_id: str) -> WebhookEndpoint:
        with self.database.read() as session:
            return session.scalars(select(WebhookEndpoint).filter_by(id=endpoint_id)).one()

    def set_endpoint(self, endpoint_id: str, **values: Any) -> None:
        with self.database.write() as session:
            session.execute(update(WebhookEndpoint).filter_by(id=endpoint_id).values(**values))

    def deliveries(self, **where: Any) -> list[WebhookDelivery]:
        query = select(WebhookDelivery).order_by(WebhookDelivery.order_id, WebhookDelivery.sequence)
        with self.database.read() as session:
            return list(session.scalars(query.filter_by(**where)))

    def order(self, *statuses: str) -> str:
        """An order that went through these statuses."""
        order_id = make_order(self.database, self.client_id).id
        for status in statuses:
            move(self.database, read_order(self.database, order_id), status=status)
        return order_id


def bodies(receiver: Receiver, path: str = "/") -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.on(path)]
