"""The second reading: members of a zip that only its central directory can find."""

from __future__ import annotations

import struct
import zipfile
from typing import TYPE_CHECKING, BinaryIO

from rucio_trace.archive.codecs import BAD_DATA, PORTION_BYTES
from rucio_trace.archive.feed import CutOff, Feed, Parsing
from rucio_trace.archive.members import BrokenArchive
from rucio_trace.archive.zip import (
    LOCAL_MARK,
    Entry,
    decode_name,
    parse_descriptor,
    parse_directory,
    parse_header,
)

if TYPE_CHECKING:
    from rucio_trace.archive.feed import Parser
    from rucio_trace.archive.members import Budget, Members

__all__ = ["read_members"]

_HEADER_BYTES = 1 << 10  # most local headers and every descriptor
_MAX_DIRECTORY_BYTES = 32 << 20  # 100,000 members with long names; zipfile makes ten times as much of it in memory
_UTF8 = 1 << 11

# What zipfile raises beside BadZipFile for bytes it cannot read or methods it does not know.
_UNREADABLE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    struct.error,
    *BAD_DATA,
)


def read_members(file: BinaryIO, members: Members, budget: Budget) -> None:
    """Collect the members of the zip *file* in the order of its central directory.

    The directory finds them; that it hides none is shown by walking from header to header, as one who reads front to
    back would go.
    """
    try:
        with zipfile.ZipFile(_Measured(file, members)) as archive:
            _check_whole(file, archive, members)
            for entry in archive.infolist():
                _read_entry(archive, entry, members, budget)
    except _UNREADABLE as error:
        raise BrokenArchive(members.archive, expected="a zip that can be unpacked", found=str(error)) from error


class _Measured:
    """The file as `zipfile` reads it, which takes the whole central directory at once: refused if it is a huge one."""

    def __init__(self, file: BinaryIO, members: Members) -> None:
        self._file, self._archive = file, members.archive
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, count: int = -1) -> bytes:
        if count > _MAX_DIRECTORY_BYTES:
            raise BrokenArchive(
                self._archive, expected=f"a central directory of at most {_MAX_DIRECTORY_BYTES} bytes", found=f"{count}"
            )
        return self._file.read(count)


def _check_whole(file: BinaryIO, archive: zipfile.ZipFile, members: Members) -> None:
    """Refuse a zip in which entries share bytes, or in which bytes lie that are of no entry."""
    entries: dict[int, Entry] = {}
    at = 0
    for known in sorted(archive.infolist(), key=lambda known: known.header_offset):
        if known.header_offset != at:
            raise BrokenArchive(
                f"{members.archive}: member {known.filename}",
                expected=f"to begin at byte {at}",
                found=f"byte {known.header_offset}: bytes are shared, or of no member",
            )
        entries[at], at = _local(file, at, known.compress_size, known.file_size, members.archive)
    if at != archive.start_dir:
        raise BrokenArchive(
            members.archive, expected=f"its central directory at byte {at}", found=f"byte {archive.start_dir}"
        )
    feed = Feed()
    feed.offset = at
    _parse(file, at, feed, _directory(feed, members, entries), members.archive)


def _local(file: BinaryIO, at: int, packed: int, size: int, archive: str) -> tuple[Entry, int]:
    """The entry whose local header is at byte *at*, with *packed* bytes of data, and where the next one begins."""
    feed = Feed()
    found: list[Entry] = []

    def header() -> Parser[None]:
        if (mark := (yield from feed.take(len(LOCAL_MARK)))) != LOCAL_MARK:
            raise BrokenArchive(archive, expected=f"a member at byte {at}", found=repr(mark))
        found.append((yield from parse_header(feed, archive)))

    _parse(file, at, feed, header(), archive, piece=_HEADER_BYTES)
    [entry] = found
    end = at + feed.offset + packed
    if entry.described:
        feed = Feed()
        _parse(file, end, feed, parse_descriptor(feed, entry, packed, size), archive, piece=_HEADER_BYTES)
        end += feed.offset
    return entry, end


def _directory(feed: Feed, members: Members, entries: dict[int, Entry]) -> Parser[None]:
    mark = yield from feed.take(4)
    yield from parse_directory(feed, members, entries, mark)


def _parse(file: BinaryIO, at: int, feed: Feed, parser: Parser[None], archive: str, piece: int = PORTION_BYTES) -> None:
    """Run *parser* over the bytes from *at* on, as far as it goes."""
    file.seek(at)
    parsing = Parsing(feed, parser)
    try:
        while not parsing.done and (chunk := file.read(piece)):
            parsing.update(chunk)
        parsing.finish()
    except CutOff as error:
        raise BrokenArchive(archive, expected="a whole archive", found="one that is cut off") from error


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, members: Members, budget: Budget) -> None:
    members.count_entry()
    utf8 = entry.flag_bits & _UTF8
    path = decode_name(entry.orig_filename.encode("utf-8" if utf8 else "cp437"), utf8)
    if path.endswith("/"):
        members.check_path(path)
        if entry.file_size:
            raise BrokenArchive(f"{members.archive}: member {path}", expected="an empty directory entry", found="data")
        return
    members.begin(path)
    with archive.open(entry) as stream:
        while data := stream.read(PORTION_BYTES):
            budget.expand(len(data), entry.header_offset + entry.compress_size)
            members.write(data)
    members.end()
