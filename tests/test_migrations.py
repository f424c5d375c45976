"""The schema: up, down and up again on both databases, equal to the models, and safe to bring up twice at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import JSON, Column, MetaData, Table, Text, create_engine, event, inspect, make_url, select, text

from swap.errors import ConfigurationError
from swap.ops.support import Support
from swap.store.database import _MIGRATION_LOCK, Database, migration_config
from swap.tables import CatalogState, DepositPlace, FeedHead, Money, Order, OrderAttempt, Row, Utc
from tests.databases import POSTGRES
from tests.factories import NOON, upstream_owners

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def empty_url(backend: str, tmp_path: Path) -> Iterator[str]:
    """A database without a schema."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    assert POSTGRES is not None
    admin_url = make_url(POSTGRES).set(drivername="postgresql+psycopg")
    admin = create_engine(admin_url, isolation_level="AUTOCOMMIT")
    name = f"swap_empty_{os.getpid()}"
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield admin_url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    with closing(Database(empty_url)) as database:
        yield database


def downgrade(database: Database) -> None:
    with database._write_engine.connect() as connection, connection.begin():
        command.downgrade(migration_config(connection), "base")


def at_revision(database: Database, revision: str) -> None:
    with database._write_engine.connect() as connection, connection.begin():
        go = command.upgrade if revision == "r0001" else command.downgrade
        go(migration_config(connection), "r0001")


# Tables that are gone.
_OLD_TABLES = {
    "orphans": Table(
        "orphans",
        MetaData(),
        *(Column(name, Text) for name in ("ref", "upstream_key", "destination_address", "order_id")),
        Column("refs", JSON),
        Column("amount", Money),
        *(Column(name, Utc) for name in ("seen_at", "deposit_seen_at", "next_check_at")),
    ),
    "upstream_refs": Table("upstream_refs", MetaData(), Column("ref", Text), Column("order_id", Text)),
}


def insert(database: Database, table: str, **values: Any) -> None:
    """A row of the schema as it is there now; what is not given and may not be null gets something of its type."""
    some = {"Utc": NOON, "Money": Decimal(1), "Text": "", "Integer": 0, "BigInteger": 0, "Boolean": False, "JSON": {}}
    with database._write_engine.begin() as connection:
        there = Table(table, MetaData(), autoload_with=connection)
        # Reflected types know nothing of how we write times and amounts.
        known = _OLD_TABLES.get(table, Row.metadata.tables.get(table))
        assert known is not None
        types = {column.name: column.type for column in known.columns}
        columns = [Column(column.name, types.get(column.name, column.type)) for column in there.columns]
        for column in there.columns:
            if not column.nullable and column.name not in values and column.server_default is None:
                values[column.name] = some[type(types[column.name]).__name__]
        connection.execute(Table(table, MetaData(), *columns).insert().values(**values))


def tables(database: Database) -> set[str]:
    with database.engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def single_rows(database: Database) -> tuple[FeedHead, CatalogState]:
    with database.read() as session:
        return session.scalars(select(FeedHead)).one(), session.scalars(select(CatalogState)).one()


def test_the_schema_goes_up_and_down_and_up_again(empty: Database) -> None:
    assert not empty.migrated()
    empty.migrate()
    assert empty.migrated()
    assert tables(empty) == {*Row.metadata.tables, "alembic_version"}
    head, state = single_rows(empty)
    assert (head.position, len(head.epoch)) == (0, 6)
    assert (state.version, state.failures) == (0, 0)

    downgrade(empty)
    assert tables(empty) == {"alembic_version"}
    assert not empty.migrated()

    empty.migrate()
    assert empty.migrated()
    assert single_rows(empty)[0].epoch != head.epoch, "another life of the database"


def test_the_models_are_what_the_migrations_make(empty: Database) -> None:
    empty.migrate()
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Row.metadata) == []


def test_every_index_and_key_has_the_name_the_models_give_it(empty: Database) -> None:
    empty.migrate()
    with empty.engine.connect() as connection:
        found = inspect(connection)
        for table in Row.metadata.sorted_tables:
            assert {i["name"] for i in found.get_indexes(table.name) if not i.get("duplicates_constraint")} == {
                i.name for i in table.indexes
            }
            assert found.get_pk_constraint(table.name)["name"] == table.primary_key.name


def test_migrating_again_changes_nothing(empty: Database) -> None:
    empty.migrate()
    before = single_rows(empty)[0].epoch
    empty.migrate()
    assert single_rows(empty)[0].epoch == before


def test_a_database_of_another_version_is_named_and_left_alone(empty: Database) -> None:
    empty.migrate()
    with empty.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="9999"):
        empty.migrate()
    assert tables(empty) == {*Row.metadata.tables, "alembic_version"}


def test_a_migration_that_breaks_leaves_the_database_as_it_was(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise RuntimeError("the last statement of the migration breaks")

    monkeypatch.setattr("secrets.token_hex", lambda _count: broken())
    with pytest.raises(RuntimeError):
        empty.migrate()
    monkeypatch.undo()
    assert tables(empty) <= {"alembic_version"}
    empty.migrate()
    assert empty.migrated()


def test_migrating_leaves_the_connections_bounds_as_they_were(empty: Database) -> None:
    if empty.sqlite:
        pytest.skip("SQLite has one bound, the busy timeout, and it is not touched")
    empty.migrate()
    with empty.read() as session:
        shown = [session.scalar(text(f"SHOW {name}")) for name in ("lock_timeout", "statement_timeout")]
    assert shown == ["10s", "20s"]


def swap(*arguments: str, **environ: str) -> subprocess.Popen[bytes]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-m", "swap.cli", *arguments],
        cwd=ROOT,
        env={**keep, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_swap_migrate_is_safe_when_run_several_times_at_once(empty_url: str, empty: Database) -> None:
    url = empty_url.replace("postgresql+psycopg://", "postgresql://")
    running = [swap("migrate", DATABASE_URL=url) for _ in range(3)]
    ended: list[Any] = [(process.communicate(timeout=60)[1], process.returncode) for process in running]
    assert [code for _, code in ended] == [0, 0, 0], ended
    assert empty.migrated()
    single_rows(empty)


def test_a_second_migration_waits_for_the_first_even_if_that_takes_long(empty: Database) -> None:
    """On PostgreSQL the wait is not cut by the bounds that hold for everything else; here they are 100 ms."""
    if empty.sqlite:
        pytest.skip("on SQLite the second waits in the busy handler, 10 s")

    @event.listens_for(empty.engine, "connect")
    def impatient(connection: Any, _record: Any) -> None:
        connection.execute("SET lock_timeout = 100")
        connection.execute("SET statement_timeout = 100")
        connection.commit()

    with closing(Database(empty.engine.url.render_as_string(hide_password=False))) as first:
        with first.write() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _MIGRATION_LOCK})
            second = threading.Thread(target=empty.migrate)
            second.start()
            second.join(0.4)
            assert second.is_alive()
        second.join()
    assert empty.migrated()


def test_a_filled_database_of_the_first_version_comes_up_and_goes_down_again(empty: Database) -> None:
    at_revision(empty, "r0001")
    insert(empty, "clients", id="shop", name="shop")
    shown = {"deposit_kind": "address", "deposit_address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"}
    route = {"from_currency": "BTC", "from_network": "BTC", "to_currency": "XRP", "to_network": "XRP"}
    for number, (status, more) in enumerate(
        [("awaiting_deposit", shown), ("awaiting_deposit", shown), ("in_doubt", {}), ("completed", shown)]
    ):
        order = {"id": f"ord_{number}", "client_id": "shop", "client_order_id": f"order-{number}", "status": status}
        due = {} if status == "completed" else {"next_check_at": NOON}
        insert(empty, "orders", **order, **route, **more, **due, amount_to_get=Decimal("325.5"), facts={})
        insert(empty, "order_attempts", order_id=f"ord_{number}", number=1, refs=[])
    for ref, order_id in (("1", "ord_0"), ("uuid-1", "ord_0"), ("2", "ord_1"), ("3", "ord_3")):
        insert(empty, "upstream_refs", ref=ref, order_id=order_id)
    insert(empty, "orphans", ref="90210", refs=["90210", "uuid-4"])
    insert(empty, "orphans", ref="uuid-4", refs=["uuid-4"], order_id="ord_2", deposit_seen_at=NOON)
    insert(empty, "orphans", ref="90211", refs=["90211"])
    insert(empty, "orphans", ref="uuid-1", refs=["uuid-1"], order_id="ord_0")

    empty.migrate()
    assert empty.migrated()
    with empty.read() as session:
        orders = {order.id: order for order in session.scalars(select(Order))}
        assert {order.status for order in orders.values()} == {"awaiting_deposit", "in_doubt", "completed"}
        (place,) = session.scalars(select(DepositPlace))
        assert place.order_id == "ord_0", "of two that share an address, the first keeps it"
        for attempt in session.scalars(select(OrderAttempt)):
            assert attempt.amount_to_get == Decimal("325.5"), "what its order was promised"
    told = {row["upstream_order_id"]: row for row in Support(empty).unowned_orders()}
    assert {ref: (row["role"], row["order_id"]) for ref, row in told.items()} == {
        "90210": ("spare", "ord_2"),
        "90211": ("unowned", None),
    }, "what was recorded under two ids is one, and what a customer was shown is none"
    assert (told["90210"]["refs"], told["90210"]["deposit_seen_at"] is not None) == (["90210", "uuid-4"], True)
    assert upstream_owners(empty) == {
        "1": "ord_0",
        "uuid-1": "ord_0",
        "2": "ord_1",
        "3": "ord_3",
        "90210": "ord_2",
        "uuid-4": "ord_2",
        "90211": None,
    }

    at_revision(empty, "down")
    with empty.engine.connect() as connection:
        names = ("orders", "orphans", "upstream_refs")
        assert [connection.scalar(text(f"SELECT count(*) FROM {name}")) for name in names] == [4, 2, 4]
        assert connection.scalar(text("SELECT count(*) FROM order_attempts")) == 4
    empty.migrate()
    assert empty.migrated()
