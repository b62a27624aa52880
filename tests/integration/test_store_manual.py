"""What docs/operators.md tells operators to type does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from samples import START, authority, batch, line, trace

from rucio_trace.batch import write_lines
from rucio_trace.store import Outcome, Store
from rucio_trace.trace import Event, ProductKey, format_time

if TYPE_CHECKING:
    from rucio_trace_sandbox.postgres import PostgresCluster

    from rucio_trace.envelope import Trace

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


@pytest.fixture
def product(tmp_path: Path) -> ProductKey:
    """The product the manual proves, its file, and the federation that trusts whom its trace and batch are by."""
    key = ProductKey("RUCIO", "def", "s2", "product.SAFE.zip", format_time(START))
    (tmp_path / key.name).write_text(key.name)
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    (tmp_path / "federation.toml").write_text(
        '[[member]]\nname = "SITE"\nca = "ca.pem"\nsubject = "*"\ncreate = ["s2"]\nrses = ["SITE-A_DISK"]\n'
    )
    return key


def record(url: str, product: ProductKey) -> list[Trace]:
    """Register the product's creation, and a batch in which its replica was verified."""
    lines = [line(product)]
    made = [trace(Event.CREATE, product, size=len(product.name), rse="SITE-A_DISK"), batch(lines, rse="SITE-A_DISK")]
    with Store.open(url) as store:
        answers = store.register(made, trust=None, lists={made[1].id: write_lines(lines)})
    assert {answer.outcome for answer in answers} == {Outcome.STORED}
    return made


def test_the_commands_of_the_manual_work_in_their_order(
    tmp_path: Path, environment: dict[str, str], postgres: PostgresCluster, product: ProductKey
) -> None:
    database = f"postgresql://traces@/traces?host={postgres.folder}"
    typed = commands()
    assert len(typed) >= 8
    made: list[Trace] = []
    for command in typed:
        here = command.replace("/var/lib/rucio-trace", f"{tmp_path}/lib").replace("/var/backups", f"{tmp_path}/backups")
        here = here.replace("postgresql://traces@db.example.org/traces", f"'{database}'")
        done = subprocess.run(  # noqa: S602 its purpose
            here, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, (here, done.stdout, done.stderr)
        if here == "rucio-trace store migrate":
            made = record(f"sqlite:///{tmp_path}/lib/traces.db", product)
    assert "GENUINE" in done.stdout, "the last command checks a proof"
    try:
        with Store.open(f"sqlite:///{tmp_path}/lib/traces.db", migrate=False) as store:
            original = store.since(0)
        with Store.open(database, migrate=False) as moved:
            assert moved.since(0) == original
            assert [stored.trace for stored in original] == made
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
    done = status()
    assert (done.returncode, "store.url" in done.stderr) == (2, True)
    settings.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/none.db"\n')
    assert status().returncode == 3
    assert not (tmp_path / "none.db").exists()
    with Store.open(f"sqlite:///{tmp_path}/none.db"):
        pass
    done = status()
    assert (done.returncode, done.stdout.endswith(": 0 traces\n")) == (0, True)
