"""Archives that are damaged, ambiguous or dangerous: each is refused with one of our errors."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from archives import (
    PACKERS,
    SHAPES,
    SMALL,
    SMALL_DIGESTS,
    VECTORS,
    b3,
    listed,
    read,
    tarred,
    zipped,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rucio_trace.archive import (
    ArchivePass,
    BrokenArchive,
    ForbiddenMember,
    digest_archive,
)
from rucio_trace.errors import TraceabilityError

if TYPE_CHECKING:
    from pathlib import Path

# Damage


def test_the_corrupt_member_that_the_fields_client_accepts_is_refused() -> None:
    with pytest.raises(BrokenArchive, match=r"CRC"):
        digest_archive(VECTORS / "corrupt-member.zip", ["BLAKE3"])


def test_a_fault_in_the_listing_leaves_the_wholes_digests() -> None:
    data = zipped()[:-30]
    reading = ArchivePass("a.zip", ["BLAKE3"])
    reading.update(data)
    assert reading.finish_whole().hashes["BLAKE3"] == b3(data)
    with pytest.raises(BrokenArchive):
        reading.finish()
    assert reading.finish_whole().size == len(data)


@pytest.mark.parametrize("name", list(SHAPES))
def test_an_archive_cut_off_anywhere_is_refused(name: str) -> None:
    data = SHAPES[name]
    tolerated = len(data) - 512 if name.endswith(".tar") else len(data)  # GNU tar's padding is not the archive
    step = max(1, len(data) // 400)
    for length in range(0, min(tolerated, len(data)) - 1, step):
        with pytest.raises(TraceabilityError):
            read(data[:length], name)


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_flipped_byte_is_refused_or_changes_no_members_bytes(name: str) -> None:
    """Bytes that no checksum covers (times, owners, comments) may change; contents may not."""
    data = SHAPES[name]
    for position in range(0, len(data), max(1, len(data) // 1_500)):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        try:
            found = read(bytes(damaged), name)
        except TraceabilityError:
            continue
        assert found.members is not None
        if not name.endswith(".tar"):  # a plain tar has no checksum over contents: the whole's digest tells
            assert set(listed(found).values()) == set(SMALL_DIGESTS.values())
        assert found.whole.hashes["BLAKE3"] != b3(data)


@given(
    st.binary(max_size=3_000), st.sampled_from(["PK\x03\x04", "PK\x05\x06", "\x1f\x8b\x08", "BZh9", "\xfd7zXZ\0", ""])
)
@settings(max_examples=300)
def test_noise_ends_in_our_errors_only(noise: bytes, mark: str) -> None:
    data = mark.encode("latin-1") + noise
    try:
        found = read(data, "noise", cut=97)
    except TraceabilityError:
        return
    assert found.whole.size == len(data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_mangled_archives_end_in_our_errors_only(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(SHAPES)))
    mangled = bytearray(SHAPES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(mangled)))
        mangled[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    try:
        read(bytes(mangled), name)
    except TraceabilityError:
        return


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_data_after_the_end_is_refused(name: str) -> None:
    packed = zipped() if name == "a.zip" else PACKERS[name.removeprefix("a.tar")](tarred())
    with pytest.raises(BrokenArchive):
        read(packed + b"hidden", name)


def test_a_member_missing_from_the_central_directory_is_refused() -> None:
    data = zipped({"seen": b"1", "unseen": b"2"}, folders=False)
    cut = data.rindex(b"PK\x01\x02")
    end = bytearray(data[data.rindex(b"PK\x05\x06") :])
    first = data.index(b"PK\x01\x02")
    struct.pack_into("<HHII", end, 8, 1, 1, cut - first, first)
    with pytest.raises(BrokenArchive, match=r"unseen.*central directory"):
        read(data[:cut] + bytes(end))


def test_a_central_directory_that_says_otherwise_is_refused() -> None:
    data = zipped({"first": b"1"}, folders=False)
    at = data.rindex(b"first")
    with pytest.raises(BrokenArchive, match=r"as in the central directory"):
        read(data[:at] + b"other" + data[at + 5 :])


def test_a_tar_without_its_end_mark_is_cut_off() -> None:
    data = tarred(SMALL)
    end = len(data.rstrip(b"\0")) + 511 & ~511
    with pytest.raises(BrokenArchive, match=r"cut off"):
        read(data[:end], "a.tar")
    with pytest.raises(BrokenArchive, match=r"two zero blocks"):
        read(data[: end + 512], "a.tar")
    assert listed(read(data[: end + 1_024], "a.tar")) == SMALL_DIGESTS


# What may not be in an archive

BAD_PATHS = [
    "/etc/passwd",
    "../up",
    "a/../../b",
    "..",
    "a/..",
    "C:/x",
    "C:x",
    "..\\up",
    "\\x",
    "a\\..\\b",
    "x" * 5_000,
    ".",
    "./",
]


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_out_are_refused(path: str, kind: str) -> None:
    if kind == "zip":
        data = zipped({path: b"x"})
    elif path in (".", "./"):
        return  # tar's name of the folder it was made in
    else:
        data = tarred({path: b"x"})
    with pytest.raises(ForbiddenMember):
        read(data, f"a.{kind}")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_two_members_of_one_path_are_refused(kind: str) -> None:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a", b"1")
            with pytest.warns(UserWarning, match=r"Duplicate"):
                archive.writestr("a", b"2")
    else:
        with tarfile.open(fileobj=out, mode="w") as tar:
            for content in (b"1", b"2"):
                info = tarfile.TarInfo("a")
                info.size = 1
                tar.addfile(info, io.BytesIO(content))
    with pytest.raises(ForbiddenMember, match=r"second member"):
        read(out.getvalue(), f"a.{kind}")


@pytest.mark.parametrize("kind", ["LNKTYPE", "SYMTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE"])
def test_links_and_devices_in_a_tar_are_refused(kind: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.type = getattr(tarfile, kind)
        info.linkname = "b"
        archive.addfile(info)
    with pytest.raises(ForbiddenMember, match=r"link|device|pipe"):
        read(out.getvalue(), "a.tar")


@pytest.mark.parametrize("mode", [0o120777, 0o020644, 0o060644, 0o010644, 0o140755])
def test_links_and_devices_in_a_zip_are_refused(mode: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("a")
        info.external_attr = mode << 16
        archive.writestr(info, "b")
    with pytest.raises(ForbiddenMember, match=r"link|device|pipe|socket"):
        read(out.getvalue())


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as out:
        out.truncate(1 << 20)
        out.seek(1 << 19)
        out.write(b"x")
    for tar_format in ("gnu", "posix"):
        subprocess.run(["tar", "cSf", "a.tar", f"--format={tar_format}", "sparse"], cwd=tmp_path, check=True)
        with pytest.raises(ForbiddenMember, match=r"sparse"):
            digest_archive(tmp_path / "a.tar", ["BLAKE3"])


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": b"secret"}, folders=False))
    data[6] |= 1
    with pytest.raises(ForbiddenMember, match=r"encrypted"):
        read(bytes(data))


def test_a_name_that_is_no_utf8_is_refused_in_a_tar_and_read_in_a_zip() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("m\xfcll"))
    with pytest.raises(ForbiddenMember, match=r"no UTF-8"):
        read(out.getvalue(), "a.tar")
    data = zipped({"m_ll": b"x"}, folders=False).replace(b"m_ll", b"m\x81ll")
    assert list(listed(read(data))) == ["müll"]  # code page 437, as zip without its UTF-8 flag


def test_a_directory_too_large_to_be_taken_at_once_is_refused(tmp_path: Path) -> None:
    """A member that only the directory can place, and 750,000 entries: `zipfile` would make half a gigabyte of them."""
    count = 750_000
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 8, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = len(entry) * count
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, len(local))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(local) + size, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0)
    file = tmp_path / "a.zip"
    file.write_bytes(local + entry * count + end64 + locator + end)
    with pytest.raises(BrokenArchive, match="a central directory of at most"):
        digest_archive(file, ["BLAKE3"])


def test_headers_that_come_byte_by_byte_are_read_as_others(tmp_path: Path) -> None:
    file = tmp_path / "a.tar.gz"
    file.write_bytes(b"".join(gzip.compress(bytes([byte]), mtime=0) for byte in tarred(SMALL)))
    assert listed(digest_archive(file, ["BLAKE3"])) == SMALL_DIGESTS
