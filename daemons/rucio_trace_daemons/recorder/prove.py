"""Reading a replica and holding it against what it should be.

One reading gives every digest that is asked for. Bytes that are wrong are read a second time before anything is said:
a storage that answers differently twice has told nothing about the file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Protocol

from rucio_trace.archive import ArchivePass, is_archive_name
from rucio_trace.digest import DigestPass
from rucio_trace.errors import TraceabilityError
from rucio_trace.trace import Content
from rucio_trace_daemons.storage_errors import NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from rucio_trace.archive import ArchiveLimits
    from rucio_trace.trace import Statement
    from rucio_trace_daemons.readers import StorageDigest
    from rucio_trace_daemons.recorder.rows import Row
    from rucio_trace_daemons.storage import Replica, Storage
    from rucio_trace_daemons.streams import Pieces

__all__ = ["Expected", "Inconstant", "Prover", "Read", "Reading", "algorithms", "checksums", "read_here"]

LOG = logging.getLogger("traceability-recorder")

MAIN_ALGORITHM = "BLAKE3"
# Digests that nobody can forge a file for: only these prove anything on a storage's word.
STRONG = ("BLAKE3", "SHA256", "SHA512", "SHA3")
# A trace may be 8 MiB; an archive of more members than this is traced as a whole.
MAX_CONTENTS = 20_000


class Inconstant(Unavailable):
    """Two readings of one file gave different bytes."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "the storage gave different bytes when it was read twice")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a replica holds; `manifest` is the product's own, of an archive that has one, as strangers wrote it."""

    size: int
    hashes: Mapping[str, str]
    contents: tuple[Content, ...] | None
    observed: datetime
    manifest: bytes | None = None


class Read(Protocol):
    """Reads a replica: `algorithms` are the digests of the whole; `contents` asks for an archive's members too.

    `watch` is told the size of each piece, now and then of none, and may raise to give up. Raises StorageError.
    """

    def __call__(
        self, replica: Replica, algorithms: tuple[str, ...], contents: bool, watch: Callable[[int], None]
    ) -> Found: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a reading found, in whatever process; see `Reading`."""

    size: int
    hashes: Mapping[str, str]
    contents: tuple[Content, ...] | None = None
    manifest: bytes | None = None


def read_here(
    storage: Storage,
    limits: ArchiveLimits,
    replica: Replica,
    algorithms: tuple[str, ...],
    contents: bool,
    watch: Callable[[int], None],
) -> Found:
    """Read *replica* in this process, within the bounds that *storage* keeps."""
    with storage.open(replica, watch) as pieces:
        if contents and is_archive_name(replica.name):
            return _read_archive(replica.name, pieces, algorithms, limits)
        with DigestPass(algorithms) as digests:
            for piece in pieces:
                digests.update(piece)
            whole = digests.finish()
    return Found(whole.size, whole.hashes)


def _read_archive(name: str, pieces: Pieces, algorithms: tuple[str, ...], limits: ArchiveLimits) -> Found:
    running = ArchivePass(name, algorithms, member_algorithms=(MAIN_ALGORITHM,), limits=limits)
    try:
        for piece in pieces:
            running.update(piece)
    finally:
        whole = running.finish_whole()  # also ends the pass's threads
    try:
        found = running.finish()
    except TraceabilityError:  # an archive nobody can unpack is still a file, and its bytes can be proven
        return Found(whole.size, whole.hashes)
    contents = None
    if found.members is not None and len(found.members) <= MAX_CONTENTS:
        contents = tuple(Content(member.path, member.hashes[MAIN_ALGORITHM]) for member in found.members)
    return Found(whole.size, whole.hashes, contents, found.manifest)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a replica should hold: the origin's bytes, or as long as there is no origin, those of Rucio's row."""

    size: int | None
    hashes: Mapping[str, str]

    @classmethod
    def of_row(cls, row: Row) -> Expected:
        return cls(row.bytes, checksums(row.adler32, row.md5))

    @classmethod
    def of_origin(cls, origin: Statement) -> Expected:
        assert origin.hash_algorithm is not None
        return cls(origin.size, {origin.hash_algorithm: origin.hash})

    @classmethod
    def of(cls, row: Row, origin: Statement | None, *, first: bool) -> Expected:
        """The origin's; Rucio's row has a say while there is none, or it was held against no bytes yet (*first*)."""
        if origin is None:
            return cls.of_row(row)
        of_origin = cls.of_origin(origin)
        return cls(of_origin.size, {**cls.of_row(row).hashes, **of_origin.hashes}) if first else of_origin

    def agrees(self, reading: Reading) -> bool:
        """Whether the size and every digest known on both sides are the same."""
        shared = self.hashes.keys() & reading.hashes.keys()
        same = all(self.hashes[algorithm] == reading.hashes[algorithm] for algorithm in shared)
        return same and self.size in (None, reading.size)


def checksums(adler32: str | None, md5: str | None) -> dict[str, str]:
    """Rucio's checksums, those it has, in our spelling."""
    hashes, digits = {"ADLER32": adler32, "MD5": md5}, {"ADLER32": 8, "MD5": 32}
    return {a: h.strip().lower().zfill(digits[a]) for a, h in hashes.items() if h and h.strip()}


def algorithms(row: Row, origin: Statement | None) -> tuple[str, ...]:
    """BLAKE3; the checksum of Rucio's row, the cheaper one first; the origin's own algorithm."""
    wanted = [MAIN_ALGORITHM, *list(Expected.of_row(row).hashes)[:1]]
    if origin is not None and origin.hash_algorithm:
        wanted.append(origin.hash_algorithm)
    return tuple(dict.fromkeys(wanted))


@dataclass(frozen=True, slots=True)
class Prover:
    """Has replicas read; `clock` is the database's clock, `contents` whether members of archives are listed."""

    storage: Storage
    clock: Callable[[], datetime]
    contents: bool
    read: Read

    def prove(
        self,
        replica: Replica,
        row: Row,
        origin: Statement | None,
        watch: Callable[[int], None],
        *,
        first: bool = False,
        also: Collection[str] = (),
    ) -> tuple[Reading, bool]:
        """What *replica* holds, and whether that is what it should hold.

        *first*: nobody has held the origin against bytes yet, and Rucio's row has a say too. *also* are further
        digests to take.

        Raises:
            StorageError: it could not be read, or the storage does not know what it holds.
        """
        wanted = tuple(dict.fromkeys((*algorithms(row, origin), *also)))
        expected = Expected.of(row, origin, first=first)
        return self._hold(replica, wanted, expected, watch, with_contents=origin is None)

    def prove_again(self, replica: Replica, origin: Statement, watch: Callable[[int], None]) -> tuple[Reading, bool]:
        """The same of a replica whose origin is known to fit Rucio's row: by the origin's own digest alone."""
        assert origin.hash_algorithm is not None
        expected = Expected.of_origin(origin)
        return self._hold(replica, (origin.hash_algorithm,), expected, watch, with_contents=False)

    def _hold(
        self,
        replica: Replica,
        wanted: tuple[str, ...],
        expected: Expected,
        watch: Callable[[int], None],
        *,
        with_contents: bool,
    ) -> tuple[Reading, bool]:
        reading = self._read(replica, wanted, with_contents, watch)
        if expected.agrees(reading):
            return reading, True
        again = self._read(replica, wanted, False, watch)
        if (reading.size, reading.hashes) != (again.size, again.hashes):
            raise Inconstant(str(replica))
        return again, False

    def ask(self, replica: Replica, origin: Statement, watch: Callable[[int], None]) -> StorageDigest | None:
        """The storage's own digest of *replica*, where it proves that it is the origin (docs/adr/0065); else None."""
        known = {**(origin.hashes or {}), origin.hash_algorithm: origin.hash}
        wanted = [algorithm for algorithm in STRONG if algorithm in known]
        if not wanted or not replica.rse.digest_fresh or SystemRandom().random() < replica.rse.spot_check:
            return None
        try:
            answer = self.storage.digest(replica, wanted, watch)
        except (NotFound, Refused, Unavailable):  # it is read, and what that finds is said
            return None
        if answer is None or answer.algorithm not in wanted:
            return None
        if not answer.fresh:
            LOG.warning("storage-digest-old replica=%s source=%s: it is read", replica, answer.source)
            return None
        if answer.value != known[answer.algorithm]:
            LOG.warning("storage-digest-differs replica=%s algorithm=%s: it is read", replica, answer.algorithm)
            return None
        return answer

    def _read(
        self, replica: Replica, wanted: tuple[str, ...], with_contents: bool, watch: Callable[[int], None]
    ) -> Reading:
        found = self.read(replica, wanted, with_contents and self.contents, watch)
        return Reading(found.size, found.hashes, found.contents, self.clock(), found.manifest)
