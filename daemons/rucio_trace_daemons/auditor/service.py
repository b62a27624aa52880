"""An auditor put together from its settings: what the threads share, and a worker for each."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from rucio.core.heartbeat import live

from rucio_trace.archive import ArchiveLimits
from rucio_trace.configured import open_store
from rucio_trace.errors import ConfigurationError
from rucio_trace.watched import Trusted
from rucio_trace_daemons.alarms import Alarms, check_certificate
from rucio_trace_daemons.auditor.batches import Batches
from rucio_trace_daemons.auditor.campaigns import AUDITED
from rucio_trace_daemons.auditor.quiet import Quiet
from rucio_trace_daemons.auditor.rounds import Rounds
from rucio_trace_daemons.auditor.sharing import Shares, shares_of
from rucio_trace_daemons.auditor.step import Worker
from rucio_trace_daemons.auditor.work import Work
from rucio_trace_daemons.chosen import Chosen
from rucio_trace_daemons.keys import Keys
from rucio_trace_daemons.recorder.context import Clock
from rucio_trace_daemons.recorder.finish import Names
from rucio_trace_daemons.recorder.prove import Prover, read_here
from rucio_trace_daemons.rses import Rses
from rucio_trace_daemons.running import Every, heartbeat_name
from rucio_trace_daemons.staging import Staging
from rucio_trace_daemons.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from rucio_trace.config import Settings
    from rucio_trace.identity import Trust
    from rucio_trace.store import TraceStore
    from rucio_trace_daemons.auditor.options import Options
    from rucio_trace_daemons.rses import Rse

__all__ = ["EXECUTABLE", "Auditor"]

EXECUTABLE = "traceability-auditor"
LOG = logging.getLogger(EXECUTABLE)

# How often rounds are begun and ended, other auditors are counted, and bad replicas are declared.
TURN_SECONDS = 60.0
# Alarms whose window is over are told within this time.
TELL_SECONDS = 60.0
# How often the certificate is looked at.
CERTIFICATE_SECONDS = 3_600.0
# An RSE that gives no answer is left alone: for the first of these at first, twice as long each time, up to the last.
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3_600.0


@dataclass(slots=True)
class Auditor:
    """What all workers of one process share. Close it at the end."""

    options: Options
    engine: Engine
    store: TraceStore
    keys: Keys
    storage: Storage
    staging: Staging
    rses: Rses
    rounds: Rounds
    names: Names
    trust: Callable[[], Trust | None]
    chosen: Callable[[], set[str] | None]
    stop: threading.Event
    alarms: Alarms
    shares: Shares = field(default_factory=Shares)
    turns: Every = field(default_factory=lambda: Every(TURN_SECONDS))
    telling: Every = field(default_factory=lambda: Every(TELL_SECONDS))
    certificate: Every = field(default_factory=lambda: Every(CERTIFICATE_SECONDS))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _paused: dict[str, tuple[float, float]] = field(default_factory=dict)  # until when, and for how long
    _told: dict[tuple[str, str], object] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: Settings, options: Options, engine: Engine, stop: threading.Event) -> Self:
        """Raises ConfigurationError for what is missing or wrong, StorageError where the store does not answer."""
        keys, trust = Keys(settings.recorder), Trusted(settings.trust)
        staging = Staging(settings.recorder.staging_folder, settings.recorder.staging_bytes)
        staging.remove_leftovers()
        names = Names(engine)
        names.load()
        store = open_store(settings, migrate=True)
        chosen = Chosen("auditor.rses", options.rses)
        storage = Storage(staging, stop.wait)
        alarms, rses, rounds = Alarms.of(engine, settings), Rses(engine), Rounds(engine)
        return cls(options, engine, store, keys, storage, staging, rses, rounds, names, trust, chosen, stop, alarms)

    def follow(self) -> None:
        """What is to be done now and then: follow the key on disk, tell alarms."""
        self.keys.follow(LOG)
        if self.telling.is_time():
            self.alarms.tell()
        if self.certificate.is_time():
            check_certificate(self.alarms, self.keys, self.options.site, datetime.now(UTC))

    def close(self) -> None:
        self.staging.close()
        self.store.close()

    def take_turn(self) -> bool:
        """Whether the caller is the one who begins and ends rounds now."""
        if not self.turns.is_time():
            return False
        self.shares = shares_of(self.engine, EXECUTABLE)
        return True

    def readable(self, rse_id: str, now: datetime) -> bool:
        """Whether the RSE may be read now: by its method as it is now, no quiet hour, and no pause after an outage.

        What cannot be understood as quiet hours is one: the RSE is left alone, and the others are not.
        """
        rse = self.rses.get([rse_id])[rse_id]
        with self._lock:
            paused = time.monotonic() < self._paused.get(rse_id, (0.0, 0.0))[0]
        if paused or rse.method not in AUDITED:
            return False
        quiet, fault = self.options.quiet, None
        if rse.quiet_hours is not None:
            try:
                quiet = Quiet.parse(rse.quiet_hours, f"{rse.label}, RSE attribute trace_quiet_hours")
            except ConfigurationError as error:
                fault = str(error)
        if self.news("quiet hours", rse.id, fault) and fault:
            LOG.error("quiet-hours-unfit %s: it is not read", fault)
        return fault is None and not quiet.covers(now)

    def beat(self) -> None:
        """Rucio's heartbeat, while a reading lasts: other auditors share an RSE's bounds with those that are alive."""
        live(heartbeat_name(EXECUTABLE, self.options.rses), socket.getfqdn(), os.getpid(), threading.current_thread())

    def pause(self, rse: Rse, *, grows: bool = True) -> timedelta:
        """Leave *rse* alone for a while, longer each time if it *grows*; returns for how long.

        Several threads meet one outage: it is one pause.
        """
        with self._lock:
            now, (until, last) = time.monotonic(), self._paused.get(rse.id, (0.0, 0.0))
            if now < until:
                return timedelta(seconds=until - now)
            seconds = min(2 * last, LONGEST_PAUSE) if last and grows else FIRST_PAUSE
            self._paused[rse.id] = (now + seconds, seconds)
        return timedelta(seconds=seconds)

    def answered(self, rse: Rse) -> None:
        """*rse* gives answers again."""
        with self._lock:
            self._paused.pop(rse.id, None)

    def news(self, what: str, of: str, value: object) -> bool:
        """Whether *value* is another one for *what* *of* something than the last time."""
        return bool(self.swap(what, of, value) != value)

    def swap(self, what: str, of: str, value: Any) -> Any:
        """Note *value* for *what* *of* something; returns that of the last time, None at first."""
        with self._lock:
            before, self._told[what, of] = self._told.get((what, of)), value
        return before

    def worker(self, seam: Callable[[str], None] = lambda _name: None) -> Worker:
        """A worker for the calling thread."""
        clock = Clock()
        prover = Prover(self.storage, clock, contents=False, read=partial(read_here, self.storage, ArchiveLimits()))
        batches = Batches(self.engine, self.options, self.store, self.keys, self.names, self.trust, seam)
        return Worker(self, Work(self.engine, self.options, self.alarms, seam), batches, prover, clock)
