"""Instruments and pairs: fetched from the upstream by workers, served from memory, never replaced by a bad answer.

Fresh under 5 minutes; stale under 60 (served, and flagged as such); older than that no order is created on it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap import addresses
from swap.domain.times import Timing
from swap.errors import Malformed, OutOfDescriptors, TryAgainLater, UpstreamError
from swap.store import catalog as catalog_rows
from swap.store import periodic
from swap.store.catalog import PairKey
from swap.store.database import Database
from swap.tables import InstrumentRow, PairRow
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import Rate

log = structlog.get_logger()

FRESH = timedelta(minutes=5)
USABLE = timedelta(minutes=60)
# Refreshed well before it stops being fresh: two tries may fail before a client sees the stale flag.
_REFRESH_EVERY = timedelta(minutes=2)
# The longest a refresh may hold its turn before another process may try.
_LEASE = timedelta(minutes=2)
_TASK = "catalog"
_RELOAD_SECONDS = 1.0
_LEARN_EVERY = timedelta(minutes=1)
_REFRESHES_TO_WEAKEN = 3

Staleness = Literal["fresh", "stale", "expired", "never_loaded"]
Key = tuple[str, str]
_Limits = tuple[Decimal | None, Decimal | None, bool | None]


def key(currency: str, network: str) -> Key:
    """Titles are compared case-insensitively and sent back verbatim (docs/upstream.md T7)."""
    return currency.casefold(), network.casefold()


@dataclass(frozen=True)
class Snapshot:
    """The catalog at one moment. `as_of`: when the upstream last confirmed it, None when it never did."""

    as_of: datetime | None
    version: int
    instruments: Mapping[Key, InstrumentRow]
    pairs: frozenset[PairKey]

    def instrument(self, currency: str, network: str) -> InstrumentRow | None:
        return self.instruments.get(key(currency, network))

    def has_pair(self, source: InstrumentRow, target: InstrumentRow) -> bool:
        return pair_key(source, target) in self.pairs

    def staleness(self, now: datetime) -> Staleness:
        if self.as_of is None:
            return "never_loaded"
        age = now - self.as_of
        return "fresh" if age < FRESH else "stale" if age < USABLE else "expired"


def pair_key(source: InstrumentRow, target: InstrumentRow) -> PairKey:
    return source.currency_key, source.network_key, target.currency_key, target.network_key


def settled(row: InstrumentRow | None, told: dict[str, Any]) -> dict[str, Any]:
    """What an instrument becomes when the upstream tells this of it. `requires_memo` None: it says nothing of memos.

    What protects money rises at once, and falls only after the upstream has said so for several refreshes in a row: one
    page that lost its flags must not let an order through without its memo. What is not said changes nothing, and of a new
    instrument our own rules say it.
    """
    memo = told["requires_memo"]
    if row is None:
        if memo is None:
            rule = addresses.memo_rule(told["currency"], told["network"])
            known = addresses.network_code(told["currency"], told["network"]) is not None
            memo = known and rule.kind == "required-by-instrument"
        return {**told, "requires_memo": memo, "weaker_refreshes": 0}
    memo = row.requires_memo if memo is None else memo
    # Another type means other rules for the same account: what was checked as an IBAN would be checked as an address.
    weaker = (row.requires_memo and not memo) or row.type != told["type"]
    if not weaker:
        return {**told, "requires_memo": memo, "weaker_refreshes": 0}
    times = row.weaker_refreshes + 1
    name = {"currency": row.currency, "network": row.network, "refreshes": times}
    if times < _REFRESHES_TO_WEAKEN:
        log.warning("catalog.weaker_protection", **name)
        return {**told, "requires_memo": row.requires_memo or memo, "type": row.type, "weaker_refreshes": times}
    log.error("catalog.protection_dropped", **name, requires_memo=memo, type=told["type"])
    return {**told, "requires_memo": memo, "weaker_refreshes": 0}


def without_rules(titles: Iterable[tuple[str, str]]) -> list[str]:
    """The instruments, by currency and network title, whose addresses nobody here can check: "GRAMX on Gramnet". Where the
    title seems to be a new name of a network that is known, its code is proposed."""
    found = []
    for currency, network in sorted(titles):
        if addresses.network_code(currency, network) is None:
            proposed = addresses.proposal(currency, network)
            found.append(f"{currency} on {network}" + (f" (the rules of {proposed}?)" if proposed else ""))
    return found


class Catalog:
    def __init__(
        self,
        database: Database,
        upstream: UpstreamClient,
        timing: Timing,
    ) -> None:
        self._database, self._upstream, self._timing = database, upstream, timing
        self._snapshot: Snapshot | None = None
        self._looked_at = float("-inf")
        self._lock = threading.Lock()
        # Bounded by the number of pairs.
        self._learned: dict[PairKey, tuple[_Limits | None, datetime]] = {}

    def snapshot(self) -> Snapshot:
        """The catalog as this process has it; whether it changed is looked up at most once a second.

        While the database is away the copy in memory goes on being served, also to those who come while it is asked.
        """
        known = self._snapshot
        if not self._lock.acquire(blocking=known is None):
            assert known is not None
            return known
        try:
            if self._snapshot is None or self._timing.monotonic() - self._looked_at >= _RELOAD_SECONDS:
                self._snapshot = self._load(self._snapshot)
                self._looked_at = self._timing.monotonic()
            return self._snapshot
        except SQLAlchemyError:
            self._looked_at = self._timing.monotonic()
            if self._snapshot is None:
                raise
            return self._snapshot
        finally:
            self._lock.release()

    def pairs(self, filters: dict[str, str], after: PairKey | None, limit: int) -> Sequence[PairRow]:
        """Active pairs with their limits, as `store.catalog.pairs_page` takes filters and position."""
        with self._database.read() as session:
            return catalog_rows.pairs_page(session, filters, after, limit)

    def refresh_fails(self) -> bool:
        """Whether the last refresh failed: then the upstream was away, or its list could not be read."""
        with self._database.read() as session:
            return catalog_rows.state(session).failures > 0

    def usable(self) -> Snapshot:
        """The catalog, if orders may be made on it. Raises TryAgainLater (CATALOG_NOT_READY) otherwise."""
        snapshot = self.snapshot()
        staleness = snapshot.staleness(self._timing.now())
        if staleness in ("expired", "never_loaded"):
            raise TryAgainLater(
                "The list of instruments is not loaded, or too old to make orders on. Try again shortly.",
                code="CATALOG_NOT_READY",
                retry_after=10,
            )
        return snapshot

    def _load(self, known: Snapshot | None) -> Snapshot:
        with self._database.read() as session:
            state = catalog_rows.state(session)
            if known is not None and known.version == state.version:
                return Snapshot(state.fetched_at, state.version, known.instruments, known.pairs)
            instruments = {(row.currency_key, row.network_key): row for row in catalog_rows.instruments(session)}
            return Snapshot(state.fetched_at, state.version, instruments, frozenset(catalog_rows.pair_keys(session)))

    # --- refreshing --------------------------------------------------------------------------------------------------

    def refresh_due(self) -> bool:
        """Refresh when it is time; one process does it for all. Returns whether a good catalog was stored."""
        now = self._timing.now()
        return periodic.take(self._database, _TASK, now, now + _LEASE) and self.refresh()

    def refresh(self) -> bool:
        """Fetch and store. A failure, an empty list or a malformed one leaves what is there as it is."""
        try:
            new, known = self._fetch()
        except UpstreamError as error:
            with self._database.write() as session:
                retry = self._timing.now() + self._timing.shorten(timedelta(seconds=self._timing.rng.uniform(10, 20)))
                if not isinstance(error, OutOfDescriptors):  # then the upstream was not asked
                    catalog_rows.refresh_failed(session, error.code)
                periodic.reschedule(session, _TASK, retry)
            log.warning("catalog.refresh_failed", code=error.code, message=error.message)
            return False
        now = self._timing.now()
        with self._database.write() as session:
            changed = catalog_rows.replace(session, new.values(), known, settle=settled, now=now)
            periodic.reschedule(session, _TASK, now + self._timing.shorten(_REFRESH_EVERY))
        if changed:
            log.info("catalog.changed", instruments=len(new), pairs=len(known))
            titles = {(told["currency"], told["network"]) for told in new.values() if told["type"] == "crypto"}
            unruled = without_rules(titles)
            if unruled:
                log.warning("catalog.networks_without_rules", networks=unruled)
        return True

    def _fetch(self) -> tuple[dict[Key, dict[str, Any]], set[PairKey]]:
        """What the upstream lists now. Raises UpstreamError, also for lists that would leave nothing to trade."""
        new = {}
        for instrument in self._upstream.instruments():
            currency_key, network_key = key(instrument.currency, instrument.network)
            new[currency_key, network_key] = {
                "currency_key": currency_key,
                "network_key": network_key,
                "currency": instrument.currency,
                "network": instrument.network,
                "type": instrument.type,
                "name": instrument.name,
                "slug": instrument.slug,
                "precision": instrument.precision,
                "requires_memo": instrument.requires_memo,
                "contract_address": instrument.contract_address,
                "logo_url": instrument.logo_url,
            }
        keys = {
            (*key(pair.from_currency, pair.from_network), *key(pair.to_currency, pair.to_network))
            for pair in self._upstream.pairs(deadline=_LEASE.total_seconds() - 30)
            if pair.active
        }
        known = {pair for pair in keys if pair[:2] in new and pair[2:] in new}
        if not known:
            raise Malformed("no active pair has both its instruments")
        if len(known) < len(keys):
            log.warning("catalog.pairs_without_instrument", pairs=len(keys - known))
        return new, known

    def learn(self, source: InstrumentRow, target: InstrumentRow, rate: Rate) -> None:
        """Keep the limits that a rate named, for `GET /v1/pairs`. Losing them costs nothing, so they are written down
        only when they differ, or once a minute: every quote passes here, and SQLite has one writer."""
        pair, limits = pair_key(source, target), (rate.min_amount, rate.max_amount, rate.fixed_rate_enabled)
        now = self._timing.now()
        last, at = self._learned.get(pair, (None, now))
        if limits == last and now - at < _LEARN_EVERY:
            return
        try:
            with self._database.write() as session:
                catalog_rows.learn_limits(
                    session, pair, min_amount=limits[0], max_amount=limits[1], fixed_rate=limits[2], now=now
                )
        except SQLAlchemyError:
            log.warning("catalog.limits_not_kept")
        else:
            self._learned[pair] = limits, now
