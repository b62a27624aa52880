"""What Rucio shows of products, computed anew: after a batch of thousands, or a word about a product from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rucio.common.types import InternalScope
from rucio_trace_policy.database import writing

from rucio_trace.store.read import batches
from rucio_trace.trace import format_time
from rucio_trace_daemons.recorder.before import may_join
from rucio_trace_daemons.recorder.finish import snapshot, write_snapshots
from rucio_trace_daemons.recorder.resolve import alive

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Engine

    from rucio_trace.identity import Trust
    from rucio_trace.status import ProductStatus
    from rucio_trace.store import TraceStore
    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.recorder.finish import Key, Names

__all__ = ["living", "refresh"]

PRODUCTS_AT_ONCE: Final = 500
"""In one transaction: their rows are locked for a fifth of a second."""


def refresh(
    engine: Engine, store: TraceStore, names: Names, trust: Trust | None, keys: Collection[ProductKey]
) -> dict[ProductKey, ProductStatus]:
    """Write the status of each of *keys* as the store has it now, unless something younger is shown; returns it.

    Products that no trace of their own speaks of, and those that Rucio no longer has, are left out. Safe to repeat, and
    beside recorders. *names* must know the RSEs that are signed, or find them in Rucio's database: whoever signs a
    batch notes and saves the name of its RSE first.

    Raises:
        StorageError: the store does not answer.
        DBAPIError: Rucio's database does not; some products may be done.
    """
    shown = {}
    for some in batches(sorted(keys), PRODUCTS_AT_ONCE):
        found = living(engine, some)
        ours = [key for key, (_, _, began) in found.items() if format_time(began) == key.generation]
        histories, lines = store.product(ours, may_join(trust)), store.proven(ours)
        names.learn(histories, lines)
        snapshots = {
            key: snapshot(found[key], histories[key], names.of(key.vo), lines.get(key, ()))
            for key in ours
            if histories[key]
        }
        with writing(engine) as connection:
            write_snapshots(connection, list(snapshots.values()))
        shown |= {key: of_product.status for key, of_product in snapshots.items()}
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
