"""Reading a product, packed or unpacked, for the check against its own manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace.archive import ArchiveLimits, digest_archive
from rucio_trace.errors import Malformed
from rucio_trace.folder import digest_folder, folder_files
from rucio_trace.products.checking import Checked, check_product
from rucio_trace.products.manifest import MANIFEST_NAMES, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rucio_trace.archive import Member

__all__ = ["check_path"]

_MAX_KEPT_BYTES = 4 << 20  # as of an archive


@dataclass(frozen=True, slots=True)
class _Read:
    members: tuple[Member, ...]
    manifest_path: str
    manifest: bytes | None


def check_path(
    path: Path, *, limits: ArchiveLimits | None = None, progress: Callable[[int], object] | None = None
) -> Checked:
    """Hold the product at *path*, an archive or a folder, against its manifest.

    An archive is read once with the checksum its mission uses; if the manifest in it names another, once more.

    Raises:
        Malformed: it is neither folder nor archive, or an archive that cannot be vouched for.
        Undecided, OSError: it could not be read.
    """
    limits = limits or ArchiveLimits()
    if path.is_dir():
        read = _read_folder(path, limits, progress)
        return check_product(read.members, read.manifest_path, read.manifest)
    read = _read_archive(path, _usual_checksums(path.absolute().name), limits, progress)
    checked = check_product(read.members, read.manifest_path, read.manifest)
    if checked.missing:
        wanted = _checksums(read.manifest_path, read.manifest or b"")
        read = _read_archive(path, wanted, limits, progress)
        checked = check_product(read.members, read.manifest_path, read.manifest)
    return checked


def _usual_checksums(name: str) -> tuple[str, ...]:
    """Sentinel-2 uses SHA3-256, and MD5 in its older products; the others use MD5."""
    return ("SHA3",) if re.match(r"S2[A-D]_", name) else ("MD5",)


def _checksums(manifest_path: str, manifest: bytes) -> tuple[str, ...]:
    listed = read_manifest(manifest_path, manifest).files
    return tuple(sorted({algorithm for file in listed for algorithm in file.checksums}))


def _read_archive(
    path: Path, algorithms: Iterable[str], limits: ArchiveLimits, progress: Callable[[int], object] | None
) -> _Read:
    found = digest_archive(path, (), member_algorithms=algorithms, limits=limits, progress=progress)
    if found.members is None:
        raise Malformed(str(path), expected="a product: a folder, a zip or a tar", found="something else")
    return _Read(found.members, found.manifest_path, found.manifest)


def _read_folder(path: Path, limits: ArchiveLimits, progress: Callable[[int], object] | None) -> _Read:
    """A folder's manifest is there before its files are read: it says which checksums to compute."""
    manifest_path, manifest = "", None
    for inside in sorted(folder_files(path, limits), key=lambda inside: inside.count("/")):
        folder, _, name = inside.rpartition("/")
        if name in MANIFEST_NAMES and "/" not in folder and (path / inside).stat().st_size <= _MAX_KEPT_BYTES:
            manifest_path, manifest = inside, (path / inside).read_bytes()
            break
    algorithms = _checksums(manifest_path, manifest or b"")
    return _Read(digest_folder(path, algorithms, limits=limits, progress=progress), manifest_path, manifest)
