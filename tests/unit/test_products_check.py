"""Products held against their own manifests: whole ones, and every way in which they are not."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import pytest
from commands import lines, run
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace.archive import Member
from rucio_trace.products.checking import check_product
from rucio_trace.products.manifest import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace.faults import Fault

NAME = "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE"
FILES = {"MTD_MSIL1C.xml": b"<a/>", "GRANULE/L1C/IMG_DATA/B01.jp2": b"jp2" * 50, "HTML/a b.html": b"<html/>"}
CHECKSUMS = {"MD5": "md5", "SHA3-256": "sha3_256", "sha-256": "sha256", "SHA512": "sha512"}


def entry(href: str, size: object, *checksums: tuple[str, str]) -> str:
    inner = "".join(f"<checksum checksumName={quoteattr(name)}>{digest}</checksum>" for name, digest in checksums)
    location = f'<fileLocation locatorType="URL" href={quoteattr(href)}/>'
    return f'<dataObject ID="x"><byteStream mimeType="a/b" size="{size}">{location}{inner}</byteStream></dataObject>'


def listed(path: str, data: bytes, name: str = "SHA3-256") -> str:
    digest = hashlib.new(CHECKSUMS[name], data).hexdigest()
    return entry(f"./{path}".replace(" ", "%20"), len(data), (name, digest.upper() if len(data) % 2 else digest))


def manifest(*entries: str, extra: str = "") -> bytes:
    section = f"<dataObjectSection>{''.join(entries)}</dataObjectSection>"
    return f'<?xml version="1.0"?><xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1">{extra}{section}</xfdu:XFDU>'.encode()


def product(name: str = "SHA3-256", **more: bytes) -> dict[str, bytes]:
    return {**FILES, "manifest.safe": manifest(*(listed(p, d, name) for p, d in FILES.items())), **more}


def members(files: dict[str, bytes], root: str = "") -> list[Member]:
    algorithms = {"MD5": "md5", "SHA3": "sha3_256", "SHA256": "sha256", "SHA512": "sha512"}
    return [
        Member(root + path, len(data), {a: hashlib.new(n, data).hexdigest() for a, n in algorithms.items()})
        for path, data in files.items()
    ]


def found(files: dict[str, bytes], root: str = f"{NAME}/") -> list[Fault]:
    return list(check_product(members(files, root), f"{root}manifest.safe", files.get("manifest.safe")).faults)


def kinds(files: dict[str, bytes], root: str = f"{NAME}/") -> list[str]:
    return [fault.kind for fault in found(files, root)]


@pytest.mark.parametrize("name", list(CHECKSUMS))
@pytest.mark.parametrize("root", ["", f"{NAME}/"])
def test_a_whole_product_has_no_faults(name: str, root: str) -> None:
    assert found(product(name), root) == []


def test_each_fault_is_told_with_what_was_expected() -> None:
    files = product()
    files["GRANULE/L1C/IMG_DATA/B01.jp2"] = b"jp3" * 50
    files["MTD_MSIL1C.xml"] = b"<b/>!"
    del files["HTML/a b.html"]
    files["GRANULE/extra.jp2"] = b""
    told = found(files)
    assert [fault.kind for fault in told] == [
        "WrongSize",
        "WrongChecksum",
        "WrongChecksum",
        "MissingFile",
        "UnlistedFile",
    ]
    assert (told[0].what, told[0].expected, told[0].found) == ("MTD_MSIL1C.xml", "4", "5")
    assert told[2].what == "SHA3 of GRANULE/L1C/IMG_DATA/B01.jp2"
    assert told[2].expected == hashlib.sha3_256(b"jp2" * 50).hexdigest()


@pytest.mark.parametrize(
    "path",
    [
        "rep_info/S2_User_Product_Level-2A_Metadata.xsd",
        "HTML/banner_1.png",
        "HTML/star_bg.jpg",
        "INSPIRE.xml",
        "S2B_MSIL2A_20221127T075159_N0400_R135_T36NXF_20221127T100500-ql.jpg",
        "support/s1-level-1-product.xsd",
        "preview/icons/logo.png",
        "S1A_IW_GRDH_1SDV_20231005T190129_20231005T190154_050634_06199A_4144.SAFE-report-20231005T214402.pdf",
        "EOPMetadata.xml",
    ],
)
def test_what_producers_never_list_is_told_and_is_no_fault(path: str) -> None:
    assert kinds(product(**{path: b"1"})) == ["Unvouched"]


def test_a_file_of_that_kind_is_checked_where_it_is_listed() -> None:
    files = {**FILES, "INSPIRE.xml": b"2"}
    files["manifest.safe"] = manifest(*(listed(p, d) for p, d in {**FILES, "INSPIRE.xml": b"1"}.items()))
    assert kinds(files) == ["WrongChecksum"]


def test_a_schema_that_the_manifest_names_is_no_fault() -> None:
    reference = (
        '<metadataSection><metadataObject><metadataReference href="./deep/x.bin"/></metadataObject></metadataSection>'
    )
    files = {**FILES, "deep/x.bin": b"1"}
    files["manifest.safe"] = manifest(*(listed(p, d) for p, d in FILES.items()), extra=reference)
    assert kinds(files) == ["Unvouched"]


def test_a_file_beside_the_products_folder_is_unlisted() -> None:
    files = members(product(), f"{NAME}/") + members({"rep_info/x.xsd": b"1"})
    told = check_product(files, f"{NAME}/manifest.safe", product()["manifest.safe"]).faults
    assert [(fault.kind, fault.what) for fault in told] == [("UnlistedFile", "rep_info/x.xsd")]


@pytest.mark.parametrize(
    "href",
    [
        "../outside",
        "./../outside",
        "a/../../outside",
        "%2e%2e/outside",
        "..%2foutside",
        "..%5coutside",
        "..\\outside",
        "/etc/passwd",
        "%2Fetc/passwd",
        "C:/x",
        "file:///etc/passwd",
        "http://example.org/x",
        "//example.org/x",
        "",
        "./",
        "%ff",
        "a%00b",
        "a.xml#part",
        "a.xml?part",
        "x" * 5_000,
        "http://[",
    ],
)
def test_a_manifest_must_not_lead_out_of_the_product(href: str) -> None:
    files = product()
    files["manifest.safe"] = manifest(*(listed(p, d) for p, d in FILES.items()), entry(href, 1, ("MD5", "0" * 32)))
    assert kinds(files) == ["ForbiddenPath"]


@pytest.mark.parametrize("twice", ["./MTD_MSIL1C.xml", "MTD_MSIL1C.xml", "MTD%5FMSIL1C.xml"])
def test_a_file_is_listed_once(twice: str) -> None:
    files = product()
    files["manifest.safe"] = manifest(
        *(listed(p, d) for p, d in FILES.items()), *[entry(twice, 1, ("MD5", "0" * 32))] * 2
    )
    assert kinds(files) == ["ListedTwice"]


@pytest.mark.parametrize(
    ("checksums", "kind"),
    [
        ((("CRC32", "0"),), "UnknownChecksum"),
        ((("", "0"),), "UnknownChecksum"),
        ((("SHA-1", "0" * 40),), "UnknownChecksum"),
        ((), "NoChecksum"),
        ((("MD5", ""),), "WrongChecksum"),
        ((("MD5", "zz"),), "WrongChecksum"),
    ],
)
def test_a_checksum_that_cannot_be_compared_is_never_taken_for_good(
    checksums: tuple[tuple[str, str], ...], kind: str
) -> None:
    files = {"a": b"1", "manifest.safe": manifest(entry("a", 1, *checksums))}
    assert kinds(files) == [kind]


def test_one_known_checksum_beside_an_unknown_one_is_enough() -> None:
    good = ("MD5", hashlib.new(CHECKSUMS["MD5"], b"1").hexdigest())
    assert kinds({"a": b"1", "manifest.safe": manifest(entry("a", 1, ("CRC32", "0"), good))}) == []


@pytest.mark.parametrize("size", ["-1", "1e0", " ", "١", "9" * 400])
def test_a_size_that_is_no_number_is_no_files_size(size: str) -> None:
    good = ("MD5", hashlib.new(CHECKSUMS["MD5"], b"1").hexdigest())
    assert kinds({"a": b"1", "manifest.safe": manifest(entry("a", size, good))}) == (
        [] if size == " " else ["WrongSize"]
    )


LAUGHS = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;</a>'
HOSTILE = {
    "nothing": b"",
    "no xml": b"hello",
    "entities": LAUGHS,
    "outside file": b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a>&f;</a>',
    "a dtd": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>',
    "unknown encoding": b'<?xml version="1.0" encoding="klingon"?><a/>',
    "lists nothing": manifest(),
    "very deep": b"<a>" * 100_000,
    "very long": b"<a>" + b" " * (5 << 20) + b"</a>",
}


@pytest.mark.parametrize("fault", list(HOSTILE))
def test_a_manifest_nobody_should_read_leaves_it_open(fault: str) -> None:
    assert kinds({**FILES, "manifest.safe": HOSTILE[fault]}) == ["ManifestUnreadable"]


def test_without_a_manifest_it_is_left_open() -> None:
    assert kinds(FILES) == ["NoManifest"]
    assert kinds({}) == ["NoManifest"]


@pytest.mark.parametrize(
    "data",
    [
        b"<byteStream>" * 100_000 + b'<fileLocation href="a"/>' + b"</byteStream>" * 100_000,
        b"<a><byteStream>" + b"<checksum/>" * 100_000 + b'<fileLocation href="a"/>' * 100_000 + b"</byteStream></a>",
    ],
    ids=["nested", "crossed"],
)
def test_a_manifest_made_to_take_long_does_not(data: bytes) -> None:
    assert len(read_manifest("manifest.safe", data).faults) <= 2  # quadratic work would end with the test's timeout


@given(st.integers(0, 400), st.binary(max_size=20))
def test_a_mangled_manifest_never_raises(position: int, noise: bytes) -> None:
    data = product()["manifest.safe"]
    read_manifest("manifest.safe", data[:position] + noise + data[position + len(noise) :])


@given(st.sampled_from(list(FILES)), st.data())
def test_any_flipped_byte_is_found(path: str, data: st.DataObject) -> None:
    files = product()
    position = data.draw(st.integers(0, len(files[path]) - 1))
    changed = bytearray(files[path])
    changed[position] ^= data.draw(st.integers(1, 255))
    files[path] = bytes(changed)
    assert kinds(files) == ["WrongChecksum"]


# ------------------------------------------------------------------------------- the command


def packed(folder: Path, files: dict[str, bytes], kind: str, name: str = NAME) -> Path:
    if kind == "folder":
        for path, data in files.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_bytes(data)
        return folder / name
    target = folder / f"{name}.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path, data in files.items():
                archive.writestr(f"{name}/{path}", data)
        return target
    with tarfile.open(target, "w:" + kind.partition(".")[2]) as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
@pytest.mark.parametrize("checksum", ["MD5", "SHA3-256"])
def test_every_packaging_is_checked(tmp_path: Path, kind: str, checksum: str) -> None:
    path = packed(tmp_path, product(checksum), kind)
    assert lines(run("check", "--json", path, code=0)) == [
        {"product": str(path), "state": "whole", "files": 3, "faults": [], "remarks": []}
    ]
    damaged = product(checksum, **{"MTD_MSIL1C.xml": b"<b/>"})
    (tmp_path / "other").mkdir()
    (answer,) = lines(run("check", "--json", packed(tmp_path / "other", damaged, kind), code=1))
    assert [fault["kind"] for fault in answer["faults"]] == ["WrongChecksum"]


def test_a_sentinel_3_product_is_checked_by_its_own_kind_of_manifest(tmp_path: Path) -> None:
    files = {"Oa01.nc": b"1", "xfdumanifest.xml": manifest(listed("Oa01.nc", b"1", "MD5")), "EOPMetadata.xml": b"<a/>"}
    name = "S3A_OL_1_EFR____20161020T081224_20161020T081524_20161020T102406_0179_010_078_2340_SVL_O_NR_002.SEN3"
    (answer,) = lines(run("check", "--json", packed(tmp_path, files, "zip", name), code=0))
    assert [remark["what"] for remark in answer["remarks"]] == ["EOPMetadata.xml"]


def test_of_several_products_the_faulty_one_decides_then_the_unknown_one(tmp_path: Path) -> None:
    whole = packed(tmp_path, product(), "folder")
    (tmp_path / "faulty").mkdir()
    faulty = packed(tmp_path / "faulty", product(more=b""), "zip")
    unknown = tmp_path / "text"
    unknown.write_bytes(b"hello")
    assert "UnlistedFile" in run("check", whole, faulty, unknown, code=1).stdout
    result = run("check", whole, unknown, tmp_path / "absent", code=3)
    assert "whole, 3 files listed" in result.stdout
    assert "a folder, a zip or a tar" in result.stderr
    assert "absent" in result.stderr


def test_a_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, product(), "folder")
    (path / "GRANULE" / "link").symlink_to("/etc/passwd")
    assert "symbolic link" in run("check", path, code=3).stderr


def test_a_broken_archive_is_not_checked(tmp_path: Path) -> None:
    path = packed(tmp_path, product(), "zip")
    path.write_bytes(path.read_bytes()[:-60])
    assert run("check", path, code=3).stderr
