"""Sessions, locks and the two column types of our own, on both databases."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import OperationalError, StatementError

from swap.domain.money import plain
from swap.domain.times import iso
from swap.store.database import Database, insert_new
from swap.tables import Client, PairRow, UsedSignature, new_id
from tests.conftest import Clock
from tests.factories import NOON, make_client
from tests.threads import errors_of

ON_ONE_DATABASE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
AMOUNTS = st.decimals(
    min_value=Decimal(0), max_value=Decimal("99999999999999999999"), allow_nan=False, allow_infinity=False, places=18
) | st.builds(lambda digits, places: Decimal(digits).scaleb(-places), st.integers(0, 10**38), st.integers(0, 24))
MOMENTS = st.builds(
    lambda seconds, micros, zone: datetime.fromtimestamp(seconds, zone) + timedelta(microseconds=micros),
    st.integers(946_684_800, 4_102_444_799),
    st.integers(0, 999_999),
    st.timezones(),
)


def pair(**values: Any) -> dict[str, Any]:
    keys = ("from_currency_key", "from_network_key", "to_currency_key", "to_network_key")
    return {**dict.fromkeys(keys, "a"), "active": True, **values}


def stored(database: Database, **values: Any) -> PairRow:
    """The row after a round trip."""
    with database.write() as session:
        insert_new(session, PairRow, **pair())
        session.execute(update(PairRow).values(**values))
    with database.read() as session:
        return session.scalars(select(PairRow)).one()


# --- money -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount", ["12345678.123456789012345678", "0.000000000000000001", "1E-7", "1E+20", "0", "1.50", "100"]
)
def test_money_comes_back_with_every_digit(database: Database, amount: str) -> None:
    back = stored(database, min_amount=Decimal(amount)).min_amount
    assert back == Decimal(amount)
    assert back is not None
    assert plain(back) == plain(Decimal(amount))


def test_any_money_comes_back_with_every_digit(database: Database) -> None:
    @ON_ONE_DATABASE
    @given(AMOUNTS)
    def check(amount: Decimal) -> None:
        back = stored(database, min_amount=amount).min_amount
        assert back is not None
        assert (back, plain(back)) == (amount, plain(amount))

    check()


@pytest.mark.parametrize("amount", [1.5, 1, "1", Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity")])
def test_what_is_no_amount_is_refused(database: Database, amount: Any) -> None:
    with pytest.raises(StatementError):
        stored(database, min_amount=amount)
    with database.read() as session:
        assert session.scalars(select(PairRow)).all() == [], "the whole transaction is undone"


def test_no_money_is_null(database: Database) -> None:
    assert stored(database, min_amount=None).min_amount is None


# --- times -----------------------------------------------------------------------------------------------------------


def test_a_time_comes_back_aware_in_utc_and_cut_to_milliseconds(database: Database) -> None:
    @ON_ONE_DATABASE
    @given(MOMENTS)
    def check(moment: datetime) -> None:
        back = stored(database, limits_as_of=moment).limits_as_of
        assert back is not None
        assert back.tzinfo is UTC
        assert timedelta() <= moment.astimezone(UTC) - back < timedelta(milliseconds=1)
        assert back.microsecond % 1000 == 0
        assert iso(back) == iso(moment)

    check()


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="without a zone"):
        stored(database, limits_as_of=datetime(2025, 10, 9))  # noqa: DTZ001 - that is the point


def test_times_sort_and_compare_as_times_whatever_zone_they_were_given_in(database: Database) -> None:
    zones = [UTC, timezone(timedelta(hours=13)), timezone(timedelta(hours=-11))]
    moments = [NOON + timedelta(milliseconds=7 * n, microseconds=n) for n in range(12)]
    with database.write() as session:
        for n, moment in reversed(list(enumerate(moments))):
            session.add(UsedSignature(signature=f"{n:02}", expires_at=moment.astimezone(zones[n % 3])))
    with database.read() as session:
        by_time = session.scalars(select(UsedSignature.signature).order_by(UsedSignature.expires_at)).all()
        due = session.scalars(select(UsedSignature.signature).where(UsedSignature.expires_at <= moments[5])).all()
    assert by_time == [f"{n:02}" for n in range(12)]
    assert sorted(due) == [f"{n:02}" for n in range(6)]


# --- transactions ----------------------------------------------------------------------------------------------------


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as session:
        session.add(Client(id="cli_1", name="one", created_at=NOON))
        session.flush()
        raise RuntimeError
    with database.read() as session:
        assert session.get(Client, "cli_1") is None


def test_rows_stay_usable_after_their_session(database: Database) -> None:
    make_client(database, "one")
    with database.read() as session:
        row = session.scalars(select(Client)).one()
    assert (row.name, row.created_at) == ("one", NOON)


def test_a_row_with_a_known_key_is_not_inserted_twice(database: Database) -> None:
    with database.write() as session:
        made = [insert_new(session, Client, id=new_id("cli"), name="one", created_at=NOON) for _ in range(2)]
    assert made == [True, False]


def begins(database: Database) -> list[str]:
    seen: list[str] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def spy(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("BEGIN"):
            seen.append(statement)

    return seen


def test_on_sqlite_a_write_takes_its_lock_at_once_and_a_read_takes_none(sqlite_database: Database) -> None:
    seen = begins(sqlite_database)
    with sqlite_database.read() as session:
        session.execute(text("SELECT 1"))
    with sqlite_database.write() as session:
        session.execute(text("SELECT 1"))
    assert seen == ["BEGIN", "BEGIN IMMEDIATE"]


def test_on_sqlite_a_reader_neither_waits_for_a_writer_nor_sees_half_of_it(sqlite_database: Database) -> None:
    with sqlite_database.write() as writing:
        writing.add(Client(id="cli_1", name="one", created_at=NOON))
        writing.flush()
        with sqlite_database.read() as reading:
            assert reading.get(Client, "cli_1") is None


def test_on_sqlite_what_is_committed_is_on_the_disk_and_foreign_keys_hold(sqlite_database: Database) -> None:
    with sqlite_database.read() as session:
        found = {
            name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.parametrize("processes", [1, 2])
def test_threads_that_write_at_once_never_find_the_database_locked(database_url: str, processes: int) -> None:
    """Two `Database`s stand for two processes: they share no lock of ours, only the file."""
    databases = [Database(database_url) for _ in range(processes)]

    def work(number: int) -> None:
        for turn in range(15):
            with databases[number % processes].write() as session:
                assert session.scalar(select(Client).where(Client.name == f"{number}.{turn}")) is None
                session.add(Client(id=new_id("cli"), name=f"{number}.{turn}", created_at=NOON))

    assert errors_of(4, work) == []
    with databases[0].read() as session:
        assert len(session.scalars(select(Client)).all()) == 60
    for database in databases:
        database.close()


def test_a_read_that_writes_after_all_cannot_commit_it(database: Database) -> None:
    if not database.sqlite:
        pytest.skip("AUTOCOMMIT keeps what a read writes; test_watch proves that none does")
    with database.read() as session:
        session.execute(text("INSERT INTO clients (id, name, created_at) VALUES ('cli_1', 'one', 'x')"))
    with database.read() as session:
        assert session.get(Client, "cli_1") is None


def test_a_write_waits_for_its_turn_only_so_long(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swap.store.database.WRITER_SECONDS", 0.05)
    with sqlite_database.write(), pytest.raises(OperationalError, match="turn to write"), sqlite_database.write():
        pass  # never reached
    with sqlite_database.write() as session:
        session.add(Client(id="cli_1", name="one", created_at=NOON))


@pytest.fixture
def sqlite_database(sqlite_template: Any, tmp_path: Any) -> Any:
    path = tmp_path / "one.db"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(Database(f"sqlite:///{path}")) as database:
        yield database


@pytest.mark.db
def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'new.db'}"

    def work(_number: int) -> None:
        with closing(Database(url)) as database:
            database.migrate()
            assert database.migrated()

    assert errors_of(6, work) == []
    with closing(sqlite3.connect(tmp_path / "deep" / "new.db")) as raw:
        assert raw.execute("SELECT count(*) FROM feed_head").fetchone() == (1,)


def test_ids_are_told_apart_by_their_prefix_and_made_in_order() -> None:
    made = [new_id("ord") for _ in range(200)]
    assert made == sorted(set(made))
    assert all(each.startswith("ord_") and len(each) == 36 for each in made)


def test_the_clock_of_the_tests_moves_by_hand(clock: Clock) -> None:
    before = clock()
    clock.advance(3600)
    assert timedelta(seconds=3599) < clock() - before < timedelta(seconds=3610)
