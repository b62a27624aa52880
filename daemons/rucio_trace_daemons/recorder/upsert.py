"""Rows that are inserted, or change what is there already: each database says it in words of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import mysql, postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Table

__all__ = ["upsert"]


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    change: Callable[[Any], Mapping[str, Any]] = lambda _new: {},
) -> None:
    """Insert *rows*; to those whose primary key is there, do what *change* says of the new columns, or nothing."""
    if connection.dialect.name == "mysql":
        insert = mysql.insert(table)
        key = next(iter(table.primary_key)).name
        changes = change(insert.inserted) or {key: table.c[key]}
        connection.execute(insert.on_duplicate_key_update(**changes), rows)
        return
    insert_here = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
    if changes := change(insert_here.excluded):
        statement = insert_here.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes)
    else:
        statement = insert_here.on_conflict_do_nothing()
    connection.execute(statement, rows)
