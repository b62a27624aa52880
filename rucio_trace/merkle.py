"""Merkle trees of RFC 6962, section 2.1: one hash that commits to a list, and short proofs of single entries.

    root([])        = SHA-256("")
    root([a])       = SHA-256(0x00 || a)                  a leaf
    root(entries)   = SHA-256(0x01 || left || right)      a node; left: the first k entries,
                                                          k the largest power of 2 below their number

The prefixes keep a leaf from being taken for a node. The *path* of an entry holds the hashes that lead from it to the
root, the deepest first: with them whoever has the root checks one entry without seeing the others. The number of
entries is no part of the root: whoever signs a root signs the number beside it.

An aligned run of 2^m entries, and the rest at the end, is a tree of its own whose root is a node of the whole: so
`root_of` and `path_of` also take the roots of such runs in place of the hashes of leaves. Pure; knows nothing of what
an entry is.
"""

import hashlib
from collections.abc import Sequence

from rucio_trace.errors import Refuted

__all__ = [
    "HASH_BYTES",
    "NotIncluded",
    "check_inclusion",
    "climb",
    "hash_leaf",
    "path_of",
    "paths_of",
    "prove_inclusion",
    "root",
    "root_of",
]

HASH_BYTES = 32


class NotIncluded(Refuted):
    """The path does not lead from the entry to the root."""

    def __init__(self, index: int, count: int, expected: str, found: str) -> None:
        super().__init__(f"entry {index} of {count}", expected=expected, found=found)


def root(leaves: Sequence[bytes]) -> bytes:
    """The 32 bytes that commit to *leaves*, their number and their order."""
    return root_of([hash_leaf(leaf) for leaf in leaves])


def prove_inclusion(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The path of entry *index*, counted from 0: what `check_inclusion` takes.

    Raises:
        ValueError: there is no such entry.
    """
    return path_of([hash_leaf(leaf) for leaf in leaves], index)


def check_inclusion(leaf: bytes, index: int, count: int, path: Sequence[bytes], root: bytes) -> None:
    """Accept *leaf* as entry *index* of the list of *count* entries that *root* commits to.

    `leaf` is the entry's bytes, not its hash. Work grows with log2(count).

    Raises:
        NotIncluded: it is not, or there is no such entry in a list of that length.

    Source: RFC 9162, 2.1.3.2.
    """
    found = climb(hash_leaf(leaf), index, count, path)
    if found != root:
        raise NotIncluded(index, count, f"a path to the root {root.hex()}", f"one to {found.hex()}")


def climb(node: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """The root to which *path* leads from *node*, the hash of entry *index* of *count*.

    Raises:
        NotIncluded: *path* is none of such an entry, whatever its hashes are.
    """
    if not 0 <= index < count:
        raise NotIncluded(index, count, "an entry of the list", "none")
    if any(len(sibling) != HASH_BYTES for sibling in path):
        raise NotIncluded(index, count, f"hashes of {HASH_BYTES} bytes", "another length")
    above, last = iter(path), count - 1
    while last:
        if index % 2 or index < last:
            sibling = next(above, None)
            if sibling is None:
                raise NotIncluded(index, count, "a path of its length", "a shorter one")
            node = _node(sibling, node) if index % 2 else _node(node, sibling)
        index, last = index // 2, last // 2  # the last of an odd number moves up as it is
    if next(above, None) is not None:
        raise NotIncluded(index, count, "a path of its length", "a longer one")
    return node


def hash_leaf(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\0" + leaf).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over the *hashes* of leaves, or over the roots of aligned runs of leaves."""
    return _levels(hashes)[-1][0] if hashes else hashlib.sha256().digest()


def path_of(hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """As `prove_inclusion`, from the hashes of leaves or of aligned runs of leaves."""
    if not 0 <= index < len(hashes):
        raise ValueError(f"there is no entry {index} in a list of {len(hashes)}")
    return _path(_levels(hashes), index)


def paths_of(hashes: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """`path_of` each of them, for little more than the cost of one."""
    levels = _levels(hashes)
    return [_path(levels, index) for index in range(len(hashes))]


def _levels(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """From the *hashes* up to the root. Pairs are joined, the last of an odd number moves up as it is.

    This gives the splits of RFC 6962.
    """
    levels = [list(hashes)]
    while len(level := levels[-1]) > 1:
        joined = [_node(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
        levels.append(joined + level[len(joined) * 2 :])
    return levels


def _path(levels: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    path: list[bytes] = []
    for level in levels[:-1]:
        if (sibling := index ^ 1) < len(level):
            path.append(level[sibling])
        index //= 2
    return tuple(path)


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
