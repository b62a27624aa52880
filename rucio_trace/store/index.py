"""What traces are found by besides their columns: archives' members, and words. Written with a trace, or soon after.

An archive has tens of members whose digests fall anywhere into the index, and a registration that waited for
all of them would be bound by the disk. A service leaves them to `index`, which takes many traces at a time and
writes in the order of the index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, func, select

from rucio_trace.store.bulk import insert_values
from rucio_trace.store.read import KEYS_A_QUERY, batches, prefixes
from rucio_trace.store.tables import contents, traces, unindexed
from rucio_trace.store.texts import insert_texts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from rucio_trace.store.database import Database

__all__ = ["Findable", "defer", "index", "insert", "oldest_unindexed"]

_TRACES_AT_ONCE: Final = 2_000  # half a second of one core


class Findable(NamedTuple):
    """What one trace is to be found by. `name` is its column's."""

    name: str
    members: Collection[bytes]
    """The digests of its members; none where an earlier trace has the same."""
    words: Collection[str]


def insert(connection: Connection, new: Mapping[int, Findable]) -> None:
    """Let *new* traces be found, by their positions."""
    _insert_members(connection, {(known, position) for position, of in new.items() for known in prefixes(of.members)})
    insert_texts(connection, {position: (of.name, of.words) for position, of in new.items()})


def defer(connection: Connection, new: Mapping[int, Findable]) -> None:
    """Leave to `index` what `insert` would do."""
    rows = (
        (position, " ".join(map(str, prefixes(of.members))), " ".join(sorted(of.words))) for position, of in new.items()
    )
    insert_values(connection, unindexed, rows)


def index(database: Database) -> bool:
    """Index the oldest traces that wait for it, in one transaction; whether there may be more.

    Several processes may do it at once. Where none waits, nothing is locked.
    """
    with database.reading() as connection:
        if connection.execute(select(unindexed.c.position).limit(1)).first() is None:
            return False
    with database.writing(*_SETTINGS) as connection:
        count = _index_within(connection) if database.kind == "postgresql" else _index(connection)
    return count == _TRACES_AT_ONCE


def oldest_unindexed(connection: Connection) -> datetime | None:
    """When the oldest trace that waits to be indexed was registered; None if none does."""
    oldest = select(func.min(unindexed.c.position)).scalar_subquery()
    return connection.scalar(select(traces.c.registered_at).where(traces.c.position == oldest))


def _index(connection: Connection) -> int:
    columns = (unindexed, traces.c.name)
    oldest = select(*columns).join(traces, traces.c.position == unindexed.c.position)
    oldest = oldest.order_by(unindexed.c.position).limit(_TRACES_AT_ONCE)
    waiting = connection.execute(oldest.with_for_update(skip_locked=True)).all()
    _insert_members(connection, {(int(given), row.position) for row in waiting for given in row.prefixes.split()})
    insert_texts(connection, {row.position: (row.name, row.words.split()) for row in waiting})
    for some in batches([row.position for row in waiting], KEYS_A_QUERY):
        connection.execute(delete(unindexed).where(unindexed.c.position.in_(some)))
    return len(waiting)


# Of these few rows the planner knows nothing, and could rather read the whole of `traces`.
_SETTINGS: Final = ("enable_hashjoin = off", "enable_mergejoin = off", "enable_seqscan = off")

# As `_index`, for which the rows need not leave the database: on two busy cores a third of the time.
_WITHIN: Final = """
WITH picked AS MATERIALIZED (
    SELECT position FROM trace_unindexed ORDER BY position LIMIT %(most)s FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM trace_unindexed u USING picked WHERE u.position = picked.position
    RETURNING u.position, u.prefixes, u.words
), members AS (
    INSERT INTO trace_contents (prefix, digest_set)
    SELECT DISTINCT unnest(string_to_array(prefixes, ' ')::bigint[]), position FROM taken ORDER BY 1, 2
), named AS (
    SELECT min(t.position) AS position, t.name, string_to_array(taken.words, ' ') AS words
    FROM taken JOIN traces t ON t.position = taken.position WHERE taken.words <> '' GROUP BY 2, 3
), new AS (
    INSERT INTO trace_texts (position, words)
    SELECT position, words FROM named WHERE NOT EXISTS (
        SELECT FROM traces t JOIN trace_texts x ON x.position = t.position
        WHERE t.name = named.name AND x.words @> named.words
    )
) SELECT count(*) FROM taken
"""


def _index_within(connection: Connection) -> int:
    return int(connection.exec_driver_sql(_WITHIN, {"most": _TRACES_AT_ONCE}).scalar_one())


def _insert_members(connection: Connection, rows: Collection[tuple[int, int]]) -> None:
    if rows:
        insert_values(connection, contents, sorted(rows))
