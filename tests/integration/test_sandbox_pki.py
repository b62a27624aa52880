from __future__ import annotations

import hashlib
import stat
import tomllib
import zipfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from defusedxml import ElementTree
from rucio_trace_sandbox import containers
from rucio_trace_sandbox.demo import federation
from rucio_trace_sandbox.pki import SandboxAuthority
from rucio_trace_sandbox.sentinel import make_product
from samples import product, statement

from rucio_trace.envelope import Trace, sign
from rucio_trace.errors import TraceabilityError
from rucio_trace.products.reading import check_path
from rucio_trace.statement import format_time
from rucio_trace.verify import check_trace

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace_sandbox.pki import Member

    from rucio_trace.identity import Trust


def test_recorders_of_demo_and_containers_may_sign_and_withdraw_lists_of_datasets(tmp_path: Path) -> None:
    for name in ("database", "broker", "trust", "site-a", "site-b", "client", "federation"):
        (tmp_path / name).mkdir()
    containers.keys(tmp_path)
    federation._write_settings(federation.Place(tmp_path))
    for file in (tmp_path / "trust/federation.toml", tmp_path / "federation/federation.toml"):
        members = [m for m in tomllib.loads(file.read_text())["member"] if m["name"].startswith("SITE-")]
        assert [(m["create"], m["revoke"]) for m in members] == [(["eo"], ["eo"])] * 2


def _trace(member: Member, rse: str = "A-DISK") -> Trace:
    now = datetime.now(UTC)
    text = statement(key=product(), rse=rse, signer=member.signer.fingerprint, time=format_time(now))
    return sign(text, member.signer)


def _accepted(trace: Trace, trust: Trust) -> bool:
    try:
        check_trace(trace, trust, datetime.now(UTC))
    except TraceabilityError:
        return False
    return True


def test_a_member_may_say_what_the_federation_file_says(folder: Path) -> None:
    authority = SandboxAuthority(folder)
    member = authority.admit("SITE-A", rses=["A-*"])
    assert _accepted(_trace(member), authority.trust)
    assert not _accepted(_trace(member, rse="B-DISK"), authority.trust)


def test_a_member_of_another_federation_is_a_stranger(folder: Path) -> None:
    ours, theirs = SandboxAuthority(folder / "ours"), SandboxAuthority(folder / "theirs")
    ours.admit("SITE-A")
    assert not _accepted(_trace(theirs.admit("SITE-A")), ours.trust)


def test_a_revoked_member_is_refused_from_then_on(folder: Path) -> None:
    authority = SandboxAuthority(folder)
    member, other = authority.admit("SITE-A"), authority.admit("SITE-B")
    authority.revoke(member, datetime.now(UTC) - timedelta(seconds=1))
    assert not _accepted(_trace(member), authority.trust)
    assert _accepted(_trace(other), authority.trust)


def test_nobody_else_can_read_a_key(folder: Path) -> None:
    member = SandboxAuthority(folder).admit("SITE-A")
    assert stat.S_IMODE(member.key.stat().st_mode) == 0o600


def test_a_product_holds_what_its_manifest_says(folder: Path) -> None:
    path = make_product(folder, megabytes=0.2)
    assert abs(path.stat().st_size - 200_000) < 20_000
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        root = path.name.removesuffix(".zip")
        manifest = ElementTree.fromstring(archive.read(f"{root}/manifest.safe"))
        listed = {}
        for stream in manifest.iter("byteStream"):
            listed[stream.find("fileLocation").get("href")[2:]] = stream.find("checksum").text
        files = [name.removeprefix(f"{root}/") for name in archive.namelist() if not name.endswith("manifest.safe")]
        assert len(files) == 15
        found = {file: hashlib.sha3_256(archive.read(f"{root}/{file}")).hexdigest() for file in files}
    assert listed == found
    assert check_path(path).faults == ()


def test_the_same_seed_makes_the_same_product(folder: Path) -> None:
    made = {}
    for index, seed in enumerate([1, 1, 2]):
        (folder / str(index)).mkdir()
        path = make_product(folder / str(index), megabytes=0.05, seed=seed)
        made[index] = (path.name, path.read_bytes())
    assert made[0] == made[1]
    assert made[0][0] != made[2][0]
