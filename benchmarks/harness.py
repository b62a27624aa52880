"""How everything here is measured: ours and its peer in turns, medians, one row each.

A benchmark module is called `bench_<name>.py` and has one function `rows()` that yields `Row`s.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = [
    "ROUNDS",
    "Row",
    "at_least",
    "at_most",
    "compared",
    "forget",
    "interleaved",
    "markdown",
    "read_file",
    "seconds",
]

ROUNDS = 5
"""The least number of rounds whose median shrugs off two disturbed ones."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, against what, and whether it is good enough."""

    name: str
    ours: str
    peer: str
    ratio: str
    target: str
    met: bool


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(*runs: Callable[[], object], rounds: int = ROUNDS, warm: bool = True) -> list[float]:
    """The median seconds of each of *runs*, called in turns so that a disturbance meets all of them."""
    if warm:
        for run in runs:
            run()
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds):
        order = list(range(len(runs)))
        for index in order if turn % 2 == 0 else reversed(order):
            times[index].append(seconds(runs[index]))
    return [statistics.median(series) for series in times]


def forget(path: Path) -> None:
    """Let the kernel drop the file's pages; only those that are on the disk go."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_file(path: Path) -> None:
    """Read the file to its end, a MiB at a time, and do nothing with it."""
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def compared(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    peer_name: str,
    limit: float,
    rounds: int = ROUNDS,
) -> Row:
    """Ours may take at most *limit* times as long as the peer."""
    own, other = interleaved(ours, peer, rounds=rounds)
    ratio = own / other
    return Row(name, _time(own), f"{_time(other)} {peer_name}", f"{ratio:.2f}", f"<= {limit:g}x", ratio <= limit)


def at_most(name: str, value: float, limit: float, unit: str = "s") -> Row:
    """*value* may be at most *limit*."""
    return Row(name, f"{value:.3g} {unit}", "", f"{value / limit:.2f}", f"<= {limit:g} {unit}", value <= limit)


def at_least(name: str, value: float, limit: float, unit: str) -> Row:
    """*value* must be at least *limit*."""
    return Row(name, f"{value:.3g} {unit}", "", f"{value / limit:.2f}", f">= {limit:g} {unit}", value >= limit)


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table that reads well both raw and rendered."""
    header = ("what", "ours", "peer", "ratio", "target", "")
    cells = [header, *((r.name, r.ours, r.peer, r.ratio, r.target, "ok" if r.met else "MISSED") for r in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _time(value: float) -> str:
    return f"{value:.3f} s" if value >= 0.1 else f"{value * 1000:.3g} ms"
