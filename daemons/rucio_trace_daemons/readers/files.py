"""Directories of this machine."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rucio_trace_daemons.storage_errors import from_os_error
from rucio_trace_daemons.streams import local_pieces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from rucio_trace_daemons.readers.base import StorageDigest
    from rucio_trace_daemons.streams import Pieces

__all__ = ["FileReader"]


class FileReader:
    """Reads files in place."""

    def pieces(self, what: str, url: str, size: int | None = None) -> AbstractContextManager[Pieces]:
        return local_pieces(what, _path(url))

    def exists(self, what: str, url: str) -> bool:
        try:
            return stat.S_ISREG(_path(url).stat().st_mode)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise from_os_error(what, error) from error

    def check_folder(self, what: str, url: str) -> bool:
        try:
            next(_path(url).iterdir(), None)
        except OSError as error:
            raise from_os_error(what, error) from error
        return True

    def digest(self, what: str, url: str, algorithms: Sequence[str]) -> StorageDigest | None:
        return None  # a file system has none


def _path(url: str) -> Path:
    # Not urlsplit().path: a name may hold '?' and '#', and Rucio does not escape them.
    return Path("/" + url.partition("://")[2].partition("/")[2]) if "://" in url else Path(urlsplit(url).path)
