"""Hashing: whole processes and the one-pass core, on files that lie in the page cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Row, at_least, at_most, compared, interleaved
from rucio_trace.archive import digest_archive
from rucio_trace.digest import digest_file

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
MIB = 1 << 20
PROGRAM = str(Path(sys.executable).with_name("rucio-trace"))
PEER = "import blake3, sys; print(blake3.blake3(max_threads=2).update_mmap(sys.argv[1]).hexdigest())"


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        big = Path(folder) / "big.bin"
        _fill(big, GIB)
        yield compared(
            "hash 1 GiB, BLAKE3, whole process",
            lambda: _run(PROGRAM, "hash", str(big)),
            lambda: _run(sys.executable, "-c", PEER, str(big)),
            peer_name="blake3.update_mmap, 2 threads",
            limit=1.5,
        )
        (took,) = interleaved(lambda: digest_file(big, ["BLAKE3", "ADLER32"]))
        yield at_least("BLAKE3 + ADLER32, one pass", GIB / took / 1e9, 1.2, "GB/s")
        big.unlink()

        packed = Path(folder) / "product.zip"
        _pack(packed, members=20, member_bytes=40 * MIB)
        (took,) = interleaved(lambda: digest_archive(packed, ["BLAKE3"]))
        yield at_most("zip of 800 MiB, 20 members: whole and members", took, 0.6)
        (took,) = interleaved(lambda: _run(PROGRAM, "hash", "--contents", str(packed)))
        yield at_most("the same, whole process", took, 0.6)
    (took,) = interleaved(lambda: _run(PROGRAM, "--version"), rounds=11)
    yield at_most("rucio-trace --version", took, 0.15)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _fill(file: Path, size: int) -> None:
    with file.open("wb") as out:
        for _ in range(size // (16 * MIB)):
            out.write(os.urandom(16 * MIB))


def _pack(file: Path, members: int, member_bytes: int) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for number in range(members):
            packed.writestr(f"PRODUCT.SAFE/IMG_DATA/B{number:02}.jp2", os.urandom(member_bytes))
