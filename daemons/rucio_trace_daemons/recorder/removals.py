"""Who let go of a replica: deletions by Rucio's reaper are joined to the rule removal that caused them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_trace_policy.causes import forget, who_removed

from rucio_trace_daemons.recorder.compose import Who

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from rucio_trace_daemons.recorder.rows import Row

__all__ = ["find_removals", "forget_removals"]


def find_removals(engine: Engine, rows: Sequence[Row]) -> Mapping[str, Who]:
    """Who caused the deletions among *rows*, by event id."""
    deleted = [row for row in rows if row.new_state is None and row.message is None]
    if not deleted:
        return {}
    with engine.connect() as connection:
        found = {row.event_id: who_removed(connection, row) for row in deleted}  # type: ignore[arg-type]
    return {event_id: Who(who.account, who.action, who.rule) for event_id, who in found.items()}


def forget_removals(connection: Connection, rows: Iterable[Row]) -> None:
    """Drop what was kept to explain the deletions among *rows*, in the transaction that removes them."""
    for row in rows:
        if row.new_state is None:
            forget(connection, row)  # type: ignore[arg-type]
