"""Tracking tokens: with one, a browser may follow one order without knowing any secret.

A token is the order's id, its token version and an expiry, with an HMAC-SHA256 over them under a key of its own out of
SWAP_SECRET_KEYS (old keys still verify). Nothing is stored: raising the order's `token_version` revokes all its tokens.
A token travels in the answer to the owner and in an Authorization header, never in a URL, an event, a webhook or a log line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from swap.domain.times import iso
from swap.errors import NotAuthenticated, NotFound
from swap.infra.tickets import ExpiredTicket, InvalidTicket, SignedTickets
from swap.infra.vault import Vault
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.serializers import tracked_view, view_at
from swap.tables import Order

LIFETIME = timedelta(days=30)
_PREFIX = "trk_"


@dataclass(frozen=True, slots=True)
class Tracked:
    """An opened token: the order as it was read, and until when the token may be used."""

    order: Order
    expires_at: datetime
    opened_at: datetime

    def view(self) -> dict[str, Any]:
        """The order, without what is between client and service."""
        return tracked_view(view_at(self.order, self.opened_at))


class Tracking:
    def __init__(self, database: Database, vault: Vault, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock
        self._tickets = SignedTickets(vault, "tracking", clock)

    def issue(self, order: Order) -> dict[str, str]:
        """A token for the order: {"token", "expires_at"}, good for 30 to 60 days. Until half of that is over, every call
        returns the same token: an answer that is repeated stays what it was."""
        expires_at = order.created_at + ((self._clock() - order.created_at) // LIFETIME + 2) * LIFETIME
        expires_at = expires_at.replace(microsecond=0)
        token = self._tickets.issue(order.id, str(order.token_version), expires_at=expires_at)
        return {"token": f"{_PREFIX}{token}", "expires_at": iso(expires_at)}

    def open(self, token: str) -> Tracked:
        """The order a token is for. Raises NotAuthenticated: TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED."""
        try:
            if not token.startswith(_PREFIX):
                raise InvalidTicket
            (order_id, version), expires_at = self._tickets.open(token.removeprefix(_PREFIX))
        except ExpiredTicket:
            message = "This tracking token has expired; the shop can give out another."
            raise NotAuthenticated(message, code="TOKEN_EXPIRED") from None
        except InvalidTicket:
            raise NotAuthenticated("This is no tracking token of ours.", code="TOKEN_INVALID") from None
        with self._database.read() as session:
            order = order_rows.get(session, order_id)
        if order is None or order.token_version != int(version):
            raise NotAuthenticated("This tracking token was revoked.", code="TOKEN_REVOKED")
        return Tracked(order, expires_at, self._clock())

    def revoke(self, client_id: str, order_id: str) -> None:
        """Make every token of the client's order void. Raises NotFound (ORDER_NOT_FOUND)."""
        if order_id.isprintable():
            with self._database.write() as session:
                if order_rows.raise_token_version(session, order_id, client_id):
                    return
        raise NotFound(f"There is no order {order_id[:64]}.", code="ORDER_NOT_FOUND")

    def versions(self, order_ids: Collection[str]) -> dict[str, int]:
        """The token versions of these orders now."""
        with self._database.read() as session:
            return order_rows.token_versions(session, order_ids)
