"""`rucio-trace download`: a file is handed over only when it is what its producer, or a site, says it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from recorder_kit import Kit
from test_upload import Place, place

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

__all__ = ["place"]


@pytest.fixture
def product(place: Place) -> Path:
    """A file that its producer uploaded."""
    path = place.file("product.dat", os.urandom(100_000))
    place.upload(path)
    return path


def download(place: Place, *argv: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    return place.run("download", "--dir", place.rucio.folder / "got", *argv, code=code)


def got(place: Place) -> list[str]:
    folder = place.rucio.folder / "got"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _swap(place: Place, content: bytes) -> None:
    """Other bytes in storage and in Rucio's row: what only a signature can tell."""
    import zlib

    place.rucio.pfn_path(place.rse, "product.dat").write_bytes(content)
    with place.rucio.engine.begin() as connection:
        for table in ("dids", "replicas"):
            connection.exec_driver_sql(
                f"UPDATE {table} SET adler32 = ?, md5 = NULL, bytes = ? WHERE name = 'product.dat'",
                (f"{zlib.adler32(content):08x}", len(content)),
            )


def test_a_genuine_file_is_handed_over_by_its_producers_word(place: Place, product: Path) -> None:
    done = download(place, "test:product.dat")
    assert "GENUINE" in done.stdout
    assert (place.rucio.folder / "got/test/product.dat").read_bytes() == product.read_bytes()
    assert got(place) == ["test/product.dat"]


@pytest.mark.usefixtures("product")
def test_what_rucio_calls_right_and_its_producer_does_not_is_not_kept(place: Place) -> None:
    _swap(place, os.urandom(100_000))
    done = download(place, "test:product.dat", code=1)
    assert "TAMPERED" in done.stdout
    assert got(place) == []
    done = download(place, "--allow", "TAMPERED", "test:product.dat", code=1)
    assert got(place) == ["test/product.dat"]


def test_a_file_nobody_speaks_of_is_not_handed_over_unless_allowed(place: Place) -> None:
    place.rucio.upload(place.rse, "silent.dat", b"nobody signed this")
    done = download(place, "test:silent.dat", code=3)
    assert "UNKNOWN" in done.stdout
    assert got(place) == []
    download(place, "--allow", "UNKNOWN", "--no-subdir", "test:silent.dat", code=3)
    assert got(place) == ["silent.dat"]


def test_a_dataset_is_handed_over_file_by_file(place: Place) -> None:
    for name in ("one.dat", "two.dat"):
        place.file(f"campaign/{name}", name.encode())
    place.upload("-r", place.files / "campaign")
    download(place, "test:campaign")
    assert got(place) == ["campaign/one.dat", "campaign/two.dat"]


def test_a_name_rucio_does_not_know_is_a_clear_error(place: Place) -> None:
    done = download(place, "test:nothing.dat", code=3)
    assert "nothing.dat" in done.stderr
    assert got(place) == []


def test_upload_recorder_and_download_agree(place: Place, product: Path) -> None:
    """The producer's word, the site's confirmation, and the consumer's file, end to end."""
    kit = Kit(place.rucio)
    text = (place.rucio.folder / "rucio-trace.toml").read_text()
    both = kit.authority.admit("PRODUCER", rses=(), create=("test",))
    assert both.certificate.exists()
    # One federation for both: the recorder's. The product is uploaded anew under it.
    place.settings.write_text(text.replace("federation/", "recorder/federation/"))
    second = place.file("second.dat", product.read_bytes() + b"2")
    place.upload(second)
    kit.run()
    [origin, copy] = kit.store.by_name("second.dat")
    assert (origin.trace.statement.event, origin.trace.statement.site) == ("CREATE", "PRODUCER")
    assert (copy.trace.statement.event, copy.trace.statement.rse) == ("COPY", "DISK")
    source = copy.trace.statement.source
    assert source is not None
    assert (source.rse, source.trace) == (None, origin.id)
    place.settings.write_text(place.settings.read_text() + f'[store]\nurl = "sqlite:///{kit.folder}/store.db"\n')
    done = download(place, "test:second.dat")
    assert "GENUINE" in done.stdout
    assert "product: test:second.dat" in done.stdout
    status = place.rest.root.get_metadata("test", "second.dat", plugin="ALL")
    assert (status["trace_status"], status["trace_replicas"]) == ("GENUINE", "1/1")
    kit.close()
