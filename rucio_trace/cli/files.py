"""What `hash`, `sign` and `verify` have in common: a loop over files in which each file gets its line."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rucio_trace.cli import EXIT_UNDECIDED
from rucio_trace.cli.terminal import printable, say
from rucio_trace.errors import TraceabilityError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["explain", "for_each_file", "progress_over"]

T = TypeVar("T")

_PROGRESS_MIN_BYTES = 512 << 20  # less takes no longer than drawing the bar is worth


def explain(path: Path, error: TraceabilityError | OSError) -> str:
    """Why *path* could not be used, in one harmless line that names it."""
    if isinstance(error, OSError):
        return f"{printable(str(path))}: {error.strerror or error}"
    text = str(error)
    return text if shown(path.name) in text else f"{printable(str(path))}: {text}"


def for_each_file(files: Iterable[Path], work: Callable[[Path], None]) -> int:
    """Do *work* on every file, also after one failed; the exit code: 0, or 3 if any could not be done."""
    code = 0
    for path in files:
        try:
            work(path)
        except BrokenPipeError:
            raise
        except (TraceabilityError, OSError) as error:
            say(f"rucio-trace: {explain(path, error)}")
            code = EXIT_UNDECIDED
    return code


@contextmanager
def progress_over(files: Iterable[Path]) -> Iterator[Callable[[int], object]]:
    """A bar on stderr for reading *files*, if that takes a while and somebody watches; yields what to tell bytes to."""
    total = sum(_size(path) for path in files)
    if total < _PROGRESS_MIN_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(inside.lstat().st_size for inside in path.rglob("*"))
        return path.stat().st_size
    except OSError:
        return 0
