"""Steps that may be done again: MariaDB commits each by itself, so a migration may have been cut off after any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic import op

from rucio_trace.store.types import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["add_column", "create_index", "create_table", "hold_registrations"]


def create_table(name: str, *parts: Any, **options: Any) -> None:
    """Create a table unless it is there."""
    if not sa.inspect(op.get_bind()).has_table(name):
        op.create_table(name, *parts, **OPTIONS, **options)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column unless it is there."""
    if column.name not in {known["name"] for known in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def create_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    """Create an index unless it is there."""
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, list(columns), **options)


def hold_registrations() -> None:
    """Let nobody register a trace until the transaction ends: what is computed from all traces must miss none."""
    head = sa.table("trace_head", sa.column("position"))
    op.get_bind().execute(sa.select(head.c.position).with_for_update()).all()
