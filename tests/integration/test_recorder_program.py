"""The programs: `rucio-trace-recorder` and `rucio-trace outbox`, as an operator runs them."""

from __future__ import annotations

import configparser
import json
import logging
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from recorder_kit import Kit
from rucio_trace_daemons import running
from rucio_trace_daemons.auditor.main import PROGRAM as AUDITOR
from rucio_trace_daemons.recorder.main import PROGRAM
from sqlalchemy import text

from rucio_trace.cli import cli
from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result
    from rucio_trace_daemons.program import Program
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

RECORDER = Path(sys.executable).with_name("rucio-trace-recorder")
PROGRAMS = {program.name: program for program in (PROGRAM, AUDITOR)}
ETC = Path(__file__).parents[2] / "etc"


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio_sqlite)
    yield kit
    kit.close()


@pytest.fixture
def here(kit: Kit) -> Rse:
    return kit.rucio.add_posix_rse("HERE")


@pytest.fixture(autouse=True)
def not_stopping() -> Iterator[None]:
    PROGRAM.graceful_stop.clear()
    yield
    PROGRAM.graceful_stop.clear()


# ------------------------------------------------------------------------------------ the recorder


def test_run_once_handles_what_is_due_and_ends(kit: Kit, here: Rse) -> None:
    for number in range(5):
        kit.rucio.upload(here, f"file{number}", b"content")
    done = kit.rucio.home.run(RECORDER, "--run-once", "--bulk", "2", "--threads", "2", "--config", kit.file)
    assert done.returncode == 0, done.stderr
    assert kit.outbox == []
    assert len(kit.events()) == 5


def test_a_running_recorder_stops_within_seconds_and_gives_its_rows_back(kit: Kit) -> None:
    slow = kit.rucio.add_posix_rse("SLOW", trace_bytes_per_second=1000)
    kit.rucio.upload(slow, "file", bytes(1_000_000))  # a quarter of an hour's reading
    argv = [RECORDER, "--sleep-time", "2", "--config", kit.file]
    process = subprocess.Popen(argv, env=kit.rucio.home.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not any(row.claimed_by for row in kit.outbox):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        assert _heartbeats(kit) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()
    assert [row.claimed_by for row in kit.outbox if row.new_state == "A"] == [None]
    assert _heartbeats(kit) == 0
    assert kit.events() == []


def _heartbeats(kit: Kit) -> int:
    with kit.rucio.engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM heartbeats")) or 0)


def test_a_named_error_is_waited_out_by_the_loop(kit: Kit, here: Rse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is away when the recorder runs; when it is back, so is the recorder."""
    kit.rucio.upload(here, "file", b"content")
    store = kit.folder / "store.db"
    recorder = kit.recorder(sleep=timedelta(seconds=2))
    store.rename(store.with_name("hidden"))
    tries: list[int] = []

    def wait(seconds: float | None = None) -> bool:
        tries.append(1)
        if len(tries) == 2:
            store.with_name("hidden").rename(store)
        if kit.outbox == []:
            kit.stop.set()
        return kit.stop.is_set()

    monkeypatch.setattr(kit.stop, "wait", wait)
    running._work(PROGRAM.daemon(recorder), once=False)
    assert kit.events() == [("CREATE", "HERE")]


def test_a_bug_ends_the_process(kit: Kit, here: Rse, monkeypatch: pytest.MonkeyPatch) -> None:
    from rucio_trace_daemons.recorder import step

    def broken(*_arguments: Any) -> None:
        raise ZeroDivisionError

    kit.rucio.upload(here, "file", b"content")
    monkeypatch.setattr(step, "settle_product", broken)
    with pytest.raises(ZeroDivisionError):
        running.run_threads(PROGRAM.daemon(kit.recorder()), once=False)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('name = "test-rucio"', "", "instance.name"),
        ('site = "SITE-A"', "", "recorder.site"),
        ('accounts_key = "accounts.key"', "", "recorder.accounts_key"),
        ('key = "federation/SITE-A.key.pem"', "", "recorder.key"),
        ("url = ", "password_file = ", "store.url"),
        ('federation = "federation/federation.toml"', 'federation = "missing.toml"', "missing.toml"),
    ],
)
def test_a_setting_it_cannot_do_without_is_named(kit: Kit, before: str, after: str, named: str) -> None:
    from rucio_trace.config import Settings

    kit.file.write_text(kit.file.read_text().replace(before, after))
    with pytest.raises(ConfigurationError, match=named):
        PROGRAM.run(Settings.load(kit.file), once=True)


def test_an_rse_expression_that_means_nothing_is_named(kit: Kit) -> None:
    with pytest.raises(ConfigurationError, match=r"recorder\.rses"):
        PROGRAM.run(kit.settings, once=True, rses="tier=))")


def test_the_program_says_why_it_cannot_run(kit: Kit) -> None:
    with kit.rucio.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER traceability_replicas_update"))
    done = kit.rucio.home.run(RECORDER, "--run-once", "--config", kit.file)
    assert done.returncode == 1
    assert "traceability_replicas_update" in done.stderr


def test_logs_name_no_path_and_no_secret(
    kit: Kit, here: Rse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG", "traceability-recorder")
    # Alembic, which has made this test's database, silences every logger it does not know.
    monkeypatch.setattr(logging.getLogger("traceability-recorder"), "disabled", False)
    kit.rucio.upload(here, "good", b"content")
    kit.rucio.upload(here, "missing", b"content").path.unlink()
    kit.run()
    lines = [record.getMessage() for record in caplog.records if record.name == "traceability-recorder"]
    assert any(line.startswith("batch ") and "CREATE=1" in line for line in lines)
    assert any(line.startswith("waiting ") and "test:missing on HERE" in line for line in lines)
    assert not any(str(here.folder) in line for line in lines)


# ----------------------------------------------------------------------------- rucio-trace outbox


def outbox(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["outbox", *argv])


@pytest.fixture
def failed(kit: Kit) -> Kit:
    """One row that failed and one that is due."""
    odd = kit.rucio.add_posix_rse("ODD", trace_method="guess")
    kit.rucio.upload(odd, "file", b"content")
    kit.run()
    kit.rucio.upload(kit.rucio.add_posix_rse("HERE"), "fresh", b"content")
    return kit


def test_status_counts_what_waits_and_what_has_ended(failed: Kit) -> None:
    done = outbox("status", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["outcomes"] == {"expected": 1}
    counts = {line["rse"]: (line["due"], line["waiting"], line["held"], line["stopped"]) for line in found["rses"]}
    assert counts == {"ODD": (0, 1, 0, 0), "HERE": (2, 0, 0, 0)}
    assert "ODD" in outbox("status").stdout


def test_status_of_an_empty_outbox_says_so(kit: Kit) -> None:
    done = outbox("status")
    assert done.exit_code == 0
    assert "nothing waits" in done.stderr


def test_list_tells_why_a_row_waits(failed: Kit) -> None:
    [line] = outbox("list", "--failed", "--json").stdout.splitlines()
    row = json.loads(line)
    assert (row["rse"], row["scope"], row["name"], row["attempts"]) == ("ODD", "test", "file", 1)
    assert "trace_method" in row["error"]
    assert "trace_method" in outbox("list", "--rse", "ODD").stdout


@pytest.mark.parametrize("by", [["--rse", "ODD"], ["--did", "test:file"], ["--failed"], ["--all"]])
def test_retry_makes_rows_due(failed: Kit, by: list[str]) -> None:
    done = outbox("retry", *by)
    assert done.exit_code == 0, done.output
    assert all(row.not_before is None for row in failed.outbox)
    assert all(row.attempts == 0 for row in failed.outbox)


def test_retry_and_skip_must_be_told_what(failed: Kit) -> None:
    assert outbox("retry").exit_code == 2
    assert outbox("skip", "--reason", "why").exit_code == 2
    assert outbox("skip", "--all").exit_code == 2
    assert outbox("retry", "--did", "nonsense").exit_code == 2


def test_skip_takes_a_row_out_and_counts_it(failed: Kit) -> None:
    [row] = [row for row in failed.outbox if row.last_error]
    assert outbox("skip", row.event_id).exit_code == 2  # without a reason
    done = outbox("skip", row.event_id, "--reason", "a test RSE")
    assert done.exit_code == 0, done.output
    assert failed.outcomes == {"expected": 1, "skipped": 1}
    assert row.event_id not in {row.event_id for row in failed.outbox}


def test_rows_that_a_recorder_holds_are_left_alone(failed: Kit) -> None:
    held: list[int] = []

    def at_seam(name: str) -> None:
        if name == "looked-up":
            held.append(json.loads(outbox("status", "--json").stdout)["rses"][0]["held"])
            assert "0 changes skipped" in outbox("skip", "--rse", "HERE", "--reason", "no").stderr

    failed.run(at_seam)
    assert held == [2]
    assert failed.events() == [("CREATE", "HERE")]


# --------------------------------------------------------------------------------------------- etc


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_help_ends_with_an_example_that_is_understood(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["--help"])
    assert ended.value.code == 0
    _, _, example = capsys.readouterr().out.rpartition(f"Example: {program.name} ")
    assert program.parser().parse_args(shlex.split(example)).threads == 4


DAEMONS = [unit for unit in sorted(ETC.glob("*.service")) if unit.name != "rucio-trace-serve.service"]


@pytest.mark.parametrize("unit", DAEMONS, ids=lambda path: path.name)
def test_a_systemd_unit_starts_our_program_with_options_it_has(unit: Path, folder: Path) -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    command, *arguments = shlex.split(parser["Service"]["ExecStart"])
    PROGRAMS[Path(command).name].parser().parse_args(arguments)
    if shutil.which("systemd-analyze"):
        copy = folder / unit.name.replace("@", "@test")
        copy.write_text(unit.read_text().replace(command, str(RECORDER)))
        checked = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
        assert "Unknown key" not in checked.stderr
