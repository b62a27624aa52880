"""Batches on the command line: proofs shown and checked, and the history of a product that was verified in one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from commands import NOW, Party, lines, run
from test_cli_store import NEW, OLD, Site

from rucio_trace.batch import Line, list_fields, list_name, write_lines
from rucio_trace.digest import digest_file
from rucio_trace.envelope import Trace, sign
from rucio_trace.store import Outcome, Store
from rucio_trace.trace import Event, ProductKey, Statement, format_time, new_event_id, new_salt

if TYPE_CHECKING:
    from pathlib import Path

READ = NOW - timedelta(hours=1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    path = tmp_path / NEW.name
    path.write_bytes(b"abc")
    return path


@pytest.fixture
def batch(site: Site, product: Path) -> Trace:
    """A batch of three lines, the second on the newest product of the name; both generations have a CREATE."""
    hashes = digest_file(product, ["BLAKE3"]).hashes
    creates = [site.made(OLD, Event.CREATE, 8, hashes), site.made(NEW, Event.CREATE, 7, hashes)]
    of = [replace(NEW, name="first.zip"), NEW, replace(NEW, name="last.zip")]
    listed = [_line(key, hashes["BLAKE3"]) for key in of]
    made = sign(_statement(site, listed), site.party.issued.signer)
    with Store.open(site.url) as store:
        answers = store.register([*creates, made], trust=None, lists={made.id: write_lines(listed)})
        assert {answer.outcome for answer in answers} == {Outcome.STORED}
    return made


def _line(key: ProductKey, digest: str) -> Line:
    return Line(key.did, key.generation, f"BLAKE3:{digest}", format_time(READ))


def _statement(site: Site, listed: list[Line]) -> Statement:
    time = format_time(READ + timedelta(minutes=1))
    return Statement(
        name=list_name("SITE-A_DISK", time),
        event=Event.VERIFY,
        event_id=new_event_id(),
        rucio="example",
        site="SITE-A",
        signer=site.party.issued.signer.fingerprint,
        rse="SITE-A_DISK",
        time=time,
        method="read",
        salt=new_salt(),
        **list_fields(write_lines(listed)),
    )


@pytest.fixture
def shown(site: Site, batch: Trace, tmp_path: Path) -> Path:
    path = tmp_path / "proof.json"
    path.write_text(run("proof", "show", NEW.did, config=site.config, code=0).stdout)
    return path


def test_a_proof_is_checked_by_who_has_no_store(site: Site, batch: Trace, shown: Path, product: Path) -> None:
    for arguments in ((shown,), (shown, product)):
        told = run("proof", "check", *arguments, "--anchors", site.party.ca, code=0).stdout
        assert "GENUINE" in told
        assert f"{NEW.did} of example was found good at {format_time(READ)} on SITE-A_DISK by SITE-A" in told
        assert f"line 2 of 3 of trace {batch.id}" in told


def test_a_proof_for_machines(site: Site, batch: Trace, shown: Path, product: Path) -> None:
    [told] = lines(run("proof", "check", shown, product, "--json", config=site.config, code=0))
    assert (told["verdict"], told["faults"], told["trace"]) == ("GENUINE", [], batch.id)
    assert told["product"] == {"rucio": "example", "vo": "def", "did": NEW.did, "generation": NEW.generation}
    assert (told["time"], told["rse"], told["site"]) == (format_time(READ), "SITE-A_DISK", "SITE-A")


def test_another_file_than_the_proven_one_is_tampered(site: Site, shown: Path, product: Path) -> None:
    product.write_bytes(b"abd")
    told = run("proof", "check", shown, product, "--anchors", site.party.ca, code=1).stdout
    assert "TAMPERED" in told
    assert "BLAKE3" in told


@pytest.mark.parametrize("part", ["line", "index", "path", "trace"])
def test_a_proof_that_was_changed_is_tampered(site: Site, shown: Path, part: str) -> None:
    value: dict[str, Any] = json.loads(shown.read_text())
    if part == "line":
        value["line"]["time"] = format_time(READ + timedelta(seconds=1))
    elif part == "index":
        value["index"] = 0
    elif part == "path":
        value["path"][0] = "0" * 64
    else:
        value["trace"]["signature"]["message"] = value["trace"]["signature"]["message"].replace("SITE-A", "SITE-B")
    shown.write_text(json.dumps(value))
    assert "TAMPERED" in run("proof", "check", shown, "--anchors", site.party.ca, code=1).stdout


def test_a_proof_by_strangers_is_untrusted(shown: Path, tmp_path: Path) -> None:
    stranger = Party.in_folder(tmp_path, "stranger")
    assert "UNTRUSTED" in run("proof", "check", shown, "--anchors", stranger.ca, code=1).stdout
    assert "UNTRUSTED" in run("proof", "check", shown, code=1).stdout


def test_what_is_no_proof_is_no_verdict(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    path.write_text("[]")
    told = run("proof", "check", path, "--anchors", site.party.ca, code=3)
    assert told.stdout == ""


def test_there_is_no_proof_of_what_no_batch_has(site: Site, batch: Trace) -> None:
    for arguments in (["s2:nobody"], [NEW.did, "--rse", "ELSEWHERE"]):
        assert "no batch" in run("proof", "show", *arguments, config=site.config, code=3).stderr
    run("proof", "show", "nonsense", config=site.config, code=2)


def test_history_shows_the_line_of_a_batch(site: Site, batch: Trace) -> None:
    told = run("history", NEW.did, config=site.config, code=0).stdout
    [row] = [row for row in told.splitlines() if "VERIFY" in row]
    assert f"line 2 of 3 in {batch.id}" in row
    assert format_time(READ)[:19] in row
    assert told.index("VERIFY") > told.rindex("CREATE")
    *_, line = lines(run("history", NEW.did, "--json", config=site.config, code=0))
    assert (line["id"], line["index"], line["stands"]) == (batch.id, 1, True)
    assert line["line"]["did"] == NEW.did
    assert line["statement"]["batch"]["count"] == 3


def test_a_list_is_a_file_as_any_other(site: Site, batch: Trace, tmp_path: Path) -> None:
    with Store.open(site.url) as store:
        data = store.list_of(batch.id)
    assert data is not None
    path = tmp_path / batch.statement.name
    path.write_bytes(data)
    run("verify", path, config=site.config, code=0)
    path.write_bytes(data.replace(b"first", b"other"))
    run("verify", path, config=site.config, code=1)
