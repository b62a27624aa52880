"""Merkle trees: the vectors of Certificate Transparency, the recursive definition, and every mangled proof refused."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace.merkle import (
    NotIncluded,
    check_inclusion,
    hash_leaf,
    path_of,
    paths_of,
    prove_inclusion,
    root,
    root_of,
)

# What the reference implementation of Certificate Transparency is tested with.
LEAVES = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes(range(0x60, 0x70)))
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}

lists = st.lists(st.binary(max_size=8), min_size=1, max_size=70)


def recursive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:])).digest()


@pytest.mark.parametrize("count", range(9))
def test_the_roots_of_certificate_transparency(count: int) -> None:
    assert root(LEAVES[:count]).hex() == ROOTS[count]


@pytest.mark.parametrize(("index", "count"), PATHS)
def test_the_paths_of_certificate_transparency(index: int, count: int) -> None:
    path = prove_inclusion(LEAVES[:count], index)
    assert [node.hex() for node in path] == PATHS[index, count]


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_root_is_that_of_the_recursive_definition(leaves: list[bytes]) -> None:
    assert root(leaves) == recursive_root(leaves)


@given(lists)
def test_every_entry_has_a_path_that_is_accepted(leaves: list[bytes]) -> None:
    committed = root(leaves)
    paths = paths_of([hash_leaf(leaf) for leaf in leaves])
    for index, leaf in enumerate(leaves):
        assert paths[index] == prove_inclusion(leaves, index)
        check_inclusion(leaf, index, len(leaves), paths[index], committed)


@given(lists, st.integers(min_value=0, max_value=4))
def test_runs_stand_for_their_leaves(leaves: list[bytes], exponent: int) -> None:
    size = 2**exponent
    runs = [leaves[start : start + size] for start in range(0, len(leaves), size)]
    roots = [root(run) for run in runs]
    assert root_of(roots) == root(leaves)
    for index in range(len(leaves)):
        inside = path_of([hash_leaf(leaf) for leaf in runs[index // size]], index % size)
        assert inside + path_of(roots, index // size) == prove_inclusion(leaves, index)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_a_flipped_byte_is_refused(count: int) -> None:
    leaves = LEAVES[:count]
    committed = root(leaves)
    for index, leaf in enumerate(leaves):
        path = prove_inclusion(leaves, index)
        for number, node in enumerate(path):
            for at in range(len(node)):
                mangled = [*path[:number], node[:at] + bytes([node[at] ^ 1]) + node[at + 1 :], *path[number + 1 :]]
                with pytest.raises(NotIncluded):
                    check_inclusion(leaf, index, count, mangled, committed)
        for at in range(len(committed)):
            other = committed[:at] + bytes([committed[at] ^ 1]) + committed[at + 1 :]
            with pytest.raises(NotIncluded):
                check_inclusion(leaf, index, count, path, other)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_another_entry_place_number_or_length_is_refused(count: int) -> None:
    leaves = LEAVES[:count]
    committed = root(leaves)
    for index, leaf in enumerate(leaves):
        path = prove_inclusion(leaves, index)
        wrong = [
            (leaf + b"x", index, count, path),
            (leaf, index, count, path[:-1]) if path else (leaf, -1, count, path),
            (leaf, index, count, path[1:]) if path else (leaf, 1, count, path),
            (leaf, index, count, (*path, committed)),
            (leaf, index, count, (committed, *path)),
            (leaf, index, count, (*path[:-1], b"")) if path else (leaf, 0, 0, path),
            *((leaf, other, count, path) for other in range(-1, count + 2) if other != index),
        ]
        for mangled in wrong:
            with pytest.raises(NotIncluded):
                check_inclusion(*mangled, committed)


def test_a_node_is_not_taken_for_a_leaf() -> None:
    left, right = hash_leaf(b"a"), hash_leaf(b"b")
    with pytest.raises(NotIncluded):
        check_inclusion(left + right, 0, 1, [], root([b"a", b"b"]))


def test_an_empty_list_holds_no_entry() -> None:
    with pytest.raises(NotIncluded):
        check_inclusion(b"", 0, 0, [], root([]))
    with pytest.raises(ValueError, match="no entry 0"):
        prove_inclusion([], 0)
