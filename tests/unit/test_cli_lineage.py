"""`rucio-trace lineage`: trees for people, objects and graphs for machines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from commands import Party, lines, run
from samples import digest, product, signer, statement, trace

from rucio_trace.digest import digest_file
from rucio_trace.envelope import Trace, sign
from rucio_trace.store import Store
from rucio_trace.trace import Event, Input

if TYPE_CHECKING:
    from pathlib import Path


def made(number: int, *from_: str) -> Trace:
    given = tuple(Input(name, digest(name)) for name in from_)
    return trace(Event.CREATE, product(number), inputs=given or None)


def register(folder: Path, *traces: Trace) -> None:
    with Store.open(f"sqlite:///{folder / 'traces.db'}") as store:
        assert {answer.outcome for answer in store.register(traces, trust=None)} == {"stored"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    url = f"sqlite:///{tmp_path / 'traces.db'}"
    of_hostile_name = replace(product(6), name='x\x1b[2J"\\')
    register(
        tmp_path,
        made(1, "file2", "file3"),
        made(2, "file4"),
        made(3, "file4"),
        made(4, "nobody's"),
        trace(Event.OBSOLETE, product(4)),
        trace(Event.CREATE, of_hostile_name, inputs=(Input("\u202ename", digest("file4")),)),
    )
    file = tmp_path / "config.toml"
    file.write_text(f'[store]\nurl = "{url}"\n')
    return file


def test_the_tree_shows_every_product_once_with_its_troubles(config: Path) -> None:
    text = run("lineage", "test:file1", config=config, code=0).stdout
    assert text.count("test:file4") == 2 + 3  # twice in the tree, once in the blame of each descendant
    assert text.count("(as above)") == 1
    assert "test:file4  OBSOLETE" in text
    assert "test:file1  made from: test:file4 is OBSOLETE" in text
    assert "nobody's (unknown, " in text
    shorter = run("lineage", "test:file1", "--depth", "1", config=config, code=0).stdout
    assert "file4" not in shorter
    assert "…" in shorter


def test_no_line_is_cut_however_long_its_names(tmp_path: Path, config: Path) -> None:
    long = replace(product(8), name="n" * 250)
    register(tmp_path, trace(Event.CREATE, long, bytes_of="long", inputs=(Input("file1", digest("file1")),)))
    text = run("lineage", long.did, config=config, code=0).stdout
    assert f"{long.did}  made from: test:file4 is OBSOLETE" in text
    assert text == "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def test_machines_get_objects_and_graphs(config: Path) -> None:
    [found] = lines(run("lineage", digest("file4").upper(), "--down", "--json", config=config, code=0))
    assert (found["product"], found["direction"], found["complete"]) == (digest("file4"), "down", True)
    by_name = {p["name"]: p for p in found["products"]}
    assert by_name["file1"]["inputs"] == [digest("file2"), digest("file3")]
    assert by_name["file1"]["because_of"] == [digest("file4")]
    assert (by_name["file4"]["trouble"], by_name["file4"]["known"]) == ("OBSOLETE", True)
    dot = run("lineage", "test:file1", "--dot", config=config, code=0).stdout
    assert dot.startswith("digraph")
    assert f'"{digest("file4")}" -> "{digest("file2")}";' in dot


def test_hostile_names_are_shown_harmlessly(config: Path) -> None:
    for form in ((), ("--dot",)):
        text = run("lineage", "test:file4", "--down", *form, config=config, code=0).stdout
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\\x1b" in text
    assert '\\"' in text


def test_a_file_is_known_by_any_of_its_digests(tmp_path: Path, config: Path) -> None:
    file = tmp_path / "anything.bin"
    file.write_bytes(b"made from four")
    sha = digest_file(file, ["SHA256"]).hashes["SHA256"]
    given = (Input("file4", digest("file4")),)
    register(tmp_path, sign(statement(Event.CREATE, product(7), inputs=given, hash=sha), signer()))
    [found] = lines(run("lineage", file, "--json", config=config, code=0))
    assert found["product"] == sha
    run("lineage", "test:unknown", config=config, code=3)
    run("lineage", "nonsense", config=config, code=2)
    assert "no trace" in run("lineage", digest("unknown"), config=config, code=3).stderr


def test_a_file_is_not_signed_as_made_from_itself(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    party = Party.in_folder(tmp_path)
    own = digest_file(file, ["BLAKE3"]).hashes["BLAKE3"]
    keys = ("--key", party.key, "--cert", party.certificate)
    result = run("sign", file, *keys, "--input", f"other name:{own}", code=3)
    assert "another product" in result.stderr
    run("sign", file, *keys, "--input", f"file:{digest('other bytes')}", code=0)
