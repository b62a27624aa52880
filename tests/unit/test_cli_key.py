"""`rucio-trace key`: from nothing to a certificate that verifiers accept."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from commands import DAY, NOW, Party, lines, run

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "signer.key"
    run("key", "new", file, code=0)
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    assert "exists already" in run("key", "new", file, code=2).stderr
    assert file.read_bytes() == before
    assert run("key", "new", tmp_path / "none" / "key", code=3).stderr


def test_openssl_accepts_the_request(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("geheim\n")
    key = tmp_path / "signer.key"
    run("key", "new", key, "--password-file", password, code=0)
    assert b"ENCRYPTED" in key.read_bytes()
    options = ("--name", "recorder", "--uri", "https://a.example.org/recorder", "--password-file", password)
    request = run("key", "request", key, *options, code=0).stdout_bytes
    command = ["openssl", "req", "-verify", "-noout", "-text"]
    text = subprocess.run(command, input=request, capture_output=True, check=True).stdout.decode()
    assert "CN = recorder" in text
    assert "URI:https://a.example.org/recorder" in text
    assert "Digital Signature" in text
    run("key", "request", key, "--name", "recorder", code=2)


def test_show_tells_what_verifiers_see(tmp_path: Path) -> None:
    party = Party.in_folder(tmp_path)
    (found,) = lines(run("key", "show", party.certificate, "--key", party.key, "--json", code=0))
    assert found["fingerprint"] == party.issued.signer.fingerprint
    assert found["problems"] == []
    assert party.issued.signer.fingerprint in run("key", "show", party.certificate, code=0).stdout


def test_show_tells_why_verifiers_would_refuse(tmp_path: Path) -> None:
    party = Party.in_folder(tmp_path, since=NOW - 2 * DAY, until=NOW - DAY)
    other = Party.in_folder(tmp_path, "other")
    result = run("key", "show", party.certificate, "--key", other.key, code=3)
    assert "expired" in result.stdout
    assert "another" in result.stdout
    assert "authority" in run("key", "show", party.ca, code=3).stdout
    run("key", "show", party.key, code=2)
