"""Tracking tokens: with one, a browser may follow one order without knowing any secret.

A token is the order's id, its token version and an expiry, with an HMAC-SHA256 over them under a key of its own out of
SWAP_SECRET_KEYS (old keys still verify). Nothing is stored: raising the order's `token_version` revokes all it ever had.
It travels in the answer to the owner and in an Authorization header, never in a URL, an event, a webhook or a log line.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from swap.domain.times import iso
from swap.errors import NotAuthenticated, NotFound
from swap.infra.vault import Vault
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.serializers import order_view, tracked_view
from swap.tables import Order

LIFETIME = timedelta(days=30)
_FORM = re.compile(r"trk_(ord_[0-9a-z]{1,64})\.([0-9]{1,9})\.([0-9]{10,11})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Tracked:
    """An opened token: the order as it was read, and until when the token may be used."""

    order: Order
    expires_at: datetime

    def view(self) -> dict[str, Any]:
        """The order, without what is between client and service."""
        return tracked_view(order_view(self.order))


class Tracking:
    def __init__(self, database: Database, vault: Vault, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock
        self._keys = vault.keys("tracking")

    def issue(self, order_id: str) -> dict[str, str]:
        """A token for the order: {"token", "expires_at"}, good for 30 to 60 days. Asked again it is the same one until half
        of that is over: an answer that is repeated stays what it was."""
        order = self._read(order_id)
        if order is None:
            raise NotFound(f"There is no order {order_id[:64]}.", code="ORDER_NOT_FOUND")
        expires_at = order.created_at + ((self._clock() - order.created_at) // LIFETIME + 2) * LIFETIME
        said = f"{order.id}.{order.token_version}.{int(expires_at.timestamp())}"
        return {
            "token": f"trk_{said}.{_mac(self._keys[0], said)}",
            "expires_at": iso(expires_at.replace(microsecond=0)),
        }

    def open(self, token: str) -> Tracked:
        """The order a token is for. Raises NotAuthenticated: TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED."""
        found = _FORM.fullmatch(token)
        if found is None:
            raise _refuse("TOKEN_INVALID", "This is no tracking token of ours.")
        order_id, version, expires, mac = found.groups()
        said = f"{order_id}.{version}.{expires}"
        if not any(hmac.compare_digest(_mac(key, said), mac) for key in self._keys):
            raise _refuse("TOKEN_INVALID", "This is no tracking token of ours.")
        expires_at = datetime.fromtimestamp(int(expires), UTC)
        if self._clock() >= expires_at:
            raise _refuse("TOKEN_EXPIRED", "This tracking token has expired; the shop can give out another.")
        order = self._read(order_id)
        if order is None or order.token_version != int(version):
            raise _refuse("TOKEN_REVOKED", "This tracking token was revoked.")
        return Tracked(order, expires_at)

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

    def _read(self, order_id: str) -> Order | None:
        with self._database.read() as session:
            return order_rows.get(session, order_id)


def _mac(key: bytes, said: str) -> str:
    return urlsafe_b64encode(hmac.new(key, said.encode(), hashlib.sha256).digest()).decode("ascii").rstrip("=")


def _refuse(code: str, message: str) -> NotAuthenticated:
    return NotAuthenticated(message, code=code)
