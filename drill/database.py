"""The database of a drill: one of its own, and the ways to take it from the service for a while."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql


class Store(Protocol):
    """`url` is for DATABASE_URL. `proxied`: where the server is (`drill.database_proxy`), when the service shall reach it by
    a proxy that can be stopped."""

    url: str
    kind: str
    proxied: str | None

    def behind(self, port: int) -> str:
        """`url` by the proxy at this port of loopback."""
        ...

    def cut(self) -> Callable[[], None]:
        """Break what is connected; new connections are welcome. Returns what must be done a moment later."""
        ...

    def shut(self) -> Callable[[], None]:
        """Let nobody write (SQLite), or even in (PostgreSQL). Returns what ends it."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""


class SqliteStore(Store):
    """A file. It has no connections that could be cut from outside: a lock that lasts is what comes nearest."""

    kind = "SQLite"
    proxied = None

    def __init__(self, folder: Path) -> None:
        self._path = folder / "drill.db"
        self.url = f"sqlite:///{self._path}"

    def behind(self, port: int) -> str:
        """A file has no server that could be stopped."""
        return self.url

    def cut(self) -> Callable[[], None]:
        return self.shut()

    def shut(self) -> Callable[[], None]:
        holder = sqlite3.connect(self._path, timeout=5, isolation_level=None)
        try:
            holder.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            # The service writes so much that no turn came: then there is nothing to hold either.
            holder.close()
            return lambda: None

        def end() -> None:
            holder.rollback()
            holder.close()

        return end

    def close(self) -> None:
        """The file goes with the drill's folder."""


class PostgresStore(Store):
    """A database of its own on the server that `admin_url` names, dropped afterwards."""

    kind = "PostgreSQL"

    def __init__(self, admin_url: str) -> None:
        plain = admin_url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._name = f"swap_drill_{os.getpid()}"
        self._admin = psycopg.connect(plain, autocommit=True, connect_timeout=10)
        self._drop()
        self._admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._name)))
        self.url = urlunsplit(urlsplit(plain)._replace(path=f"/{self._name}"))
        self.proxied = f"{self._admin.info.host}:{self._admin.info.port}"

    def behind(self, port: int) -> str:
        parts = urlsplit(self.url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}"))

    def cut(self) -> Callable[[], None]:
        self._terminate()
        # Once more, when pools have filled again: what is in the middle of a transaction then is cut as well.
        return self._terminate

    def _terminate(self) -> None:
        self._admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [self._name],
        )

    def shut(self) -> Callable[[], None]:
        self._allow(sql.SQL("false"))
        self._terminate()
        return lambda: self._allow(sql.SQL("true"))

    def _allow(self, word: sql.SQL) -> None:
        statement = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
        self._admin.execute(statement.format(sql.Identifier(self._name), word))

    def _drop(self) -> None:
        self._admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self._name)))

    def close(self) -> None:
        self._drop()
        self._admin.close()


def store_for(database_url: str | None, folder: Path) -> Store:
    """PostgreSQL when a server is named, else SQLite in the drill's folder."""
    return PostgresStore(database_url) if database_url else SqliteStore(folder)
