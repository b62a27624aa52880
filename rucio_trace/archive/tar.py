"""Reads a tar as it streams by: ustar, GNU and pax.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar, "Basic Tar Format".
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace.archive.codecs import BAD_DATA
from rucio_trace.archive.members import BrokenArchive, Budget, ForbiddenMember

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio_trace.archive.codecs import Decoder
    from rucio_trace.archive.feed import Feed, Parser, Parsing
    from rucio_trace.archive.members import Members

__all__ = ["is_tar", "parse_tar", "unpack"]

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_MAX_EXTENSION_BYTES = 1 << 20  # pax records and long names: a path has 4 KiB, other records are short
_SIZE_DIGITS = 20  # 2**63 and the line's end
_PACKED_PIECE_BYTES = 64 << 10  # what a decoder could not use at once is copied: keep that short

_FORBIDDEN = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def is_tar(head: bytes) -> bool:
    """Whether *head*, the first 512 bytes, is a tar header (or the end mark of an empty tar)."""
    if len(head) < _BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


@dataclass(slots=True)
class _Extensions:
    """What the extended headers say about the next member."""

    path: str | None = None
    size: int | None = None


def parse_tar(feed: Feed, members: Members) -> Parser[None]:
    """Collect the members of the tar that *feed* brings."""
    extensions = _Extensions()
    while (block := (yield from feed.take(_BLOCK))) != _ZEROS:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise BrokenArchive(
                members.archive, expected=f"a tar header at byte {feed.offset - _BLOCK}", found=str(error)
            ) from error
        if header.size < 0:
            raise BrokenArchive(f"{members.archive}: member {header.name}", expected="a size", found=str(header.size))
        if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            yield from _extension(feed, members, header, extensions)
        else:
            yield from _entry(feed, members, header, extensions)
            extensions = _Extensions()
    yield from _end(feed, members)


def _extension(feed: Feed, members: Members, header: tarfile.TarInfo, extensions: _Extensions) -> Parser[None]:
    if header.size > _MAX_EXTENSION_BYTES:
        raise BrokenArchive(
            members.archive,
            expected=f"an extended header of at most {_MAX_EXTENSION_BYTES} bytes",
            found=str(header.size),
        )
    members.count_entry()
    data = yield from feed.take(header.size)
    yield from _padding(feed, header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        extensions.path = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    elif header.type == tarfile.XHDTYPE:
        _read_pax(data, members, extensions)
    elif header.type == tarfile.XGLTYPE:
        _read_pax(data, members, general := _Extensions())
        if general != _Extensions():
            raise BrokenArchive(
                members.archive, expected="a path and a size for each member", found="one for all members"
            )


def _read_pax(data: bytes, members: Members, extensions: _Extensions) -> None:
    """Take path and size from pax records, each `<length> <key>=<value>\\n`."""
    position = 0
    while position < len(data):
        digits = data[position : position + 8].partition(b" ")[0]
        end = position + int(digits) if digits.isdigit() else -1
        key, equals, value = data[position + len(digits) + 1 : end].partition(b"=")
        if not position < end <= len(data) or not equals or not value.endswith(b"\n"):
            raise BrokenArchive(members.archive, expected="pax records", found=repr(data[position : position + 40]))
        position = end
        if key == b"path":
            extensions.path = value[:-1].decode("utf-8", "surrogateescape")
        elif key == b"size":
            if not value[:-1].isdigit() or len(value) > _SIZE_DIGITS:
                raise BrokenArchive(members.archive, expected="a size in a pax record", found=repr(value[:40]))
            extensions.size = int(value)
        elif key.startswith(b"GNU.sparse."):
            raise ForbiddenMember(members.archive, extensions.path or "?", "a sparse file")


def _entry(feed: Feed, members: Members, header: tarfile.TarInfo, extensions: _Extensions) -> Parser[None]:
    path = header.name if extensions.path is None else extensions.path
    size = header.size if extensions.size is None else extensions.size
    members.count_entry()
    if header.isdir():
        if path.strip("./"):
            members.check_path(path)
        if size:
            raise BrokenArchive(
                f"{members.archive}: member {path}", expected="an empty directory entry", found=f"{size} bytes"
            )
        return
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
        raise ForbiddenMember(members.archive, path, _FORBIDDEN.get(header.type, f"a member of type {header.type!r}"))
    members.begin(path)
    yield from feed.pour(size, members.write)
    yield from _padding(feed, size)
    members.end()


def _padding(feed: Feed, size: int) -> Parser[None]:
    yield from feed.take(-size % _BLOCK)


def _end(feed: Feed, members: Members) -> Parser[None]:
    """Only zeros may follow the first zero block, and one more of them must."""
    yield from _only_zeros(feed, members.archive, at_least=_BLOCK)


def _only_zeros(feed: Feed, archive: str, at_least: int = 0) -> Parser[None]:
    start = feed.offset
    while view := (yield from feed.piece(_PACKED_PIECE_BYTES)):
        if bytes(view).count(0) != len(view):
            raise BrokenArchive(archive, expected=f"nothing after the end mark (byte {start})", found="more data")
    if feed.offset - start < at_least:
        raise BrokenArchive(archive, expected="an end mark of two zero blocks", found="one")


def unpack(feed: Feed, start: Callable[[], Decoder], archive: str, budget: Budget, inner: Parsing) -> Parser[None]:
    """Decompress what *feed* brings, one or more compressed streams, and hand it on to *inner*."""
    decoder = start()

    def hand_on(out: bytes) -> None:
        budget.expand(len(out), feed.offset)
        inner.update(out)

    while view := (yield from feed.piece(_PACKED_PIECE_BYTES)):
        if decoder.ended:
            if not view[0]:
                feed.unread(view)
                break
            decoder = start()
        try:
            used = decoder.feed(view, hand_on)
        except BAD_DATA as error:
            raise BrokenArchive(
                archive, expected=f"compressed data up to byte {feed.offset}", found=str(error)
            ) from error
        feed.unread(view[used:])
        if inner.done:
            return  # what was compressed is no archive
    if not decoder.ended:
        raise BrokenArchive(archive, expected="the end of the compressed data", found="the end of the file")
    yield from _only_zeros(feed, archive)
    inner.finish()
