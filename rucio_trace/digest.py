"""Digests of streams and files: any set of algorithms, and the size, in one reading of the bytes.

Decides which digests exist and how they share the machine's cores; what they mean is for the
caller. A `DigestPass` belongs to one thread at a time; separate passes may run side by side.
What BLAKE3 alone does not need is imported when it is asked for: on a command's start that shows.
"""

from __future__ import annotations

import mmap
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

import blake3

from rucio_trace.errors import TraceabilityError, Undecided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from typing import Self

    Buffer = bytes | bytearray | memoryview

__all__ = [
    "ALGORITHMS",
    "CHUNK_BYTES",
    "DigestPass",
    "Digests",
    "FileChanged",
    "NotAFile",
    "chunks",
    "cores",
    "digest_file",
    "digest_stream",
    "open_file",
    "unchanged",
]

CHUNK_BYTES = 1 << 20
"""Read size: large enough that the interpreter costs nothing, small enough to stay in the cache."""

_MAPPED_CHUNK_BYTES = 64 << 20  # BLAKE3's own threads need long runs; Ctrl-C and progress need an end
_PARALLEL_BYTES = 128 << 10  # below this a hand-over between threads costs more than it saves
_WORTHWHILE_SECONDS_PER_GB = 0.2  # a lane that saves less loses it again to hand-overs
_MAPPED_MIN_BYTES = 8 << 20  # below this waking BLAKE3's threads costs more than it saves


class NotAFile(TraceabilityError):
    """What was named has no bytes of its own to digest."""

    def __init__(self, path: Path) -> None:
        hint = "pack it (zip or tar) or name its files; `hash --product` digests its content"
        super().__init__(str(path), expected="a file", found="a directory", hint=hint)


class FileChanged(Undecided):
    """A file was written to while it was read, so that its digest would be of no state it ever had."""

    def __init__(self, path: Path, before: int, after: int) -> None:
        found = f"{after} bytes" if before != after else "another modification time"
        hint = "it changed while it was read: try again when it is complete"
        super().__init__(str(path), expected=f"{before} bytes as at the start", found=found, hint=hint)


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> object: ...
    def hexdigest(self) -> str: ...


class _Adler32:
    """ADLER-32 with hashlib's interface, written as Rucio does: eight lower-case digits."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._adler32, self._value = isal_zlib.adler32, 1

    def update(self, data: Buffer, /) -> None:
        self._value = self._adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _hashlib(name: str) -> Callable[[], _Hash]:
    def start() -> _Hash:
        import hashlib

        return hashlib.new(name, usedforsecurity=False)  # MD5 too, which FIPS refuses otherwise

    return start


@dataclass(frozen=True, slots=True)
class _Algorithm:
    start: Callable[[], _Hash]
    cost: float  # seconds per GB on one core, measured; only the proportions matter


_ALGORITHMS: Mapping[str, _Algorithm] = {
    "BLAKE3": _Algorithm(blake3.blake3, 0.25),
    "SHA256": _Algorithm(_hashlib("sha256"), 0.7),
    "SHA3": _Algorithm(_hashlib("sha3_256"), 2.2),
    "SHA512": _Algorithm(_hashlib("sha512"), 1.3),
    "MD5": _Algorithm(_hashlib("md5"), 1.4),
    "ADLER32": _Algorithm(_Adler32, 0.15),
}

ALGORITHMS: tuple[str, ...] = tuple(_ALGORITHMS)


@dataclass(frozen=True, slots=True)
class Digests:
    """The size in bytes and, by algorithm in the order asked for, lower-case hex digests."""

    size: int
    hashes: Mapping[str, str]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _threads(count: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(count, "digest")


class DigestPass:
    """Digests of bytes that come in chunks; memory does not grow with their number.

    Algorithms are shared out among `threads` lanes (default: all cores) where that saves time:
    BLAKE3 beside ADLER32 is as fast as memory in one thread, SHA3 beside MD5 is not.
    `update` returns when every lane is done with the chunk, which may then be overwritten.
    """

    def __init__(self, algorithms: Iterable[str], *, threads: int | None = None) -> None:
        self.size = 0
        self._hashes: dict[str, _Hash] = {}
        for name in algorithms:
            if name not in _ALGORITHMS:
                raise ValueError(f"unknown digest algorithm {name!r}; known are {', '.join(ALGORITHMS)}")
            self._hashes[name] = _ALGORITHMS[name].start()
        lanes = _lanes(self._hashes, cores() if threads is None else threads)
        self._lanes = [[self._hashes[name] for name in lane] for lane in lanes]
        self._pool = _threads(len(self._lanes) - 1) if len(self._lanes) > 1 else None

    def update(self, chunk: Buffer) -> None:
        """Take in the next bytes."""
        self.size += memoryview(chunk).nbytes
        if self._pool is None or memoryview(chunk).nbytes < _PARALLEL_BYTES:
            for lane in self._lanes:
                _feed(lane, chunk)
            return
        running = [self._pool.submit(_feed, lane, chunk) for lane in self._lanes[1:]]
        _feed(self._lanes[0], chunk)
        for beside in running:
            beside.result()

    def finish(self) -> Digests:
        """The digests of everything so far; frees the pass's threads."""
        self.close()
        return Digests(self.size, {name: running.hexdigest() for name, running in self._hashes.items()})

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _feed(lane: Iterable[_Hash], chunk: Buffer) -> None:
    for running in lane:
        running.update(chunk)


def _lanes(names: Iterable[str], threads: int) -> list[list[str]]:
    """Share algorithms out among at most *threads* lanes, as few as serve."""
    best = _shared_out(names, 1)
    for count in range(2, threads + 1):
        lanes = _shared_out(names, count)
        if _duration(best) - _duration(lanes) < _WORTHWHILE_SECONDS_PER_GB:
            break
        best = lanes
    return best


def _shared_out(names: Iterable[str], count: int) -> list[list[str]]:
    """The costliest algorithm first, each to the idlest of *count* lanes."""
    lanes: list[list[str]] = [[] for _ in range(count)]
    for name in sorted(names, key=lambda name: -_ALGORITHMS[name].cost):
        min(lanes, key=_load).append(name)
    return lanes


def _load(lane: Iterable[str]) -> float:
    return sum(_ALGORITHMS[name].cost for name in lane)


def _duration(lanes: Iterable[Iterable[str]]) -> float:
    return max(map(_load, lanes))


def digest_stream(
    stream: BinaryIO,
    algorithms: Iterable[str],
    *,
    most: int | None = None,
    progress: Callable[[int], object] | None = None,
    threads: int | None = None,
) -> Digests:
    """Read *stream* to its end, or until more than *most* bytes came; `progress` is told the bytes of each read."""
    with DigestPass(algorithms, threads=threads) as digests:
        for chunk in chunks(stream, most=most):
            digests.update(chunk)
            if progress:
                progress(len(chunk))
        return digests.finish()


def chunks(stream: BinaryIO, chunk_bytes: int = CHUNK_BYTES, *, most: int | None = None) -> Iterator[memoryview]:
    """Successive reads into one buffer; each view is good until the next is asked for.

    Ends with the stream, or when more than *most* bytes came: a file may grow as fast as it is read.
    """
    buffer = memoryview(bytearray(chunk_bytes))
    total = 0
    while (most is None or total <= most) and (view := _read(stream, buffer)):
        total += len(view)
        yield view


def _read(stream: BinaryIO, buffer: memoryview) -> memoryview:
    readinto = getattr(stream, "readinto", None)
    if readinto is None:
        return memoryview(stream.read(len(buffer)))
    return buffer[: readinto(buffer)]


def open_file(path: Path) -> BinaryIO:
    """*path* opened for one reading from start to end; a directory is refused.

    Raises:
        NotAFile: it is a directory.
        OSError: it cannot be opened.
    """
    if path.is_dir():
        raise NotAFile(path)
    file = path.open("rb", buffering=0)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return file


@contextmanager
def unchanged(path: Path, file: BinaryIO) -> Iterator[os.stat_result]:
    """Give the state of *file* and raise FileChanged if a regular file's is another one when the block ends."""
    before = os.fstat(file.fileno())
    yield before
    after = os.fstat(file.fileno())
    if stat.S_ISREG(before.st_mode) and _state(before) != _state(after):
        raise FileChanged(path, before.st_size, after.st_size)


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def digest_file(
    path: Path,
    algorithms: Iterable[str],
    *,
    progress: Callable[[int], object] | None = None,
    threads: int | None = None,
) -> Digests:
    """Digests of the file at *path*; asked for BLAKE3 alone, a large file is mapped and uses all cores.

    A process that maps a file dies (SIGBUS) if somebody truncates it meanwhile: daemons, which
    must not, read with `digest_stream`.

    Raises:
        NotAFile: *path* is a directory.
        FileChanged: it was written to while it was read.
        OSError: it cannot be read.
    """
    names = list(dict.fromkeys(algorithms))
    with open_file(path) as file, unchanged(path, file) as before:
        many = cores() if threads is None else threads
        regular = stat.S_ISREG(before.st_mode)
        if regular and names == ["BLAKE3"] and before.st_size >= _MAPPED_MIN_BYTES and many > 1:
            return _digest_mapped(file, before.st_size, many, progress)
        most = before.st_size if regular else None
        return digest_stream(file, names, most=most, progress=progress, threads=threads)


def _digest_mapped(file: BinaryIO, size: int, threads: int, progress: Callable[[int], object] | None) -> Digests:
    running = blake3.blake3(max_threads=threads)
    with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        for start in range(0, size, _MAPPED_CHUNK_BYTES):
            with view[start : start + _MAPPED_CHUNK_BYTES] as window:
                running.update(window)
                if progress:
                    progress(len(window))
    return Digests(size, {"BLAKE3": running.hexdigest()})
