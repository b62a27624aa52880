"""Rucio follows what others register about its products: an OBSOLETE, a REVOKE, a producer's CREATE.

What is said of a replica is shown by whoever recorded it. Traces that speak of a product as a whole come from anywhere;
positions of the store are in the order of commits, without gaps, so that whoever remembers one misses none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio.common.types import InternalScope
from rucio_trace_policy.database import writing
from rucio_trace_policy.tables import tables
from sqlalchemy import select

from rucio_trace.joining import linked
from rucio_trace.trace import format_time
from rucio_trace_daemons.recorder.before import may_join
from rucio_trace_daemons.recorder.finish import snapshot, write_snapshots
from rucio_trace_daemons.recorder.resolve import alive
from rucio_trace_daemons.recorder.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import Engine

    from rucio_trace.identity import Trust
    from rucio_trace.status import ProductStatus
    from rucio_trace.store import Store, Stored
    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.recorder.finish import Key, Names

__all__ = ["Follower", "living", "refresh"]

# How many traces are looked at at once: a store that was never followed may hold many.
BULK = 500


@dataclass(frozen=True, slots=True)
class Follower:
    """Keeps Rucio's metadata in step with the store; any number of recorders may follow at once."""

    engine: Engine
    store: Store
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
        for name in {s.trace.statement.name for s in found if s.trace.statement.product is None}:
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


def refresh(
    engine: Engine, store: Store, names: Names, trust: Trust | None, keys: Collection[ProductKey]
) -> dict[ProductKey, ProductStatus]:
    """Write anew what Rucio shows of those of *keys* that live there; returns their status.

    Each in a transaction of its own: whoever holds several rows waits for us in no circle.
    """
    found = living(engine, keys)
    ours = [key for key, (_, _, began) in found.items() if format_time(began) == key.generation]
    histories = store.product(ours, may_join(trust))
    names.learn(histories)
    shown = {}
    for key in ours:
        if not histories[key]:
            continue
        of_product = snapshot(found[key], histories[key], names.of(key.vo))
        with writing(engine) as connection:
            write_snapshots(connection, [of_product])
        shown[key] = of_product.status
    return shown


def living(engine: Engine, keys: Collection[ProductKey]) -> dict[ProductKey, Key]:
    """For those of *keys* whose name a DID in Rucio bears: that DID, as our tables key it."""
    scopes = {key: InternalScope(key.scope, vo=key.vo).internal for key in keys}
    with engine.connect() as connection:
        began = alive(connection, {(scopes[key], key.name) for key in keys})
    return {
        key: (scopes[key], key.name, moment)
        for key in keys
        if (moment := began.get((scopes[key], key.name))) is not None
    }
