"""A client with orders and webhook endpoints, and the parts that serve it."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random
from typing import Any

from sqlalchemy import select, update

from swap.feed import Feed
from swap.keys import Keys
from swap.store.database import Database
from swap.tables import WebhookDelivery, WebhookEndpoint
from swap.vault import Vault
from swap.webhooks import Webhooks
from tests.conftest import Clock
from tests.made import make_order, move, read_order
from tests.receivers import Receiver

SECRET_KEY = "a key for tests, of at least 32 characters"


class Bell:
    def ring(self, _job: str, *_arguments: object) -> bool:
        return False

    def tell(self, *_: object) -> None:
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
        self.feed = Feed(database, Bell(), clock)  # type: ignore[arg-type]
        self.webhooks = self.parts(database, **options)

    def parts(self, database: Database, **options: Any) -> Webhooks:
        settings = {"allow_private": True, "scale": Decimal(1), "timeout": 5.0, **options}
        return Webhooks(database, self.vault, Bell(), self.clock, Random(1), **settings)  # type: ignore[arg-type]

    def add(self, url: str, types: list[str] | None = None) -> dict[str, Any]:
        return self.webhooks.add(self.key, url, types or [])

    def deliver(self) -> int:
        self.feed.publish()
        return self.webhooks.deliver_due()

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
