"""What an operator checks before and after an installation: each part, and above all the upstream key pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from swap.domain.times import iso
from swap.errors import UpstreamError
from swap.infra.queue import JobQueue
from swap.market.catalog import Catalog, without_rules
from swap.ops.heartbeats import Heartbeats, PartState
from swap.store import clients, upstream_ids, watching
from swap.store.database import Database
from swap.upstream.client import UpstreamClient
from swap.watching import list_signal

OLD, UNUSED = timedelta(days=365), timedelta(days=90)
"""From when on a key is reported: its secret made so long ago, or not used for so long."""
_FEW = 5


class Finding(NamedTuple):
    """`state`: bad needs an operator now, warn needs one to know. `said`: in words, for the person at the terminal."""

    part: str
    state: Literal["ok", "warn", "bad"]
    said: str


class Doctor:
    """`forged`: a client with the same public key and a secret that is wrong in one bit."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        catalog: Catalog,
        heartbeats: Heartbeats,
        upstream: UpstreamClient,
        forged: UpstreamClient,
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._queue, self._catalog, self._heartbeats = database, queue, catalog, heartbeats
        self._upstream, self._forged, self._clock = upstream, forged, clock

    def examine(self) -> Iterator[Finding]:
        """The findings, one after the other; never raises for a part that is away."""
        yield (database := self._examine_database())
        yield Finding("redis", *(("ok", "answers") if self._queue.ping() else _REDIS_AWAY))
        if database.state == "ok":
            snapshot = self._catalog.snapshot()
            staleness = snapshot.staleness(self._clock())
            yield Finding("catalog", "ok" if staleness == "fresh" else "warn", staleness.replace("_", " "))
            unruled = without_rules(
                (row.currency, row.network) for row in snapshot.instruments.values() if row.type == "crypto"
            )
            said = f"no rules of ours for {', '.join(unruled)}" if unruled else "every network has rules of ours"
            yield Finding("networks", "warn" if unruled else "ok", said)
            yield self._examine_keys()
            yield from map(_of_part, self._heartbeats.parts())
        yield from self._examine_upstream(with_rows=database.state == "ok")

    def _examine_database(self) -> Finding:
        try:
            if self._database.migrated():
                return Finding("database", "ok", "migrated")
            return Finding("database", "bad", "not migrated; run `swap migrate`")
        except SQLAlchemyError as error:
            return Finding("database", "bad", f"away ({type(error).__name__})")

    def _examine_keys(self) -> Finding:
        now = self._clock()
        with self._database.read() as session:
            keys = [key for key, _ in clients.all_keys(session) if key.revoked_at is None]
        live = [key for key in keys if key.expires_at is None or key.expires_at > now]
        old = [key.key for key in live if key.secret_sealed is not None and now - key.created_at > OLD]
        unused = [key.key for key in live if now - (key.last_used_at or key.created_at) > UNUSED]
        if not old and not unused:
            return Finding("keys", "ok", f"{len(live)} live")
        told = []
        if old:
            told.append(f"older than {OLD.days} days, rotate: {_few(old)}")
        if unused:
            told.append(f"not used for {UNUSED.days} days, revoke: {_few(unused)}")
        return Finding("keys", "warn", "; ".join(told))

    def _examine_upstream(self, *, with_rows: bool) -> Iterator[Finding]:
        try:
            listed = self._upstream.orders()
        except UpstreamError as error:
            yield Finding("upstream", "bad", f"the list of orders cannot be read: {error.code}")
            return
        yield Finding("upstream", "ok", f"lists {len(listed)} orders of this key")
        yield self._prove_the_key()
        offset = self._upstream.offset_seconds
        if self._upstream.clock_alarm:
            yield Finding("clock", "bad", "more than a minute from the upstream's; set the clock of this machine")
        else:
            yield Finding("clock", "ok", f"{abs(offset):.1f} s from the upstream's" if offset else "as the upstream's")
        if not with_rows:
            return
        with self._database.read() as session:
            unknown = upstream_ids.roles(session, [(row.order_id, row.refs) for row in listed]).count(None)
            state = watching.state(session)
        yield Finding("key", *(_alone() if not unknown else _shared(unknown)))
        signal = f"{state.list_state}, announced {state.announced} of {state.counted} changes"
        if state.list_state == "off":
            signal = f"off: {state.list_reason}; polls go on, at {list_signal.TRUSTED_FROM:.0%} it is trusted again"
        yield Finding("doorbell", "warn" if state.list_state == "off" else "ok", signal)

    def _prove_the_key(self) -> Finding:
        """A good signature was accepted. That proves something only if a wrong one is refused (docs/upstream.md
        section 2)."""
        try:
            self._forged.orders()
        except UpstreamError as error:
            if error.status in (401, 403):
                return Finding("signature", "ok", "a good signature is accepted, a wrong one refused")
            return Finding("signature", "warn", f"not proved: a wrong signature was answered with {error.code}")
        return Finding("signature", "bad", "the upstream accepts a wrong signature: it does not check this key pair")


_REDIS_AWAY = ("warn", "away: schedulers do the work themselves, slower")


def _few(keys: list[str]) -> str:
    more = f" and {len(keys) - _FEW} more" if len(keys) > _FEW else ""
    return ", ".join(keys[:_FEW]) + more


def _of_part(part: PartState) -> Finding:
    if part.last_at is None:
        return Finding(part.name, "warn", "none has run within a day")
    since = f"since {iso(part.last_at)}"
    if part.missing:
        return Finding(part.name, "bad", f"silent {since}")
    if part.silent:
        return Finding(
            part.name, "warn", f"{part.alive} live, {part.silent} went silent within a day without being stopped"
        )
    return Finding(part.name, "ok", f"{part.alive} live" if part.alive else f"stopped {since}")


def _alone() -> tuple[Literal["ok"], str]:
    return "ok", "every order it made is known here"


def _shared(unknown: int) -> tuple[Literal["warn"], str]:
    return "warn", (
        f"{unknown} orders were made with this key and are not known here. It must belong to this service alone, or an "
        "order of another program can be taken for one of ours."
    )
