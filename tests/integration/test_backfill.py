"""`rucio-trace backfill`, the program: an archive older than its traces, crashes in between, a cluster that reads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from distributed import LocalCluster
from recorder_kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

PROGRAM = Path(sys.executable).with_name("rucio-trace")
FILES = 30


def filled(rucio: EmbeddedRucio, rse: Rse, count: int = FILES, content: bytes = b"content") -> None:
    for number in range(count):
        rucio.upload(rse, f"{rse.name}-{number:03}", content)


def kit_on(rucio: EmbeddedRucio) -> Iterator[Kit]:
    """Hooks come when the archive is there."""
    filled(rucio, rucio.add_posix_rse("HERE"))
    kit = Kit(rucio)
    yield kit
    kit.close()


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[Kit]:
    yield from kit_on(rucio)


@pytest.fixture
def kit_sqlite(rucio_sqlite: EmbeddedRucio) -> Iterator[Kit]:
    yield from kit_on(rucio_sqlite)


@pytest.fixture
def kit_postgresql(rucio_postgresql: EmbeddedRucio) -> Iterator[Kit]:
    yield from kit_on(rucio_postgresql)


def command(kit: Kit, *options: str) -> list[str]:
    return [str(PROGRAM), "--config", str(kit.file), "backfill", *options]


def backfill(kit: Kit, *options: str, code: int = 0) -> str:
    done = subprocess.run(
        command(kit, *options), env=kit.rucio.home.environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def started(kit: Kit, *options: str) -> subprocess.Popen[str]:
    """The program, in a process group of its own."""
    return subprocess.Popen(
        command(kit, *options),
        env=kit.rucio.home.environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_traces(kit: Kit, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while len(kit.traces()) < count:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)


def adopted(kit: Kit) -> Counter[str]:
    """How often each product was adopted."""
    traces = [stored.trace.statement for stored in kit.traces()]
    assert all(statement.adopted and str(statement.event) == "VERIFY" for statement in traces)
    return Counter(statement.did or "" for statement in traces)


def test_an_archive_is_adopted_and_a_second_run_finds_nothing_to_do(kit: Kit) -> None:
    said = backfill(kit, "--rses", "HERE")
    assert f"{FILES} replicas to prove on 1 RSEs, 210 B" in said
    assert f"done: VERIFY={FILES}, 210 B read" in said
    assert set(adopted(kit).values()) == {1}
    assert len(adopted(kit)) == FILES
    assert kit.outbox == []
    assert kit.product("HERE-000").status == "GENUINE"
    assert "0 replicas to prove" in backfill(kit, "--rses", "HERE")
    assert len(adopted(kit)) == FILES


def test_what_is_bad_and_what_cannot_be_read_is_told(kit_sqlite: Kit) -> None:
    kit = kit_sqlite
    path = kit.rucio.pfn_path
    rse = kit.rucio.rses()["HERE"]
    path(rse, "HERE-000").write_bytes(b"CONTENT")
    path(rse, "HERE-001").unlink()
    kit.rucio.add_posix_rse("CACHE", volatile=True)
    said = backfill(kit, "--rses", "HERE|CACHE", code=1)
    assert "skipped: CACHE" in said
    assert f"CORRUPT=1 VERIFY={FILES - 2}" in said
    assert "1 wait in the outbox" in said
    assert [row.name for row in kit.outbox] == ["HERE-001"]
    assert kit.product("HERE-001") is None  # nothing is signed blind
    backfill(kit, "--rses", "HERE", code=3)  # it waits still


@pytest.mark.parametrize("processes", ["1", "2"])
def test_killed_in_the_middle_it_goes_on_and_nothing_is_doubled(kit_postgresql: Kit, processes: str) -> None:
    kit = kit_postgresql
    slow = kit.rucio.add_posix_rse("SLOW")
    filled(kit.rucio, slow, 6, bytes(100_000))
    kit.run()
    process = started(kit, "--rses", "HERE", "--processes", processes)
    try:
        wait_for_traces(kit, 7, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    kit.make_due()  # the dead one's leases end
    backfill(kit, "--rses", "HERE", "--processes", processes)
    here = [stored.trace.statement.did for stored in kit.traces() if stored.trace.statement.rse == "HERE"]
    assert Counter(here) == Counter(f"test:HERE-{number:03}" for number in range(FILES))
    assert kit.outbox == []


def test_interrupted_it_ends_soon_and_says_how_to_go_on(kit_postgresql: Kit) -> None:
    kit = kit_postgresql
    from rucio_trace_policy import hooks

    hooks.remove(kit.rucio.engine)
    slow = kit.rucio.add_posix_rse("SLOW", trace_bytes_per_second=20_000)
    filled(kit.rucio, slow, 1, bytes(1_000_000))
    hooks.install(kit.rucio.engine)
    process = started(kit, "--rses", "HERE|SLOW", "--processes", "2")
    wait_for_traces(kit, 1, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "not all done" in said
    assert "the same command continues" in said
    assert all(row.claimed_by is None for row in kit.outbox)
    assert not re.search("Traceback|error", said)
