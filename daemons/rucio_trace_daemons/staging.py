"""A bounded folder for files that can only be fetched whole.

Rucio's protocols other than those we stream know only "get into a file". Each process keeps a folder of its own below
`staging_folder`; what a killed process left behind is removed by the next one on that host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_trace_daemons.storage_errors import StagingFull, Stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rucio.rse.protocols.protocol import RSEProtocol

__all__ = ["Staging", "fetched"]

# How long a reader waits for others to give their room back before its row waits instead.
ROOM_SECONDS = 60.0


class Staging:
    """Room for `limit_bytes` of fetched files, shared by all threads of the process."""

    def __init__(self, folder: Path | None, limit_bytes: int) -> None:
        self._base = folder or Path(tempfile.gettempdir())
        self._folder = self._base / f"rucio-trace-{socket.gethostname()}-{os.getpid()}"
        self._limit, self._taken = limit_bytes, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserved(self, what: str, size: int, pause: Callable[[float], bool]) -> Iterator[Path]:
        """The path of a file that may grow to *size* bytes; it is gone afterwards."""
        self._reserve(what, size, pause)
        path = self._folder / uuid.uuid4().hex
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
            if size > free:
                raise StagingFull(what, size, free, f"staging_folder = {self._base}")
            yield path
        finally:
            path.unlink(missing_ok=True)
            with self._changed:
                self._taken -= size
                self._changed.notify_all()

    def _reserve(self, what: str, size: int, pause: Callable[[float], bool]) -> None:
        deadline = time.monotonic() + ROOM_SECONDS
        with self._changed:
            while self._taken + size > self._limit:
                if size > self._limit or time.monotonic() > deadline:
                    raise StagingFull(what, size, max(0, self._limit - self._taken), f"staging_bytes = {self._limit}")
                if pause(0):
                    raise Stopping
                self._changed.wait(1.0)
            self._taken += size

    def remove_leftovers(self) -> None:
        """Remove what killed processes of this host left behind."""
        prefix = f"rucio-trace-{socket.gethostname()}-"
        for folder in self._base.glob(f"{prefix}*"):
            pid = folder.name.removeprefix(prefix)
            if pid.isdecimal() and int(pid) != os.getpid() and not _runs(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def fetched(protocol: RSEProtocol, pfn: str, path: Path) -> None:
    """Fetch *pfn* into *path* by Rucio's own protocol."""
    protocol.connect()
    try:
        protocol.get(pfn, str(path))
    finally:
        protocol.close()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
