"""A recorder put together from its settings: what the threads share, and a worker for each."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from rucio.common.exception import InvalidRSEExpression
from rucio.core.rse_expression_parser import parse_expression
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio_trace_policy.causes import PRUNE_ROWS, prune
from rucio_trace_policy.database import writing

from rucio_trace.configured import open_store
from rucio_trace.errors import ConfigurationError
from rucio_trace.watched import Trusted
from rucio_trace_daemons.alarms import Alarms, check_certificate
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
from rucio_trace_daemons.rses import Rses
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
# Alarms whose window is over are told within this time.
TELL_SECONDS = 60.0
# How often the certificate is looked at, and notes that explain deletions for those a later one has made useless.
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
                self._ids = _matching(self._expression)
                self._until = time.monotonic() + FOLLOW_SECONDS
            return self._ids


class _Every:
    """Says to one of all threads, at most so often, that it is time."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock, self._at = seconds, threading.Lock(), 0.0

    def is_time(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._at:
                return False
            self._at = now + self._seconds
            return True

    def again_now(self) -> None:
        self._at = 0.0


def _matching(expression: str) -> set[str]:
    try:
        with db_session(DatabaseOperationType.READ) as session:
            return {rse["id"] for rse in parse_expression(expression, session=session)}
    except InvalidRSEExpression as error:
        raise ConfigurationError("recorder.rses", expected="RSEs, as an RSE expression", found=str(error)) from error


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
    alarms: Alarms
    trust: Callable[[], Trust | None]
    chosen: Callable[[], set[str] | None]
    stop: threading.Event
    telling: _Every = field(default_factory=lambda: _Every(TELL_SECONDS))
    pruning: _Every = field(default_factory=lambda: _Every(PRUNE_SECONDS))

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
            Alarms.of(engine, settings),
            trust,
            _Chosen(options.rses),
            stop,
        )

    def follow(self) -> None:
        """What is to be done now and then: follow the key on disk, tell alarms, drop what no deletion will ask for."""
        if self.keys.refresh():
            LOG.info("key-reloaded")
        if self.keys.fault:
            LOG.error("key-unfit %s", self.keys.fault)
        if self.telling.is_time():
            self.alarms.tell()
        if not self.pruning.is_time():
            return
        check_certificate(self.alarms, self.keys, self.options.site, datetime.now(UTC))
        with writing(self.engine) as connection:
            count = prune(connection)
        if count:
            LOG.info("pruned rows=%d", count)
        if count >= PRUNE_ROWS:  # there is more
            self.pruning.again_now()

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
        delivery = Delivery(context, outbox, self.store, self.names, self.rses, self.alarms, self.trust, seam)
        worker = Worker(context, outbox, lookup, delivery, self.chosen, self.stop.is_set, seam)
        return worker
