"""Publishable keys: a key of a client that may stand in a web page.

It has no secret. Browsers tell truly from which page a request comes, other programs write into Origin what they like: so
the origins keep other sites from using the key, and the limits bound what anybody can do with it. What it opens is in
`swap/web/auth.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from swap.access import key_ids
from swap.access.key_ids import Environment
from swap.access.keys import DEFAULT_WEIGHT, REMEMBERED
from swap.errors import InvalidRequest, NotAllowed, NotAuthenticated, NotFound
from swap.settings.texts import is_loopback, origin
from swap.store import clients
from swap.store.database import Database
from swap.tables import ApiKey

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PublishableKey:
    """A key that works. `origins`: of the pages that may use it; `weight_per_minute`: what they may spend together."""

    key: str
    client_id: str
    origins: frozenset[str]
    weight_per_minute: int


@dataclass(frozen=True, slots=True)
class _Known:
    """Every key that worked when the database was read."""

    read_at: datetime = _NEVER
    keys: Mapping[str, PublishableKey] = field(default_factory=dict)
    origins: frozenset[str] = frozenset()


class PublishableKeys:
    """`environment`: of this service. Thread-safe.

    A process keeps all of them for a second: whether an origin is any key's is asked before the key is told, by everybody.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], environment: Environment) -> None:
        self._database, self._clock, self._environment = database, clock, environment
        self._known = _Known()

    # --- for pages ---------------------------------------------------------------------------------------------------

    def open(self, key: str, page: str | None) -> PublishableKey:
        """The key, for a page of that origin; `page` is the header Origin as it came.

        Raises NotAuthenticated (KEY_UNKNOWN, KEY_OF_OTHER_ENVIRONMENT), NotAllowed (ORIGIN_NOT_ALLOWED).
        """
        key_ids.must_be_of(self._environment, key)
        found = self._fresh().keys.get(key)
        if found is None:
            raise NotAuthenticated(
                "This X-Publishable-Key is not known, was revoked, or has expired.", code="KEY_UNKNOWN"
            )
        if page is None:
            raise NotAllowed(
                "A publishable key works in web pages alone: there is no Origin.", code="ORIGIN_NOT_ALLOWED"
            )
        if page not in found.origins:
            raise NotAllowed(f"This key may not be used from {page[:200]}.", code="ORIGIN_NOT_ALLOWED")
        return found

    def allows(self, page: str) -> bool:
        """Whether there is a key for pages of that origin."""
        return page in self._fresh().origins

    def knows(self, page: str) -> bool:
        """As `allows`, by what this process has read last: it waits for nothing, and works while the database is away."""
        return page in self._known.origins

    def _fresh(self) -> _Known:
        now = self._clock()
        # Negative: the clock was set back since, and what was revoked meanwhile would be trusted until it is there again.
        if not timedelta(0) <= now - self._known.read_at < REMEMBERED:
            with self._database.read() as session:
                keys = {row.key: _opened(row) for row in clients.publishable_keys(session, now)}
            self._known = _Known(now, keys, frozenset().union(*(one.origins for one in keys.values())))
        return self._known

    # --- for operators -----------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        client: str,
        origins: Sequence[str],
        *,
        weight_per_minute: int = DEFAULT_WEIGHT,
        expires_at: datetime | None = None,
        by: str = "shell",
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Make a key of a client that there is, by its name or id, and show it.

        Raises NotFound (CLIENT_UNKNOWN), InvalidRequest for an empty name, a weight below 1, and origins that are none, not
        written as browsers send them, or without https; in the test environment this machine needs no https.
        """
        if not name.strip():
            raise InvalidRequest.on("name", "REQUIRED", "A key needs a name.")
        origins, now = self._checked(origins), self._clock()
        _check_weight(weight_per_minute)
        with self._database.write() as session:
            owner = clients.find_client(session, client)
            if owner is None:
                raise NotFound(f"There is no client {client}.", code="CLIENT_UNKNOWN")
            row = ApiKey(
                key=key_ids.new_publishable_key(self._environment),
                client_id=owner.id,
                name=name,
                secret_sealed=None,
                scopes=[],
                allowed_from=[],
                origins=origins,
                weight_per_minute=weight_per_minute,
                created_at=now,
                expires_at=expires_at,
            )
            session.add(row)
            told: dict[str, Any] = {
                "client": owner.name,
                "name": name,
                "origins": origins,
                "weight_per_minute": weight_per_minute,
            }
            clients.write_audit(session, by, "keys.create", row.key, now, reason=reason, **told)
            return {"key": row.key, **told}

    def move(self, key: str, origins: Sequence[str], *, by: str, reason: str | None = None) -> None:
        """Let the key be used from these origins and no others, in every process within a second.

        Raises NotFound (KEY_UNKNOWN), InvalidRequest as `create`.
        """
        origins = self._checked(origins)
        with self._database.write() as session:
            row = self._live(session, key)
            before, row.origins = row.origins, origins
            clients.write_audit(
                session, by, "keys.origins", key, self._clock(), reason=reason, origins=origins, before=before
            )

    def limit(self, key: str, weight_per_minute: int, *, by: str, reason: str | None = None) -> None:
        """Set what all pages with the key may spend together per minute, from a second from now on.

        Raises NotFound (KEY_UNKNOWN), InvalidRequest for less than 1.
        """
        _check_weight(weight_per_minute)
        with self._database.write() as session:
            row = self._live(session, key)
            before, row.weight_per_minute = row.weight_per_minute, weight_per_minute
            clients.write_audit(
                session,
                by,
                "keys.limit",
                key,
                self._clock(),
                reason=reason,
                weight_per_minute=weight_per_minute,
                before=before,
            )

    def _live(self, session: Session, key: str) -> ApiKey:
        found = clients.live_key(session, key, self._clock())
        if found is None or found[0].secret_sealed is not None:
            raise NotFound(f"There is no live publishable key {key}.", code="KEY_UNKNOWN")
        return found[0]

    def _checked(self, origins: Sequence[str]) -> list[str]:
        if not origins:
            raise InvalidRequest.on("origins", "REQUIRED", "A publishable key needs an origin at least.")
        for text in origins:
            try:
                origin(text)
            except ValueError as error:
                raise InvalidRequest.on("origins", "ORIGIN_INVALID", f"{text!r} {error}.") from None
            if not text.startswith("https://") and not (self._environment == "test" and is_loopback(text)):
                message = f"{text!r} must begin with https://; in the test environment http://localhost may do without."
                raise InvalidRequest.on("origins", "ORIGIN_INVALID", message)
        return list(dict.fromkeys(origins))


def _check_weight(weight_per_minute: int) -> None:
    if weight_per_minute < 1:
        message = "A key must be allowed one request a minute at least."
        raise InvalidRequest.on("weight_per_minute", "TOO_SMALL", message)


def _opened(row: ApiKey) -> PublishableKey:
    assert row.weight_per_minute is not None
    return PublishableKey(row.key, row.client_id, frozenset(row.origins), row.weight_per_minute)
