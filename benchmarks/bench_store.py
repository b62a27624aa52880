"""The store, in batches as the recorder sends them: registering with every check, and reading histories back."""

from __future__ import annotations

import itertools
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.workspace import workspace

from benchmarks.harness import ROUNDS, Row, at_least, interleaved
from benchmarks.signed import batch_of, creations, product, trust
from rucio_trace.batch import check_line
from rucio_trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace.envelope import Trace

BATCH = 500
LINES = 10_000
LINES_TARGET = 5_000  # lines a second: an auditor's batch of ten minutes leaves the store two seconds
TARGET = 1_000  # traces a second: the recorder's 300 replicas leave the store less than a third of the time


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield from _measure("SQLite", f"sqlite:///{folder / 'traces.db'}")
        cluster = stack.enter_context(PostgresCluster.start(stack.enter_context(workspace()) / "pg"))
        yield from _measure("PostgreSQL", cluster.url(cluster.create()))


def _measure(database: str, url: str) -> Iterator[Row]:
    anchors = trust()
    with Store.open(url) as store:

        def register(batches: Iterator[list[Trace]]) -> None:
            answers = store.register(next(batches), trust=anchors)
            assert all(answer.outcome == "stored" for answer in answers)

        small, large = _batches(0, contents=0), _batches(1_000_000, contents=15)
        keys = [product(number) for number in range(BATCH)]
        bare, full, read = interleaved(lambda: register(small), lambda: register(large), lambda: store.product(keys))
        yield from _batches_of_lines(database, store)
    yield at_least(f"store, {database}: register with all checks", BATCH / bare, TARGET, "traces/s")
    yield at_least(f"store, {database}: the same, 15 contents each", BATCH / full, TARGET, "traces/s")
    yield at_least(f"store, {database}: read the histories of 500 products", BATCH / read, TARGET, "products/s")


def _batches(first: int, contents: int) -> Iterator[list[Trace]]:
    """Batches made beforehand, as many as are measured and one to warm up."""
    starts = itertools.count(first, BATCH)
    return iter([creations(start, BATCH, contents) for start in itertools.islice(starts, ROUNDS + 1)])


def _batches_of_lines(database: str, store: Store) -> Iterator[Row]:
    """A batch as an auditor registers it; its lines looked up as a recorder does, one of them shown and checked."""
    keys = [product(number) for number in range(LINES)]
    anchors, made_before = trust(), iter([batch_of(keys) for _ in range(ROUNDS + 1)])

    def register() -> None:
        made, data = next(made_before)
        (answer,) = store.register([made], trust=anchors, lists={made.id: data})
        assert answer.outcome == "stored"

    registering, finding = interleaved(register, lambda: store.proven(keys[::20]))
    yield at_least(f"store, {database}: register a batch of 10,000 lines", LINES / registering, LINES_TARGET, "lines/s")
    yield at_least(f"store, {database}: find the lines of 500 products", 500 / finding, TARGET, "products/s")
    proofs = [proof for key in keys[:100] if (proof := store.line_proof(key))]
    (checking,) = interleaved(lambda: [check_line(proof) for proof in proofs])
    yield at_least(f"store, {database}: check proofs of its lines", len(proofs) / checking, TARGET, "proofs/s")
