"""One reading of a file: the digests Rucio wants, those a trace signs, and the CREATE that says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rucio_trace.archive import ArchiveDigests, digest_archive, is_archive_name
from rucio_trace.digest import digest_file
from rucio_trace.envelope import Signer, Trace, sign
from rucio_trace.errors import Refuted
from rucio_trace.products import attributes_of
from rucio_trace.trace import Content, Event, Input, Statement, base_name, format_time, new_event_id, new_salt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rucio_trace.archive import ArchiveLimits

__all__ = ["CHECKSUMS", "Declared", "OwnInput", "Producer", "declare"]

CHECKSUMS = ("ADLER32", "MD5")
"""What Rucio keeps of a file; signed beside the digest, so that its row can be held against the trace."""

_ALGORITHM = "BLAKE3"


class OwnInput(Refuted):
    """A product cannot have been made from itself."""

    def __init__(self, name: str, digest: str) -> None:
        super().__init__(f"{name}: input {digest}", expected="another product", found="this one")


@dataclass(frozen=True, slots=True)
class Producer:
    """Who signs, and what is said of every file. `limits` is None where members of archives are not to be signed."""

    signer: Signer
    site: str
    inputs: tuple[Input, ...] = ()
    limits: ArchiveLimits | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """A file as it was when it was read. `state` is its size and modification time in ns."""

    trace: Trace
    state: tuple[int, int]

    @property
    def checksums(self) -> dict[str, str]:
        """Rucio's checksums, under Rucio's names."""
        digests = self.trace.statement.digests
        return {algorithm.lower(): digests[algorithm] for algorithm in CHECKSUMS}

    def fits(self, path: Path) -> bool:
        """Whether the file at *path* is still in the state that was read."""
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == self.state


def declare(path: Path, did_name: str, producer: Producer, progress: Callable[[int], object]) -> Declared:
    """Read the file at *path* once and sign its CREATE under the base name of *did_name*.

    No product is named: before the upload Rucio knows none (docs/format.md, 1.9).

    Raises:
        NotAFile, FileChanged, OSError: it cannot be read, or not as one state.
        BrokenArchive, ForbiddenMember, LimitExceeded: members are to be signed, and cannot be vouched for.
        OwnInput: it is one of its own inputs.
    """
    found, state = _read(path, producer.limits, progress)
    hashes = dict(found.whole.hashes)
    main = hashes.pop(_ALGORITHM)
    name = base_name(did_name)
    if any(given.hash in (main, *hashes.values()) for given in producer.inputs):
        raise OwnInput(name, main)
    members = found.members
    now = format_time(datetime.now(UTC))
    statement = Statement(
        contents=None if members is None else tuple(Content(m.path, m.hashes[_ALGORITHM]) for m in members),
        hash=main,
        inputs=producer.inputs or None,
        name=name,
        size=found.whole.size,
        event=Event.CREATE,
        event_id=new_event_id(),
        hash_algorithm=_ALGORITHM,
        hashes=hashes,
        site=producer.site,
        signer=producer.signer.fingerprint,
        time=now,
        observed=now,
        method="read",
        attributes=attributes_of(name, found.manifest) or None,
        salt=new_salt(),
    )
    return Declared(sign(statement, producer.signer), state)


def _read(
    path: Path, limits: ArchiveLimits | None, progress: Callable[[int], object]
) -> tuple[ArchiveDigests, tuple[int, int]]:
    wanted = (_ALGORITHM, *CHECKSUMS)
    before = path.stat()
    state = (before.st_size, before.st_mtime_ns)
    if limits is not None and is_archive_name(path.name):
        found = digest_archive(path, wanted, member_algorithms=(_ALGORITHM,), limits=limits, progress=progress)
        return found, state
    return ArchiveDigests(digest_file(path, wanted, progress=progress), None), state
