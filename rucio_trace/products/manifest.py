"""What a product's manifest says of it: attributes, and which files it has.

Manifests are XFDU, as SAFE (`manifest.safe`) and SEN3 and SEN6 (`xfdumanifest.xml`) use it. They come
from strangers: no entity is expanded, no document type read, nothing outside looked at. Pure.

Source: CCSDS 661.0-B-1 (XFDU), 4.2, "Data Object Section"; Sentinel-SAFE as profiled by the missions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rucio_trace.paths import path_fault, plain_path
from rucio_trace.products import faults

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    from rucio_trace.faults import Fault
    from rucio_trace.products.names import Attributes

__all__ = ["MANIFEST_NAMES", "Listed", "Manifest", "attributes_of_manifest", "read_manifest"]

MANIFEST_NAMES = frozenset({"manifest.safe", "xfdumanifest.xml"})
"""What the file is called that describes a product, in the product's top folder."""

_MAX_MANIFEST_BYTES = 4 << 20  # of a year's Sentinel-3 synthesis 0.7 MiB, others have under 100 KiB
_MAX_VALUE_CHARACTERS = 200
_MAX_DIGITS = 15  # what every reader of JSON takes for the same number

_TEXTS = {
    "familyName": "platformShortName",
    "number": "platformSerialIdentifier",
    "pass": "orbitDirection",
    "productType": "productType",
    "timeliness": "timeliness",
    "baselineCollection": "baselineCollection",
    "productClass": "productClass",
}
_TIMES = {"startTime": "beginningDateTime", "stopTime": "endingDateTime"}
_NUMBERS = {
    "orbitNumber": "orbitNumber",
    "relativeOrbitNumber": "relativeOrbitNumber",
    "cycleNumber": "cycleNumber",
    "missionDataTakeID": "datatakeID",
    "instrumentConfigurationID": "instrumentConfigurationID",
}


# By the names that manifests use; case and hyphens differ among them.
_CHECKSUMS = {
    "MD5": "MD5",
    "SHA3256": "SHA3",
    "SHA256": "SHA256",
    "SHA512": "SHA512",
    "ADLER32": "ADLER32",
}
_KNOWN_CHECKSUMS = "MD5, SHA3-256, SHA-256, SHA-512, ADLER32"


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that the manifest lists: its path from the manifest's folder, lower-case checksums by our algorithms."""

    path: str
    size: int | None
    checksums: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files listed, each once; `named` are paths mentioned without size and checksum: schemas."""

    files: tuple[Listed, ...]
    named: frozenset[str]
    faults: tuple[Fault, ...]


def read_manifest(path: str, data: bytes) -> Manifest:
    """The files that the manifest lists, and what is wrong with the list. Never raises.

    Without a file listed there is a fault that says why.
    """
    root = _parsed(data)
    if isinstance(root, str):
        return Manifest((), frozenset(), (faults.ManifestUnreadable(path, "a harmless XML document", root),))
    reader = _Listing()
    for element in root.iter():
        tag = _local(element)
        if tag == "byteStream":
            reader.take(element)
        elif tag == "metadataReference" and not isinstance(inside := _inside(element.get("href", "")), _Outside):
            reader.named.add(inside)
    if not reader.files and not reader.faults:
        reader.faults.append(faults.ManifestUnreadable(path, "a list of files", "none"))
    return Manifest(tuple(reader.files.values()), frozenset(reader.named), tuple(reader.faults))


class _Listing:
    """The files of the data objects met so far."""

    def __init__(self) -> None:
        self.files: dict[str, Listed] = {}
        self.named: set[str] = set()
        self.faults: list[Fault] = []
        self._twice: set[str] = set()

    def take(self, stream: Element) -> None:
        """Every location is another copy of the same bytes."""
        known, unknown = _checksums(stream)
        size = _size(stream.get("size", "").strip())
        for location in stream:
            if _local(location) == "fileLocation":
                inside = _inside(location.get("href", ""))
                if isinstance(inside, _Outside):
                    fault = faults.ForbiddenPath(location.get("href", ""), "a path inside the product", inside.reason)
                    self.faults.append(fault)
                elif self._is_new(inside):
                    self.files[inside] = Listed(inside, size, known)
                    if unknown and not known:
                        self.faults.append(faults.UnknownChecksum(inside, _KNOWN_CHECKSUMS, unknown))
                    elif not known:
                        self.faults.append(faults.NoChecksum(inside, "a checksum", "none"))

    def _is_new(self, inside: str) -> bool:
        if inside not in self.files:
            return True
        if inside not in self._twice:
            self.faults.append(faults.ListedTwice(inside, "one entry", "more"))
        self._twice.add(inside)
        return False


def _checksums(stream: Element) -> tuple[dict[str, str], str]:
    """The stream's checksums by our names of algorithms, and the name of one we do not know."""
    known: dict[str, str] = {}
    unknown = ""
    for checksum in stream:
        if _local(checksum) == "checksum":
            name = checksum.get("checksumName", "").strip()
            algorithm = _CHECKSUMS.get(name.upper().replace("-", ""))
            if algorithm is None:
                unknown = unknown or name or "no name"
            else:
                known[algorithm] = (checksum.text or "").strip().lower()
    return known, unknown


def _size(text: str) -> int | None:
    """The size listed; a text that is no number is -1, which no file has."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else -1


@dataclass(frozen=True, slots=True)
class _Outside:
    reason: str


def _inside(href: str) -> str | _Outside:
    """The path that a location leads to from the manifest's folder. It is a URL: `%20` is a space."""
    try:
        url = urlsplit(href)
        path = unquote(url.path, errors="strict")
    except ValueError:  # no URL; bytes of no encoding
        return _Outside("no path")
    if url.scheme or url.netloc:
        return _Outside("a location elsewhere")
    if url.query or url.fragment:
        return _Outside("a part of a file")
    if fault := path_fault(path):
        return _Outside(fault)
    return plain_path(path)


def _local(element: Element) -> str:
    """The element's name without its namespace, which differs between missions and versions."""
    return element.tag.rpartition("}")[2]


def _parsed(data: bytes) -> Element | str:
    """The document, or why there is none."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

    if len(data) > _MAX_MANIFEST_BYTES:
        return f"{len(data)} bytes"
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        return "a document type or an entity"
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        return f"none ({error})"
    return root


def attributes_of_manifest(data: bytes) -> Attributes:
    """What a product's manifest says; whatever is wrong with it, the result is only poorer. Never raises."""
    root = _parsed(data)
    if isinstance(root, str):
        return {}
    attributes: Attributes = {}
    polarisations: list[str] = []
    for element in root.iter():
        _take(element, attributes, polarisations)
    if polarisations:
        attributes["polarisationChannels"] = "&".join(dict.fromkeys(polarisations))
    number = str(attributes.get("platformSerialIdentifier", ""))
    if attributes.get("platformShortName") == "SENTINEL" and len(number) == len("2B"):
        # Sentinel-2 divides its satellites' names otherwise than all others
        attributes |= {"platformShortName": f"SENTINEL-{number[0]}", "platformSerialIdentifier": number[1]}
    return attributes


def _take(element: Element, attributes: Attributes, polarisations: list[str]) -> None:
    """Keep what *element* says; of several with one name (platform and instrument, start and stop) the first counts."""
    tag, text = _local(element), (element.text or "").strip()
    if not text or len(text) > _MAX_VALUE_CHARACTERS or not text.isprintable():
        return
    if tag in _TEXTS:
        attributes.setdefault(_TEXTS[tag], text.upper() if tag in ("familyName", "pass") else text)
    elif tag in _TIMES:
        if time := _zulu(text):
            attributes.setdefault(_TIMES[tag], time)
    elif tag in _NUMBERS and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        attributes.setdefault(_NUMBERS[tag], int(text))
    elif tag == "transmitterReceiverPolarisation" and text in ("HH", "HV", "VV", "VH"):
        polarisations.append(text)
    direction = element.get("groundTrackDirection", "")
    if direction.isalpha():
        attributes.setdefault("orbitDirection", direction[:_MAX_VALUE_CHARACTERS].upper())


def _zulu(text: str) -> str | None:
    """A manifest's time, which is UTC whether it says so or not, to the millisecond."""
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
