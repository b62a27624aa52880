"""Streams from `root://` servers, by XRootD's own client.

The client reads its credentials from the environment, as `xrdcp` does for Rucio's daemons (X509_USER_PROXY,
BEARER_TOKEN, XrdSecPROTOCOL). Several reads are always under way, so that hashing and the network overlap.
"""

from __future__ import annotations

import ctypes
import os
import queue
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from rucio_trace.errors import Malformed
from rucio_trace.trace import parse_time
from rucio_trace_daemons.readers.base import StorageDigest
from rucio_trace_daemons.storage_errors import NotFound, Refused, ShortRead, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from rucio_trace.errors import StorageError
    from rucio_trace_daemons.streams import Pieces

__all__ = ["SCHEMES", "XRootDReader"]

SCHEMES = frozenset({"root", "roots", "xroot", "xroots"})

# Measured: smaller pieces cost more round trips, larger ones fall out of the processor's cache before they are hashed.
PIECE = 2 * 1024 * 1024
AHEAD = 3
# A server that says nothing for this long counts as down; the row comes back later.
REQUEST_SECONDS = 60
# It reads the whole file first, of some hundreds of GB perhaps.
DIGEST_SECONDS = 3600
# What two hosts with a time service never differ by.
CLOCKS_APART = timedelta(minutes=1)
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


# Of glibc's malloc.h. Left alone, it gives each piece's memory back to the system and takes it again: 50,000 page
# faults and a tenth of the processor's time for a GiB.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 32 * 1024 * 1024


def _keep_memory() -> None:
    """Have malloc keep what pieces need; without effect where there is no glibc."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES)


@cache
def _client() -> Any:
    """XRootD's client; imported late because it starts threads, which do not survive a fork."""
    from XRootD import client

    for name, value in _IMPATIENCE.items():
        if f"XRD_{name.upper()}" not in os.environ:
            client.EnvPutInt(name, value)
    _keep_memory()
    return client


class XRootDReader:
    """Reads from any server; the client library keeps the connections."""

    def pieces(self, what: str, url: str, size: int | None = None) -> AbstractContextManager[Pieces]:
        return _pieces(what, url)

    def exists(self, what: str, url: str) -> bool:
        file = _client().URL(url)
        status, found = _client().FileSystem(file.hostid).stat(file.path, timeout=REQUEST_SECONDS)
        if status.ok:
            return not found.flags & _flags().IS_DIR
        error = _error(what, status)
        if isinstance(error, NotFound):
            return False
        raise error

    def check_folder(self, what: str, url: str) -> bool:
        folder = _client().URL(url)
        path = "/" + folder.path.lstrip("/")
        status, found = _client().FileSystem(folder.hostid).stat(path, timeout=REQUEST_SECONDS)
        if not status.ok:
            raise _error(what, status)
        if not found.flags & _flags().IS_DIR:
            raise NotFound(what)
        return True

    def digest(self, what: str, url: str, algorithms: Sequence[str]) -> StorageDigest | None:
        """The server's answer to a checksum query: one it is configured to give, by the names it was given."""
        file, names = _client().URL(url), {name.lower(): name for name in algorithms}
        asked_at = datetime.now(UTC)
        for asked in names:
            question = f"{file.path}?cks.type={asked}"
            status, answer = _client().FileSystem(file.hostid).query(_checksum(), question, timeout=DIGEST_SECONDS)
            if not status.ok:
                error = _error(what, status)
                if isinstance(error, NotFound):
                    raise error
                continue  # no such digest there, or its program failed: a refusal looks the same
            said, _, rest = answer.decode("ascii", "replace").partition(" ")
            if said in names:  # a program may give one kind, whatever it is asked for
                value, *more = rest.rstrip("\0").split() or [""]
                return StorageDigest(names[said], value.lower(), _is_fresh(more, asked_at), "checksum query")
        return None


def _is_fresh(words: Sequence[str], asked_at: datetime) -> bool:
    """Whether a program that says when it began to read (`read=…`) began after it was asked.

    XRootD may give the answer to an earlier question: one of the same file that is still being answered, or whose
    client has not fetched its answer.
    """
    said = next((word.partition("=")[2] for word in words if word.startswith("read=")), None)
    if said is None:
        return True
    try:
        return asked_at - CLOCKS_APART <= parse_time(said) <= datetime.now(UTC) + CLOCKS_APART
    except Malformed:
        return False


def _checksum() -> Any:
    from XRootD.client.flags import QueryCode

    return QueryCode.CHECKSUM


def _flags() -> Any:
    from XRootD.client.flags import StatInfoFlags

    return StatInfoFlags


@contextmanager
def _pieces(what: str, url: str) -> Iterator[Pieces]:
    from XRootD.client.flags import OpenFlags

    file = _client().File()
    status, _ = file.open(url, OpenFlags.READ, timeout=REQUEST_SECONDS)
    if not status.ok:
        raise _error(what, status)
    reader: _Reader | None = None
    try:
        status, found = file.stat(timeout=REQUEST_SECONDS)
        if not status.ok:
            raise _error(what, status)
        reader = _Reader(what, file, found.size)
        yield reader.pieces()
    finally:
        if reader is not None:
            reader.settle()
        file.close(timeout=REQUEST_SECONDS)


class _Reader:
    """Reads one file from its beginning to its end, `AHEAD` requests ahead."""

    def __init__(self, what: str, file: Any, size: int) -> None:
        self._what, self._file, self._size = what, file, size
        self._asked = self._under_way = 0
        self._answers: dict[int, tuple[Any, bytes]] = {}
        self._arrivals: queue.SimpleQueue[tuple[int, Any, bytes]] = queue.SimpleQueue()

    def pieces(self) -> Pieces:
        for offset in range(0, self._size, PIECE):
            expected = min(PIECE, self._size - offset)
            if self._size <= PIECE:  # a small file: one round trip, nothing to overlap
                status, piece = self._file.read(0, self._size, timeout=REQUEST_SECONDS)
            else:
                status, piece = self._take(offset)
            if not status.ok:
                raise _error(self._what, status)
            if len(piece) != expected:
                raise ShortRead(self._what, self._size, offset + len(piece))
            yield piece

    def settle(self) -> None:
        """Wait for what is still under way: the client writes into buffers of these reads."""
        while self._under_way:
            self._receive()

    def _take(self, offset: int) -> tuple[Any, bytes]:
        while self._under_way + len(self._answers) < AHEAD and self._asked < self._size:
            self._ask()
        while offset not in self._answers:
            self._receive()
        answer = self._answers.pop(offset)
        if self._asked < self._size:
            self._ask()
        return answer

    def _ask(self) -> None:
        offset, arrivals = self._asked, self._arrivals

        def arrived(status: Any, piece: Any, _hosts: Any) -> None:
            arrivals.put((offset, status, piece or b""))

        status = self._file.read(offset, PIECE, timeout=REQUEST_SECONDS, callback=arrived)
        if not status.ok:
            raise _error(self._what, status)
        self._asked += PIECE
        self._under_way += 1

    def _receive(self) -> None:
        try:
            # The client answers every request in time, if only with a time-out; this bound is for its bugs.
            offset, status, piece = self._arrivals.get(timeout=2 * REQUEST_SECONDS)
        except queue.Empty:
            self._under_way = 0
            raise Unavailable(self._what, "the XRootD client did not answer") from None
        self._under_way -= 1
        self._answers[offset] = (status, piece)


def _error(what: str, status: Any) -> StorageError:
    if status.errno == _NOT_FOUND:
        return NotFound(what)
    if status.errno in _REFUSED or status.code == _AUTH_FAILED:
        return Refused(what)
    return Unavailable(what, f"XRootD error {status.code}/{status.errno}")
