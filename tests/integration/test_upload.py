"""`rucio-trace upload`: Rucio's own upload, from one reading, with the producer's trace before the bytes leave."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
from rucio_trace_policy import hooks
from rucio_trace_policy.database import GUARDED_JSON, PLUGIN
from rucio_trace_sandbox.pki import SandboxAuthority

from rucio_trace.digest import digest_file
from rucio_trace.envelope import parse_traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.rest import Rest
    from rucio_trace_sandbox.storage import Rse

    from rucio_trace.envelope import Trace

SETTINGS = """\
[instance]
name = "test-rucio"
[trust]
federation = "federation/federation.toml"
[producer]
site = "PRODUCER"
key = "federation/PRODUCER.key.pem"
certificate = "federation/PRODUCER.pem"
"""


class Place:
    """A Rucio with our plugin, a producer of its scope `test`, and a folder of files."""

    def __init__(self, rucio: EmbeddedRucio, rest: Rest, rse: Rse) -> None:
        self.rucio, self.rest, self.rse = rucio, rest, rse
        self.settings = rucio.folder / "rucio-trace.toml"
        self.files = rucio.folder / "files"
        self.files.mkdir()
        self.rest.home.configure({"client": {"auth_token_file_path": rucio.folder / "token"}})

    def file(self, name: str, content: bytes = b"the bytes of a product") -> Path:
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def command(self, *argv: object) -> list[str]:
        program = "import sys; from rucio_trace.cli import main; sys.argv[0] = 'rucio-trace'; main()"
        return [sys.executable, "-c", program, *map(str, argv)]

    def run(self, *argv: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.rest.home.run(*self.command(*argv), RUCIO_TRACE_CONFIG=str(self.settings))
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def upload(self, *paths: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("upload", "--rse", "DISK", "--scope", "test", *paths, code=code)

    def origin(self, name: str) -> Trace | None:
        text = self.rest.root.get_metadata("test", name, plugin="ALL").get("trace_origin")
        return None if text is None else parse_traces(text.encode())[0]

    def states(self, name: str) -> dict[str, str]:
        return self.rucio.replica_states(f"test:{name}")


@pytest.fixture
def place(rucio_sqlite: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    from rucio_trace_sandbox.rest import in_process

    rucio = rucio_sqlite
    hooks.install(rucio.engine)
    rucio.configure(metadata={"plugins": f"{PLUGIN},{GUARDED_JSON}"})
    SandboxAuthority(rucio.folder / "federation").admit("PRODUCER", rses=(), create=("test",))
    (rucio.folder / "rucio-trace.toml").write_text(SETTINGS)
    monkeypatch.setenv("RUCIO_TRACE_CONFIG", str(rucio.folder / "rucio-trace.toml"))
    rse = rucio.add_posix_rse("DISK")
    with in_process(rucio.folder / "rest") as rest:
        yield Place(rucio, rest, rse)


def test_a_file_arrives_with_the_word_of_its_producer(place: Place) -> None:
    path = place.file("product.dat", os.urandom(100_000))
    done = place.upload(path, "--input", "raw.dat:" + 64 * "a", "--dataset", "test:set")
    assert "uploaded and traced" in done.stderr
    assert place.rucio.pfn_path(place.rse, "product.dat").read_bytes() == path.read_bytes()
    assert place.states("product.dat") == {"DISK": "A"}
    origin = place.origin("product.dat")
    assert origin is not None
    s = origin.statement
    assert (s.event, s.name, s.size, s.site, s.rse, s.did) == ("CREATE", "product.dat", 100_000, "PRODUCER", None, None)
    assert s.digests == digest_file(path, ["BLAKE3", "ADLER32", "MD5"]).hashes
    assert [(i.name, i.hash) for i in s.inputs or ()] == [("raw.dat", 64 * "a")]
    row = place.rest.root.get_metadata("test", "product.dat")
    assert (row["adler32"], row["md5"], row["bytes"]) == (s.digests["ADLER32"], s.digests["MD5"], 100_000)
    assert [f["name"] for f in place.rest.root.list_files("test", "set")] == ["product.dat"]


def test_the_file_is_read_once_for_all_digests(place: Place) -> None:
    """Counted by the kernel: one reading for the digests, one for the copy; the stock client needs three in all."""
    size = 64 << 20
    path = place.file("large.dat", os.urandom(1 << 20) * 64)
    # Where the RSE checks no checksum, storage does not read the copy either.
    place.rucio.set_attribute(place.rse, "skip_upload_stat", True)
    code = """
import sys
from pathlib import Path
from rucio_trace.cli import cli
def read():
    return int(dict(l.split(": ") for l in Path("/proc/self/io").read_text().splitlines())["rchar"])
before = read()
cli.main(sys.argv[1:], standalone_mode=False)
print(read() - before)
"""
    done = place.rest.home.run_python(
        code, "upload", "--rse", "DISK", "--scope", "test", str(path), RUCIO_TRACE_CONFIG=str(place.settings)
    )
    assert 2 * size <= int(done.split()[-1]) < 2.8 * size


def test_members_of_an_archive_are_signed_in_the_same_reading(place: Place) -> None:
    path = place.files / "product.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "first")
        archive.writestr("b.txt", "second")
    place.upload(path)
    origin = place.origin("product.zip")
    assert origin is not None
    assert [c.path for c in origin.statement.contents or ()] == ["a.txt", "b.txt"]


def test_a_folder_becomes_a_dataset_and_each_file_has_its_trace(place: Place) -> None:
    for name in ("one.dat", "two.dat"):
        place.file(f"campaign/{name}", name.encode())
    place.upload("-r", place.files / "campaign")
    assert {f["name"] for f in place.rest.root.list_files("test", "campaign")} == {"one.dat", "two.dat"}
    assert all(place.origin(name) is not None for name in ("one.dat", "two.dat"))


def test_a_file_registered_after_its_upload_has_its_origin_before_it_is_available(place: Place) -> None:
    path = place.file("late.dat")
    place.upload("--register-after-upload", path)
    assert place.states("late.dat") == {"DISK": "A"}
    assert place.origin("late.dat") is not None
    with place.rucio.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT old_state, new_state FROM traceability_outbox ORDER BY id").all()
    assert [tuple(row) for row in rows] == [(None, "C"), ("C", "A")]


def test_a_server_without_our_plugin_gets_nothing(place: Place) -> None:
    place.rucio.configure(metadata={"plugins": "rucio.core.did_meta_plugins.json_meta.JSONDidMeta"})
    done = place.upload(place.file("product.dat"), code=3)
    assert "metadata plugin of rucio-trace" in done.stderr
    assert not place.rucio.pfn_path(place.rse, "product.dat").exists()
    assert place.states("product.dat") == {}


def test_a_producer_without_the_right_sends_nothing(place: Place) -> None:
    place.rest.root.add_scope("root", "other")
    path = place.file("product.dat")
    done = place.run("upload", "--rse", "DISK", "--scope", "other", path, code=3)
    assert "the right to CREATE in scope other" in done.stderr
    assert not place.rucio.pfn_path(place.rse, "product.dat", "other").exists()


def test_other_bytes_under_a_known_name_are_refused(place: Place) -> None:
    place.upload(place.file("product.dat", b"first"))
    done = place.upload(place.file("product.dat", b"other"), code=3)
    assert "these bytes need another name" in done.stderr
    origin = place.origin("product.dat")
    assert origin is not None
    assert origin.statement.digests["MD5"] == hashlib.md5(b"first", usedforsecurity=False).hexdigest()


def test_the_same_again_changes_nothing(place: Place) -> None:
    path = place.file("product.dat")
    place.upload(path)
    first = place.origin("product.dat")
    place.upload(path)
    again = place.origin("product.dat")
    assert first is not None
    assert again is not None
    assert first.id == again.id


def test_a_product_is_not_its_own_input(place: Place) -> None:
    path = place.file("product.dat")
    digest = digest_file(path, ["BLAKE3"]).hashes["BLAKE3"]
    done = place.upload(path, "--input", f"me:{digest}", code=3)
    assert "another product" in done.stderr
    assert place.states("product.dat") == {}


def test_a_file_that_changes_before_it_is_sent_is_not_sent_as_what_was_signed(place: Place) -> None:
    path = place.file("product.dat", b"as it was signed")
    changing = """
import sys
from pathlib import Path
from rucio_trace.producer.upload import TracingUploadClient as Client
from rucio_trace.cli import cli
inherited = Client._set_origin
def change(self, file):
    inherited(self, file)
    Path(file["path"]).write_bytes(b"as it is now....")
Client._set_origin = change
cli.main(sys.argv[1:])
"""
    done = place.rest.home.run(
        *(sys.executable, "-c", changing, "upload", "--rse", "DISK", "--scope", "test", str(path)),
        RUCIO_TRACE_CONFIG=str(place.settings),
    )
    assert done.returncode == 3
    assert place.states("product.dat") == {"DISK": "C"}
    assert not place.rucio.pfn_path(place.rse, "product.dat").exists()


def test_the_summary_is_that_of_rucio(place: Place) -> None:
    path = place.file("product.dat")
    done = subprocess.run(
        place.command("upload", "--rse", "DISK", "--scope", "test", "--summary", path),
        env=place.rest.home.environment(RUCIO_TRACE_CONFIG=str(place.settings)),
        cwd=place.files,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((place.files / "rucio_upload.json").read_text())["test:product.dat"]
    assert summary["adler32"] == f"{zlib.adler32(path.read_bytes()):08x}"
