"""Replicas proven by the storage's own digest, and what is read all the same."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from recorder_kit import Kit
from rucio_trace_sandbox.faulty import FaultyHttp, Request
from rucio_trace_sandbox.s3 import ACCESS_KEY, SECRET_KEY
from rucio_trace_sandbox.storage import webdav_protocol
from rucio_trace_sandbox.xrootd import XRootD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.s3 import Moto
    from rucio_trace_sandbox.storage import Rse
    from rucio_trace_sandbox.tls import LoopbackTls
    from rucio_trace_sandbox.webdav import Nginx

CONTENT = os.urandom(100_000)
SHA256 = hashlib.sha256(CONTENT)


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio_sqlite)
    yield kit
    kit.close()


@pytest.fixture
def web(trusted: LoopbackTls, tls: LoopbackTls) -> Iterator[FaultyHttp]:
    with FaultyHttp.start(tls) as server:
        server.content = CONTENT
        yield server


def says(digest: bytes, **headers: str) -> Callable[[Request], None]:
    value = f"sha-256=:{base64.b64encode(digest).decode()}:"
    return lambda request: request.serve(Repr_Digest=value, **headers)


def copied(kit: Kit, web: FaultyHttp, first: str = "storage", **attributes: Any) -> Rse:
    """A product with an origin on HERE, copied to WEB."""
    here = kit.rucio.add_posix_rse("HERE", trace_method=first)
    settings = {"trace_method": "storage", "trace_digest_fresh": True, "trace_spot_check": "0"} | attributes
    protocol = webdav_protocol(web.port, "files", scheme="https")
    folder = kit.folder / "web"
    folder.mkdir()
    rse = kit.rucio.add_rse("WEB", protocol, folder=folder, **settings)
    kit.rucio.upload(here, "file", CONTENT)
    kit.run()
    assert kit.events() == [("CREATE", "HERE")]
    kit.copy(here, rse, "file")
    kit.run()
    return rse


def asked(web: FaultyHttp) -> list[str]:
    return [method for method, _, _ in web.seen]


def test_a_fresh_strong_digest_is_proof(kit: Kit, web: FaultyHttp) -> None:
    web.answers.append(says(SHA256.digest()))
    rse = copied(kit, web)
    assert asked(web) == ["HEAD"]
    origin, copy = (stored.trace.statement for stored in kit.traces())
    assert (copy.event, copy.method, copy.hash) == ("COPY", "storage", origin.hash)
    assert copy.hashes == {"SHA256": SHA256.hexdigest()}
    assert copy.observed is not None
    assert kit.replicas("file")["WEB"] == "proven"
    web.answers.append(says(SHA256.digest()))
    kit.set_state(rse, "file", "D")
    kit.run()
    assert asked(web) == ["HEAD", "HEAD"]
    assert kit.traces()[-1].trace.statement.method == "storage"
    assert kit.events()[-1] == ("VERIFY", "WEB")


def test_the_older_header_is_understood_too(kit: Kit, web: FaultyHttp) -> None:
    value = f"adler32=00000000,SHA-256={base64.b64encode(SHA256.digest()).decode()}"
    web.answers.append(lambda request: request.serve(Digest=value))
    copied(kit, web)
    assert asked(web) == ["HEAD"]
    assert kit.traces()[-1].trace.statement.hashes == {"SHA256": SHA256.hexdigest()}


def test_a_digest_that_differs_condemns_nothing_by_itself(kit: Kit, web: FaultyHttp) -> None:
    web.answers.append(says(bytes(32)))
    copied(kit, web)
    assert asked(web) == ["HEAD", "GET"]
    assert kit.events()[1:] == [("COPY", "WEB")]
    assert kit.traces()[-1].trace.statement.method == "read"


def test_bytes_that_differ_are_read_before_it_is_said(kit: Kit, web: FaultyHttp) -> None:
    web.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    web.answers.append(says(hashlib.sha256(web.content).digest()))
    copied(kit, web)
    assert asked(web) == ["HEAD", "GET", "GET"]
    corrupt = kit.traces()[-1].trace.statement
    assert (corrupt.event, corrupt.method) == ("CORRUPT", "read")


@pytest.mark.parametrize("share", ["1.0", "nan", "a lot"])
def test_a_storage_that_lies_is_found_by_a_spot_check(kit: Kit, web: FaultyHttp, share: str) -> None:
    web.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    copied(kit, web, trace_spot_check=share)
    assert asked(web) == ["GET", "GET"]
    assert kit.events()[-1] == ("CORRUPT", "WEB")


@pytest.mark.parametrize(
    "answer",
    [
        says(SHA256.digest(), Age="1"),
        says(SHA256.digest(), Content_Encoding="gzip"),
        lambda request: request.serve(Repr_Digest="adler=:AAAAAA==:, sha-256=nonsense, sha-256=:!:"),
        lambda request: request.serve(Digest="adler32=00000000, sha-256=!"),
        lambda request: request.fail(405),
        lambda request: request.fail(403),
        lambda request: request.fail(404),
        lambda request: request.hang_up(),
    ],
    ids=["old", "encoded", "nonsense", "weak", "no HEAD", "refused", "not found", "gone"],
)
def test_what_is_no_proof_is_read(kit: Kit, web: FaultyHttp, answer: Callable[[Request], None]) -> None:
    web.answers.append(answer)
    copied(kit, web)
    assert asked(web) == ["HEAD", "GET"]
    assert kit.traces()[-1].trace.statement.method == "read"


@pytest.mark.parametrize("lacking", [{"first": "read"}, {"trace_digest_fresh": False}])
def test_nothing_is_asked_that_could_prove_nothing(kit: Kit, web: FaultyHttp, lacking: dict[str, Any]) -> None:
    copied(kit, web, **lacking)
    assert asked(web) == ["GET"]
    assert kit.traces()[-1].trace.statement.method == "read"


def test_refused_credentials_wait(kit: Kit, web: FaultyHttp) -> None:
    web.answers += [lambda request: request.fail(403)] * 2
    copied(kit, web)
    assert kit.events() == [("CREATE", "HERE")]
    assert "refuse" in kit.outbox[-1].last_error


# ------------------------------------------------------------------------------------- real servers

# What a site has that wants more of XRootD than weak checksums: a program that reads the file for each question.
PROGRAM = """\
#!/bin/sh
echo asked >> {folder}/asked
sha256sum "{folder}/server/data$1"
"""


@pytest.fixture(scope="module")
def strong_xrootd(sandbox_folder: Path) -> Iterator[XRootD]:
    folder = sandbox_folder / "xrd-strong"
    folder.mkdir()
    program, asked = folder / "program", folder / "asked"
    program.write_text(PROGRAM.format(folder=folder))
    program.chmod(0o755)
    asked.touch()
    asked.chmod(0o666)
    with XRootD.start(folder / "server", "strong", checksums=f"sha256 {program}") as server:
        yield server


def copied_to(kit: Kit, rse: Rse) -> Path | None:
    here = kit.rucio.add_posix_rse("HERE", trace_method="storage")
    kit.rucio.upload(here, "file", CONTENT)
    kit.run()
    path = kit.copy(here, rse, "file")
    kit.run()
    return path


FRESH = {"trace_method": "storage", "trace_digest_fresh": True, "trace_spot_check": "0"}


def test_xrootd_answers_by_a_program(kit: Kit, strong_xrootd: XRootD) -> None:
    rse = kit.rucio.add_xrootd_rse("XRD", strong_xrootd, prefix=kit.rucio.folder.name, **FRESH)
    path = copied_to(kit, rse)
    copy = kit.traces()[-1].trace.statement
    assert (copy.event, copy.method, copy.hashes) == ("COPY", "storage", {"SHA256": SHA256.hexdigest()})
    assert (strong_xrootd.data.parent.parent / "asked").read_text() == "asked\n"  # not once for each name we know
    assert path is not None
    before = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    kit.set_state(rse, "file", "D")
    kit.run()
    found = kit.traces()[-1].trace.statement
    assert (found.event, found.method) == ("CORRUPT", "read")


@pytest.mark.parametrize("kind", ["root", "https", "nginx"])
def test_servers_without_a_strong_digest_are_read(
    kit: Kit, kind: str, trusted: LoopbackTls, request: pytest.FixtureRequest
) -> None:
    prefix = kit.rucio.folder.name
    match kind:
        case "root":
            rse = kit.rucio.add_xrootd_rse("RSE", request.getfixturevalue("xrootd"), prefix=prefix, **FRESH)
        case "https":
            xrootd: XRootD = request.getfixturevalue("xrootd_https")
            protocol = webdav_protocol(xrootd.https_port or 0, prefix, scheme="https")
            rse = kit.rucio.add_rse("RSE", protocol, folder=xrootd.make_folder(prefix), **FRESH)
        case _:
            nginx: Nginx = request.getfixturevalue("nginx")
            protocol = webdav_protocol(nginx.port, prefix)
            rse = kit.rucio.add_rse("RSE", protocol, folder=nginx.make_folder(prefix), **FRESH)
    copied_to(kit, rse)
    copy = kit.traces()[-1].trace.statement
    assert (copy.event, copy.rse, copy.method) == ("COPY", "RSE", "read")


@pytest.mark.parametrize("parts", [1, 2])
def test_checksums_that_s3_stored_at_the_upload_prove_nothing(
    kit: Kit, moto: Moto, parts: int, trusted: LoopbackTls
) -> None:
    """Neither one of the whole object nor a composite one of its parts; least of all an ETag."""
    bucket, content = kit.rucio.folder.name, CONTENT
    moto.client.create_bucket(Bucket=bucket)
    protocol = webdav_protocol(moto.port, f"{bucket}/files", scheme="s3s", impl="rucio.rse.protocols.gfal.NoRename")
    rse = kit.rucio.add_rse("S3", protocol, **FRESH)
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "region": "us-east-1"}
    (kit.rucio.home.folder / "etc" / "rse-accounts.cfg").write_text(json.dumps({rse.id: keys}))
    here = kit.rucio.add_posix_rse("HERE", trace_method="storage")
    kit.rucio.upload(here, "file", content)
    place = hashlib.md5(b"test:file", usedforsecurity=False).hexdigest()
    where = {"Bucket": bucket, "Key": f"files/test/{place[:2]}/{place[2:4]}/file"}
    if parts == 1:
        moto.client.put_object(**where, Body=content, ChecksumAlgorithm="SHA256")
    else:
        upload = moto.client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
        part = moto.client.upload_part(**where, UploadId=upload, PartNumber=1, Body=content, ChecksumAlgorithm="SHA256")
        known = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]
        moto.client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": known})
    kit.run()
    kit.copy(here, rse, "file")
    kit.run()
    copy = kit.traces()[-1].trace.statement
    assert (copy.event, copy.rse, copy.method) == ("COPY", "S3", "read")
