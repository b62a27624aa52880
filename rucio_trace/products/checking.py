"""A product held against its own manifest.

Decides which faults there are; reading the product is for the caller. A product without faults is
whole as its producer packed it. That says nothing of who packed it: whoever changes a file can
change the manifest too, and only a signed trace tells. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rucio_trace.products import faults
from rucio_trace.products.manifest import MANIFEST_NAMES, Listed, Manifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rucio_trace.faults import Fault

__all__ = ["Checked", "check_product"]

# Files that real products hold beside what their manifests list, none with measurements in it.
_NEVER_LISTED = (
    (r"rep_info/[^/]+\.xsd", "Sentinel-2's schemas"),
    (r"HTML/[^/]+\.(png|jpg|css|html|xsl)", "Sentinel-2's presentation"),
    (r"INSPIRE\.xml", "Sentinel-2's catalogue record, in older products"),
    (r"[^/]+-ql\.jpg", "the archive's quick look"),
    (r"support/[^/]+\.xsd", "Sentinel-1's schemas"),
    (r"preview/([^/]+/)?[^/]+\.(png|kml|html)", "Sentinel-1's preview"),
    (r"[^/]+-report-\d{8}T\d{6}\.pdf", "Sentinel-1's quality report"),
    (r"(EOPMetadata|manifest)\.xml", "the archive's catalogue record"),
    (r"(browse|quicklook)\.(jpg|png)", "the archive's quick look"),
)


class File(Protocol):
    """What was measured of a file of the product; `hashes` by our names of algorithms."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def hashes(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Checked:
    """The faults found, in the manifest's order, then those of files it does not know.

    `listed` counts the files the manifest lists. `missing` names the algorithms that were not measured: the
    faults are not complete without them.
    """

    listed: int
    faults: tuple[Fault, ...]
    missing: frozenset[str] = frozenset()


def check_product(files: Iterable[File], manifest_path: str, data: bytes | None) -> Checked:
    """Hold *files*, by their paths in the archive or folder, against the manifest *data* at *manifest_path*."""
    by_path = {file.path: file for file in files}
    if data is None:
        return Checked(0, (_no_manifest(by_path),))
    manifest = read_manifest(manifest_path, data)
    if not manifest.files:
        return Checked(0, manifest.faults)
    root = manifest_path.rpartition("/")[0]
    prefix = f"{root}/" if root else ""
    found = list(manifest.faults)
    missing: set[str] = set()
    for listed in manifest.files:
        file = by_path.pop(prefix + listed.path, None)
        if file is None:
            found.append(faults.MissingFile(listed.path, "a file", "none"))
            continue
        missing |= listed.checksums.keys() - file.hashes.keys()
        found += _differences(listed, file)
    by_path.pop(manifest_path, None)
    found += [_unlisted(path, prefix, manifest) for path in sorted(by_path)]
    return Checked(len(manifest.files), tuple(found), frozenset(missing))


def _no_manifest(by_path: Mapping[str, File]) -> Fault:
    for path, file in by_path.items():
        folder, _, name = path.rpartition("/")
        if name in MANIFEST_NAMES and "/" not in folder:
            return faults.ManifestUnreadable(path, "a manifest of at most 4 MiB", f"{file.size} bytes")
    return faults.NoManifest("manifest", " or ".join(sorted(MANIFEST_NAMES)), "none")


def _differences(listed: Listed, file: File) -> list[Fault]:
    found: list[Fault] = []
    if listed.size is not None and listed.size != file.size:
        found.append(faults.WrongSize(listed.path, str(listed.size), str(file.size)))
    for algorithm, expected in listed.checksums.items():
        measured = file.hashes.get(algorithm, expected)
        if measured != expected:
            found.append(faults.WrongChecksum(f"{algorithm} of {listed.path}", expected, measured))
    return found


def _unlisted(path: str, prefix: str, manifest: Manifest) -> Fault:
    inside = path.removeprefix(prefix)
    if path.startswith(prefix):
        if inside in manifest.named:
            return faults.Unvouched(inside, "named there without size and checksum", "not listed")
        for pattern, what in _NEVER_LISTED:
            if re.fullmatch(pattern, inside):
                return faults.Unvouched(inside, what, "not listed")
    return faults.UnlistedFile(inside if path.startswith(prefix) else path, "listed", "not listed")
