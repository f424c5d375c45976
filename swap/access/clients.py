"""Clients, as those who run the service see and limit them, and the record of what was done to whom."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from swap.domain.times import iso
from swap.errors import InvalidRequest, NotFound
from swap.store import clients
from swap.store.database import Database
from swap.tables import Client


class Clients:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def listed(self) -> list[dict[str, Any]]:
        """Every client by name, with what it may spend per minute and how many of its keys are good."""
        now = self._clock()
        with self._database.read() as session:
            keys = [row for row, _ in clients.all_keys(session)]
            live = clients.live_keys(session, [row.key for row in keys], now)
            return [
                _view(client) | {"live_keys": sum(row.client_id == client.id and row.key in live for row in keys)}
                for client in clients.all_clients(session)
            ]

    def limit(self, name_or_id: str, weight_per_minute: int, *, by: str, reason: str | None = None) -> dict[str, Any]:
        """Set what all keys of the client may spend together per minute, from a second from now on.

        Raises NotFound (CLIENT_UNKNOWN), InvalidRequest for less than 1.
        """
        if weight_per_minute < 1:
            message = "A client must be allowed one request a minute at least."
            raise InvalidRequest.on("weight_per_minute", "TOO_SMALL", message)
        with self._database.write() as session:
            client = clients.find_client(session, name_or_id)
            if client is None:
                raise NotFound(f"There is no client {name_or_id}.", code="CLIENT_UNKNOWN")
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


def _view(client: Client) -> dict[str, Any]:
    return {
        "id": client.id,
        "name": client.name,
        "weight_per_minute": client.weight_per_minute,
        "created_at": iso(client.created_at),
    }
