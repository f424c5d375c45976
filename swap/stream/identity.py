"""Who a socket belongs to, and whether that key or token still counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers

from swap.access.client_address import client_address
from swap.domain.signing import SignedParts
from swap.errors import NotAllowed
from swap.stream.protocol import PATH, field_of
from swap.stream.threads import InThread
from swap.wiring import Service

_CHECKED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Identity:
    """Who authenticated: with a key, or with an order's tracking token."""

    client_id: str
    scopes: frozenset[str] = frozenset()
    key: str | None = None
    order_id: str | None = None
    token_version: int = 0
    expires_at: datetime | None = None

    @property
    def owner(self) -> str:
        """Whose connections and messages are counted together: one client's, or those with tokens of one order."""
        return f"order {self.order_id}" if self.order_id is not None else f"client {self.client_id}"


async def identify(
    service: Service, in_thread: InThread, connection: ServerConnection, content: dict[str, Any]
) -> Identity:
    """Whose `auth` operation this is. Raises SocketRefused, NotAuthenticated, NotAllowed."""
    token = field_of(content, "token")
    if token:
        tracked = await in_thread(service.tracking.open, token)
        order = tracked.order
        return Identity(
            order.client_id, order_id=order.id, token_version=order.token_version, expires_at=tracked.expires_at
        )
    key, signature = field_of(content, "key"), field_of(content, "signature")
    parts = SignedParts("GET", PATH, "", field_of(content, "timestamp"), b"")
    caller = await in_thread(lambda: service.keys.authenticate(key, signature, parts))
    address = _address_of(connection, service.settings.trusted_proxies)
    service.keys.must_be_allowed_from(caller, address)
    if not caller.scopes & {"events:read", "quotes", "catalog"}:
        raise NotAllowed("This key has no scope for anything that is streamed.")
    # What opens a stream works once: who reads it on the way must not open another.
    await in_thread(service.keys.spend, caller, signature)
    await in_thread(service.keys.note_use, caller.key, address)
    return Identity(caller.client_id, scopes=caller.scopes, key=caller.key)


def _address_of(connection: ServerConnection, trusted: Sequence[str]) -> str:
    headers = connection.request.headers if connection.request is not None else Headers()
    return client_address(connection.remote_address[0], ",".join(headers.get_all("X-Forwarded-For")), trusted)


async def ended(service: Service, in_thread: InThread, identities: Iterable[Identity]) -> set[Identity]:
    """Those whose key or token was revoked, or has expired."""
    identities = set(identities)
    keys = {identity.key for identity in identities if identity.key is not None}
    orders = sorted({identity.order_id for identity in identities if identity.order_id is not None})
    live = await in_thread(service.keys.live, keys) if keys else set()
    versions: dict[str, int] = {}
    for start in range(0, len(orders), _CHECKED_AT_ONCE):
        versions |= await in_thread(service.tracking.versions, orders[start : start + _CHECKED_AT_ONCE])
    now = service.clock()

    def counts(identity: Identity) -> bool:
        if identity.order_id is None:
            return identity.key in live
        unexpired = identity.expires_at is not None and now < identity.expires_at
        return unexpired and versions.get(identity.order_id) == identity.token_version

    return {identity for identity in identities if not counts(identity)}
