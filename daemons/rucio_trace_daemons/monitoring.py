"""Metrics for Prometheus: what this daemon counted, and the state of what all daemons share.

All of it is in prometheus_client's own registry, so it is served by whichever endpoint the site has: ours (`[metrics]`
of rucio-trace.toml), or the one that Rucio's daemons open (`[monitor] enable_metrics` of rucio.cfg); docs/adr/0103.

The state (outbox, breakers, alarms) is read from Rucio's database when somebody asks, and every daemon of a Rucio
answers the same: take the maximum, not the sum.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Info, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from rucio.common.exception import DatabaseException
from rucio_trace_policy.tables import tables
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from rucio_trace import __version__
from rucio_trace.errors import ConfigurationError
from rucio_trace_daemons.recorder.mending import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric
    from sqlalchemy import Engine

    from rucio_trace.config import Metrics
    from rucio_trace_daemons.keys import Keys
    from rucio_trace_daemons.rses import Rses

__all__ = ["served"]

# The outbox is counted in one pass: 0.45 s of PostgreSQL for 1,000,000 rows, 0.7 s if half of them hold a signed trace.
# A look is good for so many seconds, and for so many times what it took that we cost the database less than 1 %.
LOOK_SECONDS, LOOK_TIMES = 15.0, 100
# Prometheus itself gives up after 10 s.
WAIT_SECONDS = 9.0

_BUILD = Info("traceability_build", "Version and name of this daemon")


@contextmanager
def served(settings: Metrics, daemon: str, engine: Engine, rses: Rses, keys: Keys | None = None) -> Iterator[None]:
    """Within the context, answer Prometheus on the port of *settings*, if there is one.

    Raises:
        ConfigurationError: nobody can listen there.
    """
    _BUILD.info({"version": __version__, "daemon": daemon})
    state = _State(engine, rses, keys)
    REGISTRY.register(state)
    try:
        with _listening(settings):
            yield
    finally:
        REGISTRY.unregister(state)


@contextmanager
def _listening(settings: Metrics) -> Iterator[None]:
    if not settings.port:
        yield
        return
    try:
        server, thread = start_http_server(settings.port, settings.address)
    except (OSError, OverflowError) as error:
        where = f"{settings.address}:{settings.port}"
        raise ConfigurationError("metrics.port", expected="a free port", found=f"{where}: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _State(Collector):
    """What the tables say, at most `LOOK_SECONDS` ago, and the certificate."""

    def __init__(self, engine: Engine, rses: Rses, keys: Keys | None) -> None:
        self._engine, self._rses, self._keys = engine, rses, keys
        self._lock = threading.Lock()
        self._until = 0.0
        self._seen: Sequence[Metric] = ()

    def describe(self) -> Sequence[Metric]:
        return ()  # so that registering asks no database

    def collect(self) -> Iterator[Metric]:
        if self._keys is not None:
            left = GaugeMetricFamily("traceability_certificate_days_left", "Until the signing certificate ends")
            left.add_metric([], (self._keys.not_after - datetime.now(UTC)).total_seconds() / 86_400)
            yield left
        seen = self._look()
        yield GaugeMetricFamily("traceability_database_up", "Whether Rucio's database answers", value=bool(seen))
        yield from seen

    def _look(self) -> Sequence[Metric]:
        """The families of the tables; none if the database does not answer."""
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            return ()
        try:
            begun = time.monotonic()
            if begun >= self._until:
                try:
                    self._seen, times = [*self._outbox(), *self._tables()], LOOK_TIMES
                except (SQLAlchemyError, DatabaseException):
                    self._seen, times = (), 0  # how long no answer took says nothing of how long one takes
                took = time.monotonic() - begun
                self._until = begun + took + max(LOOK_SECONDS, times * took)
            return self._seen
        finally:
            self._lock.release()

    def _outbox(self) -> Iterator[Metric]:
        rows = GaugeMetricFamily("traceability_outbox_rows", "Changes not yet recorded", labels=["rse", "state"])
        oldest = GaugeMetricFamily(
            "traceability_outbox_oldest_timestamp_seconds",
            "When the oldest change was made that is neither recorded nor stopped",
            labels=["rse"],
        )
        stopped = GaugeMetricFamily(
            "traceability_signing_stopped", "1: too many were lost in a row, nothing is signed", labels=["rse"]
        )
        lines = summarise(self._engine).lines
        labels = self._rses.labels(line.rse_id for line in lines if line.rse_id is not None)
        for line in lines:
            rse = line.rse if line.rse_id is None else labels[line.rse_id]
            for state in ("due", "held", "waiting", "stopped"):
                rows.add_metric([rse, state], getattr(line, state))
            if line.oldest_moving is not None:
                oldest.add_metric([rse], line.oldest_moving.timestamp())
            stopped.add_metric([rse], line.signing_stopped)
        return iter((rows, oldest, stopped))

    def _tables(self) -> Iterator[Metric]:
        ours = tables(self._engine.dialect.name)
        breakers = GaugeMetricFamily("traceability_breaker_open", "1: nothing is declared bad there", labels=["rse"])
        alarms = GaugeMetricFamily(
            "traceability_alarm_reports", "Reports of each open alarm", labels=["kind", "subject"]
        )
        with self._engine.connect() as connection:
            states = connection.execute(select(ours.breakers.c.rse_id, ours.breakers.c.opened_at)).all()
            open_ones = connection.execute(select(ours.alarms.c.kind, ours.alarms.c.subject, ours.alarms.c.count)).all()
        labels = self._rses.labels(row.rse_id for row in states)
        for row in states:
            breakers.add_metric([labels[row.rse_id]], row.opened_at is not None)
        for row in open_ones:
            alarms.add_metric([row.kind, row.subject], row.count)
        return iter((breakers, alarms))
