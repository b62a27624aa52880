"""Rows whose key is in a set of hundreds: one statement text on PostgreSQL, whatever the size of the set.

A list of a thousand parameters is a new statement for the driver and for the planner each time; two arrays are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, column, func, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

__all__ = ["among"]


def among(
    dialect_name: str, columns: Sequence[ColumnElement[Any]], types: Sequence[TypeEngine[Any]], keys: Collection[Any]
) -> ColumnElement[bool]:
    """The condition that *columns*, of *types*, are one of *keys* (tuples)."""
    if dialect_name != "postgresql":
        return tuple_(*columns).in_(list(keys))
    arrays = [
        bindparam(None, list(values), type_=ARRAY(kind), unique=True)
        for values, kind in zip(zip(*keys, strict=True), types, strict=True)
    ]
    names = [f"key{number}" for number in range(len(columns))]
    columns_of_rows = (column(name, kind) for name, kind in zip(names, types, strict=True))
    rows = func.unnest(*arrays).table_valued(*columns_of_rows).render_derived()
    return tuple_(*columns).in_(select(*(rows.c[name] for name in names)))
