"""Many rows at once, by what each database takes fastest.

That is COPY on PostgreSQL, one prepared statement on SQLite, statements of many rows on MariaDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection, Table

__all__ = ["insert_rows"]


def insert_rows(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert *rows*, each with a value for every column, in the connection's transaction."""
    columns = [column.name for column in table.columns]
    converters = _converters(connection, table)
    values = ([convert(row[name]) for name, convert in converters] for row in rows)
    driver = connection.connection.driver_connection
    assert driver is not None
    if connection.dialect.name == "postgresql":
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
            for value in values:
                copy.write_row(value)
        return
    mark = "%s" if connection.dialect.name == "mysql" else "?"
    marks = ", ".join([mark] * len(columns))
    cursor = driver.cursor()
    cursor.executemany(f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})", values)  # noqa: S608 our names
    cursor.close()


def _converters(connection: Connection, table: Table) -> list[tuple[str, Callable[[Any], Any]]]:
    """For each column, what makes its value one that the driver takes."""
    found: list[tuple[str, Callable[[Any], Any]]] = []
    for column in table.columns:
        processor = None
        if connection.dialect.name != "postgresql":  # psycopg knows all our types by itself
            processor = column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        found.append((column.name, processor or _as_it_is))
    return found


def _as_it_is(value: Any) -> Any:
    return value
