"""Who let go of a replica: deletions by Rucio's reaper are joined to the rule removal that caused them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_trace_policy.causes import forget, who_removed
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, select

from rucio_trace_daemons.recorder.compose import Who
from rucio_trace_daemons.recorder.sets import among

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Engine, Table

    from rucio_trace_daemons.recorder.outbox import Product
    from rucio_trace_daemons.recorder.rows import Row

__all__ = ["find_removals", "forget_removals"]


def find_removals(engine: Engine, rows: Sequence[Row]) -> Mapping[str, Who]:
    """Who caused the deletions among *rows*, by event id, where something is noted beyond the rows themselves."""
    deleted = [row for row in rows if row.new_state is None and row.message is None and row.account is None]
    if not deleted:
        return {}
    ours = tables(engine.dialect.name)
    with engine.connect() as connection:
        noted = _noted(connection, ours.unlocked, deleted) | _noted(connection, ours.intentions, deleted)
        found = {
            row.event_id: who_removed(connection, row)  # type: ignore[arg-type]
            for row in deleted
            if (row.scope, row.name) in noted
        }
    return {event_id: Who(who.account, who.action, who.rule) for event_id, who in found.items()}


def forget_removals(connection: Connection, rows: Iterable[Row]) -> None:
    """Drop what was kept to explain the deletions among *rows*, in the transaction that removes them."""
    deleted = [row for row in rows if row.new_state is None]
    if deleted:
        noted = _noted(connection, tables(connection.dialect.name).unlocked, deleted)
        for row in deleted:
            if (row.scope, row.name) in noted:
                forget(connection, row)  # type: ignore[arg-type]


def _noted(connection: Connection, table: Table, rows: Sequence[Row]) -> set[Product]:
    """The products of *rows* that *table* says something about."""
    c = table.c
    keys = {(row.scope, row.name) for row in rows}
    where = among(connection.dialect.name, (c.scope, c.name), (Text(), Text()), keys)
    return {(row.scope, row.name) for row in connection.execute(select(c.scope, c.name).where(where).distinct())}
