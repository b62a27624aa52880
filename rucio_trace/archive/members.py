"""What an archive may hold, and the digests of its members as their bytes come by."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace.digest import DigestPass
from rucio_trace.errors import Malformed, Undecided
from rucio_trace.paths import path_fault, plain_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rucio_trace.digest import Buffer

__all__ = [
    "ArchiveLimits",
    "BrokenArchive",
    "Budget",
    "ForbiddenMember",
    "LimitExceeded",
    "Member",
    "Members",
    "NotStreamable",
]

_MAX_KEPT_BYTES = 4 << 20  # for a manifest; the largest in use have 0.7 MiB
_MAX_LIST_BYTES = 8 << 20  # the longest trace there may be; a longer list could not be signed
_LIST_BYTES_PER_MEMBER = 96  # a member's digest and punctuation in that list
_RATIO_FREE_BYTES = 64 << 20  # small archives may expand as they like: unpacking them costs nothing


class BrokenArchive(Malformed):
    """The archive contradicts itself, is cut off, or holds what its format does not allow."""


class ForbiddenMember(Malformed):
    """A member that may not be in a traced archive: a link, a device, a path that leads out of it."""

    def __init__(self, archive: str, member: str, found: str) -> None:
        super().__init__(
            f"{archive}: member {member}", expected="a regular file with a path inside the archive", found=found
        )


class LimitExceeded(Malformed):
    """Reading on would cost more than the limit called *limit* allows: perhaps a bomb."""

    def __init__(self, archive: str, limit: str, allowed: int, found: int) -> None:
        super().__init__(
            archive,
            expected=f"at most {allowed} ({limit})",
            found=f"{found}",
            hint=f"raise limits.{limit} if it is sound",
        )
        self.limit, self.allowed = limit, allowed


class NotStreamable(Undecided):
    """The members' borders are only known from the archive's end: it takes a second reading, from a file."""

    def __init__(self, archive: str, member: str, reason: str) -> None:
        super().__init__(f"{archive}: member {member}", expected="a member that can be read as a stream", found=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Where the reading of an archive stops; the names are the options of `[limits]`."""

    archive_members: int = 100_000
    archive_bytes: int = 4 << 40  # unpacked; ten times the largest product in use
    archive_ratio: int = 500  # unpacked to packed; measured data stays under 20


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive."""

    path: str
    size: int
    hashes: Mapping[str, str]


class Budget:
    """Counts what reading an archive has cost, against its limits."""

    def __init__(self, archive: str, limits: ArchiveLimits) -> None:
        self._archive, self._limits = archive, limits
        self._expanded = 0

    def expand(self, count: int, packed: int) -> None:
        """Account for *count* bytes more that came out of the first *packed* bytes of the archive."""
        self._expanded += count
        if self._expanded > self._limits.archive_bytes:
            raise LimitExceeded(self._archive, "archive_bytes", self._limits.archive_bytes, self._expanded)
        if self._expanded > _RATIO_FREE_BYTES and self._expanded > packed * self._limits.archive_ratio:
            found = self._expanded // max(packed, 1)
            raise LimitExceeded(self._archive, "archive_ratio", self._limits.archive_ratio, found)


class Members:
    """Collects the members of one archive: `begin`, any number of `write`, `end`, and again.

    The first small member in the archive's top folder whose name is in *keep* stays in `kept`, its path in `kept_path`.
    """

    def __init__(
        self, archive: str, algorithms: Iterable[str], limits: ArchiveLimits, keep: Collection[str] = ()
    ) -> None:
        self.archive = archive
        self.found: list[Member] = []
        self.kept: bytes | None = None
        self.kept_path = ""
        self._keep = keep
        self._copy: bytearray | None = None
        self._algorithms, self._limits = tuple(algorithms), limits
        self._paths: set[str] = set()
        self._entries = 0
        self._list_bytes = 0
        self._path = ""
        self._digests = DigestPass((), threads=1)

    def count_entry(self) -> None:
        """Account for one entry of any kind: directories cost something too."""
        self._entries += 1
        if self._entries > self._limits.archive_members:
            raise LimitExceeded(self.archive, "archive_members", self._limits.archive_members, self._entries)

    def begin(self, path: str) -> None:
        self._path = self.check_path(path)
        if self._path in self._paths:
            raise ForbiddenMember(self.archive, path, "a second member of this path")
        self._paths.add(self._path)
        self._list_bytes += len(self._path.encode()) + _LIST_BYTES_PER_MEMBER
        if self._list_bytes > _MAX_LIST_BYTES:
            raise BrokenArchive(
                self.archive, expected=f"a list of members of at most {_MAX_LIST_BYTES} bytes", found="a longer one"
            )
        self._digests = DigestPass(self._algorithms, threads=1)
        folder, _, name = self._path.rpartition("/")
        if name in self._keep and "/" not in folder and self.kept is None:
            self._copy = bytearray()

    def write(self, data: Buffer) -> None:
        self._digests.update(data)
        if self._copy is not None:
            self._copy += data
            if len(self._copy) > _MAX_KEPT_BYTES:
                self._copy = None

    def end(self) -> None:
        digests = self._digests.finish()
        self.found.append(Member(self._path, digests.size, digests.hashes))
        if self._copy is not None:
            self.kept, self.kept_path, self._copy = bytes(self._copy), self._path, None

    def check_path(self, path: str) -> str:
        """*path*, without a leading `./`, if it leads into the archive wherever it is unpacked."""
        if fault := path_fault(path):
            raise ForbiddenMember(self.archive, path, fault)
        return plain_path(path)

    def check_kind(self, path: str, mode: int) -> None:
        """Refuse the kinds of file that Unix's *mode* knows beside files and directories."""
        kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        kinds |= {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        if found := kinds.get(stat.S_IFMT(mode)):
            raise ForbiddenMember(self.archive, path, found)
