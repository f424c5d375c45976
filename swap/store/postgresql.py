"""Connections to PostgreSQL that give up: a server that hangs does not even keep its own `statement_timeout`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event

from swap.infra.away import Away

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 20
ANSWER_SECONDS = 23.0
"""More than the server lets a statement take: one that is only slow is ended there, and its connection kept."""
_SLOW_SECONDS = 1.0
_PAUSES = (1.0, 2.0)


class BoundedConnection(psycopg.Connection[Any]):
    patient = False

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, ANSWER_SECONDS if timeout is None and not self.patient else timeout)
        except psycopg.OperationalError:
            # Only silence leaves a connection in the middle of a statement; a refusal leaves it idle.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def bound(engine: Engine) -> None:
    """Have the engine connect with `BoundedConnection`, and not at all for a second or two after a server was silent: a
    request that would wait in vain is refused at once, as with a server that is down."""
    away = Away(_PAUSES)

    def connect(_: Any, __: Any, arguments: list[Any], parameters: dict[str, Any]) -> BoundedConnection:
        if not away.may_ask():
            raise psycopg.OperationalError("the database is silent; it is left alone for a moment")
        began = time.monotonic()
        try:
            connection = BoundedConnection.connect(*arguments, **parameters)
        except psycopg.OperationalError:
            if time.monotonic() - began >= _SLOW_SECONDS:
                away.failed()
            else:
                away.answered()
            raise
        away.answered()
        return connection

    event.listen(engine, "do_connect", connect)


@contextmanager
def patient(connection: Connection) -> Iterator[None]:
    """Let this connection's statements take whatever time they take, as those of a migration may."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, BoundedConnection)
    driver.patient = True
    try:
        yield
    finally:
        driver.patient = False
