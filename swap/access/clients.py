"""Clients, as those who run the service see and limit them, and the record of what was done to whom."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy.orm import Session

from swap.domain.order_limits import OrderLimit, limit_of
from swap.domain.times import iso
from swap.errors import InvalidRequest, NotFound
from swap.store import catalog, clients
from swap.store.database import Database
from swap.tables import Client

Bound = Literal["largest_order", "daily_sum"]
"""What an `OrderLimit` bounds."""


class Clients:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def listed(self) -> list[dict[str, Any]]:
        """Every client by name, with what it may spend per minute, how much it may order, and how many keys are good."""
        now = self._clock()
        with self._database.read() as session:
            keys = [row for row, _ in clients.all_keys(session)]
            live = clients.live_keys(session, [row.key for row in keys], now)
            return [
                _view(client) | {"live_keys": sum(row.client_id == client.id and row.key in live for row in keys)}
                for client in clients.all_clients(session)
            ]

    def one(self, name_or_id: str) -> dict[str, Any]:
        """Raises NotFound (CLIENT_UNKNOWN)."""
        with self._database.read() as session:
            return _view(_found(session, name_or_id))

    def limit(self, name_or_id: str, weight_per_minute: int, *, by: str, reason: str | None = None) -> dict[str, Any]:
        """Set what all keys of the client may spend together per minute, from a second from now on.

        Raises NotFound (CLIENT_UNKNOWN), InvalidRequest for less than 1.
        """
        if weight_per_minute < 1:
            message = "A client must be allowed one request a minute at least."
            raise InvalidRequest.on("weight_per_minute", "TOO_SMALL", message)
        with self._database.write() as session:
            client = _found(session, name_or_id)
            before, client.weight_per_minute = client.weight_per_minute, weight_per_minute
            clients.write_audit(
                session,
                by,
                "clients.limit",
                client.id,
                self._clock(),
                reason=reason,
                weight_per_minute=weight_per_minute,
                before=before,
            )
            return _view(client)

    def limit_orders(
        self,
        name_or_id: str,
        currency: str,
        changes: dict[Bound, Decimal | None],
        *,
        by: str,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Set how much the client may order of a currency that it sends, on any network; for requests from a second from now
        on. `changes`: None takes a bound away, and a bound that is not named stays.

        Raises NotFound (CLIENT_UNKNOWN), InvalidRequest for a currency that the catalog does not know and an amount of
        nothing.
        """
        for name, amount in changes.items():
            if amount is not None and amount <= 0:
                raise InvalidRequest.on(name, "TOO_SMALL", "A limit on orders must be more than zero.")
        with self._database.write() as session:
            client = _found(session, name_or_id, lock=True)
            limits = clients.order_limits_in(client.order_limits)
            before = limit_of(limits, currency)
            if before is None:
                title = catalog.currency_title(session, currency)
                if title is None:
                    raise InvalidRequest.on("currency", "INSTRUMENT_UNKNOWN", f"The catalog knows no {currency}.")
                before = OrderLimit(title)
            after = OrderLimit(
                before.currency,
                changes.get("largest_order", before.largest_order),
                changes.get("daily_sum", before.daily_sum),
            )
            kept = [limit for limit in limits if not limit.is_of(currency)] + ([] if after.is_none else [after])
            client.order_limits = [limit.to_json() for limit in sorted(kept, key=lambda limit: limit.currency)]
            clients.write_audit(
                session,
                by,
                "clients.limit_orders",
                client.id,
                self._clock(),
                reason=reason,
                **after.to_json(),
                before=before.to_json(),
            )
            return _view(client)

    def audit(self, limit: int = 100, subject: str | None = None) -> list[dict[str, Any]]:
        """The newest administrative acts, the newest first; of one key, client or endpoint where told."""
        with self._database.read() as session:
            return [
                {
                    "id": entry.id,
                    "at": iso(entry.at),
                    "actor": entry.actor,
                    "address": entry.address,
                    "act": entry.act,
                    "subject": entry.subject,
                    "reason": entry.reason,
                    "detail": entry.detail,
                }
                for entry in clients.audit_entries(session, limit, subject)
            ]


def _found(session: Session, name_or_id: str, *, lock: bool = False) -> Client:
    client = clients.find_client(session, name_or_id, lock=lock)
    if client is None:
        raise NotFound(f"There is no client {name_or_id}.", code="CLIENT_UNKNOWN")
    return client


def _view(client: Client) -> dict[str, Any]:
    return {
        "id": client.id,
        "name": client.name,
        "weight_per_minute": client.weight_per_minute,
        "order_limits": list(client.order_limits),
        "created_at": iso(client.created_at),
    }
