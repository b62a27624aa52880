"""What was registered before there were counts and words: taken in page by page, while registrations go on.

Migration 0005 notes how far it reaches; whoever steps on moves the mark. Until it is through, statistics and searches
for words leave out what is behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, update

from rucio_trace.errors import Malformed
from rucio_trace.store.clock import lock_head
from rucio_trace.store.counts import add_counts
from rucio_trace.store.tables import older, traces
from rucio_trace.store.texts import insert_texts
from rucio_trace.trace import parse
from rucio_trace.words import words_of

if TYPE_CHECKING:
    from rucio_trace.store.database import Database

__all__ = ["step"]

_TRACES_AT_ONCE: Final = 2_000  # a quarter of a second, most of it before the head's lock


def step(database: Database) -> bool:
    """Take in the next page; whether there may be more. Several processes may try: one of them does it."""
    with database.reading() as connection:
        mark = connection.execute(select(older)).first()
        if mark is None:
            return False
        last = min(mark.next + _TRACES_AT_ONCE - 1, mark.end)
        columns = (traces.c.position, traces.c.name, traces.c.event, traces.c.rse, traces.c.provider, traces.c.message)
        page = select(*columns).where(traces.c.position.between(mark.next, last)).order_by(traces.c.position)
        rows = [row._asdict() for row in connection.execute(page)]
    words = {row["position"]: (row["name"], _words(row["message"])) for row in rows}
    with database.writing() as connection:
        lock_head(connection)
        moved = connection.execute(update(older).where(older.c.next == mark.next).values(next=last + 1))
        if moved.rowcount:
            add_counts(connection, rows)
            insert_texts(connection, words)
            connection.execute(delete(older).where(older.c.next > older.c.end))
    return True


def _words(message: str) -> frozenset[str]:
    """None of a message that was altered: whoever reads the row refuses it."""
    try:
        statement = parse(message)
    except Malformed:
        return frozenset()
    return words_of(statement.name, statement.attributes)
