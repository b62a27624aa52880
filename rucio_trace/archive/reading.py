"""One reading of an archive: the whole's digests beside its members'.

Each format's reader is imported when the first such archive comes: commands start the sooner.
"""

from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace.archive.codecs import PACKED_STARTS, decoder_for
from rucio_trace.archive.feed import CutOff, Feed, Parsing
from rucio_trace.archive.members import ArchiveLimits, BrokenArchive, Budget, Member, Members, NotStreamable
from rucio_trace.archive.zip import STARTS, parse_zip
from rucio_trace.digest import DigestPass, Digests, chunks, cores, open_file, unchanged
from rucio_trace.errors import TraceabilityError
from rucio_trace.products import MANIFEST_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rucio_trace.archive.feed import Parser
    from rucio_trace.digest import Buffer

__all__ = ["ArchiveDigests", "ArchivePass", "digest_archive", "is_archive_name"]

_HEAD_BYTES = 512  # a tar's first header; the marks of the others are shorter
_PARALLEL_BYTES = 128 << 10  # smaller chunks cost more to hand over than they save
_READ_BYTES = 4 << 20

_NAMED_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)


def is_archive_name(name: str) -> bool:
    """Whether *name* promises an archive; what its bytes are, an `ArchivePass` tells."""
    return _NAMED_ARCHIVE.search(name) is not None


@dataclass(frozen=True, slots=True)
class ArchiveDigests:
    """The digests of the whole and of its members; `members` is None for what is no archive.

    `manifest` holds the bytes of the product's manifest, as strangers wrote them, if it has one, and `manifest_path`
    says where it lies.
    """

    whole: Digests
    members: tuple[Member, ...] | None
    manifest: bytes | None = None
    manifest_path: str = ""


class ArchivePass:
    """Digests of an archive that comes in chunks, and of its members, in bounded memory.

    The bytes decide whether it is an archive; *name* must not promise one in vain. A fault in the
    archive ends only the listing: `finish_whole` still gives the digests of all bytes, `finish`
    raises the fault. Without `threads` the whole is digested beside the members on a second core.
    """

    def __init__(
        self,
        name: str,
        algorithms: Iterable[str],
        *,
        member_algorithms: Iterable[str] | None = None,
        limits: ArchiveLimits | None = None,
        threads: int | None = None,
    ) -> None:
        algorithms = tuple(algorithms)
        self._name = name
        self._whole: Digests | None = None
        many = cores() if threads is None else threads
        self._digests = DigestPass(algorithms, threads=max(1, many - 1))
        inner = algorithms if member_algorithms is None else member_algorithms
        self._members = Members(name, inner, limits or ArchiveLimits(), MANIFEST_NAMES)
        self._budget = Budget(name, limits or ArchiveLimits())
        self._is_archive = False
        self._fault: TraceabilityError | None = None
        feed = Feed()
        self._parsing = Parsing(feed, self._parse(feed))
        self._pool = ThreadPoolExecutor(1, "digest") if many > 1 else None

    def update(self, chunk: Buffer) -> None:
        """Take in the next bytes; *chunk* may be overwritten afterwards."""
        if self._pool is None or self._parsing.done or len(chunk) < _PARALLEL_BYTES:
            self._digests.update(chunk)
            self._run(lambda: self._parsing.update(chunk))
            return
        whole = self._pool.submit(self._digests.update, chunk)
        try:
            self._run(lambda: self._parsing.update(chunk))
        finally:
            whole.result()

    def finish_whole(self) -> Digests:
        """The digests of all bytes, whatever state the archive is in; frees the threads."""
        if self._whole is None:
            self._whole = self._digests.finish()
            if self._pool is not None:
                self._pool.shutdown()
        return self._whole

    def finish(self) -> ArchiveDigests:
        """The digests of the whole and its members.

        Raises:
            BrokenArchive, ForbiddenMember, LimitExceeded: the members cannot be vouched for.
            NotStreamable: they need a second reading, see `digest_archive`.
        """
        whole = self.finish_whole()
        self._run(self._parsing.finish)
        if self._fault:
            raise self._fault
        if not self._is_archive and is_archive_name(self._name):
            raise BrokenArchive(self._name, expected="an archive, as its name says", found="something else")
        if not self._is_archive:
            return ArchiveDigests(whole, None)
        return ArchiveDigests(whole, tuple(self._members.found), self._members.kept, self._members.kept_path)

    def _run(self, step: Callable[[], None]) -> None:
        try:
            step()
        except CutOff:
            self._fault = BrokenArchive(self._name, expected="a whole archive", found="one that is cut off")
        except TraceabilityError as fault:
            self._fault = fault

    def _parse(self, feed: Feed) -> Parser[None]:
        head = yield from feed.peek(_HEAD_BYTES)
        if head.startswith(STARTS):
            self._is_archive = True
            yield from parse_zip(feed, self._members, self._budget)
        elif head.startswith(PACKED_STARTS):
            from rucio_trace.archive.tar import unpack

            inner_feed = Feed()
            inner = Parsing(inner_feed, self._parse_tar(inner_feed))
            yield from unpack(feed, decoder_for(head), self._name, self._budget, inner)
        else:
            yield from self._parse_tar(feed)

    def _parse_tar(self, feed: Feed) -> Parser[None]:
        from rucio_trace.archive.tar import is_tar, parse_tar

        head = yield from feed.peek(_HEAD_BYTES)
        # An empty tar is nothing but zeros; so are other files, and only the name tells.
        if is_tar(head) or (head == bytes(_HEAD_BYTES) and is_archive_name(self._name)):
            self._is_archive = True
            yield from parse_tar(feed, self._members)


def digest_archive(
    path: Path,
    algorithms: Iterable[str],
    *,
    member_algorithms: Iterable[str] | None = None,
    limits: ArchiveLimits | None = None,
    progress: Callable[[int], object] | None = None,
    threads: int | None = None,
) -> ArchiveDigests:
    """Digests of the file at *path* and, if it is an archive, of its members.

    One reading serves both. Only zips whose members cannot be found from front to back (stored
    ones with their length behind them, rare compressions) have their members read a second time.

    Raises:
        BrokenArchive, ForbiddenMember, LimitExceeded: the members cannot be vouched for.
        NotAFile, FileChanged, OSError: as `digest_file`.
    """
    limits = limits or ArchiveLimits()
    names = tuple(algorithms)
    inner_names = names if member_algorithms is None else tuple(member_algorithms)
    reading = ArchivePass(str(path), names, member_algorithms=inner_names, limits=limits, threads=threads)
    with open_file(path) as file, unchanged(path, file) as state:
        regular = stat.S_ISREG(state.st_mode)
        for chunk in chunks(file, _READ_BYTES, most=state.st_size if regular else None):
            reading.update(chunk)
            if progress:
                progress(len(chunk))
        try:
            return reading.finish()
        except NotStreamable:
            if not regular:
                raise
            from rucio_trace.archive.seeking import read_members

            members = Members(str(path), inner_names, limits, MANIFEST_NAMES)
            read_members(file, members, Budget(str(path), limits))
            return ArchiveDigests(reading.finish_whole(), tuple(members.found), members.kept, members.kept_path)
