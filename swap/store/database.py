"""The database: one engine, short transactions, the same behaviour on SQLite and PostgreSQL.

`read()` never writes, and `write()` never upgrades from a read. On SQLite a write opens with BEGIN IMMEDIATE behind a lock
inside the process, since SQLite has one writer, and threads that contend for it wait up to a second in its busy handler.
Every wait is bounded: pool 5 s, connect 5 s, locks and turns to write 10 s each, statements 20 s, a silent server 23 s.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from swap.errors import ConfigurationError
from swap.infra import private_files
from swap.settings import checkout
from swap.store import postgresql
from swap.tables import Row

MIGRATIONS = (checkout() or Path(__file__).resolve().parents[1]) / "migrations"
WRITER_SECONDS = 10.0
_MIGRATION_LOCK = 7_267_001  # any number; PostgreSQL's advisory locks are named by one


class Database:
    def __init__(self, url: str) -> None:
        # Parameters are hidden in errors, which are logged: there are addresses and memos among them.
        self.sqlite = url.startswith("sqlite")
        if self.sqlite:
            _keep_private(make_url(url).database)
            self.engine = create_engine(url, pool_size=8, max_overflow=8, pool_timeout=5, hide_parameters=True)
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
            self._writer: Any = _Turn()
        else:
            options = (
                f"-c statement_timeout={postgresql.STATEMENT_SECONDS}s -c lock_timeout=10s"
                " -c idle_in_transaction_session_timeout=60s"
            )
            self.engine = create_engine(
                url,
                pool_size=8,
                max_overflow=8,
                pool_timeout=5,
                pool_pre_ping=True,
                hide_parameters=True,
                connect_args={"connect_timeout": postgresql.CONNECT_SECONDS, "options": options},
            )
            postgresql.bound(self.engine)
            self._writer = nullcontext()
        self._write_engine = self.engine.execution_options(swap_write=True)
        self._read_engine = self.engine if self.sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session to read with. Rows stay usable after it is closed. Nothing is ever written through it."""
        with Session(self._read_engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises. Keep it short; never hold it
        across a call to the outside."""
        with self._writer, Session(self._write_engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self.engine.dispose()

    # --- migrations --------------------------------------------------------------------------------------------------

    def migrate(self) -> None:
        """Bring the schema to the newest version. Idempotent, and safe when two processes run it at once: the second waits.

        Raises ConfigurationError for a database whose schema a version of this service made that this one does not know.
        """
        with self._write_engine.connect() as connection, self._patient(connection), connection.begin():
            if not self.sqlite:
                # LOCAL: the connection goes back to the pool with its old bounds.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _MIGRATION_LOCK})
            known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
            current = MigrationContext.configure(connection).get_current_revision()
            if current is not None and current not in known:
                raise ConfigurationError(
                    [f"DATABASE_URL names a database at schema {current}, which this version does not know"]
                )
            command.upgrade(migration_config(connection), "head")

    def _patient(self, connection: Connection) -> AbstractContextManager[None]:
        return nullcontext() if self.sqlite else postgresql.patient(connection)

    def migrated(self) -> bool:
        """Whether the schema is at the newest version this code knows."""
        with self.engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        return current == _head()


class _Turn:
    """One writer at a time in this process. Raises OperationalError when the turn does not come in time: to a caller that
    means, like every other bounded wait, that the database is away."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=WRITER_SECONDS):
            reason = TimeoutError("no turn to write came")
            raise OperationalError("BEGIN IMMEDIATE", None, reason)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def insert_new(session: Session, row: type[Row], **values: Any) -> bool:
    """Insert unless a row with the same key is already there. True when it was inserted."""
    key = inspect(row).primary_key[0]
    # Decided by the key that is returned: PostgreSQL's driver gives -1 as the row count of an INSERT, inserted or not.
    inserted = _insert(session, row).values(**values).on_conflict_do_nothing().returning(key)
    return session.execute(inserted).first() is not None


def insert_all_new(session: Session, row: type[Row], values: Sequence[dict[str, Any]]) -> None:
    """Insert those of the rows whose keys are not there yet, in one batch."""
    session.execute(_insert(session, row).on_conflict_do_nothing(), values)


def _insert(session: Session, row: type[Row]) -> Any:
    dialect = postgresql_dialect if session.get_bind().dialect.name == "postgresql" else sqlite
    return dialect.insert(row)


def migration_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@cache
def _head() -> str | None:
    # Read once: the files of a release do not change under a process, and readiness is asked for all the time.
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def _keep_private(name: str | None) -> None:
    """SQLite itself makes a file that everybody may read. Its companions take over the mode of the file."""
    if not name or name == ":memory:":
        return
    path = Path(name)
    if not path.parent.exists():
        private_files.folder(path.parent)
    with suppress(OSError):  # SQLite says so better when it cannot be written
        private_files.file(path)
    for companion in ("-wal", "-shm"):
        if (beside := path.with_name(path.name + companion)).exists():
            private_files.file(beside)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling is switched off, so that _begin_sqlite alone decides how one opens.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 10000")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """Switch the file to write-ahead logging, which happens once in its life. The switch needs the file for itself: of
    several processes that open a new file at once, SQLite turns away all but one without waiting."""
    until = time.monotonic() + WRITER_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("swap_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
