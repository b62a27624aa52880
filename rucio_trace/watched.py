"""Files that are read again when they change on disk: keys, certificates, whom to trust.

A file counts as changed when its modification time, its size or the file itself is another. Safe to share between
threads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rucio_trace.configured import load_trust, read_file

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace.config import Trust as TrustSettings
    from rucio_trace.identity import Trust

__all__ = ["Trusted", "Watched"]

_Stamp = tuple[int, int, int]


class Watched:
    """The content of files, and whether any has changed since it was read."""

    def __init__(self) -> None:
        self._stamps: dict[Path, _Stamp | None] = {}

    def read(self, path: Path) -> bytes:
        """Raises ConfigurationError where the file cannot be read."""
        self._stamps[path] = _stamp(path)
        return read_file(path)

    @property
    def changed(self) -> bool:
        return any(_stamp(path) != stamp for path, stamp in self._stamps.items())


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Trusted:
    """Whom the settings trust, followed on disk."""

    def __init__(self, settings: TrustSettings) -> None:
        """Raises ConfigurationError: a file is missing or wrong."""
        self.settings, self._lock = settings, threading.Lock()
        self._files = Watched()
        self._trust = load_trust(settings, self._files.read)

    def __call__(self) -> Trust | None:
        """Raises ConfigurationError: a file that has changed is missing or wrong now."""
        with self._lock:
            if self._files.changed:
                files = Watched()
                self._trust, self._files = load_trust(self.settings, files.read), files
            return self._trust
