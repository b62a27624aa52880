"""RSEs of every kind, from Rucio's own settings to a signed trace."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import zlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from recorder_kit import Kit
from rucio_trace_daemons.readers.gfal import GfalReader
from rucio_trace_daemons.readers.sftp import SftpReader
from rucio_trace_daemons.rses import Rses
from rucio_trace_daemons.staging import Staging
from rucio_trace_daemons.storage import Replica, Storage
from rucio_trace_daemons.storage_errors import Changed, NotFound, PrefixMissing, Refused, Unavailable
from rucio_trace_sandbox.faulty import FaultyHttp
from rucio_trace_sandbox.s3 import ACCESS_KEY, SECRET_KEY
from rucio_trace_sandbox.storage import ssh_protocol, webdav_protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.faulty import Request
    from rucio_trace_sandbox.s3 import Moto
    from rucio_trace_sandbox.sftp import Sshd
    from rucio_trace_sandbox.storage import Rse
    from rucio_trace_sandbox.tls import LoopbackTls
    from rucio_trace_sandbox.webdav import Nginx
    from rucio_trace_sandbox.xrootd import XRootD

CONTENT = os.urandom(2_500_000)
WHAT = "test:file on RSE"
KINDS = ["nginx", "xrootd-https", "s3", "s3-signed", "sftp", "scp"]


@pytest.fixture
def known_ssh(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    monkeypatch.setenv("PATH", f"{sshd.programs}{os.pathsep}{os.environ['PATH']}")
    return sshd


@pytest.fixture
def storage(folder: Path) -> Storage:
    return Storage(Staging(folder, 0), lambda _seconds: False)


def make_rse(kind: str, rucio: EmbeddedRucio, request: pytest.FixtureRequest) -> Rse:
    """An RSE as a site sets it up in Rucio."""
    prefix = rucio.folder.name
    match kind:
        case "nginx":
            nginx: Nginx = request.getfixturevalue("nginx")
            return rucio.add_rse("RSE", webdav_protocol(nginx.port, prefix), folder=nginx.make_folder(prefix))
        case "xrootd-https":
            xrootd: XRootD = request.getfixturevalue("xrootd_https")
            protocol = webdav_protocol(xrootd.https_port or 0, prefix, scheme="https")
            return rucio.add_rse("RSE", protocol, folder=xrootd.make_folder(prefix))
        case "s3" | "s3-signed":
            moto: Moto = request.getfixturevalue("moto")
            moto.client.create_bucket(Bucket=prefix)
            signed = kind == "s3-signed"
            more = {"scheme": "https"} if signed else {"scheme": "s3s", "impl": "rucio.rse.protocols.gfal.NoRename"}
            attributes = {"sign_url": "s3"} if signed else {}
            rse = rucio.add_rse("RSE", webdav_protocol(moto.port, f"{prefix}/files", **more), **attributes)
            keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "signature_version": "s3v4"}
            accounts = {rse.id: {**keys, "region": "us-east-1"}}
            (rucio.home.folder / "etc" / "rse-accounts.cfg").write_text(json.dumps(accounts))
            return rse
        case _:
            sshd: Sshd = request.getfixturevalue("known_ssh")
            folder = sshd.data / prefix
            folder.mkdir()
            return rucio.add_rse("RSE", ssh_protocol(sshd.port, folder, sshd.user, kind), folder=folder)


def upload(
    kind: str, rucio: EmbeddedRucio, rse: Rse, name: str, content: bytes, request: pytest.FixtureRequest
) -> None:
    if rse.folder is not None:
        rucio.upload(rse, name, content)
        return
    from rucio.core.replica import add_replicas

    digest = hashlib.md5(f"test:{name}".encode(), usedforsecurity=False).hexdigest()
    key = f"files/test/{digest[:2]}/{digest[2:4]}/{name}"
    client = request.getfixturevalue("moto").client
    client.put_object(Bucket=rucio.folder.name, Key=key, Body=content)
    file = {"scope": rucio.scope, "name": name, "bytes": len(content), "adler32": f"{zlib.adler32(content):08x}"}
    with rucio.session() as session:
        add_replicas(rse.id, [file], rucio.root, session=session)


def replica(rucio: EmbeddedRucio, rse: Rse, name: str = "file") -> Replica:
    [facts] = Rses(rucio.engine).get({rse.id}).values()
    return Replica(facts, "test", name)


def read(storage: Storage, of: Replica) -> bytes:
    with storage.open(of) as pieces:
        return b"".join(pieces)


# ------------------------------------------------------------------------------------- every kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorder_streams_from_it_and_signs(
    kind: str, rucio_sqlite: EmbeddedRucio, trusted: LoopbackTls, request: pytest.FixtureRequest
) -> None:
    kit = Kit(rucio_sqlite)
    rse = make_rse(kind, rucio_sqlite, request)
    upload(kind, rucio_sqlite, rse, "file", CONTENT, request)
    upload(kind, rucio_sqlite, rse, "empty", b"", request)
    kit.run()
    try:
        assert [row.last_error for row in kit.outbox] == []
        assert kit.events() == [("CREATE", "RSE")] * 2
        statement = kit.traces("file")[0].trace.statement
        assert statement.method == "read"
        assert statement.hashes["ADLER32"] == f"{zlib.adler32(CONTENT):08x}"
    finally:
        kit.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_told_from_a_storage_that_is_away(
    kind: str, rucio_sqlite: EmbeddedRucio, storage: Storage, trusted: LoopbackTls, request: pytest.FixtureRequest
) -> None:
    rse = make_rse(kind, rucio_sqlite, request)
    upload(kind, rucio_sqlite, rse, "file", CONTENT, request)
    there, missing = replica(rucio_sqlite, rse), replica(rucio_sqlite, rse, "missing")
    assert storage.exists(there)
    assert not storage.exists(missing)
    with pytest.raises(NotFound):
        read(storage, missing)
    assert storage.check_prefix(there.rse)
    if rse.folder is not None:
        rse.folder.rename(rse.folder.with_name(f"{rse.folder.name}.away"))
    else:
        bucket = request.getfixturevalue("moto").client
        for found in bucket.list_objects_v2(Bucket=rucio_sqlite.folder.name)["Contents"]:
            bucket.delete_object(Bucket=rucio_sqlite.folder.name, Key=found["Key"])
        bucket.delete_bucket(Bucket=rucio_sqlite.folder.name)
    with pytest.raises(PrefixMissing):
        storage.check_prefix(there.rse)


# --------------------------------------------------------------------------------------- S3, tokens


def test_without_keys_for_it_an_s3_rse_waits(
    rucio_sqlite: EmbeddedRucio, storage: Storage, trusted: LoopbackTls, request: pytest.FixtureRequest
) -> None:
    rse = make_rse("s3", rucio_sqlite, request)
    (rucio_sqlite.home.folder / "etc" / "rse-accounts.cfg").unlink()
    with pytest.raises(Refused):
        read(storage, replica(rucio_sqlite, rse))


def test_keys_that_cannot_sign_for_the_hosts_style_are_said_to_be_wrong(
    rucio_sqlite: EmbeddedRucio, storage: Storage, trusted: LoopbackTls, request: pytest.FixtureRequest
) -> None:
    from rucio.core.rse import add_rse_attribute

    rse = make_rse("s3", rucio_sqlite, request)
    accounts = rucio_sqlite.home.folder / "etc" / "rse-accounts.cfg"
    accounts.write_text(accounts.read_text().replace("s3v4", "s3"))
    with rucio_sqlite.session() as session:
        add_rse_attribute(rse.id, "s3_url_style", "host", session=session)
    with pytest.raises(Unavailable, match="use s3v4"):
        read(storage, replica(rucio_sqlite, rse))


def test_an_object_with_a_content_encoding_is_hashed_as_it_is_stored(
    rucio_sqlite: EmbeddedRucio, storage: Storage, trusted: LoopbackTls, request: pytest.FixtureRequest
) -> None:
    rse = make_rse("s3", rucio_sqlite, request)
    upload("s3", rucio_sqlite, rse, "file", b"", request)
    client, bucket = request.getfixturevalue("moto").client, rucio_sqlite.folder.name
    [found] = client.list_objects_v2(Bucket=bucket)["Contents"]
    client.put_object(Bucket=bucket, Key=found["Key"], Body=CONTENT, ContentEncoding="gzip")
    assert read(storage, replica(rucio_sqlite, rse)) == CONTENT


def test_a_file_that_appears_only_after_a_while_is_signed_then(
    rucio_sqlite: EmbeddedRucio, trusted: LoopbackTls, tls: LoopbackTls
) -> None:
    """What S3 was for years: a file that is surely there is not found, and later it is."""
    kit = Kit(rucio_sqlite)
    with FaultyHttp.start(tls) as server:
        server.content = CONTENT
        rse = rucio_sqlite.add_rse("RSE", webdav_protocol(server.port, "data"))
        register(rucio_sqlite, rse)
        server.answers = [lambda request: request.fail(404)] * 9
        kit.run()
        [row] = kit.outbox
        assert row.attempts == 1
        assert kit.events() == []
        server.answers = []
        kit.make_due()
        kit.run()
        assert kit.events() == [("CREATE", "RSE")]
    kit.close()


def test_an_object_that_s3_shows_only_after_a_while_is_signed_then(
    rucio_sqlite: EmbeddedRucio, trusted: LoopbackTls, request: pytest.FixtureRequest
) -> None:
    kit = Kit(rucio_sqlite)
    rse = make_rse("s3", rucio_sqlite, request)
    upload("s3", rucio_sqlite, rse, "file", CONTENT, request)
    client, bucket = request.getfixturevalue("moto").client, rucio_sqlite.folder.name
    [found] = client.list_objects_v2(Bucket=bucket)["Contents"]
    client.delete_object(Bucket=bucket, Key=found["Key"])
    kit.run()
    assert [row.attempts for row in kit.outbox] == [1]
    client.put_object(Bucket=bucket, Key=found["Key"], Body=CONTENT)
    kit.make_due()
    kit.run()
    assert kit.events() == [("CREATE", "RSE")]
    kit.close()


def test_a_file_that_is_there_when_it_is_looked_for_is_never_lost(
    rucio_sqlite: EmbeddedRucio, trusted: LoopbackTls, tls: LoopbackTls
) -> None:
    """Pools that have forgotten their files, below a name space that has not."""
    kit = Kit(rucio_sqlite)
    with FaultyHttp.start(tls) as server:
        rse = rucio_sqlite.add_rse("RSE", webdav_protocol(server.port, "data"))
        register(rucio_sqlite, rse, "file", "another")

        def forgotten(request: Request) -> None:
            request.fail(404) if request.command == "GET" else request.serve()

        server.answers = [forgotten] * 100
        for _ in range(2):
            kit.make_due()
            kit.run(lost_after=timedelta(0))
        assert kit.events() == []
        assert {row.missing_since for row in kit.outbox} == {None}
        assert "says that it is there" in kit.outbox[0].last_error
    kit.close()


def test_a_storage_for_which_rucio_cannot_sign_waits_and_stops_nobody_else(
    rucio_sqlite: EmbeddedRucio, trusted: LoopbackTls
) -> None:
    kit = Kit(rucio_sqlite)
    here = rucio_sqlite.add_posix_rse("HERE")
    rse = rucio_sqlite.add_rse("SWIFT", webdav_protocol(9, "data", scheme="https"), sign_url="swift")
    register(rucio_sqlite, rse)
    rucio_sqlite.upload(here, "another", CONTENT)
    kit.run()
    assert kit.events() == [("CREATE", "HERE")]
    [row] = kit.outbox
    assert row.last_error
    assert row.missing_since is None
    kit.close()


@pytest.mark.parametrize("kind", ["s3", "s3-signed", "sftp", "nginx"])
def test_no_path_and_no_signature_reaches_a_log_whose_level_is_debug(
    kind: str,
    rucio_sqlite: EmbeddedRucio,
    storage: Storage,
    trusted: LoopbackTls,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rse = make_rse(kind, rucio_sqlite, request)
    upload(kind, rucio_sqlite, rse, "file", CONTENT, request)
    what = replica(rucio_sqlite, rse)
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    assert read(storage, what) == CONTENT
    assert storage.exists(what)
    path = hashlib.md5(b"test:file", usedforsecurity=False).hexdigest()[:2] + "/"
    assert not [r.message for r in caplog.records if f"test/{path}" in r.message or "ignature" in r.message]


def register(rucio: EmbeddedRucio, rse: Rse, *names: str) -> None:
    from rucio.core.replica import add_replicas

    known = {"scope": rucio.scope, "bytes": len(CONTENT), "adler32": f"{zlib.adler32(CONTENT):08x}"}
    with rucio.session() as session:
        add_replicas(rse.id, [known | {"name": name} for name in names or ["file"]], rucio.root, session=session)


def test_a_token_that_ends_while_we_read_keeps_the_row_waiting_and_the_next_try_has_a_new_one(
    rucio_sqlite: EmbeddedRucio, trusted: LoopbackTls, tls: LoopbackTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rucio asks an issuer on the network, or its cache; all beyond that question is real.
    monkeypatch.setattr(
        "rucio.core.oidc.request_token", lambda *_arguments, use_cache: "first" if use_cache else "second"
    )
    kit = Kit(rucio_sqlite)
    with FaultyHttp.start(tls) as server:
        server.content = CONTENT
        rse = rucio_sqlite.add_rse("RSE", webdav_protocol(server.port, "data"), oidc_support=True)
        register(rucio_sqlite, rse)
        server.answers = [lambda request: request.serve(cut=1_000_000), lambda request: request.fail(401)]
        worker = kit.recorder().worker()
        worker.step()
        [row] = kit.outbox
        assert row.missing_since is None
        assert "refuses our credentials" in row.last_error
        kit.make_due()
        worker.step()
        assert kit.events() == [("CREATE", "RSE")]
        sent = [headers["Authorization"] for _, _, headers in server.seen]
        assert sent == ["Bearer first", "Bearer first", "Bearer second"]
        assert "first" not in row.last_error + kit.traces()[0].trace.message
    kit.close()


def test_urls_that_rucio_signs_are_signed_for_each_request(
    rucio_sqlite: EmbeddedRucio,
    storage: Storage,
    trusted: LoopbackTls,
    tls: LoopbackTls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rucio.rse import rsemanager

    # Rucio signs for Google with an account of theirs, and for Swift without the port; the rest is real.
    monkeypatch.setattr(rsemanager, "__get_signed_url", lambda *arguments: f"{arguments[3]}?signed-{arguments[1]}")
    with FaultyHttp.start(tls) as server:
        server.content = CONTENT
        rse = rucio_sqlite.add_rse("RSE", webdav_protocol(server.port, "data", scheme="https"), sign_url="swift")
        server.answers = [lambda request: request.serve(cut=1_000_000)]
        assert read(storage, replica(rucio_sqlite, rse)) == CONTENT
        assert [path.rpartition("?")[2] for _, path, _ in server.seen] == ["signed-swift"] * 2


# --------------------------------------------------------------------------------------------- SSH


def sftp_url(sshd: Sshd, name: str) -> str:
    return f"sftp://{sshd.user}@127.0.0.1:{sshd.port}{sshd.data}/{name}"


@pytest.mark.parametrize("size", [1, 16 << 20, 20_000_001])
def test_a_file_behind_ssh_is_read_whole(known_ssh: Sshd, size: int) -> None:
    content = os.urandom(size)
    (known_ssh.data / "what?#%20").write_bytes(content)
    with SftpReader(None).pieces(WHAT, sftp_url(known_ssh, "what?#%20")) as pieces:
        assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
def test_a_file_behind_ssh_that_is_written_while_it_is_read_is_no_file(known_ssh: Sshd, change: str) -> None:
    path = known_ssh.data / change
    path.write_bytes(bytes(40 << 20))

    def read_on() -> None:
        with SftpReader(None).pieces(WHAT, sftp_url(known_ssh, change)) as pieces:
            next(pieces)
            match change:
                case "grow":
                    with path.open("ab") as file:
                        file.write(b"more")
                case "shrink":
                    os.truncate(path, 20 << 20)
                case _:
                    os.utime(path, (1, 1))
            list(pieces)

    with pytest.raises((Changed, Unavailable)):
        read_on()


def test_a_host_that_is_not_the_known_one_is_not_read_from(known_ssh: Sshd) -> None:
    (known_ssh.data / "file").write_bytes(CONTENT)
    known = known_ssh.known_hosts.read_text()
    other = (known_ssh.folder / "user.pub").read_text()
    known_ssh.known_hosts.write_text(f"[127.0.0.1]:{known_ssh.port} {other}")
    try:
        with pytest.raises(Refused), SftpReader(None).pieces(WHAT, sftp_url(known_ssh, "file")) as pieces:
            list(pieces)
    finally:
        known_ssh.known_hosts.write_text(known)


def test_an_account_that_may_not_log_in_is_refused(known_ssh: Sshd) -> None:
    with pytest.raises(Refused):
        SftpReader("no-such-account").exists(WHAT, f"sftp://127.0.0.1:{known_ssh.port}/etc/passwd")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # paramiko's thread that asks
def test_a_connection_that_dies_is_no_end_of_the_file(known_ssh: Sshd) -> None:
    (known_ssh.data / "long").write_bytes(bytes(64 << 20))
    reader = SftpReader(None)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    before = set(children.read_text().split())

    def read_on() -> None:
        with reader.pieces(WHAT, sftp_url(known_ssh, "long")) as pieces:
            next(pieces)
            [client] = set(children.read_text().split()) - before
            os.kill(int(client), 9)
            list(pieces)

    with pytest.raises(Unavailable):
        read_on()


def test_an_ssh_server_that_is_down_is_unavailable(known_ssh: Sshd) -> None:
    with pytest.raises(Unavailable):
        SftpReader(None).exists(WHAT, "sftp://127.0.0.1:1/file")


# -------------------------------------------------------------------------------------------- gfal


@pytest.fixture
def gfal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GfalReader]:
    """Debian's module for this interpreter, alone on the path."""
    debian = Path("/usr/lib/python3/dist-packages/gfal2.cpython-311-x86_64-linux-gnu.so")
    if not debian.exists() or sys.version_info[:2] != (3, 11):
        pytest.skip("Debian's python3-gfal2 for this Python is not here")
    (folder / debian.name).symlink_to(debian)
    monkeypatch.syspath_prepend(str(folder))
    return GfalReader()


def test_gfal_streams_and_tells_what_is_missing(gfal: GfalReader, xrootd: XRootD) -> None:
    content = os.urandom(9_000_001)
    (xrootd.make_folder("gfal") / "file").write_bytes(content)
    url = f"{xrootd.url}/gfal"
    with gfal.pieces(WHAT, f"{url}/file") as pieces:
        assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(content).digest()
    assert gfal.exists(WHAT, f"{url}/file")
    assert not gfal.exists(WHAT, f"{url}/missing")
    assert gfal.check_folder(WHAT, url)
    with pytest.raises(NotFound), gfal.pieces(WHAT, f"{url}/missing"):
        pass
    with pytest.raises(NotFound):
        gfal.check_folder(WHAT, f"{url}/missing")


def test_what_has_no_reader_is_left_to_rucio(rucio_sqlite: EmbeddedRucio) -> None:
    from rucio.rse import rsemanager
    from rucio_trace_daemons.readers import reader_for

    rse = rucio_sqlite.add_rse("RSE", webdav_protocol(1, "p", scheme="globus", impl="rucio.rse.protocols.mock.Default"))
    [facts] = Rses(rucio_sqlite.engine).get({rse.id}).values()
    assert reader_for(rsemanager.create_protocol(facts.info(), "read"), facts) is None
