"""How PostgreSQL carries out the statements of the service: each is explained where it is run, with its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, event, func, insert, literal, literal_column, null, select

from swap.store.database import Database

ENOUGH = 500
"""Rows of a large table that a statement may read, or sort, and still count as answered from an index: a page has 100."""

_EXPLAIN = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
_EXPLAINED = ("SELECT", "UPDATE", "DELETE", "WITH")


def fill(connection: Connection, table: Table, count: int, common: Mapping[str, Any], **of_row: str) -> None:
    """Write so many rows in one statement. `common`: what they have in common, column -> value; `of_row`: column -> an
    expression over `n`, which counts from 1."""
    columns = [column for column in table.columns if column.name in {*common, *of_row}]
    values: list[ColumnElement[Any]] = [
        literal_column(of_row[column.name])
        if column.name in of_row
        else null()
        if common[column.name] is None
        else literal(common[column.name], column.type)
        for column in columns
    ]
    numbers = func.generate_series(1, count).alias("n")
    connection.execute(insert(table).from_select(columns, select(*values).select_from(numbers)))


@contextmanager
def explained(database: Database, large: Mapping[str, int]) -> Iterator[list[str]]:
    """What is wrong with the statements that run meanwhile, a sentence for each problem, with its statement. `large`: the
    tables that must not be read through, with their numbers of rows."""
    found: list[str] = []

    def explain(
        connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, executemany: bool
    ) -> None:
        if not statement.startswith(_EXPLAINED):
            return
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor:
            # An UPDATE is carried out where it is explained.
            if not driver.autocommit:
                cursor.execute("SAVEPOINT explained")
            cursor.execute(_EXPLAIN + statement, parameters[0] if executemany else parameters)
            ((plan,),) = cursor.fetchone()
            if not driver.autocommit:
                cursor.execute("ROLLBACK TO explained")
        told = re.sub(r"SELECT [^\n]{200,}", "SELECT ...", statement)
        found.extend(f"{problem}, by:\n{told}" for problem in problems(plan["Plan"], large))

    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)


def problems(node: Mapping[str, Any], large: Mapping[str, int]) -> Iterator[str]:
    """What is wrong with this part of a plan, and with those below it."""
    table, kind, loops = node.get("Relation Name", ""), node["Node Type"], node["Actual Loops"]
    below = node.get("Plans", ())
    if table in large:
        left = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        read, kept = (node["Actual Rows"] + left) * loops, node["Actual Rows"] * loops
        condition = node.get("Filter", "no condition")
        if kind == "Seq Scan":
            yield f"A sequential scan of {table}, {large[table]:,} rows: no index serves {condition}"
        elif read > ENOUGH:
            yield f"{read:,} rows of {table} are read to find {kept:,}: its index leaves {condition}"
    if kind == "Sort":
        rows = sum(each["Actual Rows"] * each["Actual Loops"] for each in below)
        if rows > ENOUGH:
            yield f"{rows:,} rows are sorted by {', '.join(node['Sort Key'])}: no index has that order"
    for each in below:
        yield from problems(each, large)
