"""Who may call: clients, their API keys, and the proof in a request's signature."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from swap.domain import signing
from swap.domain.times import to_ms
from swap.errors import FieldProblem, InvalidRequest, NotAuthenticated
from swap.infra.vault import Vault
from swap.store import clients
from swap.store.database import Database
from swap.tables import ApiKey

SCOPES = ("catalog", "quotes", "orders", "webhooks", "support", "admin")
DEFAULT_SCOPES = ("catalog", "quotes", "orders", "webhooks")

# How long a process trusts its copy of a key. A revoked key may work for this long.
_REMEMBERED = timedelta(seconds=5)
_REMEMBERED_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """A key whose owner proved that it knows the secret."""

    key: str
    client_id: str
    scopes: frozenset[str]
    weight_per_minute: int
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; the only moment at which its secret can be read."""

    key: str
    client: str
    name: str
    scopes: tuple[str, ...]
    secret: str = field(repr=False)


class Keys:
    def __init__(self, database: Database, vault: Vault, clock: Callable[[], datetime]) -> None:
        self._database, self._vault, self._clock = database, vault, clock
        self._remembered: dict[str, tuple[datetime, Caller]] = {}
        self._lock = threading.Lock()

    def create(
        self, name: str, *, client: str | None = None, scopes: Sequence[str] = (), weight_per_minute: int = 6000
    ) -> NewKey:
        """Make a key for the client (made too when it is new; named like the key unless told otherwise).

        Raises InvalidRequest for an empty name, a scope that does not exist, or a weight below 1.
        """
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown:
            choices = ", ".join(SCOPES)
            message = f"No such scope: {', '.join(unknown)}. There are: {choices}."
            raise InvalidRequest({"scopes": [FieldProblem("UNKNOWN_SCOPE", message)]}, message)
        if not name.strip():
            raise InvalidRequest.on("name", "REQUIRED", "A key needs a name.")
        if weight_per_minute < 1:
            message = "A key must be allowed one request a minute at least."
            raise InvalidRequest.on("weight_per_minute", "TOO_SMALL", message)
        chosen = tuple(dict.fromkeys(scopes)) or DEFAULT_SCOPES
        key, secret = f"swk_{secrets.token_hex(12)}", f"sws_{secrets.token_urlsafe(32)}"
        now = self._clock()
        with self._database.write() as session:
            owner = clients.client_named(session, client or name, now)
            session.add(
                ApiKey(
                    key=key,
                    client_id=owner.id,
                    name=name,
                    secret_sealed=self._vault.seal(secret),
                    scopes=list(chosen),
                    weight_per_minute=weight_per_minute,
                    created_at=now,
                )
            )
            owner_name = owner.name
        return NewKey(key=key, secret=secret, client=owner_name, name=name, scopes=chosen)

    def revoke(self, key: str) -> bool:
        """Take the key out of use, within 5 seconds in every process. False when it is unknown or already revoked.

        The client and its other keys stay as they are.
        """
        with self._database.write() as session:
            row = clients.live_key(session, key)
            if row is not None:
                row.revoked_at = self._clock()
        return row is not None

    def live(self, keys: Collection[str]) -> set[str]:
        """Which of these keys are known and not revoked, by the database."""
        with self._database.read() as session:
            return clients.live_keys(session, keys)

    def caller(self, key: str) -> Caller | None:
        """The key with its secret opened, or None when it is unknown or revoked."""
        now = self._clock()
        with self._lock:
            known = self._remembered.get(key)
        # A negative age means that the clock was set back since: such a copy would be trusted until the clock is there
        # again.
        if known is not None and timedelta(0) <= now - known[0] < _REMEMBERED:
            return known[1]
        with self._database.read() as session:
            row = clients.live_key(session, key)
        if row is None:
            with self._lock:
                self._remembered.pop(key, None)
            return None
        caller = Caller(
            key=row.key,
            client_id=row.client_id,
            scopes=frozenset(row.scopes),
            weight_per_minute=row.weight_per_minute,
            secret=self._vault.unseal(row.secret_sealed),
        )
        with self._lock:
            if len(self._remembered) >= _REMEMBERED_KEYS:
                self._remembered.clear()
            self._remembered[key] = (now, caller)
        return caller

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
        caller = self.caller(key)
        if caller is None:
            raise NotAuthenticated("This X-API-Key is not known, or was revoked.", code="KEY_UNKNOWN")
        if not signing.verify_request(caller.secret, signature, parts, now_ms):
            raise NotAuthenticated(
                "X-Signature does not fit the request. It is the hex HMAC-SHA256 of "
                "METHOD + path + ?query + timestamp + body, with the secret as the key.",
                code="SIGNATURE_INVALID",
                retry="new_request",
            )
        return caller

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
