"""The catalog: fetched whole, kept while the upstream is away, never replaced by a bad answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from swap.domain.times import Timing
from swap.errors import TryAgainLater
from swap.market.catalog import Catalog, settled
from swap.sandbox.server import running
from swap.sandbox.world import World
from swap.store import catalog as catalog_rows
from swap.store import periodic
from swap.store.database import Database
from swap.tables import CatalogState, InstrumentRow, PairRow, PeriodicTask
from swap.upstream.replies import Rate
from swap.wiring import Service, doctor
from tests.conftest import SANDBOX_KEYS, Clock
from tests.faults import HTML_403, Fault, Faults, answering, cutting, dropping, spoiling


@pytest.fixture
def seconds() -> list[float]:
    """What the catalog takes for the time that passed; moved by hand."""
    return [0.0]


@pytest.fixture
def catalog(service: Service, clock: Clock, seconds: list[float]) -> Catalog:
    """Another process' catalog over the same rows, with nothing in memory yet."""
    return Catalog(service.database, service.upstream, Timing(now=clock, monotonic=lambda: seconds[0]))


def state(database: Database) -> CatalogState:
    with database.read() as session:
        return catalog_rows.state(session)


def refresh_due_at(database: Database) -> datetime:
    with database.read() as session:
        return session.scalars(select(PeriodicTask.next_at).where(PeriodicTask.name == "catalog")).one()


def contents(database: Database) -> tuple[set[Any], set[Any]]:
    with database.read() as session:
        instruments = {(i.currency, i.network) for i in catalog_rows.instruments(session)}
        return instruments, set(catalog_rows.pair_keys(session))


def test_a_catalog_is_fresh_then_stale_then_too_old(catalog: Catalog, clock: Clock) -> None:
    assert catalog.snapshot().staleness(clock()) == "fresh"
    clock.advance(timedelta(minutes=5))
    assert catalog.usable().staleness(clock()) == "stale"
    clock.advance(timedelta(minutes=54))
    assert catalog.usable().staleness(clock()) == "stale"
    clock.advance(timedelta(minutes=1))
    assert catalog.snapshot().staleness(clock()) == "expired"
    with pytest.raises(TryAgainLater) as raised:
        catalog.usable()
    assert raised.value.code == "CATALOG_NOT_READY"


def test_before_the_first_fetch_there_is_none(
    database: Database, settings: Any, clock: Clock, other_service: Any
) -> None:
    empty = other_service()
    assert empty.catalog.snapshot().staleness(clock()) == "never_loaded"
    with pytest.raises(TryAgainLater):
        empty.catalog.usable()
    assert empty.catalog.refresh_due()
    assert state(database).version == 1


def _no_active(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**pair, "isActive": False} for pair in pairs]


def _of_nobody(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    side = {"currencyTitle": "NOBODY", "networkTitle": "NOWHERE"}
    return [{"instrumentFrom": side, "instrumentTo": side} for _ in pairs]


BAD: list[tuple[str, str, Fault]] = [
    ("instruments empty", "instruments", answering(200, [])),
    ("instruments no list", "instruments", answering(200, {"hello": 1})),
    ("instruments without titles", "instruments", answering(200, [{"currencyTitle": "BTC"}])),
    ("instruments html", "instruments", answering(403, HTML_403)),
    ("instruments cut", "instruments", cutting()),
    ("instruments dropped", "instruments", dropping),
    ("instruments 500", "instruments", answering(500, b"")),
    ("instruments 204", "instruments", answering(204)),
    ("pairs empty", "pairs", answering(200, [])),
    ("pairs no list", "pairs", answering(200, {"data": []})),
    ("pairs all inactive", "pairs", spoiling(_no_active)),
    ("pairs of unknown instruments", "pairs", spoiling(_of_nobody)),
    ("pairs cut", "pairs", cutting()),
]


def test_a_bad_catalog_never_replaces_a_good_one(
    service: Service, faults: Faults, clock: Clock, subtests: pytest.Subtests
) -> None:
    before, confirmed = contents(service.database), state(service.database).fetched_at
    for number, (name, endpoint, fault) in enumerate(BAD, 1):
        with subtests.test(name):
            clock.advance(1)
            faults[endpoint] = fault
            assert service.catalog.refresh() is False
            del faults[endpoint]
            assert contents(service.database) == before
            found = state(service.database)
            assert (found.version, found.fetched_at, found.failures) == (1, confirmed, number)
            assert found.last_error is not None
            assert timedelta(seconds=5) < refresh_due_at(service.database) - clock() <= timedelta(seconds=20)
    service.upstream_access._breaker.after("OK")
    assert service.catalog.refresh() is True
    found = state(service.database)
    assert (found.failures, found.last_error, found.version) == (0, None, 1)


def test_a_refresh_that_finds_nothing_new_only_confirms(service: Service, clock: Clock) -> None:
    before = state(service.database)
    clock.advance(60)
    assert service.catalog.refresh()
    after = state(service.database)
    assert after.version == before.version
    assert after.fetched_at is not None and before.fetched_at is not None
    assert after.fetched_at - before.fetched_at >= timedelta(seconds=60)


def test_what_left_the_catalog_is_inactive_and_comes_back_as_it_was(
    service: Service, catalog: Catalog, faults: Faults, seconds: list[float]
) -> None:
    before = contents(service.database)
    source, target = catalog.snapshot().instrument("BTC", "BTC"), catalog.snapshot().instrument("XRP", "XRP")
    assert source is not None and target is not None
    catalog.learn(source, target, _rate(minimum="0.5"))
    faults["instruments"] = spoiling(lambda all: [row for row in all if row["currencyTitle"] != "XRP"])
    assert service.catalog.refresh()
    seconds[0] += 1.1
    gone = catalog.snapshot()
    assert gone.instrument("XRP", "XRP") is None
    assert not gone.has_pair(source, target)
    with service.database.read() as session:
        kept = session.get_one(InstrumentRow, ("xrp", "xrp"))
    assert (kept.active, kept.currency) == (False, "XRP")
    del faults["instruments"]
    assert service.catalog.refresh()
    seconds[0] += 1.1
    assert contents(service.database) == before
    assert catalog.snapshot().has_pair(source, target)
    with service.database.read() as session:
        pair = session.get_one(PairRow, ("btc", "btc", "xrp", "xrp"))
    assert pair.min_amount == Decimal("0.5")


def test_an_inactive_pair_is_none(catalog: Catalog, world: World) -> None:
    inactive = next(pair for pair in world.catalog.pairs if not pair.is_active)
    snapshot = catalog.snapshot()
    source = snapshot.instrument(inactive.source.currency, inactive.source.network.title)
    target = snapshot.instrument(inactive.target.currency, inactive.target.network.title)
    assert source is not None and target is not None
    assert not snapshot.has_pair(source, target)


def test_instruments_are_found_in_any_case_and_keep_the_catalogs_spelling(catalog: Catalog) -> None:
    found = catalog.snapshot().instrument("dot", "ASSET HUB(POLKADOT)")
    assert found is not None
    assert (found.currency, found.network) == ("DOT", "Asset Hub(Polkadot)")


def test_memory_is_looked_up_again_after_a_second_and_survives_the_database(
    service: Service, catalog: Catalog, faults: Faults, seconds: list[float], monkeypatch: Any
) -> None:
    assert catalog.snapshot().instrument("XRP", "XRP") is not None
    faults["instruments"] = spoiling(lambda all: [row for row in all if row["currencyTitle"] != "XRP"])
    assert service.catalog.refresh()
    assert catalog.snapshot().instrument("XRP", "XRP") is not None
    seconds[0] += 1.1

    def away(*_: Any) -> None:
        raise OperationalError("read", {}, Exception("away"))

    with monkeypatch.context() as patched:
        patched.setattr(catalog_rows, "state", away)
        assert catalog.snapshot().instrument("XRP", "XRP") is not None
    seconds[0] += 1.1
    assert catalog.snapshot().instrument("XRP", "XRP") is None


def test_one_of_many_refreshers_gets_the_turn(
    service: Service, other_service: Callable[..., Service], clock: Clock
) -> None:
    others = [service, other_service(), other_service()]
    assert [one.catalog.refresh_due() for one in others] == [False, False, False]
    clock.advance(timedelta(minutes=2, seconds=1))
    assert [one.catalog.refresh_due() for one in others].count(True) == 1
    clock.advance(timedelta(minutes=2, seconds=1))
    lease = clock() + timedelta(minutes=2)
    assert periodic.take(service.database, "catalog", clock(), lease) is True
    assert periodic.take(service.database, "catalog", clock(), lease) is False
    # Whoever holds the turn died with it: after the lease another one takes it.
    assert service.catalog.refresh_due() is False
    clock.advance(timedelta(minutes=2, seconds=1))
    assert service.catalog.refresh_due() is True


def _rate(*, minimum: str) -> Rate:
    empty: dict[str, Any] = dict.fromkeys(Rate.__dataclass_fields__)
    return Rate(**{**empty, "min_amount": Decimal(minimum), "fixed_rate_enabled": True})


def test_limits_are_learned_once_a_minute_or_when_they_change(catalog: Catalog, service: Service, clock: Clock) -> None:
    source, target = catalog.snapshot().instrument("BTC", "BTC"), catalog.snapshot().instrument("XRP", "XRP")
    assert source is not None and target is not None

    def learned() -> tuple[Decimal | None, Any]:
        with service.database.read() as session:
            pair = session.get_one(PairRow, ("btc", "btc", "xrp", "xrp"))
        return pair.min_amount, pair.limits_as_of

    catalog.learn(source, target, _rate(minimum="0.00000000000000000012"))
    first = learned()
    assert first[0] == Decimal("0.00000000000000000012")
    clock.advance(30)
    catalog.learn(source, target, _rate(minimum="0.00000000000000000012"))
    assert learned() == first
    catalog.learn(source, target, _rate(minimum="0.2"))
    assert learned()[0] == Decimal("0.2")
    clock.advance(61)
    before = learned()[1]
    catalog.learn(source, target, _rate(minimum="0.2"))
    assert learned()[1] > before


def test_a_large_catalog_is_loaded_whole(database: Database, clock: Clock, other_service: Any, settings: Any) -> None:
    world = World(*SANDBOX_KEYS, clock=clock.time, large=True)
    with running(world) as url:
        large = other_service(upstream_url=url)
        assert large.catalog.refresh()
    snapshot = large.catalog.snapshot()
    assert len(snapshot.instruments) == 200
    active = sum(pair.is_active for pair in world.catalog.pairs)
    assert len(snapshot.pairs) == active > 19_000
    with database.read() as session:
        assert len(session.scalars(select(PairRow.active)).all()) == active


# --- flags that protect money ----------------------------------------------------------------------------------------


def _flags(**told: Any) -> Fault:
    """The upstream's list with these fields in the row of XRP; ... leaves one out."""

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["currencyTitle"] == "XRP":
                row.update(told)
                for name in [name for name, value in told.items() if value is ...]:
                    del row[name]

    return spoiling(change)


def _row(service: Service, currency: str = "xrp") -> InstrumentRow:
    with service.database.read() as session:
        return session.get_one(InstrumentRow, (currency, currency))


@pytest.mark.parametrize("weaker", [{"requiresMemo": False}, {"instrumentType": "fiat"}])
def test_protection_falls_only_when_three_refreshes_in_a_row_say_so(
    service: Service, faults: Faults, weaker: dict[str, Any]
) -> None:
    def protected() -> bool:
        return _row(service).requires_memo and _row(service).type == "crypto"

    faults["instruments"] = _flags(**weaker)
    with capture_logs() as logs:
        assert [service.catalog.refresh() and protected() for _ in range(2)] == [True, True]
        del faults["instruments"]
        assert service.catalog.refresh() and protected()
        faults["instruments"] = _flags(**weaker)
        assert [service.catalog.refresh() and protected() for _ in range(3)] == [True, True, False]
    levels = [entry["log_level"] for entry in logs if entry["event"].startswith("catalog.") and "refreshes" in entry]
    assert levels == ["warning"] * 4 + ["error"]
    del faults["instruments"]
    assert service.catalog.refresh() and _row(service).requires_memo, "it rises at once"


def test_a_flag_that_is_missing_says_nothing(service: Service, faults: Faults) -> None:
    faults["instruments"] = _flags(requiresMemo=...)
    with capture_logs() as logs:
        assert all(service.catalog.refresh() and _row(service).requires_memo for _ in range(5))
    assert [entry for entry in logs if entry["event"] == "catalog.weaker_protection"] == []


def test_of_a_new_instrument_without_the_flag_our_own_rules_say_whether_a_memo_is_needed() -> None:
    def told(currency: str, network: str) -> bool:
        values = {"currency": currency, "network": network, "type": "crypto", "requires_memo": None}
        return bool(settled(None, values)["requires_memo"])

    found = {name: told(*name) for name in (("XRP", "Ripple"), ("TON", "TON"), ("BTC", "BTC"), ("ODD", "Oddnet"))}
    assert list(found.values()) == [True, True, False, False], found


def test_a_network_without_rules_is_told_with_what_it_may_be(service: Service, faults: Faults) -> None:
    def renamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ton = next(row for row in rows if (row["currencyTitle"], row["networkTitle"]) == ("TON", "TON"))
        return [*rows, {**ton, "networkTitle": "Gramchain"}]

    def said() -> tuple[str, str]:
        return next((f.state, f.said) for f in doctor(service).examine() if f.part == "networks")

    assert said() == ("ok", "every network has rules of ours")
    faults["instruments"] = spoiling(renamed)
    with capture_logs() as logs:
        assert service.catalog.refresh() and service.catalog.refresh()
    told = [entry for entry in logs if entry["event"] == "catalog.networks_without_rules"]
    assert [(entry["log_level"], entry["networks"]) for entry in told] == [
        ("warning", ["TON on Gramchain (the rules of TON?)"])
    ], "once per change"
    service.catalog._looked_at = float("-inf")
    assert said() == ("warn", "no rules of ours for TON on Gramchain (the rules of TON?)")
