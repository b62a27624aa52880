"""An XRootD server whose checksums our program gives: what clients, Rucio and the recorder get to know."""

from __future__ import annotations

import os
import subprocess
import uuid
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import blake3
import pytest
from auditor_kit import AuditKit, names_of
from rucio_trace_daemons.readers.xrootd import CLOCKS_APART, XRootDReader
from rucio_trace_daemons.storage_errors import NotFound
from rucio_trace_sandbox.checksums import strong_checksums
from rucio_trace_sandbox.xrootd import XRootD

from rucio_trace.statement import format_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace_daemons.readers import StorageDigest
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

CONTENT = os.urandom(200_000)
FRESH = {"trace_method": "storage", "trace_digest_fresh": True, "trace_spot_check": "0"}


@pytest.fixture(scope="module")
def xrootd(sandbox_folder: Path) -> Iterator[XRootD]:
    folder = sandbox_folder / "xrd-cks"
    with XRootD.start(folder, "cks", checksums=strong_checksums(folder)) as server:
        yield server


@pytest.fixture
def place(xrootd: XRootD) -> Path:
    """A folder of the test's own on the server."""
    return xrootd.make_folder(uuid.uuid4().hex)


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[AuditKit]:
    kit = AuditKit(rucio_sqlite)
    yield kit
    kit.close()


def asked(xrootd: XRootD, file: Path, *algorithms: str) -> StorageDigest | None:
    url = f"{xrootd.url}/{file.relative_to(xrootd.data)}"
    return XRootDReader().digest("the file", url, algorithms or ("BLAKE3",))


def flip(file: Path) -> None:
    """One bit; size and modification time stay."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


# ------------------------------------------------------------------------------------- what clients see


@pytest.mark.parametrize("name", ["file", "a b", "ünïcode …"])
def test_a_flipped_bit_is_in_the_next_answer(xrootd: XRootD, place: Path, name: str) -> None:
    file = place / name
    file.write_bytes(CONTENT)
    for _ in range(2):
        answer = asked(xrootd, file, "BLAKE3", "SHA256")
        assert answer is not None
        assert (answer.algorithm, answer.fresh) == ("BLAKE3", True)
        assert answer.value == blake3.blake3(file.read_bytes()).hexdigest()
        flip(file)


def test_a_truncated_file_has_another_digest_and_a_removed_one_is_not_found(xrootd: XRootD, place: Path) -> None:
    file = place / "file"
    file.write_bytes(CONTENT)
    os.truncate(file, 1000)
    answer = asked(xrootd, file)
    assert answer is not None
    assert answer.value == blake3.blake3(CONTENT[:1000]).hexdigest()
    file.unlink()
    with pytest.raises(NotFound):
        asked(xrootd, file)


def test_a_link_out_of_the_servers_folder_has_no_digest(xrootd: XRootD, place: Path, folder: Path) -> None:
    (folder / "secret").write_bytes(CONTENT)
    (place / "link").symlink_to(folder / "secret")
    assert asked(xrootd, place / "link") is None
    assert asked(xrootd, place) is None
    assert b"leads out" in (xrootd.data.parent / "log").read_bytes()


def test_the_time_of_the_reading_reaches_the_client(xrootd: XRootD, place: Path) -> None:
    (place / "file").write_bytes(CONTENT)
    question = f"{place.relative_to(xrootd.data)}/file?cks.type=blake3"
    command = ["xrdfs", xrootd.url, "query", "checksum", f"/{question}"]
    kind, digest, read, size, _ = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert (kind, digest) == ("blake3", blake3.blake3(CONTENT).hexdigest())
    assert read.startswith("read=20")
    assert size == f"size={len(CONTENT)}"


def test_what_rucio_and_xrdcp_ask_for_is_as_they_expect_it(
    rucio_sqlite: EmbeddedRucio, xrootd: XRootD, place: Path, folder: Path
) -> None:
    from rucio.rse import rsemanager

    rse = rucio_sqlite.add_xrootd_rse("XRD", xrootd, prefix=place.name)
    stored = rucio_sqlite.upload(rse, "file", CONTENT)
    url = f"{xrootd.url}/{stored.path.relative_to(xrootd.data)}"
    protocol = rsemanager.create_protocol(rsemanager.get_rse_info("XRD", vo=rucio_sqlite.vo), "read")
    known = {"filesize": str(len(CONTENT)), "adler32": f"{zlib.adler32(CONTENT):08x}"}
    assert known.items() <= protocol.stat(url).items()
    subprocess.run(["xrdcp", "--cksum", "adler32:source", url, folder / "copy"], check=True, capture_output=True)


# ------------------------------------------------------------------------------------------ the recorder


def copied(kit: AuditKit, rse: Rse) -> Path:
    """The file of a product with an origin elsewhere."""
    here = kit.rucio.add_posix_rse("HERE")
    kit.rucio.upload(here, "file", CONTENT)
    kit.run()
    path = kit.copy(here, rse, "file")
    kit.run()
    assert path is not None
    return path


def test_a_replica_is_proven_by_the_storages_own_reading(kit: AuditKit, xrootd: XRootD) -> None:
    rse = kit.rucio.add_xrootd_rse("XRD", xrootd, prefix=kit.rucio.folder.name, **FRESH)
    path = copied(kit, rse)
    copy = kit.traces()[-1].trace.statement
    assert (copy.event, copy.rse, copy.method) == ("COPY", "XRD", "storage")
    assert (copy.hash_algorithm, copy.hash) == ("BLAKE3", blake3.blake3(CONTENT).hexdigest())
    flip(path)
    kit.set_state(rse, "file", "D")
    kit.run()
    found = kit.traces()[-1].trace.statement
    assert (found.event, found.method) == ("CORRUPT", "read")
    assert found.found is not None
    assert found.found.hashes["BLAKE3"] == blake3.blake3(path.read_bytes()).hexdigest()


LIAR = "#!/bin/sh\ncat {folder}/answer\n"


@pytest.fixture(scope="module")
def liar(sandbox_folder: Path) -> Iterator[XRootD]:
    """A server whose program answers what it was told once: the file `answer` beside `data`."""
    folder = sandbox_folder / "xrd-liar"
    folder.mkdir()
    program = folder / "program"
    program.write_text(LIAR.format(folder=folder))
    program.chmod(0o755)
    with XRootD.start(folder, "liar", checksums=f"max 2 adler32 blake3 {program}") as server:
        yield server


@pytest.mark.parametrize(
    ("share", "since", "method"),
    [("0", 0, "storage"), ("0", 2, "read"), ("0", -2, "read"), ("0", None, "read"), ("1", 0, "read")],
    ids=["believed", "shows its age", "is from the future", "says nonsense", "found by the spot check"],
)
def test_a_storage_that_repeats_itself(kit: AuditKit, liar: XRootD, share: str, since: int | None, method: str) -> None:
    """Its word about the bytes it lost is believed if it lies about the time too: only reading finds that."""
    read = "just now" if since is None else format_time(datetime.now(UTC) - since * CLOCKS_APART)
    answer = f"{blake3.blake3(CONTENT).hexdigest()} read={read} size={len(CONTENT)} direct\n"
    (liar.data.parent / "answer").write_text(answer)
    prefix = kit.rucio.folder.name
    rse = kit.rucio.add_xrootd_rse("XRD", liar, prefix=prefix, **FRESH | {"trace_spot_check": share})
    path = copied(kit, rse)
    assert kit.traces()[-1].trace.statement.method == method
    flip(path)
    kit.set_state(rse, "file", "D")
    kit.run()
    found = kit.traces()[-1].trace.statement
    assert (found.event, found.method) == (("VERIFY" if method == "storage" else "CORRUPT"), method)


# ------------------------------------------------------------------------------------------- the auditor


@pytest.mark.parametrize(("share", "method"), [("0", "storage"), ("1", "read")])
def test_an_audit_takes_the_storages_word_unless_it_checks_it_and_finds_a_flipped_bit(
    kit: AuditKit, xrootd: XRootD, share: str, method: str
) -> None:
    prefix = kit.rucio.folder.name
    rse = kit.rucio.add_xrootd_rse("XRD", xrootd, prefix=prefix, **FRESH | {"trace_spot_check": share})
    names = kit.filled(rse, 3)
    flip(kit.rucio.pfn_path(rse, names[1]))
    kit.start()
    kit.audit()
    [batch] = kit.batches()
    assert batch.trace.statement.method == method
    assert names_of(kit.lines()) == [names[0], names[2]]
    assert (kit.rounds[0].good, kit.rounds[0].bad) == (2, 1)
    kit.run()
    assert kit.events(names[1])[-1] == ("CORRUPT", "XRD")
