"""The databases of tests: how they come to hold what a test begins with."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from swap.domain.times import Timing
from swap.market.catalog import Catalog
from swap.store.database import Database
from swap.tables import Row
from swap.upstream.client import UpstreamClient
from swap.upstream.key_pair import KeyPair
from swap.upstream.transport import Transport

POSTGRES = os.environ.get("TEST_DATABASE_URL")


def refresh(catalog: Catalog, listed: Any) -> None:
    """Have the catalog store this list, as if the upstream had just sent it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(catalog, "_fetch", lambda: listed)
        assert catalog.refresh()


def store_catalog(database: Database, listed: Any) -> None:
    no_upstream = UpstreamClient(Transport("http://127.0.0.1:1", user_agent="tests"), KeyPair("pk", "sk"), Timing())
    refresh(Catalog(database, no_upstream, Timing()), listed)


class Postgres:
    """A database of its own for this process. It must answer, or the run is worth nothing.

    Two schemas keep the rows that a test begins with: `migrated`, and `with_catalog`.
    """

    def __init__(self, listed: Any) -> None:
        assert POSTGRES is not None
        admin_url = make_url(POSTGRES).set(drivername="postgresql+psycopg")
        self._name = f"swap_test_{os.getpid()}"
        self._admin = create_engine(admin_url, isolation_level="AUTOCOMMIT")
        with self._admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {self._name}"))
            # Only a power failure could show it: what was committed is there for every connection.
            connection.execute(text(f"ALTER DATABASE {self._name} SET synchronous_commit = off"))
        self._engine = create_engine(admin_url.set(database=self._name))
        self.url = self._engine.url.render_as_string(hide_password=False)
        self._starts: dict[str, str] = {}
        with closing(Database(self.url)) as database:
            database.migrate()
            self._keep_as("migrated")
            store_catalog(database, listed)
            self._keep_as("with_catalog")

    def _keep_as(self, start: str) -> None:
        names = [table.name for table in Row.metadata.sorted_tables]
        # DELETE: on tables with a handful of rows it is ten times faster than TRUNCATE.
        statements = [f"DELETE FROM {name}" for name in reversed(names)]
        with self._engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {start}"))
            for name in names:
                if connection.scalar(text(f"SELECT count(*) FROM {name}")):
                    connection.execute(text(f"CREATE TABLE {start}.{name} AS TABLE {name}"))
                    statements.append(f"INSERT INTO {name} SELECT * FROM {start}.{name}")
        self._starts[start] = ";".join(statements)

    def begin_with(self, start: str) -> None:
        """One message to the server."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(self._starts[start])

    def drop(self) -> None:
        self._engine.dispose()
        with self._admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {self._name} WITH (FORCE)"))
        self._admin.dispose()
