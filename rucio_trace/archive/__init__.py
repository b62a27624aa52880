"""Digests of an archive and of its members in one reading: zip and tar (plain, gzip, bzip2, xz).

Members are listed as the field lists them: regular files only, each by its path as the archive
spells it, in the archive's order. What an archive holds must be beyond doubt, so whatever two
unpackers could read differently is refused, as are links, devices and paths that lead out.
"""

from rucio_trace.archive.members import (
    ArchiveLimits,
    BrokenArchive,
    ForbiddenMember,
    LimitExceeded,
    Member,
    NotStreamable,
)
from rucio_trace.archive.reading import ArchiveDigests, ArchivePass, digest_archive, is_archive_name

__all__ = [
    "ArchiveDigests",
    "ArchiveLimits",
    "ArchivePass",
    "BrokenArchive",
    "ForbiddenMember",
    "LimitExceeded",
    "Member",
    "NotStreamable",
    "digest_archive",
    "is_archive_name",
]
