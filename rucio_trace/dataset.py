"""A dataset's list of files, and what the statuses of its files make of it (docs/format.md, sections 8 and 11).

A closed dataset of two files has this list (a line feed ends each line); its BLAKE3 is the `hash` that is signed:

    BLAKE3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 1024 s2:first.zip
    BLAKE3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262 0 s2:second.zip

Pure; lists of any length pass through in bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import blake3

from rucio_trace.errors import Malformed
from rucio_trace.statement import STRONG, Content

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rucio_trace.envelope import Trace
    from rucio_trace.statement import Statement

__all__ = ["ALGORITHM", "MAX_CONTENTS", "Counted", "Listing", "aggregate", "is_dataset", "line"]

ALGORITHM: Final = "BLAKE3"
# A trace holds each twice, in 180 bytes and twice its name: the 8 MiB of any trace are not reached.
MAX_CONTENTS: Final = 20_000
_MAX_PATH_BYTES: Final = 2 * 1024**2
_ESCAPED: Final = '&<>"\\'  # up to eight bytes each, where they are written

# The worst first: what one file is, the dataset is.
_ORDER: Final = ("DISPUTED", "REVOKED", "TAMPERED", "OBSOLETE", "PENDING", "DEGRADED")


def line(did: str, origin: Statement) -> str:
    """The line of the file *did*, whose origin is *origin*.

    Raises:
        Malformed: the name holds a line break, so that two lists could have one text, or nothing strong is signed.
    """
    algorithm = next((name for name in (ALGORITHM, *STRONG) if name in origin.digests), None)
    if algorithm is None:
        raise Malformed(f"origin of {did}", expected=f"a digest of {', '.join(STRONG)}", found="none")
    if "\n" in did or "\r" in did:
        raise Malformed(f"name of {did!r}", expected="no line break in a dataset's file", found="one")
    return f"{algorithm}:{origin.digests[algorithm]} {origin.size} {did}\n"


@dataclass(slots=True)
class Listing:
    """What is signed of a list, gathered file by file, in the order of scopes and names by their UTF-8 bytes."""

    hash_algorithm: ClassVar = ALGORITHM
    members: int = 0
    size: int = 0
    _last: tuple[bytes, bytes] = (b"", b"")
    _contents: list[Content] | None = field(default_factory=list)
    _path_bytes: int = 0
    _digest: Any = field(default_factory=blake3.blake3)

    def add(self, scope: str, name: str, origin: Statement) -> str:
        """Take in the next file; returns its line.

        Raises:
            Malformed: the file has no line.
            ValueError: files come in another order (our caller's mistake).
        """
        key = (scope.encode(), name.encode())
        if key <= self._last:
            raise ValueError(f"{scope}:{name} after {self._last[0].decode()}:{self._last[1].decode()}")
        did = f"{scope}:{name}"
        text = line(did, origin)
        self._last = key
        self.members += 1
        self.size += origin.size
        self._digest.update(text.encode())
        self._add_content(did, origin)
        return text

    def _add_content(self, did: str, origin: Statement) -> None:
        """Members that a statement cannot hold leave its `contents` out altogether: the list's digest stands."""
        self._path_bytes += len(did.encode()) + 7 * sum(map(did.count, _ESCAPED))
        too_many = self.members > MAX_CONTENTS or self._path_bytes > _MAX_PATH_BYTES
        if self._contents is None or too_many or ALGORITHM not in origin.digests or ".." in did.split("/"):
            self._contents = None
        else:
            self._contents.append(Content(path=did, hash=origin.digests[ALGORITHM]))

    @property
    def hash(self) -> str:
        return str(self._digest.hexdigest())

    @property
    def contents(self) -> tuple[Content, ...] | None:
        return tuple(self._contents) if self._contents else None


def is_dataset(traces: Iterable[Trace]) -> bool:
    """Whether *traces*, all of one product, speak of a dataset: a file's name an RSE, or no `members`."""
    statements = [trace.statement for trace in traces]
    return any(s.members is not None for s in statements) and not any(s.rse is not None for s in statements)


@dataclass(frozen=True, slots=True)
class Counted:
    """The files of a dataset as they are now: how many of each status (None: no trace), and their size if known."""

    files: Mapping[str | None, int]
    size: int | None

    @property
    def total(self) -> int:
        return sum(self.files.values())

    @property
    def genuine(self) -> int:
        return self.files.get("GENUINE", 0)


def aggregate(
    counted: Counted, *, closed: bool, own: str | None, members: int | None = None, size: int | None = None
) -> str:
    """The status of a dataset: the worst of its files', and of *own*, that of its traces.

    While it is closed it should have the *members* and *size* that its standing trace signs (None: there is none).
    An open dataset whose earlier list was withdrawn is what its files are.
    """
    found = {status or "PENDING" for status in counted.files} or {"PENDING"}
    if own == "REVOKED" and not closed:
        own = None
    if own is not None:
        found.add(own)
    if closed and members is not None:
        same_size = counted.size is None or size is None or counted.size == size
        if counted.total != members or not same_size:
            found.add("TAMPERED")
    return next((status for status in _ORDER if status in found), "GENUINE")
