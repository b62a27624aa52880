"""Digests: the same whatever the chunks, the lanes or the way the file is read."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zlib
from typing import TYPE_CHECKING

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace import digest
from rucio_trace.digest import ALGORITHMS, DigestPass, FileChanged, NotAFile, digest_file, digest_stream

if TYPE_CHECKING:
    from pathlib import Path


def expected(data: bytes) -> dict[str, str]:
    return {
        "BLAKE3": blake3.blake3(data).hexdigest(),
        "SHA256": hashlib.sha256(data).hexdigest(),
        "SHA3": hashlib.sha3_256(data).hexdigest(),
        "SHA512": hashlib.sha512(data).hexdigest(),
        "MD5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "ADLER32": f"{zlib.adler32(data):08x}",
    }


def test_published_digests_of_abc() -> None:
    with DigestPass(ALGORITHMS) as digests:
        digests.update(b"abc")
        found = digests.finish()
    assert found.size == 3
    assert found.hashes == {
        "BLAKE3": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        "SHA256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "SHA3": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
        "SHA512": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "MD5": "900150983cd24fb0d6963f7d28e17f72",
        "ADLER32": "024d0127",
    }


def test_nothing_has_digests_too() -> None:
    found = DigestPass(ALGORITHMS).finish()
    assert found.size == 0
    assert found.hashes == expected(b"")


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_how_the_bytes_are_cut_does_not_matter(chunks: list[bytes]) -> None:
    with DigestPass(ALGORITHMS) as digests:
        for chunk in chunks:
            digests.update(chunk)
        assert digests.finish().hashes == expected(b"".join(chunks))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_lanes_give_what_one_thread_gives(threads: int) -> None:
    data = os.urandom(3 * digest.CHUNK_BYTES + 17)
    found = digest_stream(io.BytesIO(data), ALGORITHMS, threads=threads)
    assert found.hashes == expected(data)
    assert list(found.hashes) == list(ALGORITHMS)


def test_a_chunk_may_be_overwritten_once_update_returns() -> None:
    first, second = os.urandom(1 << 20), os.urandom(1 << 20)
    buffer = bytearray(first)
    with DigestPass(ALGORITHMS) as digests:
        digests.update(buffer)
        buffer[:] = second
        digests.update(buffer)
        assert digests.finish().hashes == expected(first + second)


def test_slow_algorithms_get_lanes_and_quick_ones_share() -> None:
    assert len(digest._lanes(["BLAKE3", "ADLER32"], 8)) == 1
    assert len(digest._lanes(["SHA3", "SHA512", "MD5"], 2)) == 2
    assert len(digest._lanes(ALGORITHMS, 1)) == 1


def test_a_finished_pass_leaves_no_thread() -> None:
    before = threading.active_count()
    digest_stream(io.BytesIO(os.urandom(2 << 20)), ALGORITHMS, threads=4)
    assert threading.active_count() == before


def test_an_unknown_algorithm_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match=r"'CRC32'.*BLAKE3"):
        DigestPass(["CRC32"])


@pytest.mark.parametrize("size", [0, 1, 65_537, digest._MAPPED_MIN_BYTES, digest._MAPPED_MIN_BYTES + 12_345])
def test_a_mapped_file_digests_as_a_read_one(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    file = tmp_path / "file"
    file.write_bytes(data)
    assert digest_file(file, ["BLAKE3"], threads=2).hashes == {"BLAKE3": blake3.blake3(data).hexdigest()}
    assert digest_file(file, ["BLAKE3", "ADLER32"]).hashes["BLAKE3"] == blake3.blake3(data).hexdigest()


def test_progress_adds_up_to_the_size(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(9 << 20))
    for algorithms in (["BLAKE3"], ["MD5"]):
        told: list[int] = []
        assert digest_file(file, algorithms, progress=told.append).size == sum(told) == 9 << 20


def test_a_directory_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(NotAFile, match=r"expected a file, found a directory.*pack it"):
        digest_file(tmp_path, ["BLAKE3"])


def test_a_pipe_is_read_as_a_stream(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"abc",))
    writer.start()
    assert digest_file(pipe, ["BLAKE3"]).hashes == {"BLAKE3": expected(b"abc")["BLAKE3"]}
    writer.join()


@pytest.mark.parametrize("algorithms", [["BLAKE3"], ["BLAKE3", "ADLER32"]])
def test_a_file_that_grows_while_it_is_read_has_no_digest(tmp_path: Path, algorithms: list[str]) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(10 << 20))

    def grow(_: int) -> None:
        with file.open("ab") as out:
            out.write(b"more")

    with pytest.raises(FileChanged, match=r"changed while it was read"):
        digest_file(file, algorithms, progress=grow)


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "none", ["BLAKE3"])
