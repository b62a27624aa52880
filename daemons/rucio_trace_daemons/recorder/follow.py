"""Rucio follows what others register about its products: OBSOLETE, REVOKE (also of a batch), a producer's CREATE.

What is said of a replica is shown by whoever recorded it. Traces that speak of a product as a whole come from anywhere;
positions of the store are in the order of commits, without gaps, so that whoever remembers one misses none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace_policy.database import writing
from rucio_trace_policy.tables import tables
from sqlalchemy import select

from rucio_trace.joining import linked
from rucio_trace_daemons.recorder.refresh import refresh
from rucio_trace_daemons.recorder.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Engine

    from rucio_trace.identity import Trust
    from rucio_trace.store import Stored, TraceStore
    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.recorder.finish import Names

__all__ = ["Follower"]

# How many traces are looked at at once: a store that was never followed may hold many.
BULK = 500


@dataclass(frozen=True, slots=True)
class Follower:
    """Keeps Rucio's metadata in step with the store; any number of recorders may follow at once."""

    engine: Engine
    store: TraceStore
    names: Names
    trust: Callable[[], Trust | None]
    instance: str

    def step(self) -> int:
        """Look at up to `BULK` traces that came since the last look of any recorder; returns at how many.

        Raises:
            TraceabilityError: the store does not answer, or a row of it was altered.
            DBAPIError: Rucio's database does not answer.
        """
        seen = self._position()
        last = self.store.position()
        if seen > last:  # another store, or one that was restored
            seen = 0
        if seen == last:
            return 0
        found = self.store.of_products_since(seen, BULK)
        if found:
            refresh(self.engine, self.store, self.names, self.trust(), self._concerned(found))
        self._remember(found[-1].position if len(found) == BULK else last)
        return len(found)

    def _concerned(self, found: Sequence[Stored]) -> set[ProductKey]:
        """The products of this Rucio that *found* may speak of; of files outside Rucio, those they may have joined."""
        keys = {key for stored in found if (key := stored.trace.statement.product) is not None}
        keys.update(*(self.store.products_of_batch(stored.trace.statement) for stored in found))
        for name in {s.trace.statement.name for s in found if s.trace.statement.outside}:
            joined = (s.trace.statement for s in self.store.by_name(name) if linked(s.trace.statement))
            keys |= {s.product for s in joined if s.product is not None}
        return {key for key in keys if key.rucio == self.instance}

    def _position(self) -> int:
        with self.engine.connect() as connection:
            return connection.scalar(select(tables(self.engine.dialect.name).followed.c.position)) or 0

    def _remember(self, position: int) -> None:
        with writing(self.engine) as connection:
            table = tables(connection.dialect.name).followed
            upsert(connection, table, [{"one": 1, "position": position}], lambda new: {"position": new.position})
