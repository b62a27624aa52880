"""One display on stderr while files are read and sent; nothing where nobody watches."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rich.progress import Progress, TaskID

__all__ = ["Display", "display"]

_MIN_BYTES = 64 << 20  # less is gone before a bar is drawn
_LOOK_SECONDS = 0.25


class Display(Protocol):
    """What is told of the work."""

    def read(self, count: int) -> object:
        """So many more bytes were read."""

    def sending(self, path: Path) -> AbstractContextManager[None]:
        """The file at *path* is sent while this lasts."""


@contextmanager
def display(total: int, *, wanted: bool = True) -> Iterator[Display]:
    """A bar each for reading and for sending *total* bytes, if that takes a while and somebody watches."""
    if not wanted or total < _MIN_BYTES or not sys.stderr.isatty():
        yield _Nothing()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description:8}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars, total)


class _Nothing:
    def read(self, count: int) -> None:
        pass

    @contextmanager
    def sending(self, path: Path) -> Iterator[None]:
        yield


class _Bars:
    def __init__(self, bars: Progress, total: int) -> None:
        self._bars, self._total = bars, total
        self._reading = bars.add_task("reading", total=total)
        self._sending: TaskID | None = None
        self._sent = 0

    def read(self, count: int) -> None:
        self._bars.advance(self._reading, count)

    @contextmanager
    def sending(self, path: Path) -> Iterator[None]:
        """Rucio's protocols do not tell how far they are: what this process and its children move tells it."""
        if self._sending is None:
            self._sending = self._bars.add_task("sending", total=self._total)
        task, size, begin, done = self._sending, path.stat().st_size, _moved(), threading.Event()

        def look() -> None:
            while not done.wait(_LOOK_SECONDS):
                read, written = (now - before for now, before in zip(_moved(), begin, strict=True))
                self._bars.update(task, completed=self._sent + min(size, max(read, written)))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
        self._sent += size
        self._bars.update(task, completed=self._sent)


def _moved() -> tuple[int, int]:
    """The bytes that this process and its children have read, and those they have written to a disk, so far."""
    pids = ["self"]
    for task in Path("/proc/self/task").iterdir():
        try:
            pids += (task / "children").read_text().split()
        except OSError:  # the thread has ended
            continue
    read = written = 0
    for pid in pids:
        try:
            counters = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        except OSError:  # the process has
            continue
        read, written = read + int(counters["rchar"]), written + int(counters["write_bytes"])
    return read, written
