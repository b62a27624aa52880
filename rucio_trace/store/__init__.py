"""The trace store, on SQLite, PostgreSQL or MariaDB: `Store.open(url)`."""

from rucio_trace.store.errors import (
    BadStoreUrl,
    CorruptRow,
    NewerStore,
    StoreNotEmpty,
    StoreUnavailable,
    TooMuchEvidence,
    UnpreparedStore,
)
from rucio_trace.store.protocol import TraceStore
from rucio_trace.store.records import BatchLine, Item, Outcome, Registration, Stored
from rucio_trace.store.search import Filters
from rucio_trace.store.store import Store

__all__ = [
    "BadStoreUrl",
    "BatchLine",
    "CorruptRow",
    "Filters",
    "Item",
    "NewerStore",
    "Outcome",
    "Registration",
    "Store",
    "StoreNotEmpty",
    "StoreUnavailable",
    "Stored",
    "TooMuchEvidence",
    "TraceStore",
    "UnpreparedStore",
]
