"""Streams from `root://` servers, by XRootD's own client.

The client reads its credentials from the environment, as `xrdcp` does for Rucio's daemons (X509_USER_PROXY,
BEARER_TOKEN, XrdSecPROTOCOL). Two reads are always under way, so that hashing and the network overlap.
"""

from __future__ import annotations

import io
import os
import queue
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from rucio_trace_daemons.storage_errors import NotFound, Refused, ShortRead, Unavailable

if TYPE_CHECKING:
    from rucio_trace.errors import StorageError

__all__ = ["SCHEMES", "XRootDStream", "check_folder", "exists"]

SCHEMES = frozenset({"root", "roots", "xroot", "xroots"})

PIECE = 4 * 1024 * 1024
AHEAD = 2
# A server that says nothing for this long counts as down; the row comes back later.
REQUEST_SECONDS = 60
# XRootD's own defaults let one dead server hold a worker for half an hour.
_IMPATIENCE = {
    "ConnectionWindow": 10,
    "ConnectionRetry": 1,
    "StreamErrorWindow": 10,
    "RequestTimeout": REQUEST_SECONDS,
    "StreamTimeout": REQUEST_SECONDS,
}

# Of XProtocol.hh: what a server answers, and what the client finds by itself.
_NOT_FOUND = 3011
_REFUSED = {3010, 3030}
_AUTH_FAILED = 204


@cache
def _client() -> Any:
    """XRootD's client; imported late because it starts threads, which do not survive a fork."""
    from XRootD import client

    for name, value in _IMPATIENCE.items():
        if f"XRD_{name.upper()}" not in os.environ:
            client.EnvPutInt(name, value)
    return client


def exists(what: str, url: str) -> bool:
    """Whether there is a regular file at *url*."""
    file = _client().URL(url)
    status, found = _client().FileSystem(file.hostid).stat(file.path, timeout=REQUEST_SECONDS)
    if status.ok:
        return not found.flags & _flags().IS_DIR
    error = _error(what, status)
    if isinstance(error, NotFound):
        return False
    raise error


def check_folder(what: str, server: str, path: str) -> None:
    """Return if *path* is a folder of *server*."""
    status, found = _client().FileSystem(server).stat(path, timeout=REQUEST_SECONDS)
    if not status.ok:
        raise _error(what, status)
    if not found.flags & _flags().IS_DIR:
        raise NotFound(what)


def _flags() -> Any:
    from XRootD.client.flags import StatInfoFlags

    return StatInfoFlags


class XRootDStream(io.RawIOBase):
    """A file on an XRootD server, read once from its beginning to its end."""

    def __init__(self, what: str, file: Any, size: int) -> None:
        self._what, self._file, self._size = what, file, size
        self._asked = self._given = 0
        self._under_way = 0
        self._answers: dict[int, tuple[Any, bytes]] = {}
        self._arrivals: queue.SimpleQueue[tuple[int, Any, bytes]] = queue.SimpleQueue()
        self._piece = memoryview(b"")

    @classmethod
    def open(cls, what: str, url: str) -> Self:
        from XRootD.client.flags import OpenFlags

        file = _client().File()
        status, _ = file.open(url, OpenFlags.READ, timeout=REQUEST_SECONDS)
        if not status.ok:
            raise _error(what, status)
        status, found = file.stat(timeout=REQUEST_SECONDS)
        if not status.ok:
            file.close(timeout=REQUEST_SECONDS)
            raise _error(what, status)
        return cls(what, file, found.size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            self._piece = memoryview(self._next_piece())
        count = min(len(self._piece), len(buffer))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def _next_piece(self) -> bytes:
        if self._given >= self._size:
            return b""
        if self._size <= PIECE:  # a small file: one round trip, nothing to overlap
            status, piece = self._file.read(0, self._size, timeout=REQUEST_SECONDS)
        else:
            while self._under_way < AHEAD and self._asked < self._size:
                self._ask()
            status, piece = self._take(self._given)
        if not status.ok:
            raise _error(self._what, status)
        expected = min(PIECE, self._size - self._given)
        if len(piece) != expected:
            raise ShortRead(self._what, self._size, self._given + len(piece))
        self._given += len(piece)
        return bytes(piece)

    def _ask(self) -> None:
        offset, arrivals = self._asked, self._arrivals

        def arrived(status: Any, piece: Any, _hosts: Any) -> None:
            arrivals.put((offset, status, piece or b""))

        status = self._file.read(offset, PIECE, timeout=REQUEST_SECONDS, callback=arrived)
        if not status.ok:
            raise _error(self._what, status)
        self._asked += PIECE
        self._under_way += 1

    def _take(self, offset: int) -> tuple[Any, bytes]:
        while offset not in self._answers:
            self._receive()
        return self._answers.pop(offset)

    def _receive(self) -> None:
        try:
            # The client answers every request in time, if only with a time-out; this bound is for its bugs.
            offset, status, piece = self._arrivals.get(timeout=2 * REQUEST_SECONDS)
        except queue.Empty:
            raise Unavailable(self._what, "the XRootD client did not answer") from None
        self._under_way -= 1
        self._answers[offset] = (status, piece)

    def close(self) -> None:
        if not self.closed:
            while self._under_way:  # the client still writes into buffers of these reads
                self._receive()
            self._file.close(timeout=REQUEST_SECONDS)
        super().close()


def _error(what: str, status: Any) -> StorageError:
    if status.errno == _NOT_FOUND:
        return NotFound(what)
    if status.errno in _REFUSED or status.code == _AUTH_FAILED:
        return Refused(what)
    return Unavailable(what, f"XRootD error {status.code}/{status.errno}")
