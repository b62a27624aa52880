"""Binary streams over storage: a local file, and the pace at which any stream is read.

Each stream belongs to one thread; a `Throttle` is shared by all readers of an RSE.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from rucio_trace_daemons.storage_errors import Changed, ShortRead, Stopping, Unavailable, from_os_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["LocalStream", "PacedStream", "Throttle"]


class LocalStream(io.RawIOBase):
    """A regular file, read once from its beginning to its end."""

    def __init__(self, what: str, descriptor: int) -> None:
        self._what, self._descriptor = what, descriptor
        self._before = os.fstat(descriptor)
        self._taken = 0

    @classmethod
    def open(cls, what: str, path: Path) -> Self:
        try:
            # Not blocking: a FIFO in the place of a file would hold the worker for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise from_os_error(what, error) from error
        stream = cls(what, descriptor)
        if not stat.S_ISREG(stream._before.st_mode):
            stream.close()
            raise Unavailable(what, "is not a regular file")
        return stream

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def readinto(self, buffer: Any) -> int:
        try:
            count = os.readv(self._descriptor, [buffer])
        except OSError as error:
            raise from_os_error(self._what, error) from error
        self._taken += count
        if count == 0 and len(buffer):
            self._check_end()
        return count

    def _check_end(self) -> None:
        before, after = self._before, os.fstat(self._descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Changed(self._what)
        if self._taken < before.st_size:
            raise ShortRead(self._what, before.st_size, self._taken)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


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


class PacedStream(io.RawIOBase):
    """Another stream, read no faster than allowed; after each piece somebody may give up."""

    # So small a piece that a slow lane still renews its lease and hears a stop within seconds.
    _paced_piece = 256 * 1024

    def __init__(
        self,
        source: io.RawIOBase,
        throttle: Throttle | None,
        pause: Callable[[float], bool],
        watch: Callable[[int], None],
    ) -> None:
        self._source, self._throttle, self._pause, self._watch = source, throttle, pause, watch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self._throttle is not None:
            view = view[: self._paced_piece]
        count = self._source.readinto(view)  # type: ignore[attr-defined]
        self._watch(count)
        if self._throttle is not None and (seconds := self._throttle.take(count)) and self._pause(seconds):
            raise Stopping
        return int(count)
