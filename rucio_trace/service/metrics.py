"""What the service counts of its own work, for Prometheus.

Each app has a registry of its own. Where several processes serve one port, `serve` names a folder in
PROMETHEUS_MULTIPROC_DIR: prometheus_client then counts in files there, and any process answers for all.
"""

from __future__ import annotations

import collections
import os
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from rucio_trace.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rucio_trace.store import Registration, Store

__all__ = ["Counted", "Metrics"]

_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)


class Metrics:
    """The service's counters, and what is asked for when they are read."""

    def __init__(self, store: Store) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "traceability_service_requests",
            "Requests answered",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "traceability_service_request_seconds",
            "Time until the answer has gone",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._traces = Counter(
            "traceability_service_traces", "Traces handed in, by outcome", ["outcome"], registry=self._registry
        )
        self.waiting = Gauge(
            "traceability_service_waiting_traces",
            "Traces that are not answered yet; a small request counts as one",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._stored = _Stored(store)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def registered(self, answers: Iterable[Registration]) -> None:
        for outcome, count in collections.Counter(answer.outcome for answer in answers).items():
            self._traces.labels(outcome).inc(count)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it. May ask the store."""
        shown = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            shown = CollectorRegistry()
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
        return generate_latest(shown) + generate_latest(_only(self._stored))


def _only(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


class _Stored(Collector):
    """What the store says of itself; nothing where it does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        try:
            position, lag = self._store.position(), self._store.index_lag()
        except StorageError:
            return
        yield GaugeMetricFamily("traceability_store_position", "The last position given out", position)
        about = "For how long the oldest trace waits to be found by its members and words"
        yield GaugeMetricFamily("traceability_store_index_lag_seconds", about, lag.total_seconds())


class Counted:
    """ASGI middleware: counts every answer under its route, never under its path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.answered(method, route, status, time.perf_counter() - start)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
