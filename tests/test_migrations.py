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
from swap.orders.matching import deposit_place
from swap.store.database import _MIGRATION_LOCK, Database, migration_config
from swap.tables import (
    ApiKey,
    CatalogState,
    Client,
    DepositPlace,
    FeedHead,
    Money,
    Order,
    OrderAttempt,
    Row,
    UpstreamOrder,
    Utc,
)
from swap.upstream.replies import OrderReply
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
        *(Column(name, Text) for name in ("deposit_address", "deposit_memo")),
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


# --- orphans become upstream orders ----------------------------------------------------------------------------------

ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
UUIDS = [f"1b5f7a52-8a3e-4a64-9d3c-00000000000{number}" for number in range(3)]
Told = dict[str, tuple[str, str | None, list[str]]]


def go(database: Database, how: Any, revision: str) -> None:
    with database._write_engine.connect() as connection, connection.begin():
        how(migration_config(connection), revision)


@pytest.fixture
def with_orphans(empty: Database) -> Database:
    """A database from before upstream orders were rows of their own, with three orders that failed."""
    go(empty, command.upgrade, "r0009")
    insert(empty, "clients", id="shop", name="shop")
    for number in range(3):
        order = {"id": f"ord_{number}", "client_id": "shop", "client_order_id": f"order-{number}", "status": "failed"}
        route = {"from_currency": "BTC", "from_network": "BTC", "to_currency": "XRP", "to_network": "XRP"}
        insert(empty, "orders", **order, **route, facts={})
    return empty


def orphan(database: Database, *refs: str, **values: Any) -> None:
    insert(database, "orphans", ref=refs[0], refs=sorted(refs), **{"next_check_at": NOON, **values})


def unowned(database: Database) -> Told:
    """All that nobody was shown, by the id to ask with: role, order and ids."""
    rows = Support(database).unowned_orders()
    return {row["upstream_order_id"]: (row["role"], row["order_id"], row["refs"]) for row in rows}


def watched(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(UpstreamOrder.ref).where(UpstreamOrder.next_check_at.is_not(None))))


def places(database: Database) -> dict[str, str]:
    with database.read() as session:
        return {row.place: row.order_id for row in session.scalars(select(DepositPlace))}


@pytest.mark.parametrize("constant", ["swap", "1", "00000000-0000-4000-8000-000000000000"])
def test_orphans_that_share_a_value_which_is_known_to_be_no_id_stay_three(
    with_orphans: Database, constant: str
) -> None:
    insert(with_orphans, "shared_refs", ref=constant)
    for number in range(3):
        orphan(with_orphans, str(90210 + number), UUIDS[number], constant, order_id=f"ord_{number}")
    with_orphans.migrate()
    assert unowned(with_orphans) == {
        str(90210 + number): ("spare", f"ord_{number}", [str(90210 + number), UUIDS[number]]) for number in range(3)
    }
    assert watched(with_orphans) == {"90210", "90211", "90212"}


@pytest.mark.parametrize("constant", ["swap", "1", "00000000-0000-4000-8000-000000000000"])
@pytest.mark.parametrize("owned", [True, False])
def test_orphans_of_different_numbers_are_not_made_one_by_a_value_that_they_share(
    with_orphans: Database, constant: str, owned: bool
) -> None:
    for number in range(3):
        orphan(with_orphans, str(90210 + number), constant, order_id=f"ord_{number}" if owned else None)
    with_orphans.migrate()
    told = unowned(with_orphans)
    assert watched(with_orphans) == set(told) == {"90210", "90211", "90212"}
    assert [ref for _, _, refs in told.values() for ref in refs].count(constant) <= 1


def test_orphans_of_different_uuids_are_not_made_one_by_a_value_that_they_share(with_orphans: Database) -> None:
    for uuid in UUIDS:
        orphan(with_orphans, uuid, "swap")
    with_orphans.migrate()
    assert watched(with_orphans) == set(unowned(with_orphans)) == set(UUIDS)


def test_an_orphan_that_is_known_by_its_uuid_does_not_join_the_one_with_another_number(with_orphans: Database) -> None:
    orphan(with_orphans, "90210", "swap")
    orphan(with_orphans, UUIDS[1], "90211", "swap", seen_at=NOON.replace(hour=13))
    with_orphans.migrate()
    assert unowned(with_orphans) == {
        "90210": ("unowned", None, ["90210", "swap"]),
        UUIDS[1]: ("unowned", None, [UUIDS[1], "90211"]),
    }


def test_spares_of_different_orders_are_not_made_one_by_a_value_that_they_share(with_orphans: Database) -> None:
    orphan(with_orphans, "90210", "swap", order_id="ord_0")
    orphan(with_orphans, UUIDS[1], "swap", order_id="ord_1", seen_at=NOON.replace(hour=13))
    with_orphans.migrate()
    assert {ref: order_id for ref, (_, order_id, _) in unowned(with_orphans).items()} == {
        "90210": "ord_0",
        UUIDS[1]: "ord_1",
    }


def test_of_what_an_orphan_shares_ids_with_it_is_the_one_that_a_customer_was_shown(with_orphans: Database) -> None:
    shown = {"status": "awaiting_deposit", "deposit_kind": "address", "deposit_address": ADDRESS}
    insert(with_orphans, "orders", id="ord_9", client_id="shop", client_order_id="order-9", facts={}, **shown)
    insert(with_orphans, "upstream_refs", ref="swap-9", order_id="ord_9")
    orphan(with_orphans, "90210")
    orphan(with_orphans, UUIDS[0], "90210", "swap-9", seen_at=NOON.replace(hour=13))
    with_orphans.migrate()
    assert set(unowned(with_orphans)) == {"90210"}
    assert upstream_owners(with_orphans) == {"swap-9": "ord_9", UUIDS[0]: "ord_9", "90210": None}


def test_orphans_that_are_one_keep_what_is_known_of_either(with_orphans: Database) -> None:
    orphan(with_orphans, "90210", UUIDS[0], amount=None, next_check_at=None)
    later = {"seen_at": NOON.replace(hour=13), "order_id": "ord_0", "amount": Decimal("0.5"), "deposit_seen_at": NOON}
    where = {"destination_address": "rX", "deposit_address": ADDRESS, "deposit_memo": "7"}
    orphan(with_orphans, UUIDS[0], **later, **where)
    with_orphans.migrate()
    assert unowned(with_orphans) == {"90210": ("spare", "ord_0", ["90210", UUIDS[0]])}
    with with_orphans.read() as session:
        (row,) = session.scalars(select(UpstreamOrder))
    assert (row.destination_address, row.amount, row.deposit_address, row.deposit_memo) == (
        *("rX", Decimal("0.5")),
        *(ADDRESS, "7"),
    )
    assert (row.deposit_seen_at, row.next_check_at) == (NOON, NOON), "watched as long as one of them was"


@pytest.mark.parametrize("memo", [None, "7"])
@pytest.mark.parametrize(
    ("route", "address"),
    [
        (("BTC", "BTC"), ADDRESS.upper()),
        (("ETH", "ETH"), "0xde0b295669a9fd93d5f28d9ec85e40f4cb697bae"),
        (("EUR", "SEPA"), "de89 3704 0044 0532 0130 00"),
        (("ABC", "NOBODY-KNOWS"), "Any Thing"),
    ],
)
def test_a_spares_place_to_pay_at_belongs_to_its_order_after_the_migration(
    with_orphans: Database, route: tuple[str, str], address: str, memo: str | None
) -> None:
    where = {"from_currency": route[0], "from_network": route[1]}
    insert(with_orphans, "orders", id="ord_9", client_id="shop", client_order_id="order-9", facts={}, **where)
    orphan(with_orphans, "90210", order_id="ord_9", deposit_address=address, deposit_memo=memo)
    with_orphans.migrate()
    reply = OrderReply(order_id="90210", refs=("90210",), deposit_address=address, deposit_memo=memo)
    with with_orphans.read() as session:
        order = session.get_one(Order, "ord_9")
    assert places(with_orphans) == {deposit_place(order, reply): "ord_9"}


def test_a_place_that_a_customer_was_shown_or_that_an_older_spare_has_stays_there(with_orphans: Database) -> None:
    insert(with_orphans, "deposit_places", place='["BTC", "BTC", "shown", ""]', order_id="ord_0")
    orphan(with_orphans, "90210", order_id="ord_1", deposit_address="shown")
    orphan(with_orphans, "90211", order_id="ord_1", deposit_address="twice")
    orphan(with_orphans, "90212", order_id="ord_2", deposit_address="twice", seen_at=NOON.replace(hour=13))
    orphan(with_orphans, "90213", order_id="ord_2", deposit_address="watched no more", next_check_at=None)
    orphan(with_orphans, "90214", deposit_address="nobody's")
    with_orphans.migrate()
    assert places(with_orphans) == {'["BTC", "BTC", "shown", ""]': "ord_0", '["BTC", "BTC", "twice", ""]': "ord_1"}


def test_upstream_orders_and_their_places_go_down_and_up_again(with_orphans: Database) -> None:
    orphan(with_orphans, "90210", UUIDS[0], "swap", order_id="ord_0", deposit_address=ADDRESS)
    orphan(with_orphans, "90211", "swap", order_id="ord_1", deposit_address=ADDRESS)
    orphan(with_orphans, "90212", UUIDS[2])
    insert(with_orphans, "upstream_refs", ref="90213", order_id="ord_2")
    with_orphans.migrate()
    once = unowned(with_orphans), upstream_owners(with_orphans), places(with_orphans)
    # What two rows are asked for with was one row in the old table.
    insert(with_orphans, "upstream_orders", id="ups_twice", role="unowned", ref="90212", deposit_seen_at=NOON)
    go(with_orphans, command.downgrade, "r0009")
    with with_orphans.engine.connect() as connection:
        refs = list(connection.scalars(text("SELECT ref FROM orphans ORDER BY ref")))
    assert refs == ["90210", "90211", "90212", "90213"]
    with_orphans.migrate()
    assert (unowned(with_orphans), upstream_owners(with_orphans), places(with_orphans)) == once
    with with_orphans.read() as session:
        seen = select(UpstreamOrder.ref).where(UpstreamOrder.deposit_seen_at.is_not(None))
        assert list(session.scalars(seen)) == ["90212"]


def test_a_client_is_allowed_what_its_most_generous_live_key_was_and_back(empty: Database) -> None:
    go(empty, command.upgrade, "r0010")
    for name, weights in (("generous", (100, 900)), ("revoked", (7000,)), ("new", ())):
        insert(empty, "clients", id=name, name=name, created_at=NOON)
        for weight in weights:
            values = {"name": "k", "secret_sealed": "s", "scopes": [], "created_at": NOON, "weight_per_minute": weight}
            revoked_at = NOON if name == "revoked" else None
            insert(empty, "api_keys", key=f"{name} {weight}", client_id=name, revoked_at=revoked_at, **values)
    go(empty, command.upgrade, "head")
    with empty.read() as session:
        assert {client.name: client.weight_per_minute for client in session.scalars(select(Client))} == {
            "generous": 900,
            "revoked": 6000,
            "new": 6000,
        }
        assert [key.allowed_from for key in session.scalars(select(ApiKey))] == [[], [], []]
    go(empty, command.downgrade, "r0010")
    go(empty, command.upgrade, "head")


def test_the_version_before_has_no_keys_without_a_secret_and_keeps_the_others(empty: Database) -> None:
    go(empty, command.upgrade, "head")
    insert(empty, "clients", id="shop", name="shop", created_at=NOON)
    both = {"client_id": "shop", "name": "k", "scopes": [], "created_at": NOON}
    insert(empty, "api_keys", key="secret", secret_sealed="s", **both)
    insert(empty, "api_keys", key="publishable", origins=["https://shop.example"], weight_per_minute=70, **both)
    go(empty, command.downgrade, "r0015")
    with empty.engine.connect() as connection:
        assert list(connection.execute(text("SELECT key, secret_sealed FROM api_keys"))) == [("secret", "s")]
    go(empty, command.upgrade, "head")
    with empty.read() as session:
        (key,) = session.scalars(select(ApiKey))
        assert (key.key, key.origins, key.weight_per_minute) == ("secret", [], None)
