"""What traces are found by besides their columns: archives' members, and words. Written with a trace, or soon after.

An archive has tens of members whose digests fall anywhere into the index, and a registration that waited for
all of them would be bound by the disk. A service leaves them to `index`, which takes many traces at a time and
writes in the order of the index.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, func, select

from rucio_trace.errors import Malformed
from rucio_trace.store.bulk import insert_values
from rucio_trace.store.read import among, batches
from rucio_trace.store.tables import contents, traces, unindexed
from rucio_trace.store.texts import insert_texts
from rucio_trace.trace import parse
from rucio_trace.words import words_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from rucio_trace.store.database import Database

__all__ = ["Findable", "defer", "index", "insert", "oldest_unindexed", "to_findable"]

_PREFIX: Final = struct.Struct(">q")
_KEYS_A_QUERY: Final = 1_000


class Findable(NamedTuple):
    """What one trace is to be found by. `name` is its column's."""

    name: str
    prefixes: bytes
    """Eight bytes of each member's digest; none where an earlier trace has the same members."""
    words: Collection[str]


def to_findable(name: str, members: Collection[bytes], words: Collection[str]) -> Findable:
    return Findable(name, b"".join(digest[: _PREFIX.size] for digest in members), words)


def insert(connection: Connection, new: Mapping[int, Findable]) -> None:
    """Let *new* traces be found, by their positions."""
    found = {(key, position) for position, of in new.items() for (key,) in _PREFIX.iter_unpack(of.prefixes)}
    if found:
        insert_values(connection, contents, sorted(found))
    insert_texts(connection, {position: (of.name, of.words) for position, of in new.items()})


def defer(connection: Connection, new: Mapping[int, Findable]) -> None:
    """Leave to `index` what `insert` would do."""
    insert_values(connection, unindexed, [(position, of.prefixes, " ".join(of.words)) for position, of in new.items()])


def index(database: Database, most: int) -> int:
    """Index the oldest traces that wait for it, at most so many; returns how many.

    One transaction; several processes may do it at once.
    """
    columns = (unindexed, traces.c.name)
    oldest = select(*columns).join(traces, traces.c.position == unindexed.c.position)
    oldest = oldest.order_by(unindexed.c.position).limit(most).with_for_update(of=unindexed, skip_locked=True)
    with database.writing() as connection:
        waiting = connection.execute(oldest).all()
        unread = _words_of(connection, [row.position for row in waiting if row.words is None])
        insert(
            connection,
            {
                row.position: Findable(row.name, row.prefixes, unread.get(row.position, (row.words or "").split()))
                for row in waiting
            },
        )
        for some in batches([row.position for row in waiting], _KEYS_A_QUERY):
            connection.execute(delete(unindexed).where(among(connection, unindexed.c.position, some)))
    return len(waiting)


def oldest_unindexed(connection: Connection) -> datetime | None:
    """When the oldest trace that waits to be indexed was registered; None if none does."""
    oldest = select(func.min(unindexed.c.position)).scalar_subquery()
    return connection.scalar(select(traces.c.registered_at).where(traces.c.position == oldest))


def _words_of(connection: Connection, positions: Collection[int]) -> dict[int, frozenset[str]]:
    """The words of traces from before there was an index; none of a message that was altered."""
    found: dict[int, frozenset[str]] = {}
    for some in batches(positions, _KEYS_A_QUERY):
        query = select(traces.c.position, traces.c.message).where(among(connection, traces.c.position, some))
        for position, message in connection.execute(query):
            try:
                statement = parse(message)
            except Malformed:  # whoever reads the row refuses it
                found[position] = frozenset()
            else:
                found[position] = words_of(statement.name, statement.attributes)
    return found
