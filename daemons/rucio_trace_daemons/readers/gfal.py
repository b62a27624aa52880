"""Whatever else gfal2 reaches (SRM, GridFTP, dCap …), where Rucio reads by it and its Python module is installed."""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rucio_trace_daemons.storage_errors import NotFound, ShortRead, from_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rucio_trace_daemons.readers.base import StorageDigest
    from rucio_trace_daemons.streams import Pieces

__all__ = ["GfalReader"]

PIECE = 4 << 20
_DIRECTORY, _TYPE = 0o040000, 0o170000


class GfalReader:
    """Reads any URL gfal2 has a plugin for, with the credentials Rucio's protocol gives it."""

    def __init__(self, token: str | None = None) -> None:
        """Raises ImportError: gfal2 is not installed."""
        import gfal2

        self._error = gfal2.GError
        self._context = _context(gfal2, token)

    @contextmanager
    def pieces(self, what: str, url: str, size: int | None = None) -> Iterator[Pieces]:
        with self._errors(what):
            promised = self._context.stat(url).st_size
            file = self._context.open(url, "r")
        yield self._pieces(what, file, promised)

    def exists(self, what: str, url: str) -> bool:
        try:
            with self._errors(what):
                return self._context.stat(url).st_mode & _TYPE != _DIRECTORY
        except NotFound:
            return False

    def check_folder(self, what: str, url: str) -> bool:
        with self._errors(what):
            if self._context.stat(url).st_mode & _TYPE != _DIRECTORY:
                raise NotFound(what)
        return True

    def digest(self, what: str, url: str, algorithms: Sequence[str]) -> StorageDigest | None:
        return None

    def _pieces(self, what: str, file: Any, promised: int) -> Pieces:
        taken = 0
        while True:
            with self._errors(what):
                piece = file.read_bytes(PIECE)
            if not piece:
                break
            taken += len(piece)
            yield piece
        if taken != promised:
            raise ShortRead(what, promised, taken)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            # Its words hold URLs: the number alone goes on.
            code = getattr(error, "code", None) or errno.EIO
            raise from_os_error(what, OSError(code, f"gfal2 error {code}")) from None


def _context(gfal2: Any, token: str | None) -> Any:
    context = gfal2.creat_context()
    with suppress(gfal2.GError):
        context.set_opt_boolean("HTTP PLUGIN", "RETRIEVE_BEARER_TOKEN", False)
    if token:
        context.set_opt_string("BEARER", "TOKEN", token)
    return context
