"""The product digest: what it is, what it does not depend on, and what has none."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import blake3
import pytest
from archives import FILES, b3, tarred, zipped
from commands import lines, run
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace.archive import ArchiveLimits, ForbiddenMember, LimitExceeded
from rucio_trace.folder import FolderChanged, digest_folder, folder_files
from rucio_trace.product_digest import (
    Undefined,
    digest_of_contents,
    product_digest,
    relative,
    same_stem,
    stem,
    wrapped_names,
)
from rucio_trace.statement import Content, Event, Statement

if TYPE_CHECKING:
    from collections.abc import Iterable

VECTOR = Path(__file__).parents[1] / "vectors" / "product-digest.json"
MEMBERS = [(path, b3(data)) for path, data in FILES.items()]


def by_the_book(members: Iterable[tuple[str, str]]) -> str:
    """The definition again, in its words: of paths that share no folder."""
    text = b""
    for path, digest in sorted((path.encode(), digest.encode()) for path, digest in members):
        text += digest + b"  " + path + b"\n"
    return blake3.blake3(text).hexdigest()


def unpacked(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_the_vector_of_the_document_holds() -> None:
    vector = json.loads(VECTOR.read_text())
    assert product_digest((m["path"], m["hash"]) for m in vector["members"]) == vector["product_digest"]
    assert blake3.blake3(vector["text"].encode()).hexdigest() == vector["product_digest"]
    document = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    assert vector["product_digest"] in document
    for line in vector["text"].splitlines():
        assert line in document


paths = st.lists(
    st.text(st.characters(exclude_characters="\\/\n\r\0", exclude_categories=["Cs"]), min_size=1, max_size=5).filter(
        lambda part: part.strip(".") and part[1:2] != ":"
    ),
    min_size=1,
    max_size=4,
).map("/".join)
products = st.dictionaries(paths, st.binary(max_size=3).map(b3), min_size=1, max_size=8)


@given(products, st.randoms(), paths)
def test_it_depends_on_neither_order_nor_outer_folders_nor_dots(members: dict[str, str], random, outer: str) -> None:  # type: ignore[no-untyped-def]
    digest = product_digest(members.items())
    shuffled = list(members.items())
    random.shuffle(shuffled)
    assert product_digest(shuffled) == digest
    assert product_digest((f"{outer}/{path}", member) for path, member in shuffled) == digest
    assert product_digest((f"./{path}", member) for path, member in shuffled) == digest
    assert by_the_book(relative(members.items()).items()) == digest


@given(products, products)
def test_other_content_has_another_one(one: dict[str, str], other: dict[str, str]) -> None:
    same = relative(one.items()) == relative(other.items())
    assert (product_digest(one.items()) == product_digest(other.items())) is same


def test_paths_are_bytes_and_are_not_normalised() -> None:
    composed, decomposed = "a/\u00fc", "a/u\u0308"
    assert product_digest([(composed, b3(b""))]) != product_digest([(decomposed, b3(b""))])
    assert product_digest([("x", b3(b"")), ("X", b3(b""))]) != product_digest([("X", b3(b""))])
    # by UTF-8, an emoji stands behind the last character of the basic plane
    order = [("\uffff", b3(b"1")), ("\U0001f600", b3(b"2"))]
    assert product_digest(reversed(order)) == by_the_book(order)


def test_only_folders_that_all_share_are_left_out() -> None:
    assert set(relative([("P/a/x", ""), ("P/a/y", "")])) == {"x", "y"}
    assert set(relative([("P/a/x", ""), ("P/b/x", "")])) == {"a/x", "b/x"}
    assert set(relative([("P/a/x", ""), ("P/ab", "")])) == {"a/x", "ab"}
    assert set(relative([("P/x", "")])) == {"x"}
    assert set(relative([("x", "")])) == {"x"}
    assert set(relative([("a/a/a", ""), ("a/a/b/a", "")])) == {"a", "b/a"}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../x",
        "/x",
        "C:x",
        "a//x",
        "a/./x",
        "a/",
        "a\nb",
        "a\rb",
        "a\\b",
        "a\0b",
        "\udcff",
        "x" * 5_000,
    ],
)
def test_a_path_that_could_be_read_in_two_ways_has_none(bad: str) -> None:
    with pytest.raises(Undefined):
        product_digest([("good", b3(b"")), (bad, b3(b""))])


def test_nothing_and_a_file_given_twice_have_none() -> None:
    with pytest.raises(Undefined, match="at least one file"):
        product_digest([])
    with pytest.raises(Undefined, match="twice"):
        product_digest([("a", b3(b"1")), ("./a", b3(b"1"))])


def statement(contents: tuple[Content, ...] | None, **fields: object) -> Statement:
    wanted: dict[str, object] = {"hash": b3(b""), "name": "a.zip", "size": 1, "event": Event.CREATE, **fields}
    return Statement(contents=contents, **wanted)  # type: ignore[arg-type]


def test_signed_contents_in_blake3_give_it() -> None:
    contents = tuple(Content(path, digest) for path, digest in MEMBERS)
    digest = product_digest(MEMBERS)
    assert digest_of_contents(statement(contents, hash_algorithm="BLAKE3")) == digest
    assert digest_of_contents(statement(contents, schema=None)) == digest, "of the Traceability Service"
    assert digest_of_contents(statement(contents, hash_algorithm="SHA256")) is None
    assert digest_of_contents(statement(None, hash_algorithm="BLAKE3")) is None
    assert digest_of_contents(statement((), hash_algorithm="BLAKE3")) is None
    assert digest_of_contents(statement((Content("a\nb", b3(b"")),), hash_algorithm="BLAKE3")) is None
    assert digest_of_contents(statement((Content("a", "00"),), schema=None)) is None


def test_names_of_one_product_have_one_stem() -> None:
    names = ["P.SAFE.zip", "P.zip", "P.SAFE", "P", "P.tar", "P.SAFE.tar.gz", "P.SEN3", "P.tgz", "P.ZIP"]
    assert {stem(name) for name in names} == {"P"}
    assert set(names) - {"P.ZIP"} <= set(wrapped_names("P.SAFE"))
    assert stem(".zip") == ".zip"
    assert not same_stem("P.nc", "P.zip")


# ------------------------------------------------------------------------------------ on disk


def test_a_folder_its_zip_and_its_tar_have_one_digest(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "folder")
    (folder / "P.SAFE" / "empty folder").mkdir()
    (tmp_path / "p.zip").write_bytes(zipped())
    (tmp_path / "p.tar").write_bytes(tarred())
    (tmp_path / "bare.zip").write_bytes(
        zipped({path.removeprefix("P.SAFE/"): data for path, data in FILES.items()}, folders=False)
    )
    wanted = [folder, folder / "P.SAFE", tmp_path / "p.zip", tmp_path / "p.tar", tmp_path / "bare.zip"]
    found = lines(run("hash", "--product", "--json", *wanted, code=0))
    assert found == [{"file": str(p), "product_digest": product_digest(MEMBERS), "members": 5} for p in wanted]
    assert run("hash", "--product", folder, code=0).stdout == f"{product_digest(MEMBERS)}  {folder}\n"


def test_it_can_be_computed_without_our_code(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    script = "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 b3sum | b3sum --no-names"
    found = subprocess.run(["bash", "-c", script], cwd=folder / "P.SAFE", capture_output=True, text=True, check=True)
    assert found.stdout.strip() == product_digest(MEMBERS)


def test_hash_says_what_has_no_product_digest(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text")
    (tmp_path / "empty").mkdir()
    result = run("hash", "--product", tmp_path / "text", tmp_path / "empty", code=3)
    assert "a folder, a zip or a tar" in result.stderr
    assert "at least one file" in result.stderr
    assert "--product" in run("hash", tmp_path / "empty", code=3).stderr
    run("hash", "--product", "-a", "MD5", tmp_path / "text", code=2)
    run("hash", "--product", "--contents", tmp_path / "text", code=2)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "a")
    (folder / "link").symlink_to("P.SAFE")
    with pytest.raises(ForbiddenMember, match=r"link.*a symbolic link"):
        digest_folder(folder, ["BLAKE3"])
    (folder / "link").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ForbiddenMember, match=r"pipe.*a special file"):
        digest_folder(folder, ["BLAKE3"])
    (folder / "pipe").unlink()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"")
    with pytest.raises(ForbiddenMember, match="no UTF-8"):
        digest_folder(folder, ["BLAKE3"])


def test_a_folder_of_too_many_files_hits_a_named_limit(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="archive_members"):
        folder_files(unpacked(tmp_path), ArchiveLimits(archive_members=3))


def test_a_folder_that_changes_while_it_is_read_has_none(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    with pytest.raises(FolderChanged):
        digest_folder(folder, ["BLAKE3"], progress=lambda _: (folder / "new").write_bytes(b""))
