"""The product digest: one digest of a product's content, whether it is a folder, a zip or a tar.

It is BLAKE3 over the sorted list of the members' digests and paths, as `b3sum` prints it; leading
folders that all members share do not count (docs/format.md, section 10). It follows from the signed
`contents` of an archive, so nothing more needs to be signed. Pure.
"""

import re
from collections.abc import Iterable, Mapping

import blake3

from rucio_trace.errors import Malformed
from rucio_trace.paths import path_fault, plain_path
from rucio_trace.statement import Statement

__all__ = ["Undefined", "digest_of_contents", "product_digest", "relative", "same_stem", "stem", "wrapped_names"]

_ALGORITHM = "BLAKE3"
_DIGITS = 64
_PACKINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
_FORMATS = (".SAFE", ".SEN3", ".SEN6")
_WRAPPED = re.compile(r"(\.(SAFE|SEN3|SEN6))?(\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz)))?$", re.IGNORECASE)
# Most paths, of which nothing more needs to be asked: asking took a tenth of the time to import a trace.
_EASY = re.compile(r"[\w-][\w.-]{0,199}(/[\w-][\w.-]{0,199}){0,9}", re.ASCII)


class Undefined(Malformed):
    """There is no product digest of these members."""


def product_digest(members: Iterable[tuple[str, str]]) -> str:
    """The product digest of *members*, each a path and the lower-case BLAKE3 of its bytes, in any order.

    Raises:
        Undefined: there is no member, two have one path, or a path could be read in two ways.
    """
    listed = relative(members)
    text = "".join(f"{listed[path]}  {path}\n" for path in sorted(listed))  # code points sort as their UTF-8 does
    return blake3.blake3(text.encode()).hexdigest()


def relative(members: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """The members' digests by path, without the leading folders that all of them share.

    Raises:
        Undefined: as `product_digest`.
    """
    found: dict[str, str] = {}
    for path, digest in members:
        plain = path
        if _EASY.fullmatch(path) is None:
            plain = plain_path(path)
            if fault := path_fault(plain) or _ambiguous(plain):
                raise Undefined(f"member {path}", expected="a path inside the product", found=fault)
        if plain in found:
            raise Undefined(f"member {path}", expected="every path once", found="one twice")
        found[plain] = digest
    if not found:
        raise Undefined("product", expected="at least one file", found="none")
    depth = _shared_folders(found)
    return {path.split("/", depth)[depth]: digest for path, digest in found.items()}


def _ambiguous(path: str) -> str:
    """What would let two lists have the same text, or one path name two files."""
    if any(character in path for character in "\\\n\r"):
        return "a path with a backslash or a line break"
    if any(part in ("", ".") for part in path.split("/")):
        return "a path with an empty folder name"
    return ""


def _shared_folders(paths: Iterable[str]) -> int:
    """How many leading folders all *paths* share."""
    folders = [path.split("/")[:-1] for path in paths]
    first, last = min(folders), max(folders)  # what the extremes share, all share
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    return depth


def digest_of_contents(s: Statement) -> str | None:
    """The product digest of what *s* signs as an archive's members; None where it has none.

    A text of the Traceability Service does not sign the algorithm of its digests. If they are of another, the result
    is the digest of no product.
    """
    if not s.contents or s.hash_algorithm not in (_ALGORITHM, None):
        return None
    if any(len(content.hash) != _DIGITS for content in s.contents):
        return None
    try:
        return product_digest((content.path, content.hash) for content in s.contents)
    except Undefined:
        return None


def stem(name: str) -> str:
    """*name* without what tells the packaging: `P.SAFE.zip`, `P.zip`, `P.SAFE` and `P` have one stem."""
    return name[: _WRAPPED.search(name).start()] or name  # type: ignore[union-attr]  # it matches the empty text too


def same_stem(one: str, other: str) -> bool:
    return stem(one) == stem(other)


def wrapped_names(name: str) -> tuple[str, ...]:
    """The names that a product of *name*'s stem has where somebody packed it, as they are usually written."""
    base = stem(name)
    return tuple(
        dict.fromkeys([name, *(base + form + packing for form in ("", *_FORMATS) for packing in ("", *_PACKINGS))])
    )
