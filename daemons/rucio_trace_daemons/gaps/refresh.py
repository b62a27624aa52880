"""What origins sign of size and checksums, for products whose last change was handled before that was kept.

It is asked of the store, a page of products at a time, and written as the recorder does when a change ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rucio_trace_daemons.gaps import queries
from rucio_trace_daemons.recorder.finish import Names
from rucio_trace_daemons.recorder.refresh import refresh as write_status
from rucio_trace_daemons.recorder.resolve import product_key

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from rucio_trace.identity import Trust
    from rucio_trace.store import TraceStore

__all__ = ["is_needed", "refresh"]

# As many histories as are held in memory at once.
PAGE_PRODUCTS = 500


def is_needed(engine: Engine) -> bool:
    """Whether there is such a product."""
    with engine.connect() as connection:
        return connection.execute(queries.unsigned(connection, None, 1)).first() is not None


def refresh(engine: Engine, store: TraceStore, trust: Trust | None, instance: str) -> int:
    """Write what is missing of the living products of the Rucio called *instance*; returns of how many it was."""
    names = Names(engine)
    names.load()
    last: Any = None
    count = 0
    while True:
        with engine.connect() as connection:
            keys = connection.execute(queries.unsigned(connection, last, PAGE_PRODUCTS)).all()
        if not keys:
            return count
        write_status(engine, store, names, trust, [product_key(instance, *key) for key in keys])
        count, last = count + len(keys), keys[-1]
