"""A whole store into an empty one, as it is: to move it, to back it up, to restore it.

Positions and times of registration are kept: they are evidence. Nothing is parsed or judged on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select

from rucio_trace.store import partitions
from rucio_trace.store.bulk import insert_rows
from rucio_trace.store.errors import StoreNotEmpty
from rucio_trace.store.read import batches
from rucio_trace.store.tables import head, metadata

if TYPE_CHECKING:
    from rucio_trace.store.database import Database

__all__ = ["copy"]

_ROWS_AT_ONCE: Final = 1_000  # a few MB


def copy(source: Database, target: Database) -> int:
    """Fill the empty store *target* with all that *source* holds at this moment; returns the last position.

    Both may be in use: readers and writers of *source* are not disturbed, *target* is filled in one transaction.

    Raises:
        StoreNotEmpty: *target* holds traces already.
    """
    with source.snapshot() as reading, target.writing() as writing:
        if writing.scalar(select(head.c.position).with_for_update()) != 0:
            raise StoreNotEmpty(target.shown)
        writing.execute(delete(head))
        for table in (head, *(table for table in metadata.sorted_tables if table is not head)):
            rows = reading.execution_options(stream_results=True).execute(select(table))
            for some in batches(rows, _ROWS_AT_ONCE):
                insert_rows(writing, table, [row._asdict() for row in some])
            if table is head and target.kind == "postgresql":
                partitions.ensure(writing)
        return int(writing.scalar(select(head.c.position)) or 0)
