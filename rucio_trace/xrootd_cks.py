"""`rucio-trace-xrootd-cks`: the checksum program of an XRootD server that reads the file for every question.

    xrootd.chksum max 4 adler32 blake3 /opt/rucio-trace/bin/rucio-trace-xrootd-cks --localroot /data

XRootD runs it once for each checksum query (`[ALGORITHM] PATH [CLIENT…]`) and gives the first line it prints to the
client. Nothing is kept from one question to the next, and where the file system can, the disk is asked and not the
page cache (O_DIRECT): a bit that flipped below a cached page is seen. A BLAKE3 answer says when the reading began:

    7a91…4084 read=2026-06-01T12:00:00.000000Z size=735683295 direct

`direct` or `cached` is how it was read. Other digests stand alone, because XRootD's and Rucio's clients, who ask for
them, accept no further word. Standard output holds an answer or nothing. The exit status is the errno by which XRootD
tells its client what was wrong: ENOENT only if the file is surely not there.

XRootD waits for this process to start: only what every question needs is imported at the top.
"""

from __future__ import annotations

import argparse
import errno
import mmap
import os
import stat
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from itertools import cycle, islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    # Blocks to read into, and blocks that were: how many bytes, or why none.
    _Lane = tuple[SimpleQueue[memoryview], SimpleQueue[tuple[memoryview, int | OSError]]]

__all__ = ["main"]

# Measured: two requests of this size, which the kernel cuts up, keep a disk busy; two more blocks are hashed meanwhile.
# That is all the memory it takes.
_BLOCK_BYTES = 8 << 20
_LANES = 2
_BLOCKS_PER_LANE = 2
# So many cores hash as fast as any disk reads; the others serve the storage's users.
_MAX_THREADS = 4
# Answers of a file system that has no O_DIRECT.
_NO_DIRECT = {errno.EINVAL, errno.EOPNOTSUPP}
# What would tell XRootD something false: that the file is not there; that all is well.
_MISLEADING = {errno.ENOENT, errno.EPIPE}


class _Failure(Exception):
    """There is no answer; `status` is an errno that XRootD translates for its client."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(status, reason)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Its own status, 2, would be ENOENT."""
        self.exit(errno.EINVAL, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer XRootD's question on standard output, or end with an errno."""
    parser = _Parser(
        "rucio-trace-xrootd-cks",
        description="Checksum program for xrootd.chksum that reads the file for every question.",
        epilog="Example: xrootd.chksum max 4 adler32 blake3 /path/rucio-trace-xrootd-cks --localroot /data",
        allow_abbrev=False,
    )
    parser.add_argument("--localroot", required=True, metavar="DIR", help="as in oss.localroot; / without it")
    parser.add_argument(
        "--within", action="append", metavar="DIR", help="where files may lie, repeatable (default: --localroot)"
    )
    # All the rest, because the client's name, the last word, may look like an option.
    parser.add_argument("question", nargs=argparse.REMAINDER, help="what XRootD appends: [ALGORITHM] PATH [CLIENT...]")
    given = parser.parse_args(arguments)
    path = next((word for word in given.question[:2] if word.startswith("/")), None)
    if path is None:
        parser.error("expected [ALGORITHM] PATH, and a path that begins with /")
    algorithm = "blake3" if path == given.question[0] else given.question[0]
    try:
        answer = _answer(algorithm, given.localroot.rstrip("/") + path, given.within or [given.localroot])
    except _Failure as failure:
        _fail(path, failure.status, failure.reason)
    except OSError as error:
        status = error.errno or errno.EIO
        _fail(path, errno.EIO if status in _MISLEADING else status, error.strerror or str(error))
    sys.stdout.write(f"{answer}\n")


def _fail(path: str, status: int, reason: str) -> NoReturn:
    from rucio_trace.errors import shown

    sys.stderr.write(f"rucio-trace-xrootd-cks: {shown(path)}: {reason}\n")
    sys.exit(status)


def _answer(algorithm: str, path: str, within: Iterable[str]) -> str:
    """The line for XRootD.

    Raises:
        _Failure, OSError: there is none.
    """
    file, direct = _opened(path, [_real_folder(folder) for folder in within])
    began, before = datetime.now(UTC), os.fstat(file)
    digest = _digest(algorithm, _blocks(file, before.st_size))
    try:
        after = os.stat(path)  # noqa: PTH116 - what lies there now, perhaps another file
    except FileNotFoundError:
        raise _Failure(errno.ETXTBSY, "removed while it was read") from None
    if _state(before) != _state(after):
        raise _Failure(errno.ETXTBSY, "changed while it was read")
    if algorithm != "blake3":
        return digest
    return f"{digest} read={began:%Y-%m-%dT%H:%M:%S.%fZ} size={before.st_size} {'direct' if direct else 'cached'}"


def _real_folder(folder: str) -> str:
    real = os.path.realpath(folder)
    if not os.path.isdir(real):  # noqa: PTH112 - pathlib would slow the start
        raise _Failure(errno.ENODEV, f"{folder} is not there: is it mounted?")
    return real


def _opened(path: str, folders: Sequence[str]) -> tuple[int, bool]:
    """A descriptor of the regular file at *path*, and whether it is read past the page cache.

    What is judged is what was looked at, and what is opened is what was judged: nobody can put a link in between.
    Looking (O_PATH) neither wakes a device nor waits for a pipe.
    """
    try:
        seen = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _Failure(errno.ENOENT, "no such file") from None
    itself = f"/proc/self/fd/{seen}"
    real, kind = os.readlink(itself), os.fstat(seen).st_mode  # noqa: PTH115
    if not any(real.startswith(folder.rstrip("/") + "/") for folder in folders):
        raise _Failure(errno.EACCES, "leads out of the folders that files may lie in (--within)")
    if stat.S_ISDIR(kind):
        raise _Failure(errno.EISDIR, "a directory")
    if not stat.S_ISREG(kind):
        raise _Failure(errno.ENOTBLK, "no regular file")  # "not a file", in XRootD's translation
    try:
        return os.open(itself, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT), True
    except OSError as error:
        if error.errno not in _NO_DIRECT:
            raise
    file = os.open(itself, os.O_RDONLY | os.O_CLOEXEC)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # a request, not a promise
    return file, False


def _state(status: os.stat_result) -> tuple[int, ...]:
    # The time of the last change of the inode betrays a writer who puts the modification time back.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _blocks(file: int, size: int) -> Iterator[memoryview]:
    """The file's first *size* bytes, in order; the next blocks are read while one is worked on."""
    offsets = range(0, size, _BLOCK_BYTES)
    lanes = [_lane(file, size, offsets[first::_LANES]) for first in range(min(_LANES, len(offsets)))]
    for empty, full in islice(cycle(lanes), len(offsets)):
        block, count = full.get()
        if isinstance(count, OSError):
            raise count
        yield block[:count]
        empty.put(block)


def _lane(file: int, size: int, offsets: Sequence[int]) -> _Lane:
    """A thread that reads the blocks at *offsets*, one after the other."""
    empty: SimpleQueue[memoryview] = SimpleQueue()
    full: SimpleQueue[tuple[memoryview, int | OSError]] = SimpleQueue()
    for _ in offsets[:_BLOCKS_PER_LANE]:
        memory = mmap.mmap(-1, _BLOCK_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # aligned, as O_DIRECT wants it
        with suppress(OSError):  # a kernel without huge pages; with them a tenth of the time is saved
            memory.madvise(mmap.MADV_HUGEPAGE)
        empty.put(memoryview(memory))

    def read() -> None:
        for offset in offsets:
            block = empty.get()
            try:
                full.put((block, _filled(file, block, offset, size)))
            except OSError as error:
                full.put((block, error))
                return

    threading.Thread(target=read, daemon=True).start()
    return empty, full


def _filled(file: int, block: memoryview, offset: int, size: int) -> int:
    """How many bytes of *file* from *offset* on were read into *block*: as many as it must hold."""
    count, expected = 0, min(len(block), size - offset)
    while count < expected:
        # Asked for the whole block, also at the end of the file: O_DIRECT reads nothing less than sectors.
        read = os.preadv(file, [block[count:]], offset + count)
        if not read:
            raise OSError(errno.ETXTBSY, "changed while it was read")
        count += read
    return expected


def _digest(algorithm: str, blocks: Iterable[memoryview]) -> str:
    if algorithm == "blake3":
        from blake3 import blake3

        hashing = blake3(max_threads=min(_MAX_THREADS, len(os.sched_getaffinity(0))))
        for block in blocks:
            hashing.update(block)
        return hashing.hexdigest()
    from rucio_trace.digest import ALGORITHMS, DigestPass

    name = algorithm.upper()
    if name not in ALGORITHMS:
        raise _Failure(errno.EOPNOTSUPP, f"no algorithm {algorithm!r}; there are {', '.join(ALGORITHMS).lower()}")
    with DigestPass([name]) as digests:
        for block in blocks:
            digests.update(block)
        return digests.finish().hashes[name]


if __name__ == "__main__":
    main()
