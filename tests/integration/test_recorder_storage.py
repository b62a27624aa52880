"""Reading replicas where they lie: what each kind of storage answers, well and badly."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from rucio_trace_daemons.rses import Rses
from rucio_trace_daemons.staging import Staging
from rucio_trace_daemons.storage import Replica, Storage
from rucio_trace_daemons.storage_errors import (
    Changed,
    NotFound,
    PrefixMissing,
    Refused,
    ShortRead,
    StagingFull,
    Stopping,
    Unavailable,
)
from rucio_trace_daemons.streams import Throttle, local_pieces
from rucio_trace_sandbox.storage import file_protocol
from rucio_trace_sandbox.xrootd import XRootD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse


@pytest.fixture(scope="module")
def server(sandbox_folder: Path) -> Iterator[XRootD]:
    with XRootD.start(sandbox_folder / "xrd-reading") as server:
        yield server


@pytest.fixture
def storage(folder: Path) -> Storage:
    return Storage(Staging(folder, 10_000_000), lambda _seconds: False)


def replica(rucio: EmbeddedRucio, rse: Rse, name: str = "file", size: int | None = None) -> Replica:
    [facts] = Rses(rucio.engine).get({rse.id}).values()
    return Replica(facts, "test", name, size)


def read(storage: Storage, of: Replica) -> bytes:
    with storage.open(of) as pieces:
        return b"".join(bytes(piece) for piece in pieces)


# ------------------------------------------------------------------------------- files and servers


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5_000_001])
def test_a_local_file_is_read_whole(rucio_sqlite: EmbeddedRucio, storage: Storage, size: int) -> None:
    content = os.urandom(size)
    rse = rucio_sqlite.add_posix_rse("DISK")
    rucio_sqlite.upload(rse, "file", content)
    assert read(storage, replica(rucio_sqlite, rse)) == content


@pytest.mark.parametrize("size", [0, 1, 2 << 20, (2 << 20) + 1, 25_000_001])
def test_a_remote_file_is_read_whole(rucio_sqlite: EmbeddedRucio, storage: Storage, server: XRootD, size: int) -> None:
    content = os.urandom(size)
    rse = rucio_sqlite.add_xrootd_rse("REMOTE", server, prefix=f"whole{size}")
    rucio_sqlite.upload(rse, "file", content)
    found = read(storage, replica(rucio_sqlite, rse))
    assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_missing_file_is_not_found_and_nothing_else(
    rucio_sqlite: EmbeddedRucio, storage: Storage, server: XRootD, kind: str
) -> None:
    rse = rucio_sqlite.add_posix_rse("DISK") if kind == "local" else rucio_sqlite.add_xrootd_rse("DISK", server)
    rucio_sqlite.upload(rse, "there", b"content")
    missing = replica(rucio_sqlite, rse, "missing")
    with pytest.raises(NotFound):
        read(storage, missing)
    assert not storage.exists(missing)
    assert storage.exists(replica(rucio_sqlite, rse, "there"))
    storage.check_prefix(missing.rse)


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_an_unmounted_prefix_is_told_from_a_missing_file(
    rucio_sqlite: EmbeddedRucio, storage: Storage, server: XRootD, kind: str
) -> None:
    if kind == "local":
        rse = rucio_sqlite.add_posix_rse("DISK")
    else:
        rse = rucio_sqlite.add_xrootd_rse("DISK", server, prefix="unmounted")
    assert rse.folder is not None
    rse.folder.rmdir()
    with pytest.raises(PrefixMissing):
        storage.check_prefix(replica(rucio_sqlite, rse).rse)


def test_a_server_that_is_down_is_unavailable(
    rucio_sqlite: EmbeddedRucio, storage: Storage, sandbox_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with XRootD.start(sandbox_folder / "xrd-down", "down") as server:
        rse = rucio_sqlite.add_xrootd_rse("REMOTE", server)
        rucio_sqlite.upload(rse, "file", b"content")
    from rucio_trace_daemons.readers import xrootd

    monkeypatch.setattr(xrootd, "REQUEST_SECONDS", 2)
    with pytest.raises(Unavailable):
        read(storage, replica(rucio_sqlite, rse))


@pytest.mark.skipif(os.geteuid() != 0, reason="the files must belong to another account")
def test_refused_credentials_are_not_a_missing_file(
    rucio_sqlite: EmbeddedRucio, storage: Storage, server: XRootD
) -> None:
    rse = rucio_sqlite.add_xrootd_rse("REMOTE", server)
    rucio_sqlite.upload(rse, "file", b"content").path.chmod(0)
    with pytest.raises(Refused):
        read(storage, replica(rucio_sqlite, rse))


def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_no_file(rucio_sqlite: EmbeddedRucio, storage: Storage) -> None:
    rse = rucio_sqlite.add_posix_rse("DISK")
    for make in (os.mkdir, os.mkfifo):
        path = rucio_sqlite.pfn_path(rse, make.__name__)
        path.parent.mkdir(parents=True)
        make(path)
        with pytest.raises(Unavailable, match="regular file"):
            read(storage, replica(rucio_sqlite, rse, make.__name__))


def test_errors_name_the_did_and_never_the_path(rucio_sqlite: EmbeddedRucio, storage: Storage) -> None:
    rse = rucio_sqlite.add_posix_rse("DISK")
    with pytest.raises(NotFound) as caught:
        read(storage, replica(rucio_sqlite, rse))
    assert "test:file on DISK" in str(caught.value)
    assert str(rse.folder) not in str(caught.value)


# ------------------------------------------------------------------------------ changing under us


def test_a_file_that_grows_while_it_is_read_is_changed(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(bytes(3 << 20))
    with local_pieces("x", path) as pieces:
        next(pieces)
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(Changed):
            list(pieces)


def test_a_file_that_shrinks_while_it_is_read_is_changed(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(bytes(3 << 20))
    with local_pieces("x", path) as pieces:
        next(pieces)
        os.truncate(path, 1 << 20)
        with pytest.raises(Changed):
            list(pieces)


def test_a_remote_file_that_shrinks_while_it_is_read_is_a_short_read(
    rucio_sqlite: EmbeddedRucio, storage: Storage, server: XRootD
) -> None:
    rse = rucio_sqlite.add_xrootd_rse("REMOTE", server, prefix="shrinking")
    stored = rucio_sqlite.upload(rse, "file", bytes(40 << 20))
    with storage.open(replica(rucio_sqlite, rse)) as pieces:
        next(pieces)
        os.truncate(stored.path, 20 << 20)
        with pytest.raises(ShortRead):
            list(pieces)


def test_a_file_deleted_while_it_is_read_is_read_to_its_end(rucio_sqlite: EmbeddedRucio, storage: Storage) -> None:
    rse = rucio_sqlite.add_posix_rse("DISK")
    stored = rucio_sqlite.upload(rse, "file", bytes(3 << 20))
    with storage.open(replica(rucio_sqlite, rse)) as pieces:
        first = len(next(pieces))
        stored.path.unlink()
        assert first + sum(len(piece) for piece in pieces) == 3 << 20


# ----------------------------------------------------------------------------------------- staging


def _fetched_rse(rucio: EmbeddedRucio, name: str = "FETCHED") -> Rse:
    """An RSE whose files can only be fetched whole, by a protocol of Rucio's that we do not stream."""
    folder = rucio.folder / "rses" / name
    folder.mkdir(parents=True)
    protocol = file_protocol(folder) | {"scheme": "scp", "impl": "fetching_protocol.Fetching"}
    return rucio.add_rse(name, protocol, folder=folder)


def test_other_protocols_are_fetched_into_the_staging_folder(rucio_sqlite: EmbeddedRucio, storage: Storage) -> None:
    rse = _fetched_rse(rucio_sqlite)
    rucio_sqlite.upload(rse, "file", b"content")
    with storage.open(replica(rucio_sqlite, rse, size=7)) as pieces:
        [staged] = list(rucio_sqlite.folder.glob("rucio-trace-*/*"))
        assert staged.read_bytes() == b"content"
        assert b"".join(bytes(piece) for piece in pieces) == b"content"
    assert not staged.exists()
    with pytest.raises(NotFound):
        read(storage, replica(rucio_sqlite, rse, "missing"))
    assert storage.exists(replica(rucio_sqlite, rse))
    assert not storage.exists(replica(rucio_sqlite, rse, "missing"))


def test_a_file_larger_than_the_staging_limit_is_not_fetched(rucio_sqlite: EmbeddedRucio, folder: Path) -> None:
    rse = _fetched_rse(rucio_sqlite)
    rucio_sqlite.upload(rse, "file", b"content")
    storage = Storage(Staging(folder, 6), lambda _seconds: False)
    with pytest.raises(StagingFull, match="staging_bytes = 6"):
        read(storage, replica(rucio_sqlite, rse, size=7))


def test_a_full_disk_is_noticed_before_the_file_is_fetched(rucio_sqlite: EmbeddedRucio, folder: Path) -> None:
    rse = _fetched_rse(rucio_sqlite)
    rucio_sqlite.upload(rse, "file", b"content")
    storage = Storage(Staging(folder, 1 << 60), lambda _seconds: False)
    with pytest.raises(StagingFull, match="staging_folder"):
        read(storage, replica(rucio_sqlite, rse, size=1 << 59))


def test_a_disk_that_fills_while_fetching_is_unavailable_and_leaves_nothing(
    rucio_sqlite: EmbeddedRucio, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fetching_protocol

    rse = _fetched_rse(rucio_sqlite)
    rucio_sqlite.upload(rse, "file", b"content")
    monkeypatch.setattr(fetching_protocol.Fetching, "disk_is_full", True)
    with pytest.raises(Unavailable):
        read(storage, replica(rucio_sqlite, rse, size=7))
    assert list(rucio_sqlite.folder.glob("rucio-trace-*/*")) == []


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    import socket

    (folder / f"rucio-trace-{socket.gethostname()}-999999999").mkdir()
    other_host = folder / "rucio-trace-elsewhere-999999999"
    other_host.mkdir()
    Staging(folder, 1).remove_leftovers()
    assert [path.name for path in folder.glob("rucio-trace-*")] == [other_host.name]


# ------------------------------------------------------------------------------------------ bounds


def test_a_throttle_lets_a_second_through_at_once_and_then_the_rate() -> None:
    now = [100.0]
    throttle = Throttle(1_000, lambda: now[0])
    assert throttle.take(500) == pytest.approx(0.5)
    now[0] += 10
    assert throttle.take(1_000) == 0
    assert throttle.take(1_000) == pytest.approx(1.0)
    assert throttle.take(1_000) == pytest.approx(2.0)


def test_an_rse_is_read_no_faster_than_its_attribute_says(rucio_sqlite: EmbeddedRucio, folder: Path) -> None:
    waited: list[float] = []
    storage = Storage(Staging(folder, 0), lambda seconds: waited.append(seconds) or False)  # type: ignore[func-returns-value]
    rse = rucio_sqlite.add_posix_rse("SLOW", trace_bytes_per_second=1_000_000)
    rucio_sqlite.upload(rse, "file", bytes(4_000_000))
    read(storage, replica(rucio_sqlite, rse))
    assert max(waited) == pytest.approx(4.0, rel=0.1)


def test_a_stop_ends_a_throttled_reading(rucio_sqlite: EmbeddedRucio, folder: Path) -> None:
    storage = Storage(Staging(folder, 0), lambda _seconds: True)
    rse = rucio_sqlite.add_posix_rse("SLOW", trace_bytes_per_second=1)
    rucio_sqlite.upload(rse, "file", b"content")
    with pytest.raises(Stopping):
        read(storage, replica(rucio_sqlite, rse))


def test_no_more_streams_are_open_than_the_attribute_allows(rucio_sqlite: EmbeddedRucio, storage: Storage) -> None:
    rse = rucio_sqlite.add_posix_rse("NARROW", trace_streams=2)
    rucio_sqlite.upload(rse, "file", b"content")
    of = replica(rucio_sqlite, rse)
    together, most, lock = [0], [0], threading.Lock()

    def reader() -> None:
        with storage.open(of) as pieces:
            with lock:
                together[0] += 1
                most[0] = max(most[0], together[0])
            time.sleep(0.02)
            list(pieces)
            with lock:
                together[0] -= 1

    threads = [threading.Thread(target=reader) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [2]


def test_a_long_fetch_is_watched_and_can_be_given_up(
    rucio_sqlite: EmbeddedRucio, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fetching_protocol

    rse = _fetched_rse(rucio_sqlite)
    release = threading.Event()
    monkeypatch.setattr(fetching_protocol.Fetching, "get", lambda *_arguments, **_options: release.wait(30))

    def watch(_count: int) -> None:
        raise Stopping

    begin = time.monotonic()
    with pytest.raises(Stopping), storage.open(replica(rucio_sqlite, rse, size=7), watch):
        pass
    assert time.monotonic() - begin < 10
    release.set()


def test_a_non_deterministic_rse_is_read_where_rucio_says(rucio_sqlite: EmbeddedRucio, storage: Storage) -> None:
    rse = rucio_sqlite.add_posix_rse("ODD", deterministic=False)
    assert rse.folder is not None
    (rse.folder / "somewhere").write_bytes(b"content")
    [facts] = Rses(rucio_sqlite.engine).get({rse.id}).values()
    assert read(storage, Replica(facts, "test", "file", 7, "somewhere")) == b"content"


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({}, "read"),
        ({"rse_type": "TAPE"}, "transfer"),
        ({"staging_required": True}, "transfer"),
        ({"volatile": True}, "excluded"),
        ({"volatile": True, "trace_method": "read"}, "read"),
        ({"rse_type": "TAPE", "trace_method": "none"}, "none"),
        ({"trace_method": " Read "}, "read"),
        ({"trace_method": "excluded"}, "unknown"),
        ({"trace_method": "everything"}, "unknown"),
    ],
)
def test_the_method_follows_from_the_rse_and_its_attribute(
    rucio_sqlite: EmbeddedRucio, options: dict[str, Any], method: str
) -> None:
    rse = rucio_sqlite.add_posix_rse("RSE", **options)
    [facts] = Rses(rucio_sqlite.engine).get({rse.id}).values()
    assert facts.method == method
