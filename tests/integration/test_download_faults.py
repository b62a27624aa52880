"""Downloads where something is out of the ordinary: a lying server, other storage, an end in the middle.

What a plain download does is in `test_download`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING

import pytest
from rucio_trace_sandbox.pki import SandboxAuthority
from test_upload import Place, place

from rucio_trace.envelope import sign
from rucio_trace.store import Store
from rucio_trace.trace import Event, format_time, new_event_id

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace_sandbox.pki import Member
    from rucio_trace_sandbox.xrootd import XRootD

__all__ = ["place"]

PLUGGED = """
import sys
{code}
from rucio_trace.cli import cli
cli.main(sys.argv[1:])
"""


@pytest.fixture
def got(place: Place) -> Path:
    """An empty folder to download to."""
    folder = place.rucio.folder / "got"
    folder.mkdir()
    return folder


def _download(place: Place, folder: Path, *argv: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    return place.run("download", "--dir", folder, *argv, code=code)


def _plugged(place: Place, code: str, *argv: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    environment = {"RUCIO_TRACE_CONFIG": str(place.settings)}
    return place.rest.home.run(sys.executable, "-c", PLUGGED.format(code=code), *words, **environment)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _generation(place: Place, name: str) -> str:
    from rucio.core.did import get_metadata

    with place.rucio.session() as session:
        created = get_metadata(place.rucio.scope, name, session=session)["created_at"]
    return format_time(created.replace(tzinfo=UTC))


def _with_store(place: Place) -> tuple[Member, str]:
    """Give the place a store, and a producer who may warn of products too; its key, and the store's URL."""
    rights = {"create": ("test",), "obsolete": ("test",), "revoke": ("test",)}
    producer = SandboxAuthority(place.rucio.folder / "second").admit("PRODUCER", rses=(), **rights)
    url = f"sqlite:///{place.rucio.folder}/store.db"
    text = place.settings.read_text().replace("federation/", "second/")
    place.settings.write_text(f'{text}[store]\nurl = "{url}"\n')
    return producer, url


def _sql(place: Place, statement: str, *values: object) -> None:
    with place.rucio.engine.begin() as connection:
        connection.exec_driver_sql(statement, values)


def test_the_current_folder_is_where_files_go_by_default(place: Place, got: Path) -> None:
    place.upload(place.file("product.dat", b"here"))
    done = subprocess.run(
        place.command("download", "test:product.dat"),
        env=place.rest.home.environment(RUCIO_TRACE_CONFIG=str(place.settings)),
        cwd=got,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert _files(got) == ["test/product.dat"]


def test_the_word_and_the_bytes_of_another_product_are_not_taken_for_this_one(place: Place, got: Path) -> None:
    """Who holds Rucio's database can swap bytes, checksums and `trace_origin`, each of them genuine."""
    place.upload(place.file("asked.dat", b"what the consumer wants"))
    place.upload(place.file("other.dat", b"what the producer said of another"))
    other = place.rest.root.get_metadata("test", "other.dat")
    for table in ("dids", "replicas"):
        _sql(
            place,
            f"UPDATE {table} SET adler32 = ?, md5 = ?, bytes = ? WHERE name = 'asked.dat'",
            *(other[key] for key in ("adler32", "md5", "bytes")),
        )
    _sql(
        place,
        "UPDATE traceability_origins SET trace = (SELECT trace FROM traceability_origins WHERE name = 'other.dat')"
        " WHERE name = 'asked.dat'",
    )
    path = place.rucio.pfn_path(place.rse, "asked.dat")
    path.write_bytes(place.rucio.pfn_path(place.rse, "other.dat").read_bytes())
    done = _download(place, got, "test:asked.dat", code=3)
    assert "GENUINE" not in done.stdout
    assert "other.dat" in done.stderr
    assert _files(got) == []


def test_a_file_of_two_datasets_comes_to_both(place: Place, got: Path) -> None:
    path = place.file("product.dat", b"shared")
    place.upload(path, "--dataset", "test:one")
    place.upload(path, "--dataset", "test:two")
    done = _download(place, got, "test:one", "test:two")
    assert _files(got) == ["one/product.dat", "two/product.dat"]
    assert done.stdout.count("GENUINE") == 2


def test_what_is_at_its_places_already_is_not_written_to_before_there_is_a_verdict(place: Place, got: Path) -> None:
    place.rucio.upload(place.rse, "shared.dat", b"nobody signed this")
    for dataset in ("one", "two"):
        place.rest.root.add_dataset("test", dataset)
        place.rest.root.attach_dids("test", dataset, [{"scope": "test", "name": "shared.dat"}])
        (got / dataset).mkdir()
        (got / dataset / "shared.dat").write_bytes(b"older, and in use")
    done = _download(place, got, "test:one", "test:two", code=3)
    assert "UNKNOWN" in done.stdout
    assert {(got / dataset / "shared.dat").read_bytes() for dataset in ("one", "two")} == {b"older, and in use"}


def test_a_file_named_as_another_one_on_its_way_is_never_taken_for_it(place: Place, got: Path) -> None:
    for name in ("a", "a.part"):
        place.file(f"pair/{name}", name.encode() * 1000)
    place.upload("-r", place.files / "pair")
    code = """
import time
from rucio.rse.protocols.posix import Default
inherited = Default.get
def get(self, pfn, dest, **options):
    time.sleep(0.0 if pfn.endswith(".part") else 1.0)  # the other one is there, and is judged
    inherited(self, pfn, dest, **options)
Default.get = get
from rucio_trace.cli import download
judged = download.outcome_of
def outcome_of(path, *rest):
    found = judged(path, *rest)
    time.sleep(2.0)
    return found
download.outcome_of = outcome_of
"""
    done = _plugged(place, code, "download", "--dir", got, "test:pair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("GENUINE") == 2
    assert {path.name: path.read_bytes() for path in (got / "pair").iterdir()} == {
        name: name.encode() * 1000 for name in ("a", "a.part")
    }


def test_nothing_of_an_older_generation_is_said_of_a_file(place: Place, got: Path) -> None:
    """The store has not heard yet that the name was given again."""
    producer, url = _with_store(place)
    place.upload(place.file("product.dat"))
    origin = place.origin("product.dat")
    assert origin is not None
    older = {"rucio": "test-rucio", "did": "test:product.dat", "generation": "2020-01-01T00:00:00.000000Z"}
    older |= {"event_id": new_event_id(), "hash": "0" * 64, "hashes": None}
    with Store.open(url) as store:
        [answer] = store.register([sign(replace(origin.statement, **older), producer.signer)], trust=None)
        assert answer.position is not None, answer
    assert "GENUINE" in _download(place, got, "test:product.dat").stdout


@pytest.mark.parametrize("threads", ["1", "3"])
def test_an_interrupted_download_ends_at_once_and_says_so(place: Place, got: Path, threads: str) -> None:
    for name in ("one.dat", "two.dat"):
        place.file(f"campaign/{name}", name.encode())
    place.upload("-r", place.files / "campaign")
    code = """
import os, signal, time
from rucio.rse.protocols.posix import Default
def get(self, pfn, dest, **options):
    os.kill(os.getpid(), signal.SIGINT)
    for late in range(50):  # it was at work, and makes what it was about to make
        os.makedirs(f"{dest}.{late}", exist_ok=True)
        time.sleep(0.01)
    time.sleep(600)
Default.get = get
"""
    done = _plugged(place, code, "download", "--ndownloader", threads, "--dir", got, "test:campaign")
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert "internal error" not in done.stderr
    assert not list(got.iterdir())


def test_wildcards_name_files(place: Place, got: Path) -> None:
    for name in ("a1.dat", "a2.dat", "b1.dat"):
        place.upload(place.file(name, name.encode()))
    _download(place, got, "test:a*")
    assert _files(got) == ["test/a1.dat", "test/a2.dat"]


def test_a_file_that_is_there_and_right_is_not_fetched_again(place: Place, got: Path) -> None:
    place.upload(place.file("product.dat", b"fetched once"))
    _download(place, got, "test:product.dat")
    place.rucio.pfn_path(place.rse, "product.dat").unlink()
    done = _download(place, got, "test:product.dat")
    assert "GENUINE" in done.stdout
    assert _files(got) == ["test/product.dat"]


def test_another_file_of_that_name_is_replaced_by_the_genuine_one(place: Place, got: Path) -> None:
    place.upload(place.file("product.dat", b"the right one"))
    (got / "test").mkdir()
    (got / "test/product.dat").write_bytes(b"some other one")
    _download(place, got, "test:product.dat")
    assert (got / "test/product.dat").read_bytes() == b"the right one"


def test_what_was_there_before_is_not_removed_and_not_called_genuine(place: Place, got: Path) -> None:
    place.rucio.upload(place.rse, "silent.dat", b"nobody signed this")
    (got / "test").mkdir()
    (got / "test/silent.dat").write_bytes(b"nobody signed this")
    done = _download(place, got, "test:silent.dat", code=3)
    assert "UNKNOWN" in done.stdout
    assert "was there before" in done.stderr
    assert _files(got) == ["test/silent.dat"]


def test_bytes_that_rucio_itself_refuses_do_not_come(place: Place, got: Path) -> None:
    place.upload(place.file("product.dat", b"as it was stored"))
    place.rucio.pfn_path(place.rse, "product.dat").write_bytes(b"as it is now....")
    done = _download(place, got, "test:product.dat", code=3)
    assert "test:product.dat" in done.stderr
    assert _files(got) == []


def test_names_that_lead_out_of_the_folder_are_refused(place: Place, got: Path) -> None:
    """Rucio's client writes where the server's names lead it."""
    place.upload(place.file("product.dat", b"x"))
    code = """
from rucio.client.downloadclient import DownloadClient
inherited = DownloadClient._resolve_and_merge_input_items
def lie(self, *args, **options):
    found = inherited(self, *args, **options)
    for item in found[1]:
        item["did"] = "test:../../../outside.dat"
    return found
DownloadClient._resolve_and_merge_input_items = lie
"""
    done = _plugged(place, code, "download", "--dir", got, "test:product.dat")
    assert done.returncode == 3, done.stderr
    assert "outside.dat" in done.stderr
    assert not list(place.rucio.folder.parent.rglob("outside.dat*"))
    assert _files(got) == []


def test_a_killed_download_keeps_what_was_judged_and_goes_on(place: Place, got: Path) -> None:
    for name in ("one.dat", "two.dat", "three.dat"):
        place.file(f"campaign/{name}", name.encode())
    place.upload("-r", place.files / "campaign")
    code = """
import os, signal
from rucio.rse.protocols.posix import Default
inherited, calls = Default.get, []
def get(self, pfn, dest, **options):
    calls.append(pfn)
    if len(calls) == 3:
        open(dest, "wb").write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    inherited(self, pfn, dest, **options)
Default.get = get
"""
    done = _plugged(place, code, "download", "--ndownloader", "1", "--dir", got, "test:campaign")
    assert done.returncode == -signal.SIGKILL
    kept = [name for name in _files(got) if not name.startswith(".")]
    assert len(kept) == 2
    for name in kept:  # they need not come again
        place.rucio.pfn_path(place.rse, name.partition("/")[2]).unlink()
    _download(place, got, "test:campaign")
    assert [name for name in _files(got) if not name.startswith(".")] == [
        f"campaign/{name}.dat" for name in ("one", "three", "two")
    ]


def test_our_verdict_takes_one_reading(place: Place, got: Path) -> None:
    """Counted by the kernel: Rucio copies the file and checks ADLER32; whatever the verdict asks is read once."""
    size = 64 << 20
    place.upload(place.file("large.dat", os.urandom(1 << 20) * 64))
    code = """
import atexit, os
from pathlib import Path
def read():
    return int(dict(l.split(": ") for l in Path("/proc/self/io").read_text().splitlines())["rchar"])
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # on several cores the file is mapped, which counts nowhere
before = read()
atexit.register(lambda: print("READ", read() - before))
"""
    place.settings.write_text(place.settings.read_text() + f'[store]\nurl = "sqlite:///{got.parent}/store.db"\n')
    place.run("store", "migrate")
    done = _plugged(place, code, "download", "--dir", got, "test:large.dat")
    assert done.returncode == 0, done.stderr
    read = int(done.stdout.rpartition("READ ")[2])
    assert 3 * size <= read < 3.8 * size


def test_a_download_from_xrootd_is_judged(place: Place, got: Path, xrootd: XRootD) -> None:
    place.rucio.add_xrootd_rse("XRD", xrootd, f"download-{os.urandom(4).hex()}")
    path = place.file("product.dat", os.urandom(200_000))
    place.run("upload", "--rse", "XRD", "--scope", "test", path)
    _download(place, got, "--rses", "XRD", "test:product.dat")
    assert (got / "test/product.dat").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("event", "in_rucio", "verdict", "code"),
    [(Event.REVOKE, False, "REVOKED", 1), (Event.OBSOLETE, False, "OBSOLETE", 4), (Event.OBSOLETE, True, "UNKNOWN", 3)],
)
def test_what_the_store_knows_against_a_producers_word_counts(
    place: Place, got: Path, event: Event, in_rucio: bool, verdict: str, code: int
) -> None:
    """No recorder has seen the file yet, so that nothing in the store says which product it is."""
    producer, url = _with_store(place)
    place.upload(place.file("product.dat"))
    origin = place.origin("product.dat")
    assert origin is not None
    changes = {"event": event, "event_id": new_event_id(), "method": None, "observed": None, "attributes": None}
    changes |= {"revokes": origin.id} if event is Event.REVOKE else {"obsolescence": "reprocessed"}
    if in_rucio:
        changes |= {"rucio": "test-rucio", "did": "test:product.dat", "generation": _generation(place, "product.dat")}
    with Store.open(url) as store:
        [answer] = store.register([sign(replace(origin.statement, **changes), producer.signer)], trust=None)
        assert answer.position is not None, answer
    done = _download(place, got, "test:product.dat", code=code)
    assert verdict in done.stdout
    assert _files(got) == []


def test_a_link_in_storage_is_handed_over_as_the_file_it_was_when_judged(place: Place, got: Path) -> None:
    place.upload(place.file("product.dat", b"genuine"))
    _sql(place, "UPDATE rse_protocols SET impl = 'rucio.rse.protocols.posix.Symlink'")
    done = _download(place, got, "test:product.dat")
    assert "GENUINE" in done.stdout
    place.rucio.pfn_path(place.rse, "product.dat").write_bytes(b"another")
    assert not (got / "test/product.dat").is_symlink()
    assert (got / "test/product.dat").read_bytes() == b"genuine"
