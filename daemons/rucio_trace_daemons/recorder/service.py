"""A recorder put together from its settings: what the threads share, and a worker for each."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Self

from rucio_trace_policy.causes import PRUNE_ROWS, prune
from rucio_trace_policy.database import writing

from rucio_trace.configured import open_store
from rucio_trace.errors import TraceabilityError
from rucio_trace.watched import Trusted
from rucio_trace_daemons.alarms import Alarms, check_certificate
from rucio_trace_daemons.chosen import Chosen
from rucio_trace_daemons.keys import Keys
from rucio_trace_daemons.recorder.before import Origins
from rucio_trace_daemons.recorder.compose import Composer
from rucio_trace_daemons.recorder.context import Clock, Context
from rucio_trace_daemons.recorder.counting import Counting
from rucio_trace_daemons.recorder.datasets import Datasets
from rucio_trace_daemons.recorder.deliver import Delivery
from rucio_trace_daemons.recorder.finish import Names
from rucio_trace_daemons.recorder.follow import BULK, Follower
from rucio_trace_daemons.recorder.lookup import LookUp
from rucio_trace_daemons.recorder.outbox import Outbox
from rucio_trace_daemons.recorder.prove import Prover, read_here
from rucio_trace_daemons.recorder.resolve import first_installed
from rucio_trace_daemons.recorder.step import Worker
from rucio_trace_daemons.rses import Rses
from rucio_trace_daemons.running import Every
from rucio_trace_daemons.staging import Staging
from rucio_trace_daemons.storage import Storage

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from sqlalchemy import Engine

    from rucio_trace.config import Settings
    from rucio_trace.identity import Trust
    from rucio_trace.store import TraceStore
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.recorder.prove import Read

__all__ = ["Recorder"]

LOG = logging.getLogger("traceability-recorder")

# How often the store is asked for what others said of products: two small queries.
LOOK_SECONDS = 10.0
# Alarms whose window is over are told within this time.
TELL_SECONDS = 60.0
# How often the certificate is looked at, and notes that explain deletions for those a later one has made useless.
PRUNE_SECONDS = 3600.0


@dataclass(slots=True)
class Recorder:
    """What all workers of one process share. Close it at the end."""

    options: Options
    engine: Engine
    store: TraceStore
    keys: Keys
    storage: Storage
    staging: Staging
    rses: Rses
    names: Names
    alarms: Alarms
    trust: Callable[[], Trust | None]
    chosen: Callable[[], set[str] | None]
    stop: threading.Event
    read: Read
    telling: Every = field(default_factory=lambda: Every(TELL_SECONDS))
    looking: Every = field(default_factory=lambda: Every(LOOK_SECONDS))
    pruning: Every = field(default_factory=lambda: Every(PRUNE_SECONDS))

    @classmethod
    def open(
        cls,
        settings: Settings,
        options: Options,
        engine: Engine,
        stop: threading.Event,
        *,
        rses: Rses | None = None,
        chosen: Callable[[], set[str] | None] | None = None,
    ) -> Self:
        """*rses* and *chosen* (the ids of those to look at) stand in for Rucio's word and `options.rses`.

        Raises ConfigurationError for what is missing or wrong, StorageError where the store does not answer."""
        keys, trust = Keys(settings.recorder), Trusted(settings.trust)
        staging = Staging(options.staging_folder, options.staging_bytes)
        staging.remove_leftovers()
        names = Names(engine)
        names.load()
        storage = Storage(staging, stop.wait)
        return cls(
            options,
            engine,
            open_store(settings, migrate=True),
            keys,
            storage,
            staging,
            rses or Rses(engine),
            names,
            Alarms.of(engine, settings),
            trust,
            chosen or Chosen("recorder.rses", options.rses),
            stop,
            partial(read_here, storage, options.limits),
        )

    def follow(self) -> None:
        """What is to be done now and then: follow key and store, tell alarms, drop what no deletion will ask for."""
        self.keys.follow(LOG)
        if self.telling.is_time():
            self.alarms.tell()
        if self.looking.is_time():
            self._look()
        if self.pruning.is_time():
            check_certificate(self.alarms, self.keys, self.options.site, datetime.now(UTC))
            self._prune()

    def _look(self) -> None:
        """Show in Rucio what others have registered."""
        follower = Follower(self.engine, self.store, self.names, self.trust, self.options.instance)
        try:
            count = follower.step()
        except TraceabilityError as error:  # one row of the store that was altered must not end all recording
            LOG.error("not-followed %s", error)
            return
        if count:
            LOG.info("followed traces=%d", count)
        if count >= BULK:  # there is more
            self.looking.again_now()

    def _prune(self) -> None:
        with writing(self.engine) as connection:
            count = prune(connection)
        if count:
            LOG.info("pruned rows=%d", count)
        if count >= PRUNE_ROWS:  # there is more
            self.pruning.again_now()

    def close(self) -> None:
        self.staging.close()
        self.store.close()

    def worker(
        self, seam: Callable[[str], None] = lambda _name: None, watched: Callable[[int], None] = lambda _count: None
    ) -> Worker:
        """A worker for the calling thread; *watched* is told how many bytes were read, piece by piece."""
        worker: Worker | None = None

        def watch(count: int) -> None:
            watched(count)
            if worker is not None:
                worker.held.watch()

        clock = Clock()
        prover = Prover(self.storage, clock, self.options.contents, self.read)
        composer = Composer(self.options)
        context = Context(self.options, self.engine, self.storage, prover, composer, self.keys, clock, watch)
        outbox = Outbox(self.engine, self.options.lease, seam)
        origins = Origins(self.engine, self.store, self.trust, seam)
        lookup = LookUp(context, self.store, self.rses, self.names, origins, first_installed(self.engine))
        delivery = Delivery(context, outbox, self.store, self.names, self.rses, self.alarms, self.trust, seam)
        counting = Counting(self.engine, outbox.worker, self.options.lease, seam)
        datasets = Datasets(context, outbox, self.store, self.alarms, self.trust, counting, seam)
        worker = Worker(context, outbox, lookup, delivery, datasets, self.chosen, self.stop.is_set, seam)
        return worker
