"""The second reading: members of a zip that only its central directory can find."""

from __future__ import annotations

import struct
import zipfile
from typing import TYPE_CHECKING, BinaryIO

from rucio_trace.archive.codecs import BAD_DATA, PORTION_BYTES
from rucio_trace.archive.members import BrokenArchive, ForbiddenMember
from rucio_trace.archive.zip import decode_name

if TYPE_CHECKING:
    from rucio_trace.archive.members import Budget, Members

__all__ = ["read_members"]

_LOCAL_HEADER_BYTES = 30
_MAX_DIRECTORY_BYTES = 32 << 20  # 100,000 members with long names; zipfile makes ten times as much of it in memory
_ENCRYPTED, _UTF8 = 1 << 0, 1 << 11

# What zipfile raises beside BadZipFile for bytes it cannot read or methods it does not know.
_UNREADABLE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    struct.error,
    *BAD_DATA,
)


def read_members(file: BinaryIO, members: Members, budget: Budget) -> None:
    """Collect the members of the zip *file* in the order of its central directory."""
    try:
        with zipfile.ZipFile(_Measured(file, members)) as archive:
            entries = archive.infolist()
            _check_apart(entries, members)
            for entry in entries:
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


def _check_apart(entries: list[zipfile.ZipInfo], members: Members) -> None:
    """Refuse entries that share bytes: they let a small zip unpack to any size."""
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise BrokenArchive(
                f"{members.archive}: member {entry.filename}", expected="bytes of its own", found="shared ones"
            )
        end = entry.header_offset + _LOCAL_HEADER_BYTES + len(entry.orig_filename) + entry.compress_size


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, members: Members, budget: Budget) -> None:
    members.count_entry()
    utf8 = entry.flag_bits & _UTF8
    path = decode_name(entry.orig_filename.encode("utf-8" if utf8 else "cp437"), utf8)
    members.check_kind(path, entry.external_attr >> 16)
    if entry.flag_bits & _ENCRYPTED:
        raise ForbiddenMember(members.archive, path, "an encrypted member")
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
