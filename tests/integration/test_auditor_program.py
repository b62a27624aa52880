"""The program `rucio-trace-auditor`, as an operator runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from auditor_kit import AuditKit, flip, names_of
from rucio_trace_daemons.auditor.main import PROGRAM
from rucio_trace_sandbox.processes import wait_until
from sqlalchemy import text

from rucio_trace.config import Settings
from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

AUDITOR = Path(sys.executable).with_name("rucio-trace-auditor")


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[AuditKit]:
    kit = AuditKit(rucio_sqlite)
    yield kit
    kit.close()


@pytest.fixture
def here(kit: AuditKit) -> Rse:
    return kit.rucio.add_posix_rse("HERE")


def test_run_once_ends_the_round_that_is_due(kit: AuditKit, here: Rse) -> None:
    first, bad, *others = kit.filled(here, 5)
    flip(kit.rucio.pfn_path(here, bad))
    kit.start(every=86_400)
    done = kit.rucio.home.run(AUDITOR, "--run-once", "--bulk", "2", "--threads", "2", "--config", kit.file)
    assert done.returncode == 0, done.stderr
    [round_] = kit.rounds
    assert (round_.good, round_.bad, round_.ended_at is not None) == (4, 1, True)
    assert sorted(names_of(kit.lines())) == [first, *others]
    assert [row.action for row in kit.outbox] == ["audit"]


def test_told_to_stop_it_gives_back_what_it_reads_and_ends(kit: AuditKit, here: Rse) -> None:
    names = kit.filled(here, 1, 1_000_000)
    kit.rucio.set_attribute(here, "trace_bytes_per_second", 1_000)  # a quarter of an hour's reading
    kit.start(every=86_400)
    argv = [AUDITOR, "--sleep-time", "2", "--config", kit.file]
    process = subprocess.Popen(argv, env=kit.rucio.home.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: any(row.claimed_by for row in kit.work_left), "a claim", 120)
        assert _heartbeats(kit) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()
    [row] = kit.work_left
    assert (row.claimed_by, row.outcome, row.attempts, _heartbeats(kit)) == (None, None, 0, 0)
    kit.rucio.set_attribute(here, "trace_bytes_per_second", 0)
    kit.audit()
    assert names_of(kit.lines()) == names


def _heartbeats(kit: AuditKit) -> int:
    with kit.rucio.engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM heartbeats")) or 0)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('name = "test-rucio"', "", "instance.name"),
        ('site = "SITE-A"', "", "recorder.site"),
        ('key = "federation/SITE-A.key.pem"', "", "recorder.key"),
        ("url = ", "password_file = ", "store.url"),
        ('federation = "federation/federation.toml"', 'federation = "missing.toml"', "missing.toml"),
        ("[store]", "[auditor]\nlease_seconds = 100_000_000\n[store]", "auditor.lease_seconds"),
        ("[store]", '[auditor]\nquiet_hours = "noon"\n[store]', "auditor.quiet_hours"),
        ("[store]", '[auditor]\nrses = "tier=))"\n[store]', "auditor.rses"),
    ],
)
def test_a_setting_it_cannot_do_without_is_named(kit: AuditKit, before: str, after: str, named: str) -> None:
    kit.file.write_text(kit.file.read_text().replace(before, after))
    kit.start()
    with pytest.raises(ConfigurationError, match=named):
        PROGRAM.run(Settings.load(kit.file), once=True)


def test_the_program_says_why_it_cannot_run(kit: AuditKit) -> None:
    kit.file.write_text(kit.file.read_text().replace('site = "SITE-A"', ""))
    done = kit.rucio.home.run(AUDITOR, "--run-once", "--config", kit.file)
    assert done.returncode == 1
    assert "rucio-trace-auditor: recorder.site" in done.stderr
