"""`rucio-trace hooks` as an operator runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_trace_policy import hooks
from sqlalchemy import text

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio

PROGRAM = Path(sys.executable).with_name("rucio-trace")


def _run(rucio: EmbeddedRucio, *arguments: str) -> subprocess.CompletedProcess[str]:
    return rucio.home.run(PROGRAM, "hooks", *arguments)


def test_an_operator_installs_looks_and_removes(rucio: EmbeddedRucio) -> None:
    dry = _run(rucio, "install", "--dry-run")
    assert "TRIGGER traceability_locks" in dry.stdout
    missing = _run(rucio, "status")
    assert (missing.returncode, "missing" in missing.stdout) == (3, True)
    installed = _run(rucio, "install")
    assert installed.returncode == 0, installed.stderr
    assert "installed and proven" in installed.stderr
    assert "DROP" in installed.stdout
    rucio.upload(rucio.add_posix_rse("DISK"), "file", b"content")
    status = _run(rucio, "status")
    assert status.returncode == 0
    assert "in place" in status.stdout
    assert "2 changes wait" in status.stdout
    assert "traces cannot say who acted" in status.stderr
    refused = _run(rucio, "remove", "--tables")
    assert refused.returncode == 3
    assert "outbox holds 2 changes" in refused.stderr
    assert _run(rucio, "remove").returncode == 0
    assert not hooks.status(rucio.engine).in_place


def test_status_for_machines_tells_everything(rucio_sqlite: EmbeddedRucio) -> None:
    hooks.install(rucio_sqlite.engine)
    with rucio_sqlite.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER traceability_locks"))
    done = _run(rucio_sqlite, "status", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 3
    assert [fault["part"] for fault in found["faults"]] == ["traceability_locks"]
    assert (found["waiting"], found["oldest"], found["forged_keys"]) == (0, None, [])
    assert len(found["advice"]) == 2


def test_a_machine_without_a_rucio_server_is_told_so(rucio_sqlite: EmbeddedRucio, folder: Path) -> None:
    client = rucio_sqlite.home.client(folder / "client", "http://127.0.0.1:1")
    nowhere = {**os.environ, "RUCIO_HOME": str(folder / "nowhere")}
    for command, environment in (("hooks", client.environment()), ("hooks", nowhere), ("audit", nowhere)):
        done = subprocess.run([PROGRAM, command, "status"], env=environment, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "[database] default" in done.stderr
