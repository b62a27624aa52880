"""The recorder: small replicas from outbox to status, and one large file against a bare read of the same storage."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "integration"))

from rucio_trace_sandbox.home import RucioHome, claim_process
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.workspace import workspace
from rucio_trace_sandbox.xrootd import XRootD

from benchmarks.harness import ROUNDS, Row, at_least, at_most, interleaved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recorder_kit import Kit
    from rucio_trace_sandbox.storage import Rse

SMALL_FILES, SMALL_BYTES = 1_000, 16 * 1024
LARGE_BYTES = 1 << 30
RATE, SHARE, MEMORY_MB = 300, 0.8, 200


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        cluster = stack.enter_context(PostgresCluster.start(folder / "pg"))
        server = stack.enter_context(XRootD.start(folder / "xrd"))
        home = RucioHome.server(folder / "home", cluster.url(cluster.create()))
        claim_process(home)
        kit = make_kit(home, cluster, folder)
        disk = kit.rucio.add_posix_rse("DISK")
        remote = kit.rucio.add_xrootd_rse("REMOTE", server)
        seconds = sorted(_small(kit, disk, turn) for turn in range(ROUNDS + 1))[ROUNDS // 2]
        yield at_least("recorder, PostgreSQL: small replicas, one worker", SMALL_FILES / seconds, RATE, "replicas/s")
        yield from _large(kit, remote, server.url)
        yield at_most("recorder, memory: the program on that file", _peak_mb(kit), MEMORY_MB, "MB")


def make_kit(home: RucioHome, cluster: PostgresCluster, folder: Path) -> Kit:
    from rucio_trace_sandbox.embedded import EmbeddedRucio, bootstrap

    bootstrap(home)
    url = cluster.url(cluster.create())
    from recorder_kit import Kit

    return Kit(EmbeddedRucio(home, home.sections["database"]["default"], folder), url)


def _small(kit: Kit, rse: Rse, turn: int) -> float:
    """Seconds for a batch of new files, bytes and rows made beforehand."""
    content = os.urandom(SMALL_BYTES)
    names = [f"small-{turn}-{number}" for number in range(SMALL_FILES)]
    for name in names:
        path = kit.rucio.pfn_path(rse, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    register(kit, rse, names, SMALL_BYTES, f"{zlib.adler32(content):08x}")
    worker = kit.recorder(bulk=500).worker()
    start = time.perf_counter()
    while worker.step():
        pass
    seconds = time.perf_counter() - start
    assert not kit.outbox
    return seconds


def register(kit: Kit, rse: Rse, names: list[str], size: int, adler32: str) -> None:
    from rucio.core.replica import add_replicas

    files: list[dict[str, Any]] = [
        {"scope": kit.rucio.scope, "name": name, "bytes": size, "adler32": adler32} for name in names
    ]
    with kit.rucio.session() as session:
        add_replicas(rse.id, files, kit.rucio.root, session=session)


def _large(kit: Kit, rse: Rse, url: str) -> Iterator[Row]:
    from rucio_trace_daemons.storage import Replica

    path = kit.rucio.pfn_path(rse, "large")
    path.parent.mkdir(parents=True)
    piece, adler32 = os.urandom(1 << 20), 1
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(piece)
            adler32 = zlib.adler32(piece, adler32)
    register(kit, rse, ["large"], LARGE_BYTES, f"{adler32:08x}")
    recorder = kit.recorder()
    [facts] = recorder.rses.get({rse.id}).values()
    replica = Replica(facts, "test", "large", LARGE_BYTES)
    prover, [row] = recorder.worker()._context.prover, kit.outbox

    def ours() -> None:
        assert prover.prove(replica, row, None, lambda _count: None)[1]

    def bare() -> None:
        read_bare(f"{url}/{str(path).partition('/data/')[2]}", LARGE_BYTES)

    own, other = interleaved(ours, bare)
    name = "recorder, XRootD: 1 GiB, BLAKE3 and ADLER32, against File.read"
    share = other / own
    yield Row(
        name,
        f"{LARGE_BYTES / own / 1e6:.0f} MB/s",
        f"{LARGE_BYTES / other / 1e6:.0f} MB/s",
        f"{share:.2f}",
        f">= {SHARE}x",
        share >= SHARE,
    )


def read_bare(url: str, size: int) -> None:
    """XRootD's client alone, in pieces of the size we read."""
    from XRootD.client import File
    from XRootD.client.flags import OpenFlags

    file, offset, piece = File(), 0, 4 * 1024 * 1024
    status, _ = file.open(url, OpenFlags.READ)
    assert status.ok, status.message
    while True:
        status, data = file.read(offset, piece)
        assert status.ok, status.message
        if not data:
            break
        offset += len(data)
    file.close()
    assert offset == size


def _peak_mb(kit: Kit) -> float:
    """The most memory that `rucio-trace-recorder --run-once` held while it read the large file."""
    program = Path(sys.executable).with_name("rucio-trace-recorder")
    process = subprocess.Popen(
        [program, "--run-once", "--config", kit.file], env=kit.rucio.home.environment(), stderr=subprocess.DEVNULL
    )
    peak = watched_peak_mb(process)
    assert process.returncode == 0
    assert not kit.outbox
    return peak


def watched_peak_mb(process: subprocess.Popen[Any]) -> float:
    """The most memory that *process* held until it ended."""
    peak_kb = 0
    while process.poll() is None:
        # The process's own high-water mark; what getrusage tells of a child begins with its parent's memory.
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            marks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
            peak_kb = max([peak_kb, *marks])
        time.sleep(0.02)
    return peak_kb / 1024
