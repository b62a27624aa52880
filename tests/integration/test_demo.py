"""The demo as a user runs it: whole, with a file of one's own beside it, and entered again."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from demo_process import Demo, processes_of
from rich.console import Console
from rucio_trace_sandbox.demo.commands import NotSoError
from rucio_trace_sandbox.demo.naming import did_name
from rucio_trace_sandbox.demo.narrator import Narrator
from rucio_trace_sandbox.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# Two federations at once, on a machine that has other tests to run.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def two_demos() -> Iterator[list[Demo]]:
    """A demo that ran to its end, and at the same time one with a file of the user's.

    What becomes of that file is told in steps 2 to 5; then the user has seen enough and presses Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        product = folder / "my product (1).bin"
        product.write_bytes(os.urandom(100_000))
        demos = [
            Demo("--megabytes", "1", "--folder", folder / "one"),
            Demo("--megabytes", "1", "--folder", folder / "two", "--product", product),
        ]
        wait_until(lambda: "\n6. " in demos[1].output or demos[1].process.poll() is not None, "five steps", 560)
        demos[1].process.send_signal(signal.SIGINT)
        for demo in demos:
            demo.wait()
        yield demos


def test_two_demos_at_once_do_not_disturb_each_other(two_demos: list[Demo]) -> None:
    for demo, status in zip(two_demos, (0, 130), strict=True):
        assert demo.process.returncode == status, demo.output
        assert processes_of(demo.folder) == []
    assert "✓ a CREATE by SITE-A and a COPY by SITE-B of my_product_1_.bin" in two_demos[1].output
    assert re.search(r"download/eo/my_product_1_\.bin: TAMPERED", two_demos[1].output)


def test_the_demo_tells_and_checks_every_step(two_demos: list[Demo]) -> None:
    output = two_demos[0].output
    headings = re.findall(r"^(\d)\. ", output, re.MULTILINE)
    assert headings == [str(number) for number in range(1, 10)]
    steps = dict(zip(headings, re.split(r"^\d\. ", output, flags=re.MULTILINE)[1:], strict=True))
    assert all("✓" in steps[number] for number in "12345678")
    assert "$ rucio upload --rse XRD-A" in steps["2"]
    assert "$ rucio upload --rse POSIX-A" in steps["2"]
    assert "$ rucio rule add --copies 1 --rses XRD-B" in steps["3"]
    assert re.search(r"trace_status: +GENUINE", steps["4"])
    assert steps["5"].count(": GENUINE") == 2  # by the store, and through the service
    assert ": TAMPERED" in steps["5"]
    assert re.search(r"DELETE +XRD-B +SITE-B .*root.*del_rule.*rule \w{32}", steps["6"])
    assert re.search(r"trace_status: +DEGRADED", steps["7"])
    assert re.search(r"CORRUPT +POSIX-B +SITE-B .*found BLAKE3", steps["8"])
    assert re.search(r"trace_status: +GENUINE", steps["8"])


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
    assert processes_of(folder) == []


def test_a_demo_on_top_of_another_is_refused(two_demos: list[Demo]) -> None:
    demo = Demo("--folder", two_demos[0].folder)
    assert demo.wait() != 0
    assert "not empty" in demo.output
    assert two_demos[0].folder.exists()


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
