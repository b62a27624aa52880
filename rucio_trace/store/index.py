"""The index of archives' members: written with a trace, or soon after it by whoever runs `index`.

An archive has tens of members whose digests fall anywhere into the index, and a registration that waited for
all of them would be bound by the disk. A service leaves them to `index`, which takes many traces at a time and
writes in the order of the index.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, select

from rucio_trace.store.bulk import insert_rows, insert_values
from rucio_trace.store.read import among, batches, prefix
from rucio_trace.store.tables import contents, traces, unindexed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from rucio_trace.store.database import Database

__all__ = ["defer_contents", "index", "insert_contents", "oldest_unindexed"]

_PREFIX: Final = struct.Struct(">q")
_SETS_A_QUERY: Final = 1_000


def insert_contents(connection: Connection, of: Mapping[int, Collection[bytes]]) -> None:
    """Let the members' digests be found, by the digest set they belong to; no set twice."""
    _insert(connection, ((prefix(digest), id_) for id_, members in of.items() for digest in members))


def defer_contents(connection: Connection, of: Mapping[int, Collection[bytes]]) -> None:
    """Leave to `index` what `insert_contents` would do."""
    rows = [{"digest_set": id_, "prefixes": b"".join(digest[:8] for digest in of[id_])} for id_ in of]
    if rows:
        insert_rows(connection, unindexed, rows)


def index(database: Database, most: int) -> int:
    """Index the oldest digest sets that wait for it, at most so many; returns how many.

    One transaction; several processes may do it at once.
    """
    oldest = select(unindexed).order_by(unindexed.c.digest_set).limit(most)
    with database.writing() as connection:
        waiting = connection.execute(oldest.with_for_update(skip_locked=True)).all()
        _insert(connection, ((prefix, row.digest_set) for row in waiting for (prefix,) in _PREFIX.iter_unpack(row[1])))
        for some in batches([row.digest_set for row in waiting], _SETS_A_QUERY):
            connection.execute(delete(unindexed).where(among(connection, unindexed.c.digest_set, some)))
    return len(waiting)


def oldest_unindexed(connection: Connection) -> datetime | None:
    """When the oldest digest set that waits to be indexed was registered; None if none does."""
    oldest = select(func.min(unindexed.c.digest_set)).scalar_subquery()  # which is its first trace's position
    return connection.scalar(select(traces.c.registered_at).where(traces.c.position == oldest))


def _insert(connection: Connection, rows: Iterable[tuple[int, int]]) -> None:
    found = sorted(set(rows))
    if found:
        insert_values(connection, contents, found)
