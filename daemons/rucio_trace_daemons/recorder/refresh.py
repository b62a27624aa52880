"""What Rucio shows of products, computed anew: after a batch, whose lines speak of thousands at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rucio.common.types import InternalScope
from rucio_trace_policy.database import writing

from rucio_trace.store.read import batches
from rucio_trace.trace import parse_time
from rucio_trace_daemons.recorder.before import may_join
from rucio_trace_daemons.recorder.finish import snapshot, write_snapshots

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Engine

    from rucio_trace.identity import Trust
    from rucio_trace.store import Store
    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.recorder.finish import Key, Names

__all__ = ["refresh"]

PRODUCTS_AT_ONCE: Final = 500
"""In one transaction: their rows are locked for a fifth of a second."""


def refresh(engine: Engine, store: Store, names: Names, trust: Trust | None, keys: Collection[ProductKey]) -> None:
    """Write the status of each of *keys* as the store has it now, unless something younger is shown already.

    Products that no trace of their own speaks of, and those that Rucio no longer has, are left out. Safe to repeat, and
    beside recorders. *names* must know the RSEs that are signed, or find them in Rucio's database: whoever signs a
    batch notes and saves the name of its RSE first.

    Raises:
        StorageError: the store does not answer.
        DBAPIError: Rucio's database does not; some products may be done.
    """
    for some in batches(sorted(keys), PRODUCTS_AT_ONCE):
        histories, lines = store.product(some, may_join(trust)), store.proven(some)
        names.learn(histories, lines)
        snapshots = [
            snapshot(_key(key), histories[key], names.of(key.vo), lines.get(key, ())) for key in some if histories[key]
        ]
        with writing(engine) as connection:
            write_snapshots(connection, snapshots)


def _key(key: ProductKey) -> Key:
    return InternalScope(key.scope, vo=key.vo).internal, key.name, parse_time(key.generation)
