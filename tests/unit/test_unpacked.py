"""Verdicts on folders, and on archives that somebody packed anew: by their content."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from archives import b3, tarred, zipped
from authority import NOW, PRODUCT, Authority, declared, file, made
from commands import Party, lines, run

from rucio_trace.identity import Trust
from rucio_trace.matching import Candidate, Verdict
from rucio_trace.product_digest import product_digest
from rucio_trace.statement import Content, Event
from rucio_trace.verify import Evidence, Judgement, judge

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace.envelope import Trace

NAME = "S2A_T33UVP.SAFE"
FILES = {f"{NAME}/B01.jp2": b"one", f"{NAME}/deep/B02.jp2": b"two", f"{NAME}/manifest.safe": b"<a/>"}
ROOT = Authority.root()
SITE = ROOT.issue(uri="https://site-a.example/recorder").signer
TRUST = Trust.from_anchors([ROOT.pem])
OTHER_NAME = replace(PRODUCT, name="S2B_T33UVQ.SAFE.zip")
ELSEWHERE = replace(PRODUCT, scope="mirror")


def contents(files: dict[str, bytes] = FILES) -> tuple[Content, ...]:
    return tuple(Content(path, b3(data)) for path, data in files.items())


def folder(files: dict[str, bytes] = FILES, name: str = NAME, **more: Any) -> Candidate:
    members = {path.partition("/")[2]: b3(data) for path, data in files.items()}
    digest = product_digest(members.items())
    return Candidate(file=name, base_name=name, size=0, hashes={}, contents=members, product_digest=digest, **more)


def judged(candidate: Candidate, *traces: Trace) -> Judgement:
    return judge(candidate, [Evidence(trace) for trace in traces], TRUST, NOW)


def kinds(judgement: Judgement) -> list[str]:
    return [fault.kind for fault in judgement.faults]


@pytest.mark.parametrize("name", [NAME, "S2A_T33UVP", "S2A_T33UVP.SAFE.tar", "my copy"])
def test_a_folder_with_signed_content_is_genuine_and_says_whose_it_is(name: str) -> None:
    judgement = judged(folder(name=name), made(SITE, contents=contents()))
    assert judgement.verdict is Verdict.GENUINE
    assert judgement.product == PRODUCT
    (told,) = judgement.faults
    assert str(told).startswith(f"it is the content of {PRODUCT.did} of example")


def test_what_differs_is_named() -> None:
    files = {f"{NAME}/B01.jp2": b"0ne", f"{NAME}/manifest.safe": b"<a/>", f"{NAME}/extra": b""}
    judgement = judged(folder(files), made(SITE, contents=contents()))
    assert judgement.verdict is Verdict.TAMPERED
    assert [(f.kind, f.what, f.expected, f.found) for f in judgement.faults] == [
        ("DifferentContent", "B01.jp2", b3(b"one"), b3(b"0ne")),
        ("DifferentContent", "deep/B02.jp2", b3(b"two"), "none"),
        ("DifferentContent", "extra", "no such member", b3(b"")),
    ]


def test_a_folder_nobody_knows_is_unknown() -> None:
    assert judged(folder(name="else"), made(SITE, contents=contents({f"{NAME}/x": b""}))).verdict is Verdict.UNKNOWN
    assert judged(folder()).verdict is Verdict.UNKNOWN


def test_a_folder_bears_the_name_of_an_archive_without_signed_members() -> None:
    judgement = judged(folder(), made(SITE))
    assert (judgement.verdict, kinds(judgement)) == (Verdict.UNDECIDED, ["NoContents"])
    sha = made(SITE, hash_algorithm="SHA256", contents=contents())
    assert judged(folder(), sha).verdict is Verdict.UNDECIDED


def test_the_state_of_the_product_is_the_folders() -> None:
    create = made(SITE, contents=contents())
    obsolete = made(SITE, Event.OBSOLETE, obsolescence="reprocessed")
    assert judged(folder(), create, obsolete).verdict is Verdict.OBSOLETE
    revoke = made(SITE, Event.REVOKE, revokes=create.id, obsolescence="wrong")
    judgement = judged(folder(), create, revoke)
    assert judgement.verdict is Verdict.REVOKED
    assert "WithdrawnOrigin" in kinds(judgement)
    rival = declared(SITE, hash="1" * 64, contents=contents({f"{NAME}/x": b""}))
    assert judged(folder(), create, rival).verdict is Verdict.DISPUTED
    other = declared(SITE, contents=contents({f"{NAME}/x": b""}))
    assert judged(folder(), create, other).verdict is Verdict.DISPUTED, "one archive, two lists of members"


def test_a_copy_cannot_say_what_the_create_does_not() -> None:
    """A site that may attest a replica does not thereby say what is in the product."""
    copy = made(SITE, Event.COPY, contents=contents({f"{NAME}/forged": b""}))
    forged = folder({f"{NAME}/forged": b""})
    assert judged(forged, made(SITE, contents=contents()), copy).verdict is Verdict.TAMPERED
    assert judged(forged, made(SITE), copy).verdict is Verdict.UNDECIDED


def test_content_of_one_product_under_the_name_of_another_is_tampered() -> None:
    one = made(SITE, contents=contents())
    other = made(SITE, product=OTHER_NAME, hash="1" * 64, contents=contents({"S2B/x": b""}))
    judgement = judged(folder(name="S2B_T33UVQ.SAFE"), one, other)
    assert (judgement.verdict, kinds(judgement)) == (Verdict.TAMPERED, ["ContentUnderOtherName"])


def test_of_several_products_with_one_content_the_name_decides_and_they_must_agree() -> None:
    one = made(SITE, contents=contents())
    other = made(SITE, product=OTHER_NAME, hash="1" * 64, contents=contents())
    gone = made(SITE, Event.OBSOLETE, product=OTHER_NAME, obsolescence="x")
    assert judged(folder(), one, other, gone).verdict is Verdict.GENUINE
    assert judged(folder(name="S2B_T33UVQ.SAFE"), one, other, gone).verdict is Verdict.OBSOLETE
    judgement = judged(folder(name="my copy"), one, other, gone)
    assert (judgement.verdict, kinds(judgement)) == (Verdict.UNDECIDED, ["SeveralProducts", "SeveralProducts"])
    changed = folder({f"{NAME}/y": b""})
    mirror = made(SITE, product=ELSEWHERE, hash="2" * 64, contents=contents({"P/z": b""}))
    assert judged(changed, one, mirror).verdict is Verdict.UNDECIDED


def test_with_a_did_only_that_product_counts() -> None:
    one = made(SITE, contents=contents())
    other = made(SITE, product=OTHER_NAME, hash="1" * 64, contents=contents({"S2B/x": b""}))
    assert judged(folder(did=PRODUCT.did, name="x"), one, other).verdict is Verdict.GENUINE
    judgement = judged(folder(did=OTHER_NAME.did), one, other)
    assert judgement.verdict is Verdict.TAMPERED
    assert "ContentUnderOtherName" in kinds(judgement)
    assert judged(folder(did="s2:absent"), one, other).verdict is Verdict.UNKNOWN


def test_a_file_that_holds_the_list_is_not_the_product() -> None:
    """The product digest is the digest of a text: a file of that text has it as its own."""
    digest = folder().product_digest
    assert digest is not None
    assert judged(file(digest, name="list.txt", size=99), made(SITE, contents=contents())).verdict is Verdict.UNKNOWN


def test_dropped_traces_name_the_reason_as_for_a_file() -> None:
    stranger = Authority.root("Stranger").issue().signer
    assert judged(folder(), made(stranger, contents=contents())).verdict is Verdict.UNTRUSTED
    assert judged(folder(name="else"), made(stranger, contents=contents())).verdict is Verdict.UNKNOWN


def test_an_archive_packed_anew_is_known_by_its_content_but_never_under_the_signed_name() -> None:
    tar = made(SITE, product=replace(PRODUCT, name=f"{NAME}.tar"), contents=contents())
    packed = {"contents": dict(FILES), "product_digest": folder().product_digest}
    judgement = judged(file("3" * 64, size=7, name=f"{NAME}.zip", **packed), tar)
    assert (judgement.verdict, kinds(judgement)) == (Verdict.GENUINE, ["ContentOf"])
    same_name = judged(file("3" * 64, size=7, name=f"{NAME}.tar", **packed), tar)
    assert same_name.verdict is Verdict.TAMPERED
    assert kinds(same_name)[-1] == "ContentOf"


# ------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Party:
    return Party.in_folder(tmp_path_factory.mktemp("party"))


@pytest.fixture
def signed(tmp_path: Path, party: Party) -> Path:
    """A trace of P.SAFE.zip, and beside it the folder, the zip and a tar."""
    (tmp_path / "P.SAFE.zip").write_bytes(zipped(FILES_OF_P, folders=False))
    (tmp_path / "P.tar").write_bytes(tarred(FILES_OF_P))
    for path, data in FILES_OF_P.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    party.sign(tmp_path / "P.SAFE.zip", trace=tmp_path / "t.json", options=("--contents",))
    return tmp_path


FILES_OF_P = {path.replace(NAME, "P.SAFE"): data for path, data in FILES.items()}


def verdicts(party: Party, trace: Path, *files: Path, code: int) -> list[dict[str, Any]]:
    return lines(run("verify", "--json", "--trace", trace, "--anchors", party.ca, *files, code=code))


def test_every_packaging_of_a_signed_archive_is_genuine(party: Party, signed: Path) -> None:
    files = [signed / name for name in ("P.SAFE.zip", "P.SAFE", "P.tar")]
    assert [found["verdict"] for found in verdicts(party, signed / "t.json", *files, code=0)] == ["GENUINE"] * 3
    text = run("verify", signed / "P.SAFE", "--trace", signed / "t.json", "--anchors", party.ca, code=0).stdout
    assert "it is the content of P.SAFE.zip (in no Rucio)" in text
    assert "signed by: " in text


def test_a_changed_folder_and_a_changed_tar_are_found(party: Party, signed: Path) -> None:
    (signed / "P.SAFE" / "B01.jp2").write_bytes(b"0ne")
    (found,) = verdicts(party, signed / "t.json", signed / "P.SAFE", code=1)
    assert found["verdict"] == "TAMPERED"
    assert [fault["what"] for fault in found["faults"]] == ["B01.jp2"]
    (signed / "P.tar").write_bytes(tarred({**FILES_OF_P, "P.SAFE/B01.jp2": b"0ne"}))
    (found,) = verdicts(party, signed / "t.json", signed / "P.tar", code=3)
    assert found["verdict"] == "UNKNOWN"


def test_an_archive_repacked_under_its_name_is_tampered_and_its_content_told(party: Party, signed: Path) -> None:
    (signed / "P.SAFE.zip").write_bytes(zipped(FILES_OF_P, zipfile.ZIP_STORED, folders=False))
    (found,) = verdicts(party, signed / "t.json", signed / "P.SAFE.zip", code=1)
    assert found["verdict"] == "TAMPERED"
    assert "ContentOf" in [fault["kind"] for fault in found["faults"]]


def test_a_folder_that_holds_no_product_is_left_open(party: Party, signed: Path) -> None:
    (signed / "P.SAFE" / "link").symlink_to("B01.jp2")
    (found,) = verdicts(party, signed / "t.json", signed / "P.SAFE", code=3)
    assert found["verdict"] == "UNDECIDED"
    (signed / "empty").mkdir()
    (found,) = verdicts(party, signed / "t.json", signed / "empty", code=3)
    assert found["verdict"] == "UNDECIDED"


def test_a_folder_is_not_signed(party: Party, signed: Path) -> None:
    result = run("sign", signed / "P.SAFE", "--key", party.key, "--cert", party.certificate, code=3)
    assert "pack it" in result.stderr


def test_the_store_finds_a_folder_by_its_product_digest(party: Party, signed: Path) -> None:
    from rucio_trace.envelope import parse_traces
    from rucio_trace.store import Store

    url = f"sqlite:///{signed / 'traces.db'}"
    with Store.open(url) as store:
        store.register(parse_traces((signed / "t.json").read_bytes()), trust=None)
    config = signed / "config.toml"
    config.write_text(f'[store]\nurl = "{url}"\n')
    (signed / "P.SAFE").rename(signed / "my copy")
    options = ("--json", "--anchors", party.ca)
    (found,) = lines(run("verify", *options, signed / "my copy", config=config, code=0))
    assert found["verdict"] == "GENUINE"
    (found,) = lines(run("verify", *options, signed / "P.tar", config=config, code=0))
    assert found["verdict"] == "GENUINE"
    (signed / "my copy" / "B01.jp2").unlink()
    (signed / "my copy").rename(signed / "P")
    (found,) = lines(run("verify", *options, signed / "P", config=config, code=1))
    assert [fault["what"] for fault in found["faults"]] == ["B01.jp2"]
    (digest,) = lines(run("hash", "--product", "--json", signed / "P.tar", code=0))
    assert len(lines(run("search", "--json", "--digest", digest["product_digest"], config=config, code=0))) == 1
