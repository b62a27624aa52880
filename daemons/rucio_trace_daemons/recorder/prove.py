"""Reading a replica and holding it against what it should be.

One reading gives every digest that is asked for. Bytes that are wrong are read a second time before anything is said:
a storage that answers differently twice has told nothing about the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace.archive import ArchivePass, is_archive_name
from rucio_trace.digest import DigestPass
from rucio_trace.errors import TraceabilityError
from rucio_trace.trace import Content
from rucio_trace_daemons.storage_errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from rucio_trace.archive import ArchiveLimits
    from rucio_trace.trace import Statement
    from rucio_trace_daemons.recorder.rows import Row
    from rucio_trace_daemons.storage import Replica, Storage
    from rucio_trace_daemons.streams import Pieces

__all__ = ["Expected", "Inconstant", "Prover", "Reading", "algorithms"]

MAIN_ALGORITHM = "BLAKE3"
# A trace may be 8 MiB; an archive of more members than this is traced as a whole.
MAX_CONTENTS = 20_000


class Inconstant(Unavailable):
    """Two readings of one file gave different bytes."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "the storage gave different bytes when it was read twice")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a replica holds."""

    size: int
    hashes: Mapping[str, str]
    contents: tuple[Content, ...] | None
    observed: datetime


@dataclass(frozen=True, slots=True)
class Expected:
    """What a replica should hold: the origin's bytes, or as long as there is no origin, those of Rucio's row."""

    size: int | None
    hashes: Mapping[str, str]

    @classmethod
    def of_row(cls, row: Row) -> Expected:
        hashes = {"ADLER32": row.adler32, "MD5": row.md5}
        digits = {"ADLER32": 8, "MD5": 32}
        return cls(row.bytes, {a: h.strip().lower().zfill(digits[a]) for a, h in hashes.items() if h and h.strip()})

    @classmethod
    def of_origin(cls, origin: Statement) -> Expected:
        assert origin.hash_algorithm is not None
        return cls(origin.size, {origin.hash_algorithm: origin.hash})

    def agrees(self, reading: Reading) -> bool:
        """Whether the size and every digest known on both sides are the same."""
        shared = self.hashes.keys() & reading.hashes.keys()
        same = all(self.hashes[algorithm] == reading.hashes[algorithm] for algorithm in shared)
        return same and self.size in (None, reading.size)


def algorithms(row: Row, origin: Statement | None) -> tuple[str, ...]:
    """BLAKE3; the checksum of Rucio's row, the cheaper one first; the origin's own algorithm."""
    checksums = Expected.of_row(row).hashes
    wanted = [MAIN_ALGORITHM, *(["ADLER32"] if "ADLER32" in checksums else ["MD5"] if checksums else [])]
    if origin is not None and origin.hash_algorithm:
        wanted.append(origin.hash_algorithm)
    return tuple(dict.fromkeys(wanted))


@dataclass(frozen=True, slots=True)
class Prover:
    """Reads replicas; `clock` is the database's clock."""

    storage: Storage
    clock: Callable[[], datetime]
    contents: bool
    limits: ArchiveLimits

    def prove(
        self, replica: Replica, row: Row, origin: Statement | None, watch: Callable[[int], None]
    ) -> tuple[Reading, bool]:
        """What *replica* holds, and whether that is what it should hold.

        Raises:
            StorageError: it could not be read, or the storage does not know what it holds.
        """
        wanted = algorithms(row, origin)
        expected = Expected.of_origin(origin) if origin is not None else Expected.of_row(row)
        first = self._read(replica, wanted, origin is None, watch)
        if expected.agrees(first):
            return first, True
        second = self._read(replica, wanted, False, watch)
        if (first.size, first.hashes) != (second.size, second.hashes):
            raise Inconstant(str(replica))
        return second, False

    def _read(
        self, replica: Replica, wanted: tuple[str, ...], with_contents: bool, watch: Callable[[int], None]
    ) -> Reading:
        with self.storage.open(replica, watch) as pieces:
            if with_contents and self.contents and is_archive_name(replica.name):
                return self._read_archive(replica, pieces, wanted)
            with DigestPass(wanted) as digests:
                for piece in pieces:
                    digests.update(piece)
                whole = digests.finish()
        return Reading(whole.size, whole.hashes, None, self.clock())

    def _read_archive(self, replica: Replica, pieces: Pieces, wanted: tuple[str, ...]) -> Reading:
        running = ArchivePass(replica.name, wanted, member_algorithms=(MAIN_ALGORITHM,), limits=self.limits)
        try:
            for piece in pieces:
                running.update(piece)
        finally:
            whole = running.finish_whole()  # also ends the pass's threads
        try:
            members = running.finish().members
        except TraceabilityError:
            members = None  # an archive nobody can unpack is still a file, and its bytes can be proven
        if members is None or len(members) > MAX_CONTENTS:
            return Reading(whole.size, whole.hashes, None, self.clock())
        contents = tuple(Content(member.path, member.hashes[MAIN_ALGORITHM]) for member in members)
        return Reading(whole.size, whole.hashes, contents, self.clock())
