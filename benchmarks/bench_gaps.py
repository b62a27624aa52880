"""Finding gaps among a million replicas on PostgreSQL: how long it takes, and how much memory the program holds."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_trace_sandbox.home import RucioHome, claim_process
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.workspace import workspace
from sqlalchemy import text

from benchmarks.bench_recorder import watched_peak_mb
from benchmarks.harness import Row, at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio

REPLICAS, RSES = 1_000_000, 2
SECONDS, MEMORY_MB = 60, 250
# One in a hundred of each kind; the others are as they should be.
EVERY = 100

_FILL = (
    """INSERT INTO dids (scope, name, account, did_type, availability, bytes, adler32, created_at, updated_at)
       SELECT 'test', 'file' || n, 'root', 'F', 'A', 1000, '0bcb02fc',
              timestamp '2020-01-01' + n * interval '1 s', now()
       FROM generate_series(1, {files}) AS n""",
    """INSERT INTO replicas (scope, name, rse_id, bytes, adler32, state, created_at, updated_at)
       SELECT d.scope, d.name, r.id, CASE WHEN d.n % {every} = 1 THEN 1001 ELSE 1000 END, '0bcb02fc', 'A', now(), now()
       FROM (SELECT scope, name, substr(name, 5)::int AS n FROM dids) AS d, rses AS r WHERE d.n % {every} <> 2""",
    """INSERT INTO traceability.replicas (scope, name, generation, rse_id, rse, state, trace_id, proven_at, position)
       SELECT d.scope, d.name, d.created_at, replace(r.id::text, '-', ''), r.rse, 'proven', gen_random_uuid(), now(), 1
       FROM dids AS d, rses AS r WHERE substr(d.name, 5)::int % {every} <> 3""",
    """INSERT INTO traceability.products (scope, name, generation, status, proven, total, position)
       SELECT scope, name, created_at, 'GENUINE', {rses}, {rses}, 1 FROM dids""",
    """INSERT INTO traceability.signed (scope, name, generation, bytes, adler32)
       SELECT scope, name, created_at, 1000, '0bcb02fc' FROM dids""",
    "ANALYZE",
)


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        cluster = stack.enter_context(PostgresCluster.start(folder / "pg"))
        home = RucioHome.server(folder / "home", cluster.url(cluster.create()))
        claim_process(home)
        from rucio_trace_sandbox.embedded import EmbeddedRucio, bootstrap

        bootstrap(home)
        rucio = EmbeddedRucio(home, home.sections["database"]["default"], folder)
        _fill(rucio)
        start = time.perf_counter()
        peak = _gaps(home)
        yield at_most("gaps, PostgreSQL: 1,000,000 replicas, whole process", time.perf_counter() - start, SECONDS)
        yield at_most("gaps, memory", peak, MEMORY_MB, "MB")


def _fill(rucio: EmbeddedRucio) -> None:
    from rucio_trace_policy import hooks

    hooks.install(rucio.engine)
    for number in range(RSES):
        rucio.add_posix_rse(f"RSE-{number}")
    with rucio.engine.begin() as connection:
        # As if the triggers had seen all this long ago.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in _FILL:
            connection.execute(text(statement.format(files=REPLICAS // RSES, rses=RSES, every=EVERY)))


def _gaps(home: RucioHome) -> float:
    program = Path(sys.executable).with_name("rucio-trace")
    process = subprocess.Popen([program, "gaps"], env=home.environment(), stdout=subprocess.PIPE, text=True)
    peak = watched_peak_mb(process)
    assert process.stdout is not None
    counts = [line.split()[2:] for line in process.stdout.read().splitlines() if " read " in line]
    assert process.returncode == 3
    found = str(REPLICAS // RSES // EVERY)
    replicas = str(REPLICAS // RSES * (EVERY - 1) // EVERY)
    assert counts == [[replicas, "0", found, found, found, "0"]] * RSES, counts
    return peak
