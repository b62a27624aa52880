"""What every way to reach storage can do."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from rucio_trace_daemons.streams import Pieces

__all__ = ["Reader", "StorageDigest", "silence"]


def silence(logger: str, level: int = logging.WARNING) -> None:
    """Keep a library from writing addresses and signatures into the log, whose level Rucio sets to DEBUG."""
    logging.getLogger(logger).setLevel(level)


@dataclass(frozen=True, slots=True)
class StorageDigest:
    """What a storage says about a file; `value` is hex.

    `fresh` is False where the answer itself shows that it is older than the question. No protocol lets a storage
    promise the contrary: that it reads the bytes for each question is the RSE's attribute `trace_digest_fresh`.
    """

    algorithm: str
    value: str
    fresh: bool
    source: str


class Reader(Protocol):
    """Reads one RSE by one scheme, from one thread; `what` names the replica in errors, `url` is private.

    All methods raise `NotFound`, `Refused` or `Unavailable` (see `storage_errors`), and no error holds a URL.
    """

    def pieces(self, what: str, url: str, size: int | None = None) -> AbstractContextManager[Pieces]:
        """The bytes at *url*, whole or an error at the end; *size* is what Rucio expects, if it knows."""

    def exists(self, what: str, url: str) -> bool:
        """Whether there is a regular file at *url*."""

    def check_folder(self, what: str, url: str) -> bool:
        """Look into the folder at *url*; False where this storage has no folder to look into.

        Raises:
            NotFound: it is not there.
        """

    def digest(self, what: str, url: str, algorithms: Sequence[str]) -> StorageDigest | None:
        """The storage's own digest of the file, by the first of *algorithms* that it knows; None if by none."""
