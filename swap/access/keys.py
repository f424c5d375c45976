"""Who may call: clients, their API keys, and the proof in a request's signature."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

from sqlalchemy.orm import Session

from swap.access import key_ids
from swap.access.key_ids import Environment
from swap.domain import signing
from swap.domain.order_limits import OrderLimit
from swap.domain.times import iso, to_ms
from swap.errors import FieldProblem, InvalidRequest, NotAllowed, NotAuthenticated, NotFound
from swap.infra.vault import Vault
from swap.store import clients
from swap.store.database import Database
from swap.tables import ApiKey, Client

SCOPES = (
    "catalog",
    "quotes",
    "orders:read",
    "orders:write",
    "events:read",
    "webhooks",
    "support:read",
    "support:write",
    "admin",
)
# Names of several at once.
GROUPS = {
    "orders": ("orders:read", "orders:write", "events:read"),
    "support": ("support:read", "support:write"),
}
DEFAULT_SCOPES = ("catalog", "quotes", "orders", "webhooks")
DEFAULT_WEIGHT = 6000

REMEMBERED = timedelta(seconds=1)
"""How long a process trusts its copy of a key. A revoked key may work for this long."""
_REMEMBERED_KEYS = 10_000
# How far behind the time at which a key was last used may be.
_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Caller:
    """A key whose owner proved that it knows the secret. `scopes`: groups taken apart. `weight_per_minute`, `order_limits`:
    of its client. `allowed_from`: networks (CIDR); empty for all."""

    key: str
    client_id: str
    scopes: frozenset[str]
    weight_per_minute: int
    secret: str = field(repr=False)
    allowed_from: tuple[str, ...] = ()
    order_limits: tuple[OrderLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; the only moment at which its secret can be read."""

    key: str
    client: str
    name: str
    scopes: tuple[str, ...]
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """`expires_at`: until when the key works, None for ever. `allowed_from`: networks (CIDR, v4 and v6) that it may be used
    from, none for all.

    Raises InvalidRequest for what is no network.
    """

    scopes: Sequence[str] = ()
    expires_at: datetime | None = None
    allowed_from: Sequence[str] = ()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.scopes) - {*SCOPES, *GROUPS})
        if unknown:
            choices = ", ".join((*SCOPES, *GROUPS))
            message = f"No such scope: {', '.join(unknown)}. There are: {choices}."
            raise InvalidRequest({"scopes": [FieldProblem("UNKNOWN_SCOPE", message)]}, message)
        for network in self.allowed_from:
            try:
                ip_network(network)
            except ValueError:
                message = f"{network} is no network in CIDR form, such as 203.0.113.0/24 or 2001:db8::/32."
                raise InvalidRequest.on("allowed_from", "NETWORK_INVALID", message) from None


class Keys:
    """`environment`: of this service; the keys of another one are refused by their first letters."""

    def __init__(
        self, database: Database, vault: Vault, clock: Callable[[], datetime], environment: Environment = "test"
    ) -> None:
        self._database, self._vault, self._clock, self.environment = database, vault, clock, environment
        self._remembered: dict[str, tuple[datetime, Caller]] = {}
        self._noted: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def create(
        self,
        name: str,
        *,
        client: str | None = None,
        scopes: Sequence[str] = (),
        weight_per_minute: int | None = None,
        options: KeyOptions | None = None,
        by: str = "shell",
        reason: str | None = None,
    ) -> NewKey:
        """Make a key for the client (made too when it is new; named like the key unless told otherwise).
        `weight_per_minute`: what all keys of the client may spend together from now on; None leaves it.

        Raises InvalidRequest for an empty name, a scope that does not exist, or a weight below 1.
        """
        options = options or KeyOptions(scopes)
        if not name.strip():
            raise InvalidRequest.on("name", "REQUIRED", "A key needs a name.")
        if weight_per_minute is not None and weight_per_minute < 1:
            message = "A client must be allowed one request a minute at least."
            raise InvalidRequest.on("weight_per_minute", "TOO_SMALL", message)
        now = self._clock()
        with self._database.write() as session:
            owner = clients.client_named(session, client or name, weight_per_minute or DEFAULT_WEIGHT, now)
            if weight_per_minute is not None:
                owner.weight_per_minute = weight_per_minute
            made = self._add(session, owner, name, options)
            clients.write_audit(session, by, "keys.create", made.key, now, reason=reason, client=owner.name, name=name)
        return made

    def rotate(self, key: str, overlap: timedelta, *, by: str = "shell", reason: str | None = None) -> NewKey:
        """Make a key like this one, which goes on working for as long as `overlap` says.

        Raises NotFound (KEY_UNKNOWN), InvalidRequest for a publishable key.
        """
        now = self._clock()
        with self._database.write() as session:
            old, owner = self._live(session, key)
            if old.secret_sealed is None:
                message = (
                    "A publishable key has no secret that could become old: make another, and let this one expire."
                )
                raise InvalidRequest.on("key", "KEY_PUBLISHABLE", message)
            options = KeyOptions(tuple(old.scopes), None, tuple(old.allowed_from))
            made = self._add(session, owner, old.name, options)
            until = now + overlap
            old.expires_at = until if old.expires_at is None else min(old.expires_at, until)
            clients.write_audit(
                session, by, "keys.rotate", key, now, reason=reason, successor=made.key, until=iso(until)
            )
        return made

    def expire(self, key: str, at: datetime, *, by: str = "shell", reason: str | None = None) -> None:
        """Let the key work until then and no longer. Raises NotFound (KEY_UNKNOWN)."""
        with self._database.write() as session:
            row, _ = self._live(session, key)
            row.expires_at = at
            clients.write_audit(session, by, "keys.expire", key, self._clock(), reason=reason, until=iso(at))

    def revoke(self, key: str, *, by: str = "shell", reason: str | None = None) -> bool:
        """Take the key out of use, within a second in every process. False when it is unknown or no longer good.

        The client and its other keys stay as they are.
        """
        now = self._clock()
        with self._database.write() as session:
            found = clients.live_key(session, key, now)
            if found is not None:
                found[0].revoked_at = now
                clients.write_audit(session, by, "keys.revoke", key, now, reason=reason)
        return found is not None

    def listed(self) -> list[dict[str, Any]]:
        """Every key, by client and age, as operators see it; no secret. Times are ISO-8601 UTC."""
        now = self._clock()
        with self._database.read() as session:
            return [_key_view(row, owner, now) for row, owner in clients.all_keys(session)]

    def live(self, keys: Collection[str]) -> set[str]:
        """Which of these keys are known, not revoked and not expired, by the database."""
        with self._database.read() as session:
            return clients.live_keys(session, keys, self._clock())

    def caller(self, key: str) -> Caller | None:
        """The key with its secret opened, or None when it is unknown, revoked, expired, or publishable: without a secret."""
        now = self._clock()
        with self._lock:
            known = self._remembered.get(key)
        # A negative age means that the clock was set back since: such a copy would be trusted until the clock is there
        # again.
        if known is not None and timedelta(0) <= now - known[0] < REMEMBERED:
            return known[1]
        with self._database.read() as session:
            found = clients.live_key(session, key, now)
        sealed = None if found is None else found[0].secret_sealed
        if found is None or sealed is None:
            with self._lock:
                self._remembered.pop(key, None)
            return None
        row, owner = found
        caller = Caller(
            key=row.key,
            client_id=row.client_id,
            scopes=frozenset(scope for name in row.scopes for scope in GROUPS.get(name, (name,))),
            weight_per_minute=owner.weight_per_minute,
            secret=self._vault.unseal(sealed),
            allowed_from=tuple(row.allowed_from),
            order_limits=clients.order_limits_in(owner.order_limits),
        )
        with self._lock:
            if len(self._remembered) >= _REMEMBERED_KEYS:
                self._remembered.clear()
            self._remembered[key] = (now, caller)
        return caller

    def note_use(self, key: str, came_from: str | None) -> None:
        """Remember that the key was used, from that address or by a page of that origin. Written once a minute: no request
        waits for a write of its own."""
        now = self._clock()
        with self._lock:
            noted = self._noted.get(key)
            if noted is not None and timedelta(0) <= now - noted < _NOTED_EVERY:
                return
            if len(self._noted) >= _REMEMBERED_KEYS:
                self._noted.clear()
            self._noted[key] = now
        with self._database.write() as session:
            clients.note_use(session, key, came_from, now)

    def _add(self, session: Session, owner: Client, name: str, options: KeyOptions) -> NewKey:
        scopes = tuple(dict.fromkeys(options.scopes)) or DEFAULT_SCOPES
        key, secret = key_ids.new_key(self.environment), key_ids.new_secret(self.environment)
        session.add(
            ApiKey(
                key=key,
                client_id=owner.id,
                name=name,
                secret_sealed=self._vault.seal(secret),
                scopes=list(scopes),
                allowed_from=list(options.allowed_from),
                created_at=self._clock(),
                expires_at=options.expires_at,
            )
        )
        return NewKey(key=key, secret=secret, client=owner.name, name=name, scopes=scopes)

    def _live(self, session: Session, key: str) -> tuple[ApiKey, Client]:
        found = clients.live_key(session, key, self._clock())
        if found is None:
            raise NotFound(f"There is no live key {key}.", code="KEY_UNKNOWN")
        return found

    def authenticate(self, key: str, signature: str, parts: signing.SignedParts, *, waited: float = 0.0) -> Caller:
        """Who signed this request. `parts.path` is decoded, `parts.query` raw without "?"; see `signing.sign_request`.
        `waited`: seconds since the request came in; its timestamp is judged by then.

        Raises NotAuthenticated with a code that says what is wrong: CREDENTIALS_MISSING, TIMESTAMP_MALFORMED,
        TIMESTAMP_OUTSIDE_WINDOW, KEY_UNKNOWN or SIGNATURE_INVALID. An unknown key and a wrong signature are told apart
        on purpose: keys are no secret, and integrators lose hours to one answer for both.
        """
        missing = [
            name
            for name, value in (("X-API-Key", key), ("X-Timestamp", parts.timestamp), ("X-Signature", signature))
            if not value
        ]
        if missing:
            raise NotAuthenticated(
                f"Missing headers: {', '.join(missing)}.", code="CREDENTIALS_MISSING", retry="new_request"
            )
        timestamp = parts.timestamp
        now_ms = to_ms(self._clock() - timedelta(seconds=waited))
        if len(timestamp) != 13 or not timestamp.isascii() or not timestamp.isdigit():
            raise NotAuthenticated(
                "X-Timestamp must be exactly 13 digits: milliseconds since 1970 in UTC.",
                code="TIMESTAMP_MALFORMED",
                retry="new_request",
            )
        if not signing.within_window(timestamp, now_ms):
            raise NotAuthenticated(
                f"X-Timestamp is more than {signing.WINDOW_MS // 1000} seconds away from our clock; "
                "compare yours with GET /v1/time.",
                code="TIMESTAMP_OUTSIDE_WINDOW",
                retry="new_request",
                server_time=now_ms,
            )
        key_ids.must_be_of(self.environment, key)
        caller = self.caller(key)
        if caller is None:
            raise NotAuthenticated("This X-API-Key is not known, was revoked, or has expired.", code="KEY_UNKNOWN")
        if not signing.verify_request(caller.secret, signature, parts, now_ms):
            raise NotAuthenticated(
                "X-Signature does not fit the request. It is the hex HMAC-SHA256 of "
                "METHOD + path + ?query + timestamp + body, with the secret as the key.",
                code="SIGNATURE_INVALID",
                retry="new_request",
            )
        return caller

    @staticmethod
    def must_be_allowed_from(caller: Caller, address: str) -> None:
        """Raises NotAllowed (ADDRESS_NOT_ALLOWED) where the key may not be used from this IP address."""
        if not caller.allowed_from:
            return
        try:
            found = ip_address(address)
        except ValueError:
            found = None
        if found is None or not any(found in ip_network(network) for network in caller.allowed_from):
            raise NotAllowed(f"This key may not be used from {address}.", code="ADDRESS_NOT_ALLOWED")

    def spend(self, caller: Caller, signature: str) -> None:
        """Let the signature of a call that changes something work once. Raises NotAuthenticated the second time."""
        # Hashed: what lies in a database and its backups must not be a signature that once opened something.
        mark = hashlib.sha256(f"{caller.key} {signature}".encode()).hexdigest()
        expires_at = self._clock() + timedelta(milliseconds=4 * signing.WINDOW_MS)
        with self._database.write() as session:
            if not clients.spend_signature(session, mark, expires_at):
                raise NotAuthenticated(
                    "This signature was used before; sign each request anew.",
                    code="SIGNATURE_USED",
                    retry="new_request",
                )


def _key_view(row: ApiKey, owner: Client, now: datetime) -> dict[str, Any]:
    over = row.expires_at is not None and row.expires_at <= now
    return {
        "key": row.key,
        "client": owner.name,
        "name": row.name,
        "kind": "publishable" if row.secret_sealed is None else "secret",
        "state": "revoked" if row.revoked_at is not None else "expired" if over else "live",
        "scopes": list(row.scopes),
        "allowed_from": list(row.allowed_from),
        "origins": list(row.origins),
        "weight_per_minute": row.weight_per_minute,
        "created_at": iso(row.created_at),
        "expires_at": None if row.expires_at is None else iso(row.expires_at),
        "revoked_at": None if row.revoked_at is None else iso(row.revoked_at),
        "last_used_at": None if row.last_used_at is None else iso(row.last_used_at),
        "last_used_from": row.last_used_from,
    }
