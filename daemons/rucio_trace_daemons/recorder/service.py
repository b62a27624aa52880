"""A recorder put together from its settings: what the threads share, and a worker for each."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rucio_trace_policy.causes import PRUNE_ROWS, prune
from rucio_trace_policy.database import writing

from rucio_trace.configured import open_store
from rucio_trace.watched import Trusted
from rucio_trace_daemons.keys import Keys
from rucio_trace_daemons.recorder.before import Origins
from rucio_trace_daemons.recorder.compose import Composer
from rucio_trace_daemons.recorder.context import Clock, Context
from rucio_trace_daemons.recorder.deliver import Delivery
from rucio_trace_daemons.recorder.finish import Names
from rucio_trace_daemons.recorder.lookup import LookUp
from rucio_trace_daemons.recorder.outbox import Outbox
from rucio_trace_daemons.recorder.prove import Prover
from rucio_trace_daemons.recorder.resolve import first_installed
from rucio_trace_daemons.recorder.step import Worker
from rucio_trace_daemons.rses import Rses, matching
from rucio_trace_daemons.staging import Staging
from rucio_trace_daemons.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from rucio_trace.config import Settings
    from rucio_trace.identity import Trust
    from rucio_trace.store import Store
    from rucio_trace_daemons.recorder.options import Options

__all__ = ["Recorder"]

LOG = logging.getLogger("traceability-recorder")

# RSEs that come to match `recorder.rses`, and files of trust that change, are followed within this time.
FOLLOW_SECONDS = 60.0
# How often notes that explain deletions are looked through for those a later one has made useless.
PRUNE_SECONDS = 3600.0


class _Chosen:
    """The ids of the RSEs this recorder looks at; None for all."""

    def __init__(self, expression: str) -> None:
        self._expression, self._lock = expression, threading.Lock()
        self._until, self._ids = 0.0, set[str]()

    def __call__(self) -> set[str] | None:
        if self._expression.strip() == "*":
            return None
        with self._lock:
            if time.monotonic() > self._until:
                self._ids = matching(self._expression, "recorder.rses")
                self._until = time.monotonic() + FOLLOW_SECONDS
            return self._ids


@dataclass(slots=True)
class Recorder:
    """What all workers of one process share. Close it at the end."""

    options: Options
    engine: Engine
    store: Store
    keys: Keys
    storage: Storage
    staging: Staging
    rses: Rses
    names: Names
    trust: Callable[[], Trust | None]
    chosen: Callable[[], set[str] | None]
    stop: threading.Event
    pruning: threading.Lock = field(default_factory=threading.Lock)
    prune_at: float = 0.0

    @classmethod
    def open(cls, settings: Settings, options: Options, engine: Engine, stop: threading.Event) -> Self:
        """Raises ConfigurationError for what is missing or wrong, StorageError where the store does not answer."""
        keys, trust = Keys(settings.recorder), Trusted(settings.trust)
        staging = Staging(options.staging_folder, options.staging_bytes)
        staging.remove_leftovers()
        names = Names(engine)
        names.load()
        return cls(
            options,
            engine,
            open_store(settings, migrate=True),
            keys,
            Storage(staging, stop.wait),
            staging,
            Rses(engine),
            names,
            trust,
            _Chosen(options.rses),
            stop,
        )

    def follow(self) -> None:
        """What is to be done now and then: follow the key on disk, and drop what no deletion will ask for."""
        if self.keys.refresh():
            LOG.info("key-reloaded")
        if self.keys.fault:
            LOG.error("key-unfit %s", self.keys.fault)
        with self.pruning:
            if time.monotonic() < self.prune_at:
                return
            self.prune_at = time.monotonic() + PRUNE_SECONDS
        with writing(self.engine) as connection:
            count = prune(connection)
        if count:
            LOG.info("pruned rows=%d", count)
        if count >= PRUNE_ROWS:  # there is more
            self.prune_at = 0.0

    def close(self) -> None:
        self.staging.close()
        self.store.close()

    def worker(self, seam: Callable[[str], None] = lambda _name: None) -> Worker:
        """A worker for the calling thread."""
        worker: Worker | None = None

        def watch(count: int) -> None:
            if worker is not None:
                worker.watch(count)

        clock = Clock()
        prover = Prover(self.storage, clock, self.options.contents, self.options.limits)
        composer = Composer(self.options)
        context = Context(self.options, self.engine, self.storage, prover, composer, self.keys, clock, watch)
        outbox = Outbox(self.engine, self.options.lease, seam)
        origins = Origins(self.engine, self.store, self.trust, seam)
        lookup = LookUp(context, self.store, self.rses, self.names, origins, first_installed(self.engine))
        delivery = Delivery(context, outbox, self.store, self.names, self.trust, seam)
        worker = Worker(context, outbox, lookup, delivery, self.chosen, self.stop.is_set, seam)
        return worker
