"""Archives: members' digests in one reading, and a refusal of everything that is not beyond doubt."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest
from archives import (
    DIGESTS,
    FILES,
    PACKERS,
    PRODUCT,
    SMALL,
    VECTORS,
    b3,
    listed,
    read,
    tarred,
    zipped,
)

from rucio_trace.archive import (
    ArchiveLimits,
    BrokenArchive,
    LimitExceeded,
    NotStreamable,
    digest_archive,
)

if TYPE_CHECKING:
    from pathlib import Path

# What the field's own client says of the same archive


def test_contents_are_those_the_fields_client_lists() -> None:
    trace = json.loads((VECTORS / "zip-contents.json").read_text())[0]["product"]
    found = digest_archive(VECTORS / f"{PRODUCT}.zip", ["BLAKE3"])
    assert found.whole.hashes["BLAKE3"] == trace["hash"]
    assert found.whole.size == trace["size"]
    assert listed(found) == {content["path"]: content["hash"] for content in trace["contents"]}


def test_members_stand_in_the_archives_order() -> None:
    assert list(listed(read(zipped()))) == list(FILES)
    assert list(listed(read(tarred(), "a.tar"))) == list(FILES)


# Every shape


@pytest.mark.parametrize("cut", [1, 3, 511, 4_096, 1 << 20])
def test_a_zip_reads_the_same_however_it_is_cut(cut: int) -> None:
    small = {path: data[:700] for path, data in FILES.items()}
    data = zipped(small)
    found = read(data, cut=cut)
    assert listed(found) == {path: b3(content) for path, content in small.items()}
    assert found.whole.hashes["BLAKE3"] == b3(data)
    assert found.whole.size == len(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("threads", [1, 2])
def test_stored_and_deflated_members(tmp_path: Path, method: int, threads: int) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(zipped(method=method))
    found = digest_archive(file, ["BLAKE3", "ADLER32"], member_algorithms=["BLAKE3"], threads=threads)
    assert listed(found) == DIGESTS
    assert set(found.whole.hashes) == {"BLAKE3", "ADLER32"}


def test_a_zip_written_to_a_pipe_has_its_lengths_behind_the_data() -> None:
    data = zipped(seekable=False)
    assert struct.unpack_from("<H", data, 6)[0] & 8
    assert listed(read(data)) == DIGESTS


def test_a_descriptor_needs_no_mark() -> None:
    data = zipped({"a": b"hello" * 99}, seekable=False, folders=False)
    assert data.count(b"PK\x07\x08") == 1
    at = data.index(b"PK\x07\x08")
    shorter = bytearray(data[:at] + data[at + 4 :])
    end = shorter.rindex(b"PK\x05\x06")
    struct.pack_into("<I", shorter, end + 16, struct.unpack_from("<I", shorter, end + 16)[0] - 4)
    assert listed(read(bytes(shorter))) == {"a": b3(b"hello" * 99)}


def test_zip64_fields_are_read_where_they_stand() -> None:
    for seekable in (True, False):
        out = io.BytesIO()
        target = out if seekable else _NoSeek(out)
        with (
            zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("a", "w", force_zip64=True) as member,
        ):
            member.write(b"x" * 5_000)
        assert listed(read(out.getvalue())) == {"a": b3(b"x" * 5_000)}


class _NoSeek(io.RawIOBase):
    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._out.write(data)


def test_a_zip_of_70000_members_has_a_zip64_end() -> None:
    files = {f"{number:05}": b"" for number in range(70_000)}
    assert len(listed(read(zipped(files, zipfile.ZIP_STORED)))) == 70_000


def test_stored_members_with_their_length_behind_them_take_a_second_reading(tmp_path: Path) -> None:
    data = zipped(method=zipfile.ZIP_STORED, seekable=False)
    with pytest.raises(NotStreamable, match=r"P.SAFE/manifest.safe.*length stands behind"):
        read(data)
    file = tmp_path / "a.zip"
    file.write_bytes(data)
    found = digest_archive(file, ["BLAKE3"])
    assert listed(found) == DIGESTS
    assert found.whole.hashes["BLAKE3"] == b3(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compressions_take_a_second_reading(tmp_path: Path, method: int) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(zipped(method=method))
    assert listed(digest_archive(file, ["BLAKE3"])) == DIGESTS
    damaged = bytearray(file.read_bytes())
    damaged[2_000] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(BrokenArchive):
        digest_archive(file, ["BLAKE3"])


@pytest.mark.parametrize("suffix", list(PACKERS))
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("cut", [7, 1 << 20])
def test_a_tar_in_every_format_and_packing(suffix: str, tar_format: int, cut: int) -> None:
    long = "P.SAFE/" + "long/" * 25 + "name"
    files = {path: data[:3_000] for path, data in FILES.items()} | {long: b"long name"}
    data = PACKERS[suffix](tarred(files, tar_format))
    found = read(data, f"a.tar{suffix}", cut)
    assert listed(found) == {path: b3(content) for path, content in files.items()}
    assert found.whole.hashes["BLAKE3"] == b3(data)


def test_what_tar_and_zip_themselves_write_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "P.SAFE"
    for path, data in FILES.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    for name, letter in {"a.tar": "c", "b.tar.gz": "cz", "c.tar.bz2": "cj", "d.tar.xz": "cJ"}.items():
        packed = tmp_path / name
        subprocess.run(["tar", f"{letter}f", packed, "-C", tmp_path, f"./{folder.name}"], check=True)
        assert listed(digest_archive(packed, ["BLAKE3"])) == DIGESTS, name


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_a_tar_in_several_compressed_streams_with_padding(suffix: str) -> None:
    data = tarred()
    packed = PACKERS[suffix](data[:5_000]) + PACKERS[suffix](data[5_000:])
    assert listed(read(packed, f"a.tar{suffix}")) == DIGESTS
    assert listed(read(packed + bytes(1_024), f"a.tar{suffix}")) == DIGESTS


def test_empty_archives_have_no_members_and_are_archives() -> None:
    assert read(zipped({}, folders=False)).members == ()
    assert read(bytes(10_240), "a.tar").members == ()
    assert read(bytes(10_240), "zeros").members is None


def test_the_bytes_decide_what_is_an_archive() -> None:
    assert listed(read(zipped(), "product_7")) == DIGESTS
    for data in (
        b"",
        b"plain text",
        gzip.compress(b"plain text", mtime=0),
        os.urandom(2_000),
        gzip.compress(os.urandom(5_000)),
    ):
        found = read(data, "product.nc")
        assert found.members is None
        assert found.whole.hashes["BLAKE3"] == b3(data)


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP", "a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.tar.bz2"])
@pytest.mark.parametrize("data", [b"", b"plain text", os.urandom(600), gzip.compress(b"plain", mtime=0)])
def test_a_name_must_not_promise_an_archive_in_vain(name: str, data: bytes) -> None:
    with pytest.raises(BrokenArchive, match=r"as its name says"):
        read(data, name)


def test_the_products_manifest_is_kept() -> None:
    assert read(zipped()).manifest == FILES["P.SAFE/manifest.safe"]
    assert read(tarred(), "a.tar").manifest == FILES["P.SAFE/manifest.safe"]
    assert read(zipped({"P/deep/manifest.safe": b"1", "other": b"2"})).manifest is None
    assert read(zipped({"P/manifest.safe": bytes(5 << 20)})).manifest is None
    assert read(zipped({"P/xfdumanifest.xml": b"1", "P/manifest.safe": b"2"})).manifest == b"1"


# Limits


def limits(**values: int) -> ArchiveLimits:
    return ArchiveLimits(**values)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_too_many_members_hit_a_named_limit(name: str) -> None:
    packed = zipped() if name == "a.zip" else PACKERS[name.removeprefix("a.tar")](tarred())
    with pytest.raises(LimitExceeded, match=r"limits.archive_members") as caught:
        read(packed, name, limits=limits(archive_members=3))
    assert caught.value.limit == "archive_members"


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_too_many_bytes_hit_a_named_limit(name: str) -> None:
    packed = zipped() if name == "a.zip" else PACKERS[name.removeprefix("a.tar")](tarred())
    with pytest.raises(LimitExceeded, match=r"limits.archive_bytes"):
        read(packed, name, limits=limits(archive_bytes=100_000))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_bomb_hits_the_ratio_limit_in_little_memory(name: str) -> None:
    zeros = {"bomb": bytes(200 << 20)}
    packed = zipped(zeros) if name == "a.zip" else PACKERS[name.removeprefix("a.tar")](tarred(zeros))
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded, match=r"limits.archive_ratio"):
            read(packed, name, limits=limits(archive_ratio=50))
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_entries_that_share_bytes_are_refused_in_a_second_reading(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": b"x" * 1_000, "b": b"y" * 1_000}, zipfile.ZIP_BZIP2, folders=False))
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, 0)
    file = tmp_path / "a.zip"
    file.write_bytes(data)
    with pytest.raises(BrokenArchive):
        digest_archive(file, ["BLAKE3"])


def with_more(data: bytes, at: int, more: bytes) -> bytes:
    """The zip *data* with *more* at byte *at*, and a directory that knows where its members lie now, and no more."""
    changed = bytearray(data)
    directory = data.index(b"PK\x01\x02")
    place = directory
    while changed[place : place + 4] == b"PK\x01\x02":
        (offset,) = struct.unpack_from("<I", changed, place + 42)
        struct.pack_into("<I", changed, place + 42, offset + len(more) * (offset >= at))
        place += 46 + sum(struct.unpack_from("<HHH", changed, place + 28))
    struct.pack_into("<I", changed, place + 16, directory + len(more) * (at <= directory))
    return bytes(changed[:at] + more + changed[at:])


@pytest.mark.parametrize("kind", ["rare compression", "length behind"])
@pytest.mark.parametrize("where", ["first", "between", "last", "end"])
@pytest.mark.parametrize("what", ["member", "bytes"])
def test_what_the_directory_hides_is_refused_in_a_second_reading_too(
    tmp_path: Path, kind: str, where: str, what: str
) -> None:
    files = {"a": b"x" * 1_000, "b": b"y" * 1_000}
    if kind == "length behind":
        data = zipped(files, zipfile.ZIP_STORED, seekable=False, folders=False)
    else:
        data = zipped(files, zipfile.ZIP_BZIP2, folders=False)
    hidden = zipped({"evil": b"z" * 100}, zipfile.ZIP_STORED, folders=False)
    more = hidden[: hidden.index(b"PK\x01\x02")] if what == "member" else b"more"
    at = {"first": 0, "between": data.index(b"PK\x03\x04", 4), "last": data.index(b"PK\x01\x02"), "end": len(data)}
    file = tmp_path / "a.zip"
    file.write_bytes(data)
    assert set(listed(digest_archive(file, ["BLAKE3"]))) == {"a", "b"}
    file.write_bytes(with_more(data, at[where], more))
    with pytest.raises(BrokenArchive):
        digest_archive(file, ["BLAKE3"])


def test_an_xz_that_demands_gigabytes_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20, "preset": 0}]
    data = lzma.compress(tarred(SMALL), filters=filters)
    with pytest.raises(BrokenArchive, match=r"emory"):
        read(data, "a.tar.xz")


def test_a_long_archive_needs_little_memory() -> None:
    data = zipped({"a": os.urandom(1 << 20) * 64}, zipfile.ZIP_STORED)
    tracemalloc.start()
    try:
        read(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
