"""Sign, then verify: the verdict, its reasons and the exit code of each kind of file and trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from archives import FILES, zipped
from commands import DAY, NOW, Party, lines, run

from rucio_trace.envelope import parse_traces

if TYPE_CHECKING:
    from click.testing import Result

PROGRAM = Path(sys.executable).with_name("rucio-trace")
NAME = "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.zip"


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Party:
    return Party.in_folder(tmp_path_factory.mktemp("party"), uri="https://a.example.org/recorder")


@pytest.fixture
def product(tmp_path: Path) -> Path:
    file = tmp_path / NAME
    file.write_bytes(zipped(method=zipfile.ZIP_STORED))
    return file


@pytest.fixture
def trace(tmp_path: Path, party: Party, product: Path) -> Path:
    party.sign(product, trace=tmp_path / "trace.json", options=("--contents",))
    return tmp_path / "trace.json"


def flip(file: Path, position: int = 60) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def verdict(party: Party, *arguments: object, code: int) -> dict[str, Any]:
    (found,) = lines(run("verify", "--json", "--anchors", party.ca, *arguments, code=code))
    return found


def kinds(found: dict[str, Any]) -> set[str]:
    return {fault["kind"] for fault in found["faults"]}


# Signing


def test_a_signed_trace_says_what_the_file_is(party: Party, product: Path) -> None:
    (signed,) = parse_traces(party.sign(product, options=("--contents", "--input", "raw:scene:0a0b" + "0" * 60)))
    s = signed.statement
    assert (s.name, s.size, s.event, s.site) == (NAME, product.stat().st_size, "CREATE", party.issued.signer.subject)
    assert [content.path for content in s.contents or ()] == list(FILES)
    assert [(i.name, i.hash[:4]) for i in s.inputs or ()] == [("raw:scene", "0a0b")]
    assert (s.attributes or {})["tileId"] == "33UVP"
    assert (s.method, s.did, s.rse) == ("read", None, None)


def test_traces_of_several_files_are_one_array_and_a_failure_is_told(party: Party, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    traces = parse_traces(party.sign(tmp_path / "a", tmp_path / "none", tmp_path / "b", code=3))
    assert [trace.statement.name for trace in traces] == ["a", "b"]


def test_the_field_can_check_the_signature_with_openssl(party: Party, product: Path, tmp_path: Path) -> None:
    (signed,) = parse_traces(party.sign(product))
    (tmp_path / "message").write_bytes(signed.message.encode())
    (tmp_path / "signature").write_bytes(signed.signature)
    public = subprocess.run(
        ["openssl", "x509", "-in", party.certificate, "-pubkey", "-noout"], capture_output=True, check=True
    )
    (tmp_path / "public").write_bytes(public.stdout)
    command = ["openssl", "dgst", "-sha256", "-verify", "public", "-signature", "signature", "message"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_product_in_rucio_is_signed_under_its_did(party: Party, product: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[instance]\nname = "example"\n[recorder]\nsite = "SITE-P"')
    did = ("--did", f"s2:{NAME}", "--generation", "2026-05-01T10:00:00Z")
    result = run("sign", product, "--key", party.key, "--cert", party.certificate, *did, config=config, code=0)
    (signed,) = parse_traces(result.stdout_bytes)
    assert signed.statement.product is not None
    assert signed.statement.product.fields() == {
        "rucio": "example",
        "vo": None,
        "did": f"s2:{NAME}",
        "generation": "2026-05-01T10:00:00.000000Z",
    }
    assert signed.statement.site == "SITE-P"


@pytest.mark.parametrize(
    "options",
    [
        ("--input", "nocolon"),
        ("--input", ":aa"),
        ("--event", "CORRUPT"),
        ("--event", "REVOKE"),
        ("--revokes", "x"),
        ("--did", "s2:x"),
        ("--did", "s2", "--generation", "2026-05-01"),
        ("--did", "s2:x", "--generation", "2026-05-01"),
        ("--generation", "yesterday", "--did", "s2:x"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_signed_is_wrong_use(party: Party, product: Path, options: tuple[str, ...]) -> None:
    result = run("sign", product, "--key", party.key, "--cert", party.certificate, *options, code=2)
    assert result.stdout == ""


def test_a_key_of_another_certificate_is_refused(party: Party, product: Path, tmp_path: Path) -> None:
    other = Party.in_folder(tmp_path, "other")
    assert "another key" in run("sign", product, "--key", other.key, "--cert", party.certificate, code=2).stderr
    assert "private key" in run("sign", product, "--key", product, "--cert", party.certificate, code=2).stderr
    assert run("sign", product, "--key", party.key, "--cert", product, code=2).stderr


def test_a_statement_the_format_forbids_is_refused(party: Party, product: Path) -> None:
    result = run("sign", product, "--key", party.key, "--cert", party.certificate, "--input", "a:zz", code=3)
    assert "inputs.hash" in result.stderr


# Verdicts


def test_a_genuine_file(party: Party, product: Path, trace: Path) -> None:
    found = verdict(party, product, "--trace", trace, code=0)
    assert (found["file"], found["verdict"], found["faults"]) == (str(product), "GENUINE", [])
    assert found["subject"] == party.issued.signer.subject
    text = run("verify", product, "--trace", trace, "--anchors", party.ca, code=0).stdout
    assert text.startswith(f"{product}: GENUINE\n")
    assert party.issued.signer.subject in text


def test_a_renamed_genuine_file_is_genuine(party: Party, product: Path, trace: Path) -> None:
    moved = product.rename(product.with_name("renamed.zip"))
    verdict(party, moved, "--trace", trace, code=0)


def test_one_flipped_byte_is_tampered_and_the_member_is_named(party: Party, product: Path, trace: Path) -> None:
    flip(product, product.read_bytes().index(FILES["P.SAFE/data/B01.jp2"]) + 5)
    found = verdict(party, product, "--trace", trace, code=1)
    assert found["verdict"] == "TAMPERED"
    assert {"DifferentDigest", "DifferentContent"} <= kinds(found)
    assert any("P.SAFE/data/B01.jp2" in fault["what"] for fault in found["faults"])
    assert all({"what", "expected", "found"} <= fault.keys() for fault in found["faults"])
    assert "P.SAFE/data/B01.jp2" in run("verify", product, "--trace", trace, "--anchors", party.ca, code=1).stdout


def test_a_repacked_archive_names_exactly_the_members_that_differ(party: Party, product: Path, trace: Path) -> None:
    product.write_bytes(zipped({**FILES, "P.SAFE/empty": b"no longer", "P.SAFE/new": b"1"}, zipfile.ZIP_STORED))
    found = verdict(party, product, "--trace", trace, code=1)
    assert {f["what"] for f in found["faults"] if f["kind"] == "DifferentContent"} == {"P.SAFE/empty", "P.SAFE/new"}


def test_a_truncated_file_is_tampered(party: Party, product: Path, trace: Path) -> None:
    product.write_bytes(product.read_bytes()[:-1])
    assert "DifferentSize" in kinds(verdict(party, product, "--trace", trace, code=1))


def test_a_file_nobody_speaks_of_is_unknown(party: Party, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x")
    assert verdict(party, tmp_path / "other", "--trace", trace, code=3)["verdict"] == "UNKNOWN"


def test_a_file_held_against_a_did(party: Party, product: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[instance]\nname = "example"')
    did = ("--did", f"s2:{NAME}", "--generation", "2026-05-01")
    signed = run("sign", product, "--key", party.key, "--cert", party.certificate, *did, config=config, code=0)
    (tmp_path / "t.json").write_bytes(signed.stdout_bytes)
    moved = product.rename(tmp_path / "downloaded")
    found = verdict(party, moved, "--trace", tmp_path / "t.json", "--did", f"s2:{NAME}", code=0)
    assert found["product"]["did"] == f"s2:{NAME}"
    verdict(party, moved, "--trace", tmp_path / "t.json", "--did", "s2:another", code=3)


def test_a_trace_of_a_stranger_is_untrusted(party: Party, product: Path, trace: Path, tmp_path: Path) -> None:
    stranger = Party.in_folder(tmp_path, "stranger")
    assert verdict(stranger, product, "--trace", trace, code=1)["verdict"] == "UNTRUSTED"
    nobody = run("verify", product, "--trace", trace, code=1)
    assert "UNTRUSTED" in nobody.stdout
    assert "--anchors or --federation" in nobody.stderr


def test_an_altered_trace_is_no_proof(party: Party, product: Path, trace: Path) -> None:
    trace.write_bytes(trace.read_bytes().replace(b'\\"site\\":\\"', b'\\"site\\":\\"X'))
    assert verdict(party, product, "--trace", trace, code=1)["verdict"] == "TAMPERED"


def test_the_trace_of_an_expired_certificate_is_expired(product: Path, tmp_path: Path) -> None:
    """Without a store or a witness nothing tells that it was signed in time."""
    party = Party.in_folder(tmp_path, since=NOW - DAY, until=NOW + DAY)
    party.sign(product, trace=tmp_path / "t.json")
    found = in_future(product, tmp_path / "t.json", party)
    assert (found["verdict"], found["exit"]) == ("EXPIRED", 1)


def in_future(product: Path, trace: Path, party: Party) -> dict[str, Any]:
    """Verify as it will be ten days from now."""
    code = (
        "import datetime, sys, rucio_trace.cli.verify as v\n"
        "class Later(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None): return datetime.datetime.now(tz) + datetime.timedelta(days=10)\n"
        "v.datetime = Later\n"
        "from rucio_trace.cli import main; main()\n"
    )
    command = [sys.executable, "-c", code, "verify", "--json", product, "--trace", trace, "--anchors", party.ca]
    environment = {**os.environ, "RUCIO_TRACE_CONFIG": "/dev/null"}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    return {**json.loads(result.stdout), "exit": result.returncode}


def test_a_revoked_certificate_and_a_list_out_of_date(party: Party, product: Path, trace: Path, tmp_path: Path) -> None:
    crl = tmp_path / "ca.crl"
    crl.write_bytes(party.authority.crl(at=NOW - DAY))
    verdict(party, product, "--trace", trace, "--crl", crl, code=0)
    crl.write_bytes(party.authority.crl((party.issued.certificate, NOW - DAY, None), at=NOW - DAY))
    assert "CertificateRevoked" in kinds(verdict(party, product, "--trace", trace, "--crl", crl, code=1))
    crl.write_bytes(party.authority.crl(at=NOW - 3 * DAY, days=1))
    assert verdict(party, product, "--trace", trace, "--crl", crl, code=3)["verdict"] == "UNDECIDED"
    verdict(party, product, "--trace", trace, "--crl", crl, "--allow-stale-crl", code=0)


def test_an_obsolete_file_ends_with_4(party: Party, product: Path, trace: Path, tmp_path: Path) -> None:
    obsolete = tmp_path / "obsolete.json"
    party.sign(product, trace=obsolete, options=("--event", "OBSOLETE", "--reason", "calibration"))
    found = verdict(party, product, "--trace", trace, "--trace", obsolete, code=4)
    assert found["verdict"] == "OBSOLETE"


def test_a_revoked_trace_proves_nothing(party: Party, product: Path, trace: Path, tmp_path: Path) -> None:
    revoke = tmp_path / "revoke.json"
    (signed,) = parse_traces(trace.read_bytes())
    party.sign(product, trace=revoke, options=("--event", "REVOKE", "--revokes", signed.id, "--reason", "wrong file"))
    assert verdict(party, product, "--trace", trace, "--trace", revoke, code=1)["verdict"] == "REVOKED"


def test_the_traces_of_the_fields_client_are_judged(tmp_path: Path, party: Party) -> None:
    vectors = Path(__file__).parents[1] / "vectors" / "archives"
    (product,) = vectors.glob("S2A*.zip")
    found = verdict(party, product, "--trace", vectors / "zip-contents.json", code=1)
    assert found["verdict"] == "UNTRUSTED"


def test_of_several_files_the_worst_speaks_and_each_has_its_line(party: Party, tmp_path: Path) -> None:
    genuine, tampered, unknown, missing = (tmp_path / name for name in ("genuine", "tampered", "unknown", "missing"))
    for file in (genuine, tampered, unknown):
        file.write_bytes(file.name.encode())
    party.sign(genuine, tampered, trace=tmp_path / "t.json")
    tampered.write_bytes(b"TAMPERED")
    options = ("--json", "--trace", tmp_path / "t.json", "--anchors", party.ca)

    def told(result: Result) -> list[str]:
        return [found["verdict"] for found in lines(result)]

    everything = run("verify", *options, genuine, missing, tmp_path, unknown, tampered, code=1)
    assert told(everything) == ["GENUINE", "UNDECIDED", "UNKNOWN", "UNKNOWN", "TAMPERED"]
    assert told(run("verify", *options, unknown, genuine, code=3)) == ["UNKNOWN", "GENUINE"]
    assert told(run("verify", *options, genuine, genuine, code=0)) == ["GENUINE", "GENUINE"]


def test_without_traces_and_store_nothing_is_known_and_help_is_offered(product: Path) -> None:
    result = run("verify", product, code=3)
    assert "UNKNOWN" in result.stdout
    assert "--trace" in result.stdout
    assert "[store]" in result.stdout
    (found,) = lines(run("verify", "--json", product, code=3))
    assert found["verdict"] == "UNKNOWN"


def test_anchors_may_be_a_folder_and_a_federation_gives_rights(party: Party, product: Path, trace: Path) -> None:
    folder = trace.parent / "anchors"
    folder.mkdir()
    assert "*.pem" in run("verify", product, "--trace", trace, "--anchors", folder, code=2).stderr
    (folder / "ca.pem").write_bytes(party.ca.read_bytes())
    run("verify", product, "--trace", trace, "--anchors", folder, code=0)
    federation = folder / "federation.toml"
    member = '[[member]]\nname = "A"\nca = "ca.pem"\nsubject = "URI:https://a.example.org/*"\n'
    for rights, code in (("outside = true", 0), ("outside = false", 1), ("outsider = true", 2)):
        federation.write_text(member + rights)
        run("verify", product, "--trace", trace, "--federation", federation, code=code)
    both = ("--federation", federation, "--anchors", folder)
    run("verify", product, "--trace", trace, *both, code=2)
    run("verify", product, "--trace", trace, "--federation", federation, "--crl", trace, code=2)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b'[{"event":1}]', b'{"a":1,"a":2}']
)
def test_traces_that_are_none_give_every_file_its_line_and_no_verdict(
    party: Party, product: Path, trace: Path, content: bytes
) -> None:
    trace.write_bytes(content)
    found = lines(run("verify", product, product, "--json", "--trace", trace, "--anchors", party.ca, code=3))
    assert [line["file"] for line in found] == [str(product)] * 2
    for line in found:
        assert line["verdict"] in ("UNDECIDED", "UNKNOWN")
        assert line["faults"]


def test_a_trace_that_is_none_hides_no_other(party: Party, product: Path, trace: Path) -> None:
    (good,) = json.loads(trace.read_text())
    for broken in (None, 1, {}, {"product": 7}, good | {"product": None}):
        trace.write_text(json.dumps([broken, good]))
        (found,) = lines(run("verify", product, "--json", "--trace", trace, "--anchors", party.ca, code=0))
        assert [fault["kind"] for fault in found["faults"]] == ["MessageUnreadable"]


def test_anchors_that_are_none_are_wrong_use(product: Path, trace: Path) -> None:
    assert "anchors" in run("verify", product, "--trace", trace, "--anchors", product, code=2).stderr


def test_the_exit_codes_of_real_processes(party: Party, product: Path, trace: Path) -> None:
    environment = {**os.environ, "RUCIO_TRACE_CONFIG": "/dev/null"}

    def code(*arguments: object) -> int:
        command = [PROGRAM, "verify", *arguments, "--trace", trace, "--anchors", party.ca]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

    assert code(product) == 0
    assert code(product, "--nonsense") == 2
    assert code(trace) == 3
    flip(product)
    assert code(product) == 1


def test_closed_streams_change_no_exit_code(party: Party, product: Path, trace: Path) -> None:
    command = f'"{PROGRAM}" verify "{product}" --trace "{trace}" --anchors "{party.ca}"'
    environment = {**os.environ, "RUCIO_TRACE_CONFIG": "/dev/null"}
    for closed, expected in ((">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)):
        assert subprocess.run(["sh", "-c", f"{command} {closed}"], env=environment).returncode == expected
    flip(product)
    assert subprocess.run(["sh", "-c", f"{command} >&- 2>&-"], env=environment).returncode == 1
