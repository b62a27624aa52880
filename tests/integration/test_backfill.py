"""`rucio-trace backfill`, the program: an archive older than its traces, crashes in between, a cluster that reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from recorder_kit import Kit
from rucio_trace_daemons.backfill import feed, run
from rucio_trace_policy import hooks

from rucio_trace.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def backfill(kit: Kit, *options: str, code: int = 0) -> str:
    """What it says, in this process."""
    result = CliRunner().invoke(cli, ["--config", str(kit.file), "backfill", *options])
    assert result.exit_code == code, result.output
    return result.output


def wait_for_outcomes(kit: Kit, count: int, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while sum(kit.outcomes.values()) < count:
        assert time.monotonic() < deadline
        assert alive()
        time.sleep(0.02)


def adopted(kit: Kit) -> Counter[str]:
    """How often each product was adopted."""
    traces = [stored.trace.statement for stored in kit.traces()]
    assert all(statement.adopted and str(statement.event) == "VERIFY" for statement in traces)
    return Counter(statement.did or "" for statement in traces)


EACH_ONCE = Counter(f"test:HERE-{number:03}" for number in range(FILES))


def test_an_archive_is_adopted_and_a_second_run_finds_nothing_to_do(kit: Kit) -> None:
    said = backfill(kit, "--rses", "HERE")
    assert f"{FILES} replicas to prove on 1 RSEs, 210 B" in said
    assert f"done: VERIFY={FILES}, 210 B read" in said
    assert adopted(kit) == EACH_ONCE
    assert kit.outbox == []
    assert kit.product("HERE-000").status == "GENUINE"
    assert "0 replicas to prove" in backfill(kit, "--rses", "HERE")
    assert adopted(kit) == EACH_ONCE


def test_what_is_bad_and_what_cannot_be_read_is_told(kit_sqlite: Kit) -> None:
    kit = kit_sqlite
    rse = kit.rucio.rses()["HERE"]
    kit.rucio.pfn_path(rse, "HERE-000").write_bytes(b"CONTENT")
    kit.rucio.pfn_path(rse, "HERE-001").unlink()
    kit.rucio.add_posix_rse("CACHE", volatile=True)
    said = backfill(kit, "--rses", "HERE|CACHE", code=1)
    assert "skipped (volatile, or an unknown trace_method): CACHE" in said
    assert f"CORRUPT=1 VERIFY={FILES - 2}" in said
    assert "1 wait in the outbox" in said
    assert [row.name for row in kit.outbox] == ["HERE-001"]
    assert kit.product("HERE-001") is None  # nothing is signed blind
    backfill(kit, "--rses", "HERE", code=3)  # it waits still


def test_a_storage_that_is_away_does_not_fill_the_outbox(kit_sqlite: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = kit_sqlite
    monkeypatch.setattr(feed, "WAITING_SHARE", 1)
    monkeypatch.setattr(run, "AHEAD", 1)
    kit.file.write_text(kit.file.read_text() + "bulk = 5\n")
    folder = kit.rucio.rses()["HERE"].folder
    folder.rename(folder.with_name("unmounted"))
    said = backfill(kit, "--rses", "HERE", code=3)
    assert "mend the storage" in said
    assert len(kit.outbox) == 5
    folder.with_name("unmounted").rename(folder)
    kit.make_due()
    backfill(kit, "--rses", "HERE")
    assert adopted(kit) == EACH_ONCE


def test_killed_in_the_middle_it_goes_on_and_nothing_is_doubled(kit: Kit) -> None:
    kit.file.write_text(kit.file.read_text() + "bulk = 4\n")
    child = os.fork()
    if child == 0:
        kit.rucio.engine.dispose(close=False)
        backfill(kit, "--rses", "HERE", "--threads", "2")
        os._exit(0)
    wait_for_outcomes(kit, 1, lambda: os.waitpid(child, os.WNOHANG) == (0, 0))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kit.make_due()  # the dead one's leases end
    backfill(kit, "--rses", "HERE", "--threads", "2")
    assert adopted(kit) == EACH_ONCE
    assert kit.outbox == []


def test_interrupted_with_all_its_processes_it_gives_back_what_it_holds(kit_postgresql: Kit) -> None:
    kit = kit_postgresql
    hooks.remove(kit.rucio.engine)
    slow = kit.rucio.add_posix_rse("SLOW", trace_bytes_per_second=20_000)
    filled(kit.rucio, slow, 1, bytes(1_000_000))
    hooks.install(kit.rucio.engine)
    kit.file.write_text(kit.file.read_text() + "bulk = 4\n")
    argv = [PROGRAM, "--config", kit.file, "backfill", "--rses", "HERE|SLOW", "--processes", "2"]
    # In a process group of its own: a terminal's Ctrl-C goes to all of them.
    process = subprocess.Popen(
        argv, env=kit.rucio.home.environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_for_outcomes(kit, FILES // 2, lambda: process.poll() is None)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert "not all done" in said
    assert "the same command continues" in said
    assert "Traceback" not in said
    assert {row.claimed_by for row in kit.outbox} == {None}
    backfill(kit, "--rses", "HERE")
    assert adopted(kit) == EACH_ONCE
