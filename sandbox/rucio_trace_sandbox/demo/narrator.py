"""How the demo talks: headings, commands as one would type them, bars while something moves."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .commands import NotSoError, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.progress import TaskID

    from .commands import Done

__all__ = ["Narrator"]

_LOOK_SECONDS = 0.1
# What Rucio calls a file until it is whole: uploaded, downloaded.
_UNFINISHED = ("", ".rucio.upload", ".part")


class Narrator:
    """Prints for people on stdout; bars only if that is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._begun = time.monotonic()
        self._last: Done | None = None
        self.step = "getting ready"

    def begin(self, number: int, title: str) -> None:
        self.step = f"step {number}, {title.lower()}"
        self.console.print()
        self.console.print(f"[bold cyan]{number}. {escape(title)}[/]  [dim]{self._elapsed()}[/]")

    def tell(self, text: str) -> None:
        """Say what happens and why."""
        self.console.print(escape(text))

    def show(self, text: str, style: str = "dim") -> None:
        """Show what a program printed."""
        for line in text.rstrip("\n").splitlines():
            self.console.print(f"  │ {escape(line.rstrip())}", style=style, no_wrap=True, crop=False, overflow="ignore")

    def hold(self, claim: str, truth: object, found: object = None) -> None:
        """Tell *claim* if it is true; else the demo ends here and says what is so instead."""
        if not truth:
            what = f"{self.step}: it does not hold that {claim}" + (f"; found {found}" if found else "")
            raise NotSoError(f"{what}\n{self._last.tail}" if self._last else what)
        self.console.print(f"  [green]✓[/] {escape(claim)}")

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        status: int = 0,
        watch: Path | None = None,
        size: int | None = None,
    ) -> Done:
        """Run a command as a user would type it in *folder*; a bar follows the file *watch* up to *size* bytes."""
        self.console.print(f"  [bold]$[/] {escape(shlex.join(argv))}")
        with self.doing("", watch, size):
            self._last = run(argv, environment, folder)
        return self._last.check(status)

    @contextlib.contextmanager
    def doing(self, what: str, watch: Path | None = None, size: int | None = None) -> Iterator[None]:
        """Show that something is going on; with *watch*, how much of *size* bytes is there."""
        if not self.console.is_terminal:
            if what:
                self.tell(f"  … {what}")
            yield
            return
        columns = [TextColumn("  "), SpinnerColumn(), TextColumn("{task.description}")]
        if watch is not None:
            columns += [BarColumn(), DownloadColumn()]
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bar:
            task = bar.add_task(escape(what), total=size)
            ended = threading.Event()
            watcher = threading.Thread(target=_follow, args=(bar, task, watch, ended), daemon=True)
            watcher.start()
            try:
                yield
            finally:
                ended.set()
                watcher.join()

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        return f"{minutes}:{seconds:02d}"


def _follow(bar: Progress, task: TaskID, watch: Path | None, ended: threading.Event) -> None:
    while watch is not None and not ended.wait(_LOOK_SECONDS):
        for suffix in _UNFINISHED:
            with contextlib.suppress(OSError):
                bar.update(task, completed=watch.with_name(watch.name + suffix).stat().st_size)
