"""What docs/operators.md tells operators to type does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from samples import trace

from rucio_trace.store import Store

if TYPE_CHECKING:
    from rucio_trace_sandbox.postgres import PostgresCluster

MANUAL = Path(__file__).parents[2] / "docs" / "operators.md"


def commands() -> list[str]:
    """The commands of the section "Store", as they are printed."""
    section = re.search(r"^## Store\n(.*?)(?=^## |\Z)", MANUAL.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert section is not None
    blocks = re.findall(r"```sh\n(.*?)```", section[1], re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def environment(tmp_path: Path, postgres: PostgresCluster) -> dict[str, str]:
    settings = tmp_path / "rucio-trace.toml"
    settings.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/lib/traces.db"\n')
    for folder in ("lib", "backups"):
        (tmp_path / folder).mkdir()
    programs = [str(Path(sys.executable).parent), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    return os.environ | {
        "RUCIO_TRACE_CONFIG": str(settings),
        "PATH": ":".join([*programs, os.environ["PATH"]]),
        "PGHOST": str(postgres.folder),
        "PGUSER": "postgres",
    }


def test_the_commands_of_the_manual_work_in_their_order(
    tmp_path: Path, environment: dict[str, str], postgres: PostgresCluster
) -> None:
    database = f"postgresql://traces@/traces?host={postgres.folder}"
    typed = commands()
    assert len(typed) >= 8
    made = trace()
    for command in typed:
        here = command.replace("/var/lib/rucio-trace", f"{tmp_path}/lib").replace("/var/backups", f"{tmp_path}/backups")
        here = here.replace("postgresql://traces@db.example.org/traces", f"'{database}'")
        done = subprocess.run(here, shell=True, env=environment, capture_output=True, text=True)  # noqa: S602 its purpose
        assert done.returncode == 0, (here, done.stderr)
        if here == "rucio-trace store migrate":
            with Store.open(f"sqlite:///{tmp_path}/lib/traces.db") as store:
                store.register([made], trust=None)
    try:
        with Store.open(f"sqlite:///{tmp_path}/lib/traces.db", migrate=False) as store:
            original = store.since(0)
        with Store.open(database, migrate=False) as moved:
            assert moved.since(0) == original
            assert [stored.trace for stored in original] == [made]
    finally:
        postgres.drop("traces")
        with postgres.connect() as connection:
            connection.execute("DROP ROLE traces")


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "rucio-trace"
    settings = tmp_path / "rucio-trace.toml"
    environment = os.environ | {"RUCIO_TRACE_CONFIG": str(settings)}

    def status() -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, "store", "status"], env=environment, capture_output=True, text=True)

    settings.write_text("")
    assert (status().returncode, "store.url" in status().stderr) == (2, True)
    settings.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/none.db"\n')
    assert status().returncode == 3
    assert not (tmp_path / "none.db").exists()
    with Store.open(f"sqlite:///{tmp_path}/none.db"):
        pass
    assert (status().returncode, status().stdout.endswith(": 0 traces\n")) == (0, True)
