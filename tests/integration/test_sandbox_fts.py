from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import requests
from rucio_trace_sandbox import daemons
from sqlalchemy import text

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.fts import File, FtsStandIn
    from rucio_trace_sandbox.storage import Rse, Stored
    from rucio_trace_sandbox.xrootd import XRootD

CONTENT = bytes(range(256)) * 1000


@dataclass
class Transfer:
    """One file on A that a rule wants on B."""

    rucio: EmbeddedRucio
    fts: FtsStandIn
    stored: Stored
    destination: Rse

    @property
    def target(self) -> Path:
        return self.rucio.pfn_path(self.destination, self.stored.name)

    @property
    def states(self) -> dict[str, str]:
        return self.rucio.replica_states(self.stored.did)

    def requests(self) -> list[tuple[str, int, str]]:
        with self.rucio.engine.connect() as connection:
            rows = connection.execute(text("SELECT state, retry_count, err_msg FROM requests ORDER BY created_at"))
            return [tuple(row) for row in rows]

    def rule_state(self) -> str:
        with self.rucio.engine.connect() as connection:
            return connection.execute(text("SELECT state FROM rules")).scalar_one()


def _begin(rucio: EmbeddedRucio, fts: FtsStandIn, a: Rse, b: Rse) -> Transfer:
    rucio.connect(a, b)
    stored = rucio.upload(a, "file", CONTENT)
    rucio.add_rule(stored.did, b.name)
    return Transfer(rucio, fts, stored, b)


@pytest.fixture
def posix(rucio_sqlite: EmbeddedRucio, fts: FtsStandIn) -> Transfer:
    a, b = (rucio_sqlite.add_posix_rse(name, fts=fts.url) for name in ("A", "B"))
    return _begin(rucio_sqlite, fts, a, b)


@pytest.fixture
def xrd(rucio_sqlite: EmbeddedRucio, fts: FtsStandIn, xrootd: XRootD, other_xrootd: XRootD, folder: Path) -> Transfer:
    a = rucio_sqlite.add_xrootd_rse("A", xrootd, prefix=f"{folder.name}-a", fts=fts.url)
    b = rucio_sqlite.add_xrootd_rse("B", other_xrootd, prefix=f"{folder.name}-b", fts=fts.url)
    return _begin(rucio_sqlite, fts, a, b)


@pytest.fixture(params=["posix", "xrd"])
def transfer(request: pytest.FixtureRequest) -> Transfer:
    return request.getfixturevalue(request.param)


def test_a_rule_brings_the_bytes(transfer: Transfer) -> None:
    assert transfer.states == {"A": "A", "B": "C"}
    daemons.move(transfer.fts)
    assert transfer.states == {"A": "A", "B": "A"}
    assert transfer.target.read_bytes() == CONTENT
    assert transfer.rule_state() == "O"


def test_a_rule_brings_the_bytes_on_postgresql_too(rucio_postgresql: EmbeddedRucio, fts: FtsStandIn) -> None:
    a, b = (rucio_postgresql.add_posix_rse(name, fts=fts.url) for name in ("A", "B"))
    transfer = _begin(rucio_postgresql, fts, a, b)
    daemons.move(fts)
    assert transfer.states == {"A": "A", "B": "A"}


def test_a_source_flipped_under_the_job_fails_it_and_the_next_try_succeeds(transfer: Transfer) -> None:
    def flip(_file: File) -> None:
        transfer.stored.path.write_bytes(CONTENT[:-1] + b"!")

    transfer.fts.before_copy = flip
    daemons.move(transfer.fts)
    assert transfer.states == {"A": "A", "B": "C"}
    assert not transfer.target.exists()
    ((state, retries, _),) = transfer.requests()
    assert (state, retries) == ("Q", 1)
    (job,) = transfer.fts.jobs.values()
    assert "checksum mismatch" in job.files[0].reason

    transfer.fts.before_copy = lambda _file: transfer.stored.path.write_bytes(CONTENT)
    daemons.move(transfer.fts)
    assert transfer.states == {"A": "A", "B": "A"}
    assert transfer.target.read_bytes() == CONTENT


def test_a_source_flipped_between_check_and_copy_is_noticed_at_the_destination(posix: Transfer) -> None:
    def flip_second_half(_file: File) -> None:
        with posix.stored.path.open("r+b") as source:
            source.seek(-1, os.SEEK_END)
            source.write(b"!")

    posix.fts.half_way = flip_second_half
    daemons.move(posix.fts)
    (job,) = posix.fts.jobs.values()
    assert job.files[0].reason.startswith("DESTINATION")
    assert not posix.target.exists()
    assert posix.states == {"A": "A", "B": "C"}


def test_a_lost_source_leaves_the_rule_stuck_after_the_last_try(posix: Transfer) -> None:
    posix.stored.path.unlink()
    for _ in range(4):
        daemons.move(posix.fts)
    assert posix.rule_state() == "S"
    assert posix.requests() == []
    assert {job.state for job in posix.fts.jobs.values()} == {"FAILED"}


def test_a_stand_in_that_dies_in_the_middle_fails_the_job_when_it_is_back(transfer: Transfer) -> None:
    died = threading.Event()

    def die(_file: File) -> None:
        transfer.fts.half_way = lambda _file: None
        transfer.fts.crash()
        died.set()

    transfer.fts.half_way = die
    daemons.submit()
    assert died.wait(10)
    daemons.poll()  # nobody answers: nothing changes
    assert [state for state, _, _ in transfer.requests()] == ["S"]
    transfer.fts.restart()
    daemons.move(transfer.fts)
    assert transfer.states == {"A": "A", "B": "C"}
    daemons.move(transfer.fts)
    assert transfer.states == {"A": "A", "B": "A"}
    assert transfer.target.read_bytes() == CONTENT


def test_a_copy_cut_off_leaves_a_part_of_the_file(posix: Transfer) -> None:
    posix.fts.half_way = lambda _file: posix.fts.crash()
    daemons.submit()
    deadline = time.monotonic() + 10
    while not posix.target.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 0 < posix.target.stat().st_size < len(CONTENT)


def test_a_late_answer_is_only_late(posix: Transfer) -> None:
    posix.fts.answer_delay_seconds = 0.7
    daemons.move(posix.fts)
    assert posix.states == {"A": "A", "B": "A"}


def test_a_poller_that_gives_up_waiting_asks_again(posix: Transfer) -> None:
    posix.rucio.configure(conveyor={"poll_timeout": "0.3"})
    daemons.submit()
    posix.fts.wait()
    posix.fts.answer_delay_seconds = 1
    daemons.poll()
    assert [state for state, _, _ in posix.requests()] == ["S"]
    posix.fts.answer_delay_seconds = 0
    daemons.move(posix.fts)
    assert posix.states == {"A": "A", "B": "A"}


def test_a_job_held_stays_submitted(posix: Transfer) -> None:
    posix.fts.hold()
    daemons.submit()
    daemons.poll()
    assert [state for state, _, _ in posix.requests()] == ["S"]
    posix.fts.release()
    daemons.move(posix.fts)
    assert posix.states == {"A": "A", "B": "A"}


def test_unlike_schemes_are_refused(fts: FtsStandIn) -> None:
    files = [{"sources": ["file:///a"], "destinations": ["root://127.0.0.1//b"], "metadata": {}}]
    job = requests.post(f"{fts.url}/jobs", json={"files": files, "params": {}}, timeout=10).json()
    fts.wait()
    answer = requests.get(f"{fts.url}/jobs/{job['job_id']}?files=reason", timeout=10).json()
    assert answer[0]["files"][0]["reason"] == "TRANSFER [93] no third-party copy from file to root"


def test_the_second_source_serves_when_the_first_fails(fts: FtsStandIn, folder: Path) -> None:
    (folder / "good").write_bytes(b"content")
    files = [{"sources": [f"file://{folder}/none", f"file://{folder}/good"], "destinations": [f"file://{folder}/to"]}]
    body = {"files": files, "params": {"job_metadata": {"multi_sources": True}}}
    job = requests.post(f"{fts.url}/jobs", json=body, timeout=10).json()
    fts.wait()
    answer = requests.get(f"{fts.url}/jobs/{job['job_id']}", timeout=10).json()
    assert (answer["job_state"], answer["job_type"]) == ("FINISHED", "R")
    assert [file["file_state"] for file in answer["files"]] == ["FAILED", "FINISHED"]
    assert (folder / "to").read_bytes() == b"content"


def test_jobs_are_cancelled_prioritised_and_missed(fts: FtsStandIn) -> None:
    fts.hold()
    files = [{"sources": ["file:///a"], "destinations": ["file:///b"]}]
    job = requests.post(f"{fts.url}/jobs", json={"files": files, "params": {"priority": 2}}, timeout=10).json()[
        "job_id"
    ]
    other = requests.post(f"{fts.url}/jobs/{job}", json={"params": {"priority": 5}}, timeout=10)
    assert other.json()["priority"] == 5
    assert requests.delete(f"{fts.url}/jobs/{job}", timeout=10).json()["job_state"] == "CANCELED"
    answers = requests.get(f"{fts.url}/jobs/{job},unknown?files=reason", timeout=10)
    assert answers.status_code == 207
    assert [answer["http_status"] for answer in answers.json()] == ["200 Ok", "404 Not Found"]
    assert requests.get(f"{fts.url}/whoami", timeout=10).json()["vos"] == ["sandbox"]
