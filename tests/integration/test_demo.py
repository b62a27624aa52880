"""The demo as a user runs it: whole, interrupted, twice at once, with a file of one's own."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from rucio_trace_sandbox.demo.commands import NotSoError
from rucio_trace_sandbox.demo.naming import did_name
from rucio_trace_sandbox.demo.narrator import Narrator
from rucio_trace_sandbox.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(sys.executable).with_name("rucio-trace")
INTERRUPTIONS = int(os.environ.get("RUCIO_TRACE_DEMO_INTERRUPTIONS", "3"))
# What a whole demo takes here, if nothing else runs; only to spread the interruptions over it.
WHOLE_SECONDS = 60


class Demo:
    """A demo that runs in a process of its own."""

    def __init__(self, *options: str | Path, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "demo", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.output += line

    @property
    def folder(self) -> Path:
        return Path(re.search(r"^Everything of this demo lies in (.*)$", self.output, re.MULTILINE)[1])

    def wait(self) -> int:
        status = self.process.wait(280)
        self._reader.join()
        return status


def _processes_of(folder: Path) -> list[str]:
    """The processes that know *folder*, by their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if int(process.name) != os.getpid() and any(os.fsencode(folder) in text for text in texts):
            found.append(texts[0].replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A short path, for XRootD's sockets, in a folder that its account may enter."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def two_demos() -> Iterator[list[Demo]]:
    """Two demos that ran at the same time, one with a file of the user's."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        product = folder / "my product (1).bin"
        product.write_bytes(os.urandom(100_000))
        demos = [
            Demo("--megabytes", "1", "--folder", folder / "one"),
            Demo("--megabytes", "1", "--folder", folder / "two", "--product", product),
        ]
        for demo in demos:
            demo.wait()
        yield demos


def test_two_demos_at_once_both_succeed(two_demos: list[Demo]) -> None:
    for demo in two_demos:
        assert demo.process.returncode == 0, demo.output
        assert _processes_of(demo.folder) == []
    assert "my_product_1_.bin" in two_demos[1].output


def test_the_demo_tells_and_checks_every_step(two_demos: list[Demo]) -> None:
    output = two_demos[0].output
    headings = re.findall(r"^(\d)\. ", output, re.MULTILINE)
    assert headings == [str(number) for number in range(1, 9)]
    steps = dict(zip(headings, re.split(r"^\d\. ", output, flags=re.MULTILINE)[1:], strict=True))
    assert all("✓" in steps[number] for number in "1234567")
    assert "$ rucio upload --rse XRD-A" in steps["2"]
    assert "$ rucio upload --rse POSIX-A" in steps["2"]
    assert "$ rucio rule add --copies 1 --rses XRD-B" in steps["3"]
    assert re.search(r"trace_status: +GENUINE", steps["4"])
    assert ": GENUINE" in steps["5"]
    assert ": TAMPERED" in steps["5"]
    assert re.search(r"DELETE +XRD-B +SITE-B .*root.*del_rule.*rule \w{32}", steps["6"])
    assert re.search(r"CORRUPT +POSIX-B +SITE-B .*found BLAKE3", steps["7"])
    assert re.search(r"trace_status: +DEGRADED", steps["7"])


def test_a_demo_without_a_terminal_prints_no_bars(two_demos: list[Demo]) -> None:
    assert "\x1b" not in two_demos[0].output
    assert "\r" not in two_demos[0].output


def test_afterwards_one_can_look_around_in_a_living_federation(two_demos: list[Demo]) -> None:
    folder = two_demos[0].folder
    did = re.search(r"rule add .* (eo:S2A\S+)$", two_demos[0].output, re.MULTILINE)[1]
    script = f"""
        rucio rule add --copies 1 --rses XRD-B {did} || exit 1
        for try in $(seq 60); do
            rucio-trace history {did} --json > history
            [ $(grep -c '"COPY"' history) = 2 ] && exec rucio replica list file {did}
            sleep 0.5
        done
        exit 9"""
    looked = subprocess.run(
        [folder / "look-around", "sh", "-c", script], cwd=folder, capture_output=True, text=True, timeout=150
    )
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert re.search(r"XRD-B.*root://127\.0\.0\.1:\d+/", looked.stdout)
    assert _processes_of(folder) == []


def test_a_demo_on_top_of_another_is_refused(two_demos: list[Demo]) -> None:
    demo = Demo("--folder", two_demos[0].folder)
    assert demo.wait() != 0
    assert "not empty" in demo.output
    assert two_demos[0].folder.exists()


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
    assert _processes_of(own_folder) == [], f"after {moment:.2f} s"
    if status != 0:
        assert list(own_folder.iterdir()) == [], f"after {moment:.2f} s"


def test_a_killed_demo_takes_its_servers_with_it(own_folder: Path) -> None:
    demo = Demo("--folder", own_folder / "demo", "--megabytes", "1")
    wait_until(lambda: "in place" in demo.output, "the hooks", 100)
    assert any("xrootd" in line for line in _processes_of(own_folder)), demo.output
    demo.process.kill()
    demo.wait()
    wait_until(lambda: _processes_of(own_folder) == [], "end of the demo's processes", 15)


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
    assert _processes_of(own_folder) == []


def test_a_claim_that_does_not_hold_is_not_told() -> None:
    console = Console(file=io.StringIO())
    narrator = Narrator(console)
    narrator.begin(3, "Rules ask for copies")
    narrator.hold("one is one", True)
    with pytest.raises(NotSoError, match="step 3, rules ask for copies: it does not hold that one is two; found 1"):
        narrator.hold("one is two", False, 1)
    assert "✓ one is one" in console.file.getvalue()
    assert "two" not in console.file.getvalue()


def test_names_that_rucio_would_refuse_are_changed() -> None:
    assert did_name("S2A_x.SAFE.zip") == "S2A_x.SAFE.zip"
    assert did_name("a b/ü.zip") == "a_b_.zip"
    assert did_name("-.hidden") == "hidden"
    assert did_name("…") == "product"
    assert len(did_name("x" * 300)) == 250
