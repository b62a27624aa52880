"""Backfill: large files against a bare read of the same storage, and small replicas by one process and by two."""

from __future__ import annotations

import os
import statistics
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "integration"))

from rucio_trace_sandbox.home import RucioHome, claim_process
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.workspace import workspace
from rucio_trace_sandbox.xrootd import XRootD
from sqlalchemy import text

from benchmarks.bench_recorder import make_kit, read_bare
from benchmarks.harness import Row, at_least, forget, interleaved, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from recorder_kit import Kit
    from rucio_trace_daemons.backfill.run import Progress
    from rucio_trace_sandbox.storage import Rse

LARGE_FILES, LARGE_BYTES, STREAMS = 8, 512 << 20, 2
SMALL_FILES, SMALL_BYTES, BULK = 5_000, 16 * 1024, 250
SHARE, RATE, GAIN = 0.9, 500, 1.6
ROUNDS = 3


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        cluster = stack.enter_context(PostgresCluster.start(folder / "pg"))
        server = stack.enter_context(XRootD.start(folder / "xrd"))
        home = RucioHome.server(folder / "home", cluster.url(cluster.create()))
        claim_process(home)
        kit = make_kit(home, cluster, folder)
        remote = kit.rucio.add_xrootd_rse("REMOTE", server)
        yield from _large(kit, remote, server.url)
        disk = kit.rucio.add_posix_rse("DISK")
        yield from _small(kit, disk)


def _large(kit: Kit, remote: Rse, url: str) -> Iterator[Row]:
    """The same files by XRootD out of the page cache, and from the disk itself."""
    disk = kit.rucio.add_posix_rse("COLD", folder=remote.folder)
    files = {name: _fill(kit, remote, name) for name in (f"large-{number}" for number in range(LARGE_FILES))}
    for rse in (remote, disk):
        register_unseen(kit, rse, files)
    paths = [kit.rucio.pfn_path(remote, name) for name in files]
    urls = [f"{url}/{str(path).partition('/data/')[2]}" for path in paths]
    yield _against(kit, "XRootD", "REMOTE", "File.read", lambda url: read_bare(url, LARGE_BYTES), urls)
    yield _against(kit, "disk, cold", "COLD", "read", read_file, paths)


def _against(kit: Kit, name: str, rse: str, peer: str, read: Callable[[Any], object], files: Sequence[object]) -> Row:
    def ours() -> None:
        with kit.rucio.engine.begin() as connection:  # as if none of it had been done
            for table in ("replicas", "products", "signed"):
                connection.execute(text(f"DELETE FROM traceability.{table}"))
        make_cold()
        assert _backfill(kit, rse, STREAMS, 1).files == LARGE_FILES

    def make_cold() -> None:
        # All of them first, in both: memory that was just freed is quicker to fill again.
        for path in files:
            if isinstance(path, Path):
                forget(path)

    def bare() -> None:
        make_cold()
        with ThreadPoolExecutor(STREAMS) as pool:
            list(pool.map(read, files))

    own, other = interleaved(ours, bare, rounds=ROUNDS)
    size = LARGE_FILES * LARGE_BYTES
    return Row(
        f"backfill, {name}: {LARGE_FILES} files of 512 MiB, {STREAMS} streams, against {peer}",
        f"{size / own / 1e6:.0f} MB/s",
        f"{size / other / 1e6:.0f} MB/s",
        f"{other / own:.2f}",
        f">= {SHARE}x",
        other / own >= SHARE,
    )


def _fill(kit: Kit, rse: Rse, name: str) -> tuple[int, str]:
    """Write the file; returns its size and ADLER32."""
    path = kit.rucio.pfn_path(rse, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    piece, adler32 = os.urandom(1 << 20), 1
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(piece)
            adler32 = zlib.adler32(piece, adler32)
        file.flush()
        os.fsync(file.fileno())  # what is not on the disk yet cannot be made cold
    return LARGE_BYTES, f"{adler32:08x}"


def _small(kit: Kit, rse: Rse) -> Iterator[Row]:
    turns = [(turn, processes) for turn in range(ROUNDS) for processes in (1, 2)]
    rates: dict[int, list[float]] = {1: [], 2: []}
    for turn, processes in turns:
        rates[processes].append(_small_rate(kit, rse, f"{turn}-{processes}", processes))
    one, two = (statistics.median(rates[processes]) for processes in (1, 2))
    yield at_least("backfill, PostgreSQL: small replicas, two processes", two, RATE, "replicas/s")
    yield Row(
        "backfill, PostgreSQL: two processes against one",
        f"{two:.0f}/s",
        f"{one:.0f}/s one process",
        f"{two / one:.2f}",
        f">= {GAIN}x",
        two / one >= GAIN,
    )


def _small_rate(kit: Kit, rse: Rse, turn: str, processes: int) -> float:
    """Replicas a second between the first that is done and the last."""
    content = os.urandom(SMALL_BYTES)
    names = [f"small-{turn}-{number}" for number in range(SMALL_FILES)]
    for name in names:
        path = kit.rucio.pfn_path(rse, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    facts = (SMALL_BYTES, f"{zlib.adler32(content):08x}")
    register_unseen(kit, rse, dict.fromkeys(names, facts))
    marks: list[tuple[float, int]] = []

    def show(progress: Progress) -> None:
        if progress.files and (not marks or progress.files > marks[-1][1]):
            marks.append((time.perf_counter(), progress.files))

    assert _backfill(kit, "DISK", 1, processes, show).files == SMALL_FILES
    (begin, before), (end, after) = marks[0], marks[-1]
    return (after - before) / (end - begin)


def register_unseen(kit: Kit, rse: Rse, files: Mapping[str, tuple[int, str]]) -> None:
    """Replicas that were there before the hooks: no trigger saw them."""
    from rucio.core.replica import add_replicas

    entries = [
        {"scope": kit.rucio.scope, "name": name, "bytes": size, "adler32": adler32}
        for name, (size, adler32) in files.items()
    ]
    with kit.rucio.session() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        add_replicas(rse.id, entries, kit.rucio.root, session=session)


def _backfill(
    kit: Kit, rses: str, threads: int, processes: int, show: Callable[[Progress], None] = lambda _progress: None
) -> Progress:
    from rucio_trace_daemons.backfill import run
    from rucio_trace_daemons.backfill.work import Processes, Task, Threads

    plan = run.plan(kit.rucio.engine, rses)
    options = replace(kit.options, threads=threads, bulk=BULK)
    task = Task(kit.settings, options, frozenset(plan.rses))
    crew = Processes(task, processes) if processes > 1 else Threads(task)
    return run.run(kit.rucio.engine, plan, crew, BULK * threads * processes, show)
