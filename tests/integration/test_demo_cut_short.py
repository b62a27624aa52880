"""The demo interrupted, killed and failing: what it leaves behind, and what it says."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from demo_process import Demo, processes_of
from rucio_trace_sandbox.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERRUPTIONS = int(os.environ.get("RUCIO_TRACE_DEMO_INTERRUPTIONS", "2"))
# What a whole demo takes here, if nothing else runs; only to spread the interruptions over it.
WHOLE_SECONDS = 60


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A short path, for XRootD's sockets, in a folder that its account may enter."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("seed", range(INTERRUPTIONS))
def test_ctrl_c_at_any_moment_leaves_nothing_behind(own_folder: Path, seed: int) -> None:
    demo = Demo("--megabytes", "2", environment={"TMPDIR": str(own_folder)})
    # One early, while the servers start; the others spread over the whole story.
    share = WHOLE_SECONDS * seed / max(INTERRUPTIONS - 1, 1) if seed else 3
    moment = random.uniform(0.2, share)  # noqa: S311 another moment every time
    try:
        demo.process.wait(moment)
    except subprocess.TimeoutExpired:
        demo.process.send_signal(signal.SIGINT)
    status = demo.wait()
    # −2: so early that Python itself was not up yet.
    assert status in (130, 0, -2), f"after {moment:.2f} s: {demo.output}"
    assert processes_of(own_folder) == [], f"after {moment:.2f} s"
    if status != 0:
        assert list(own_folder.iterdir()) == [], f"after {moment:.2f} s"


def test_a_killed_demo_takes_its_servers_with_it(own_folder: Path) -> None:
    demo = Demo("--folder", own_folder / "demo", "--megabytes", "1")
    wait_until(lambda: "in place" in demo.output, "the hooks", 100)
    assert any("xrootd" in line for line in processes_of(own_folder)), demo.output
    demo.process.kill()
    demo.wait()
    wait_until(lambda: processes_of(own_folder) == [], "end of the demo's processes", 15)


def test_a_step_that_fails_ends_the_demo_with_a_clear_word(own_folder: Path) -> None:
    demo = Demo("--folder", own_folder / "demo", "--megabytes", "1")
    wait_until(lambda: "in place" in demo.output, "the hooks", 100)
    storage = own_folder / "demo" / "xrd-a" / "data" / "rucio"
    os.chown(storage, 1, 1) if os.geteuid() == 0 else storage.chmod(0o555)
    assert demo.wait() not in (0, 1)
    # `rucio upload` itself ends with 0, although nothing was uploaded: the demo looks, and does not believe.
    failed = "rucio-trace: step 2, two products are uploaded: it does not hold that Rucio has S2A"
    assert failed in demo.output
    assert "rucio-trace: the last command, `rucio upload --rse XRD-A" in demo.output
    assert f"remove all with: rm -rf {own_folder / 'demo'}" in demo.output
    assert "rucio_trace_sandbox" not in demo.output  # no stack trace of ours
    assert processes_of(own_folder) == []
