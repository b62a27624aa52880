"""Reads a zip as it streams by, by its local headers, and holds them against the central directory.

An unpacker believes the central directory, a stream shows the local headers: a zip in which they
differ, or in which bytes lie that neither lists, could show two contents to two readers.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isal import isal_zlib

from rucio_trace.archive.codecs import BAD_DATA, Deflate
from rucio_trace.archive.feed import CutOff
from rucio_trace.archive.members import BrokenArchive, ForbiddenMember, NotStreamable

if TYPE_CHECKING:
    from rucio_trace.archive.feed import Feed, Parser
    from rucio_trace.archive.members import Budget, Members
    from rucio_trace.digest import Buffer

__all__ = [
    "LOCAL_MARK",
    "STARTS",
    "Entry",
    "decode_name",
    "parse_descriptor",
    "parse_directory",
    "parse_header",
    "parse_zip",
]

LOCAL_MARK = b"PK\x03\x04"
_CENTRAL_MARK = b"PK\x01\x02"
_END_MARK = b"PK\x05\x06"
_END64_MARK = b"PK\x06\x06"
_LOCATOR64_MARK = b"PK\x06\x07"
_DESCRIPTOR_MARK = b"PK\x07\x08"
STARTS = (LOCAL_MARK, _END_MARK)

_LOCAL = struct.Struct("<HHH4xIIIHH")
_CENTRAL = struct.Struct("<HHHH4xIIIHHHHHII")
_END = struct.Struct("<HHHHIIH")
_END64 = struct.Struct("<HHIIQQQQ")
_MAX_END64_BYTES = 64 << 10  # its extensible part is unused in practice
_PIECE_BYTES = 64 << 10  # what the decoder could not use at once is copied: keep that short

_ENCRYPTED, _DESCRIPTOR, _PATCHED, _UTF8, _MASKED = 1 << 0, 1 << 3, 1 << 5, 1 << 11, 1 << 13
_STORED, _DEFLATED = 0, 8
_FULL32 = 0xFFFF_FFFF
_ZIP64 = 0x0001


@dataclass(slots=True)
class Entry:
    """What is known of an entry from its local header, and then from its bytes."""

    raw_name: bytes
    path: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    zip64: bool

    @property
    def described(self) -> bool:
        """Whether its CRC and sizes stand behind its data."""
        return bool(self.flags & _DESCRIPTOR)


def decode_name(raw: bytes, flags: int) -> str:
    """A member's path. Without the UTF-8 flag many writers use UTF-8 all the same; the others mean code page 437."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("cp437")


def parse_zip(feed: Feed, members: Members, budget: Budget) -> Parser[None]:
    """Collect the members of the zip that *feed* brings."""
    entries: dict[int, Entry] = {}
    while (mark := (yield from feed.take(4))) == LOCAL_MARK:
        offset = feed.offset - 4
        members.count_entry()
        entries[offset] = yield from _local_entry(feed, members, budget)
    yield from parse_directory(feed, members, entries, mark)


def parse_directory(feed: Feed, members: Members, entries: dict[int, Entry], mark: bytes) -> Parser[None]:
    """Hold the central directory, whose first *mark* was taken, against *entries* by their offsets, to the end."""
    directory_offset, count = feed.offset - 4, len(entries)
    while mark == _CENTRAL_MARK:
        yield from _central_entry(feed, members, entries)
        mark = yield from feed.take(4)
    if entries:
        hidden = next(iter(entries.values())).path
        raise BrokenArchive(
            f"{members.archive}: member {hidden}", expected="to be in the central directory", found="missing"
        )
    yield from _end(feed, members.archive, mark, directory_offset, count)


def parse_header(feed: Feed, archive: str) -> Parser[Entry]:
    """What a local header says, whose mark was taken; of an entry nobody can vouch for it is refused."""
    _, flags, method, crc, packed, size, name_length, extra_length = _LOCAL.unpack((yield from feed.take(_LOCAL.size)))
    raw_name = yield from feed.take(name_length)
    path = decode_name(raw_name, flags)
    zip64 = _zip64_field((yield from feed.take(extra_length)), archive, path)
    size, packed = _widened((size, packed), zip64, archive, path)
    if flags & (_ENCRYPTED | _MASKED):
        raise ForbiddenMember(archive, path, "an encrypted member")
    if flags & _PATCHED:
        raise ForbiddenMember(archive, path, "a patch")
    return Entry(raw_name, path, flags, method, crc, packed, size, zip64 is not None)


def _local_entry(feed: Feed, members: Members, budget: Budget) -> Parser[Entry]:
    entry = yield from parse_header(feed, members.archive)
    path = entry.path
    checked = _Checked(feed, members, budget)
    if path.endswith("/"):
        members.check_path(path)
        yield from _data(feed, members.archive, entry, checked)
        if checked.size:
            raise _broken(members.archive, path, "an empty directory entry", f"{checked.size} bytes")
    else:
        members.begin(path)
        yield from _data(feed, members.archive, entry, checked)
        members.end()
    return entry


class _Checked:
    """Takes the unpacked bytes of an entry: counts them, keeps their CRC, digests those of a member."""

    def __init__(self, feed: Feed, members: Members, budget: Budget) -> None:
        self.size = self.crc = 0
        self._feed, self._members, self._budget = feed, members, budget

    def write(self, data: Buffer) -> None:
        self.size += len(data)
        self._budget.expand(len(data), self._feed.offset)
        self.crc = isal_zlib.crc32(data, self.crc)
        self._members.write(data)


def _data(feed: Feed, archive: str, entry: Entry, checked: _Checked) -> Parser[None]:
    """The entry's bytes and, where there is one, the descriptor behind them, which completes *entry*."""
    start = feed.offset
    described = entry.described
    if entry.method == _DEFLATED:
        yield from _inflate(feed, archive, entry, checked, None if described else entry.packed)
    elif entry.method != _STORED:
        raise NotStreamable(archive, entry.path, f"compression method {entry.method}")
    elif described and not entry.packed and not entry.path.endswith("/"):
        raise NotStreamable(archive, entry.path, "an uncompressed one whose length stands behind it")
    else:
        yield from feed.pour(entry.packed, checked.write)
    packed = feed.offset - start
    if described:
        yield from parse_descriptor(feed, entry, packed, checked.size)
    stated = (f"{entry.crc:08x}", entry.size, entry.packed)
    found = (f"{checked.crc:08x}", checked.size, packed)
    for what, expected, actual in zip(("CRC", "size", "packed size"), stated, found, strict=True):
        if expected != actual:
            raise _broken(archive, entry.path, f"{what} {expected}", actual)


def _inflate(feed: Feed, archive: str, entry: Entry, checked: _Checked, packed: int | None) -> Parser[None]:
    """Unpack to the end of the compressed stream, which lies within *packed* bytes where these are known."""
    decoder = Deflate()
    start = feed.offset
    while not decoder.ended:
        left = _PIECE_BYTES if packed is None else packed - (feed.offset - start)
        view = yield from feed.piece(min(_PIECE_BYTES, left))
        if not view:
            if left:
                raise CutOff
            raise _broken(archive, entry.path, f"compressed data that end within {packed} bytes", "more")
        try:
            used = decoder.feed(view, checked.write)
        except BAD_DATA as error:
            raise _broken(archive, entry.path, "deflated data", error) from error
        feed.unread(view[used:])


def parse_descriptor(feed: Feed, entry: Entry, packed: int, size: int) -> Parser[None]:
    """The CRC and sizes behind the data, which complete *entry*; 64 bits wide if zip64 says so or the sizes need it.

    Source: APPNOTE.TXT 4.3.9: the mark before them is optional.
    """
    first = yield from feed.take(4)
    if first == _DESCRIPTOR_MARK:
        first = yield from feed.take(4)
    wide = entry.zip64 or max(packed, size) > _FULL32
    entry.crc = int.from_bytes(first, "little")
    entry.packed, entry.size = struct.unpack("<QQ" if wide else "<II", (yield from feed.take(16 if wide else 8)))


def _central_entry(feed: Feed, members: Members, entries: dict[int, Entry]) -> Parser[None]:
    """One entry of the central directory: it must say of a member what was seen of it."""
    header = _CENTRAL.unpack((yield from feed.take(_CENTRAL.size)))
    _, _, flags, method, crc, packed, size, name_length, extra_length, comment_length, _, _, mode, offset = header
    raw_name = yield from feed.take(name_length)
    path = decode_name(raw_name, flags)
    zip64 = _zip64_field((yield from feed.take(extra_length)), members.archive, path)
    size, packed, offset = _widened((size, packed, offset), zip64, members.archive, path)
    yield from feed.take(comment_length)
    entry = entries.pop(offset, None)
    if entry is None:
        raise _broken(members.archive, path, f"a member at byte {offset}", "none")
    stated = (raw_name, method, f"{crc:08x}", packed, size)
    seen = (entry.raw_name, entry.method, f"{entry.crc:08x}", entry.packed, entry.size)
    for what, expected, actual in zip(("name", "method", "CRC", "packed size", "size"), stated, seen, strict=True):
        if expected != actual:
            raise _broken(members.archive, path, f"{what} {expected!r} as in the central directory", repr(actual))
    members.check_kind(path, mode >> 16)


def _end(feed: Feed, archive: str, mark: bytes, directory_offset: int, count: int) -> Parser[None]:
    """The records that end a zip; nothing may follow them."""
    directory_bytes = feed.offset - 4 - directory_offset
    expected = (count, directory_bytes, directory_offset)
    if mark == _END64_MARK:
        (length,) = struct.unpack("<Q", (yield from feed.take(8)))
        if not _END64.size <= length <= _MAX_END64_BYTES:
            raise BrokenArchive(archive, expected="a zip64 end record", found=f"one of {length} bytes")
        *_, count64, bytes64, offset64 = _END64.unpack((yield from feed.take(length))[: _END64.size])
        _check_end(archive, expected, (count64, bytes64, offset64))
        mark = yield from feed.take(4)
        if mark == _LOCATOR64_MARK:
            yield from feed.take(16)
            mark = yield from feed.take(4)
    if mark != _END_MARK:
        raise BrokenArchive(archive, expected=f"a zip record at byte {feed.offset - 4}", found=repr(mark))
    _, _, _, count16, bytes32, offset32, comment_length = _END.unpack((yield from feed.take(_END.size)))
    narrow = tuple(min(value, limit) for value, limit in zip(expected, (0xFFFF, _FULL32, _FULL32), strict=True))
    found = (count16, bytes32, offset32)
    full = (0xFFFF, _FULL32, _FULL32)  # "see the zip64 record", whatever the value is
    if any(value not in (wanted, most) for value, wanted, most in zip(found, narrow, full, strict=True)):
        _check_end(archive, expected, found)
    yield from feed.take(comment_length)
    if (yield from feed.piece(1)):
        raise BrokenArchive(archive, expected="nothing after the end of the zip", found="more data")


def _check_end(archive: str, expected: tuple[int, ...], found: tuple[int, ...]) -> None:
    if found != expected:
        names = "{} entries, {} bytes of directory at byte {}"
        raise BrokenArchive(archive, expected=names.format(*expected), found=names.format(*found))


def _zip64_field(extra: bytes, archive: str, path: str) -> bytes | None:
    """The zip64 extra field's content, None if there is none. Source: APPNOTE.TXT 4.5.3."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == _ZIP64:
            if position + length > len(extra):
                raise _broken(archive, path, "a whole zip64 field", "part of one")
            return extra[position : position + length]
        position += length
    return None


def _widened(narrow: tuple[int, ...], zip64: bytes | None, archive: str, path: str) -> list[int]:
    """Each 32-bit field that is full is replaced by the next 64-bit one of the zip64 field."""
    if zip64 is None:
        return list(narrow)
    wide, position = [], 0
    for value in narrow:
        if value == _FULL32:
            if position + 8 > len(zip64):
                raise _broken(archive, path, "a zip64 field with all long values", f"{len(zip64)} bytes")
            value = int.from_bytes(zip64[position : position + 8], "little")  # noqa: PLW2901
            position += 8
        wide.append(value)
    return wide


def _broken(archive: str, path: str, expected: str, found: object) -> BrokenArchive:
    return BrokenArchive(f"{archive}: member {path}", expected=expected, found=str(found))
