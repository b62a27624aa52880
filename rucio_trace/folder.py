"""Digests of the files in a folder: a product that somebody unpacked.

What a folder holds must be beyond doubt, as in an archive: links and special files are refused, and a
folder that changes while it is read has no digest. Empty folders count for nothing.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from rucio_trace.archive import ArchiveLimits, ForbiddenMember, LimitExceeded, Member, digest_archive
from rucio_trace.digest import digest_file
from rucio_trace.errors import Malformed, Undecided
from rucio_trace.paths import path_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["FolderChanged", "digest_content", "digest_folder", "folder_files"]


class FolderChanged(Undecided):
    """Files came or went while the folder was read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            str(folder), expected="the same files as at the start", found="others", hint="try again when it is complete"
        )


def folder_files(folder: Path, limits: ArchiveLimits) -> list[str]:
    """The paths of all files below *folder*, sorted; written with `/`.

    Raises:
        ForbiddenMember: a link, a special file, or a name that is no UTF-8.
        LimitExceeded: more files and folders than an archive may have members.
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    folders = [""]
    count = 0
    while folders:
        inside = folders.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                count += 1
                if count > limits.archive_members:
                    raise LimitExceeded(str(folder), "archive_members", limits.archive_members, count)
                path = f"{inside}/{entry.name}" if inside else entry.name
                if fault := path_fault(path) or _kind(entry):
                    raise ForbiddenMember(str(folder), path, fault)
                (folders if entry.is_dir(follow_symlinks=False) else found).append(path)
    return sorted(found)


def digest_folder(
    folder: Path,
    algorithms: Iterable[str],
    *,
    limits: ArchiveLimits | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[Member, ...]:
    """The files below *folder* with their digests, sorted by path; each is read once.

    Raises:
        FolderChanged, FileChanged: it was written to meanwhile.
        ForbiddenMember, LimitExceeded, OSError: as `folder_files`.
    """
    limits = limits or ArchiveLimits()
    names = tuple(algorithms)
    paths = folder_files(folder, limits)
    members = []
    for path in paths:
        found = digest_file(folder / path, names, progress=progress)
        members.append(Member(path, found.size, found.hashes))
    if folder_files(folder, limits) != paths:
        raise FolderChanged(folder)
    return tuple(members)


def digest_content(
    path: Path,
    algorithms: Iterable[str],
    *,
    limits: ArchiveLimits | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[Member, ...]:
    """The files of a product with their digests, be it a folder or an archive.

    Raises:
        Malformed: it is neither, or an archive whose members cannot be vouched for.
        Undecided, OSError: it could not be read.
    """
    if path.is_dir():
        return digest_folder(path, algorithms, limits=limits, progress=progress)
    members = digest_archive(path, (), member_algorithms=algorithms, limits=limits, progress=progress).members
    if members is None:
        raise Malformed(str(path), expected="a product: a folder, a zip or a tar", found="something else")
    return members


def _kind(entry: os.DirEntry[str]) -> str:
    """What else than a file or a folder *entry* is."""
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
