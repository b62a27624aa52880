"""A backfill whose reading is done by a real Dask cluster: two worker processes, errors that cross, a worker killed."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster
from recorder_kit import Kit
from rucio_trace_daemons.backfill import remote

from rucio_trace.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

FILES = 6


@pytest.fixture
def here(rucio_sqlite: EmbeddedRucio) -> Rse:
    rse = rucio_sqlite.add_posix_rse("HERE")
    for number in range(FILES):
        rucio_sqlite.upload(rse, f"file{number}", b"content")
    slow = rucio_sqlite.add_posix_rse("SLOW", trace_bytes_per_second=100_000, trace_streams=1)
    rucio_sqlite.upload(slow, "slow", os.urandom(300_000))
    return rse


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio, here: Rse) -> Iterator[Kit]:
    kit = Kit(rucio_sqlite)
    yield kit
    kit.close()


def backfill(kit: Kit, scheduler: str, rses: str, *options: str, code: int = 0) -> str:
    arguments = ["--config", str(kit.file), "backfill", "--rses", rses, "--dask", scheduler, *options]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, result.output
    return result.output


@contextmanager
def killing_a_reader(scheduler: str) -> Iterator[list[str]]:
    """Kill the first worker that reads; its address is then in the list."""
    killed: list[str] = []
    done = threading.Event()
    with Client(scheduler, set_as_default=False) as client:
        pids = client.run(os.getpid)

        def look() -> None:
            while not killed and not done.wait(0.1):
                for worker in [worker for worker, tasks in client.processing().items() if tasks][:1]:
                    os.kill(pids[worker], signal.SIGKILL)
                    killed.append(worker)

        thread = threading.Thread(target=look)
        thread.start()
        yield killed
        done.set()
        thread.join()


def test_workers_read_what_the_storage_says_crosses_and_a_killed_one_costs_only_time(kit: Kit, here: Rse) -> None:
    path = kit.rucio.pfn_path
    path(here, "file0").write_bytes(b"CONTENT")
    path(here, "file1").unlink()
    path(here, "file2").unlink()
    path(here, "file2").mkdir()
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=logging.CRITICAL
    ) as cluster:
        said = backfill(kit, cluster.scheduler_address, "HERE", "--threads", "2", code=1)
        assert f"CORRUPT=1 VERIFY={FILES - 3}, 35 B read" in said  # bad bytes are read twice
        missing, folder = sorted(kit.outbox, key=lambda row: row.name)
        assert "no such file" in missing.last_error
        assert missing.missing_since is not None
        assert folder.last_error == "test:file2 on HERE: is not a regular file"
        with killing_a_reader(cluster.scheduler_address) as killed:
            backfill(kit, cluster.scheduler_address, "SLOW")
    assert killed
    [trace] = kit.traces("slow")
    assert (str(trace.trace.statement.event), trace.trace.statement.adopted) == ("VERIFY", True)


def test_a_cluster_that_is_not_there_is_said(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 1)
    assert "Dask scheduler tcp://127.0.0.1:1" in backfill(kit, "tcp://127.0.0.1:1", "HERE", code=2)
