"""The auditor: large files against a bare read of the same storage, small replicas with two workers, two against one.

Workers are processes, as on two hosts: forked from this one when all is imported, and let go together.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rucio_trace_sandbox.home import RucioHome, claim_process
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.workspace import workspace
from rucio_trace_sandbox.xrootd import XRootD

from benchmarks.bench_recorder import read_bare, register
from benchmarks.harness import Row, at_least, forget, interleaved, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from auditor_kit import AuditKit
    from rucio_trace_sandbox.storage import Rse

SMALL_FILES, SMALL_BYTES, LARGE_FILES, LARGE_BYTES = 4_000, 16 * 1024, 4, 512 << 20
RATE, SHARE, SPEEDUP, TURNS = 500, 0.9, 1.6, 3
# So that a round of a few thousand has what one of millions has: batches that one worker signs while others read.
BATCH_LINES = 1_000
PIECE = 1 << 20


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        cluster = stack.enter_context(PostgresCluster.start(folder / "pg"))
        server = stack.enter_context(XRootD.start(folder / "xrd"))
        home = RucioHome.server(folder / "home", cluster.url(cluster.create()))
        claim_process(home)
        kit = _kit(home, cluster, folder)
        yield from _large(kit, kit.rucio.add_posix_rse("LARGE"), "files on a disk, cold", read_file)
        remote = kit.rucio.add_xrootd_rse("REMOTE", server)
        prefix = f"{server.url}/"
        yield from _large(
            kit, remote, "XRootD", lambda path: read_bare(prefix + str(path).partition("/data/")[2], LARGE_BYTES)
        )
        yield from _small(kit, kit.rucio.add_posix_rse("SMALL"))


def _kit(home: RucioHome, cluster: PostgresCluster, folder: Path) -> AuditKit:
    from rucio_trace_sandbox.embedded import EmbeddedRucio, bootstrap

    bootstrap(home)
    url = cluster.url(cluster.create())
    from auditor_kit import AuditKit

    return AuditKit(EmbeddedRucio(home, home.sections["database"]["default"], folder), url)


def _large(kit: AuditKit, rse: Rse, name: str, bare_read) -> Iterator[Row]:
    paths = _fill(kit, rse, LARGE_FILES, LARGE_BYTES)
    audit = kit.start(rse.name)
    auditor = kit.auditor()

    def ours() -> None:
        for path in paths:
            forget(path)
        kit.work(auditor)

    def bare() -> None:
        for path in paths:  # all of them first, as above: memory that was just freed is quicker to fill again
            forget(path)
        for path in paths:
            bare_read(path)

    own, other = interleaved(ours, bare)
    kit.stop_campaign(audit)
    total = LARGE_FILES * LARGE_BYTES
    yield Row(
        f"auditor, {name}: 4 files of 512 MiB, signed",
        f"{total / own / 1e6:.0f} MB/s",
        f"{total / other / 1e6:.0f} MB/s bare",
        f"{other / own:.2f}",
        f">= {SHARE}x",
        other / own >= SHARE,
    )


def _small(kit: AuditKit, rse: Rse) -> Iterator[Row]:
    _fill(kit, rse, SMALL_FILES, SMALL_BYTES)
    kit.start(rse.name)
    one, two = [], []
    for _ in range(TURNS):
        one.append(_round(kit, 1))
        two.append(_round(kit, 2))
    one_rate, two_rate = (SMALL_FILES / statistics.median(seconds) for seconds in (one, two))
    yield at_least("auditor, PostgreSQL: small replicas, two workers", two_rate, RATE, "replicas/s")
    yield Row(
        "auditor, PostgreSQL: two workers against one",
        f"{two_rate:.0f} replicas/s",
        f"{one_rate:.0f} replicas/s",
        f"{two_rate / one_rate:.2f}",
        f">= {SPEEDUP}x",
        two_rate / one_rate >= SPEEDUP,
    )


def _round(kit: AuditKit, workers: int) -> float:
    """Seconds for one round shared by so many processes, from its begin to the last of them."""
    kit.rucio.engine.dispose()
    gate, opened = os.pipe()
    children = []
    for _ in range(workers):
        child = os.fork()
        if child == 0:
            try:
                os.close(opened)
                auditor = kit.auditor(batch_lines=BATCH_LINES)
                os.read(gate, 1)
                kit.work(auditor)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    os.close(gate)
    before = kit.ended
    kit.rucio.engine.dispose()
    time.sleep(1.0)  # all have opened what they need
    start = time.perf_counter()
    os.close(opened)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    seconds = time.perf_counter() - start
    while kit.ended == before:  # the last worker may have left the end of the round to a next turn
        kit.audit()
    return seconds


def _fill(kit: AuditKit, rse: Rse, count: int, size: int) -> list[Path]:
    """*count* files with other bytes each, signed."""
    import zlib

    names = [f"{rse.name}-{number}" for number in range(count)]
    base, paths = os.urandom(min(size, PIECE)), []
    for number, name in enumerate(names):
        path = kit.rucio.pfn_path(rse, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        adler32 = zlib.adler32(number.to_bytes(8, "big"))
        with path.open("wb") as file:
            file.write(number.to_bytes(8, "big"))
            left = size - 8
            while left:
                piece = base[:left]
                file.write(piece)
                adler32, left = zlib.adler32(piece, adler32), left - len(piece)
        register(kit, rse, [name], size, f"{adler32:08x}")
        paths.append(path)
    os.sync()
    kit.run(bulk=500)
    assert not kit.outbox
    return paths
