"""Rows by their keys: after a given one, or in a set of hundreds: one statement text on PostgreSQL, whatever its size.

A list of a thousand parameters is a new statement for the driver and for the planner each time; two arrays are not.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, column, func, literal, or_, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

__all__ = ["after", "among"]


def after(dialect_name: str, key: Sequence[ColumnElement[Any]], last: Sequence[Any]) -> ColumnElement[bool]:
    """The condition that *key* comes after the values *last*, in the form for which the database uses its index."""
    values = [literal(value, column.type) for column, value in zip(key, last, strict=True)]
    if dialect_name != "mysql":
        return tuple_(*key) > tuple_(*values)
    return or_(*(and_(*map(operator.eq, key[:n], values[:n]), key[n] > values[n]) for n in range(len(key))))


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
