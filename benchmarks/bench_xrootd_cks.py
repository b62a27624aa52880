"""The checksum program for XRootD against a bare reading of the same file, both from the disk."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import ROUNDS, Row, at_most, forget, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
SIZE = 4 * GIB
SHARE, MEMORY_MB = 0.9, 100
PROGRAM = str(Path(sys.executable).with_name("rucio-trace-xrootd-cks"))


def rows() -> Iterator[Row]:
    # /tmp may lie in memory, /var/tmp never does.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        file = Path(folder) / "large"
        _fill(file)
        ours = [PROGRAM, "--localroot", folder, "blake3", "/large"]
        bare = ["dd", f"if={file}", "of=/dev/null", "status=none"]
        peers = {"dd bs=1M": [*bare, "bs=1M"], "dd bs=8M iflag=direct": [*bare, "bs=8M", "iflag=direct"]}
        own, *others = _from_disk(file, ours, *peers.values())
        for peer, other in zip(peers, others, strict=True):
            share = other / own
            name = f"rucio-trace-xrootd-cks: {SIZE // GIB} GiB, whole process, nothing cached"
            speeds = (f"{SIZE / own / 1e6:.0f} MB/s", f"{SIZE / other / 1e6:.0f} MB/s {peer}")
            yield Row(name, *speeds, f"{share:.2f}", f">= {SHARE}x", share >= SHARE)
        yield at_most("rucio-trace-xrootd-cks, memory for that file", _peak_mb(ours), MEMORY_MB, "MB")


def _from_disk(file: Path, *commands: list[str]) -> list[float]:
    """The median seconds of each command, in turns; before each, *file* is forgotten by the page cache."""
    times: list[list[float]] = [[] for _ in commands]
    for turn in range(ROUNDS):
        for index in range(len(commands))[:: -1 if turn % 2 else 1]:
            forget(file)
            times[index].append(seconds(partial(_run, commands[index])))
    return [statistics.median(series) for series in times]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _fill(file: Path) -> None:
    with file.open("wb") as out:
        for _ in range(SIZE >> 24):
            out.write(os.urandom(1 << 24))
        os.fsync(out.fileno())


def _peak_mb(command: list[str]) -> float:
    """The most memory a process running *command* held, by its own account."""
    code = (
        "import atexit, sys; from rucio_trace.xrootd_cks import main\n"
        "atexit.register(lambda: print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1],"
        " file=sys.stderr))\nmain(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, *command[1:]], capture_output=True, text=True, check=True)
    return float(done.stderr) / 1024
