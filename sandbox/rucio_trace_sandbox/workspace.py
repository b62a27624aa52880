"""The folder a sandbox lives in.

Servers drop root, so the folder can be entered by everybody (pytest's own
temporary folders cannot). A lock file tells a living sandbox from the remains
of a killed one; the next sandbox sweeps those away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["workspace"]

_PREFIX = "rucio-trace-sandbox-"
_PARENT = Path("/tmp")  # noqa: S108 - TMPDIR may be too long for a socket
_LOCK = ".alive"


@contextlib.contextmanager
def workspace(parent: Path = _PARENT) -> Iterator[Path]:
    """Lend a fresh folder with a short path (Unix sockets allow 107 bytes); it is removed afterwards."""
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    folder.chmod(0o755)
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        # A folder without a lock file is being made at this moment; one that cannot be locked is in use.
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
