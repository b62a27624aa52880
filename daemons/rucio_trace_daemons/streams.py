"""The bytes of a file, piece by piece: a local file, and the pace at which any source is read.

A source is iterated once, by one thread; a piece is good until the next is asked for. A `Throttle` is shared by all
readers of an RSE.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rucio_trace_daemons.storage_errors import Changed, ShortRead, Stopping, Unavailable, from_os_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Pieces", "Throttle", "local_pieces", "paced"]

Pieces = Iterator[bytes | memoryview]

# Large enough that the interpreter costs nothing, small enough to stay in the processor's cache.
PIECE = 1 << 20
# So small a piece that a slow lane still renews its lease and hears a stop within seconds.
PACED_PIECE = 256 * 1024


@contextmanager
def local_pieces(what: str, path: Path) -> Iterator[Pieces]:
    """The pieces of the regular file at *path*.

    Raises:
        NotFound, Refused, Unavailable: it cannot be read.
        Changed, ShortRead: at the end, when it turns out that what was read is no state the file was ever in.
    """
    try:
        # Not blocking: a FIFO in the place of a file would hold the worker for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise from_os_error(what, error) from error
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise Unavailable(what, "is not a regular file")
        yield _local_pieces(what, descriptor, before)
    finally:
        os.close(descriptor)


def _local_pieces(what: str, descriptor: int, before: os.stat_result) -> Pieces:
    view = memoryview(bytearray(max(1, min(PIECE, before.st_size))))
    taken = 0
    while True:
        try:
            count = os.readv(descriptor, [view])
        except OSError as error:
            raise from_os_error(what, error) from error
        if count == 0:
            break
        taken += count
        yield view[:count]
    after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Changed(what)
    if taken < before.st_size:
        raise ShortRead(what, before.st_size, taken)


class Throttle:
    """Lets so many bytes a second through, all readers together; a second's worth may come at once."""

    def __init__(self, bytes_per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = bytes_per_second, clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, count: int) -> float:
        """Book *count* bytes; returns the seconds to wait before the next piece is read."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - 1.0) + count / self._rate
            return max(0.0, self._free_at - now)


def paced(
    source: Pieces, throttle: Throttle | None, pause: Callable[[float], bool], watch: Callable[[int], None]
) -> Pieces:
    """The pieces of *source*, no faster than allowed; `watch` may raise after each to give up.

    `pause` waits that many seconds and returns whether the process should stop instead.
    """
    for piece in source:
        if throttle is None:
            watch(len(piece))
            yield piece
            continue
        for start in range(0, len(piece), PACED_PIECE):
            part = piece[start : start + PACED_PIECE]
            watch(len(part))
            if (seconds := throttle.take(len(part))) and pause(seconds):
                raise Stopping
            yield part
