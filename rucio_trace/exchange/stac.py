"""What a STAC Item says of a product: its checksum, its size, where its traces are, what replaced it. Pure.

The parts of an Item are given, to be merged into one: where a product lies on Earth and in time, and how to get it,
is not known here. Extensions: File Info for `file:checksum` and `file:size`, Versioning Indicators for `deprecated`;
the link relations are those of RFC 5829.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from rucio_trace.history import History
from rucio_trace.statement import Statement

__all__ = ["FILE_EXTENSION", "MULTIHASH_CODES", "VERSION_EXTENSION", "item_parts", "multihash"]

FILE_EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
VERSION_EXTENSION = "https://stac-extensions.github.io/version/v1.1.0/schema.json"

# Multicodec's table. ADLER32 has no code there.
MULTIHASH_CODES = {"BLAKE3": 0x1E, "SHA256": 0x12, "SHA3": 0x16, "SHA512": 0x13, "MD5": 0xD5}


def multihash(algorithm: str, digest: str) -> str:
    """The digest with its algorithm and length before it, in lower-case hexadecimal.

    Source: the Multihash specification: code and length are unsigned varints, seven bits a byte, the lowest first.
    """
    raw = bytes.fromhex(digest)
    return (_varint(MULTIHASH_CODES[algorithm]) + _varint(len(raw)) + raw).hex()


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def item_parts(history: History, service: str | None = None, items: str | None = None) -> dict[str, Any] | None:
    """The parts of an Item for the one product of *history*; None if nothing vouches for its bytes.

    *service* is the base of a trace service's API, *items* that of the catalogue's Items, which are named as files.
    The checksum is one whose algorithm is signed: of a bare trace of the Traceability Service it is not.
    """
    if history.origin is None:
        return None
    origin = history.origin.statement
    product: dict[str, Any] = {"title": origin.name, "roles": ["data"], "file:size": origin.size}
    if checksum := _checksum(t.statement for t in (history.origin, *history.agreeing)):
        product["file:checksum"] = checksum
    parts: dict[str, Any] = {
        "stac_extensions": [FILE_EXTENSION],
        "properties": {},
        "assets": {"product": product},
        "links": [],
    }
    if service:
        href = f"{service.rstrip('/')}/v1/traces/name/{quote(origin.name, safe='')}"
        parts["links"].append({"rel": "version-history", "href": href, "type": "application/json", "title": "Traces"})
    if history.obsolete:
        parts["stac_extensions"].append(VERSION_EXTENSION)
        parts["properties"]["deprecated"] = True
        successors = dict.fromkeys(t.statement.replaced_by for t in history.obsolete if t.statement.replaced_by)
        for successor in successors if items else ():
            href = f"{(items or '').rstrip('/')}/{quote(successor, safe='')}"
            link = {"rel": "successor-version", "href": href, "type": "application/geo+json", "title": successor}
            parts["links"].append(link)
    return parts


def _checksum(speaking: Iterable[Statement]) -> str | None:
    for s in speaking:
        if s.hash_algorithm in MULTIHASH_CODES:
            return multihash(s.hash_algorithm, s.hash)
    return None
