"""`rucio-trace backfill`: an archive that is older than its traces is proven and signed."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_INTERRUPTED, EXIT_UNDECIDED, settings_of
from rucio_trace.cli.terminal import printable, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rucio_trace_daemons.backfill.run import Plan, Progress

__all__ = ["backfill"]

EXIT_NOT_GENUINE = 1
# Where nobody watches, a line goes to the log now and then.
LINE_SECONDS = 30.0


@click.command()
@click.option("--rses", "expression", metavar="EXPR", required=True, help="The RSEs: a Rucio RSE expression.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Read so many files at once in each process.")
@click.option("--processes", type=click.IntRange(1), metavar="N", default=1, help="More than one for small files.")
@click.option("--dask", "scheduler", metavar="SCHEDULER", help="Have the workers of this Dask cluster read.")
@click.pass_context
def backfill(ctx: click.Context, expression: str, threads: int | None, processes: int, scheduler: str | None) -> None:
    """Prove and sign every available replica that has no trace yet.

    It does the recorder's work with the recorder's settings, beside recorders that run. Each replica is read as its
    RSE's attributes say, within `trace_streams` and `trace_bytes_per_second`, and signed as VERIFY. Interrupted or
    killed, it continues when it is called again. What cannot be read waits in the outbox, and recorders try it again.

    Ends with 0 when all is proven, with 1 when a replica is not what it should be, else with 3.

    \b
    Example:
      rucio-trace backfill --rses 'site=A' --processes 2
    """
    if scheduler is not None and processes > 1:
        raise click.UsageError("--dask reads on its own processes: give --threads, one for each file read at once")
    from rucio_trace_policy.database import open_database

    engine, schema = open_database()  # before Rucio's modules are imported, which fails where there is no database
    from rucio_trace_daemons.backfill import run as backfilling
    from rucio_trace_daemons.backfill.work import Processes, Task, Threads
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_policy import hooks

    settings = settings_of(ctx)
    options = replace(Options.of(settings), threads=threads or settings.recorder.threads)
    hooks.check(engine, schema)
    plan = backfilling.plan(engine, expression)
    _tell(plan)
    task = Task(settings, options, frozenset(plan.rses))
    with ExitStack() as stack:
        if processes > 1:
            crew: Any = Processes(task, processes)
        elif scheduler is not None:
            from rucio_trace_daemons.backfill.remote import RemoteReading, connected

            client = stack.enter_context(connected(scheduler))
            crew = Threads(task, read=lambda recorder: RemoteReading(client, recorder.storage, options))
        else:
            crew = Threads(task)
        show = stack.enter_context(_display(plan))
        stack.enter_context(_interrupted_by_sigterm())
        progress = backfilling.run(engine, plan, crew, options.bulk * options.threads * processes, show)
    _conclude(progress)


def _tell(plan: Plan) -> None:
    say(f"{plan.files:,} replicas to prove on {len(plan.rses)} RSEs, {_size(plan.bytes)}")
    if plan.skipped:
        names = ", ".join(sorted(printable(rse.name) for rse in plan.skipped))
        say(f"skipped (volatile, or an unknown trace_method): {names}")


def _conclude(progress: Progress) -> None:
    ended = " ".join(f"{word}={count}" for word, count in sorted(progress.outcomes.items())) or "nothing"
    say(f"{'done' if progress.ended else 'not all done'}: {ended}, {_size(progress.bytes)} read")
    if progress.waiting:
        say(f"{progress.waiting:,} wait in the outbox and are tried again: `rucio-trace outbox list --failed`")
    if progress.unspeakable:
        say(f"{progress.unspeakable:,} on tape: no transfer compared a checksum, so nothing is said")
    if not progress.ended:
        say("too many failed: mend the storage" if progress.choked else "the same command continues")
    if progress.outcomes["CORRUPT"] or progress.outcomes["LOST"]:
        raise click.exceptions.Exit(EXIT_NOT_GENUINE)
    if progress.interrupted:
        raise click.exceptions.Exit(EXIT_INTERRUPTED)
    if progress.waiting or progress.unspeakable or not progress.ended:
        raise click.exceptions.Exit(EXIT_UNDECIDED)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM, which services and batch systems send, like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _display(plan: Plan) -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr; where nobody watches, a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=max(1, plan.files), told="")

        def show(progress: Any) -> None:
            bars.update(task, completed=min(progress.files, plan.files), told=_line(progress))

        yield show


class _Lines:
    """Says how far it is twice a minute."""

    def __init__(self) -> None:
        self._next = LINE_SECONDS

    def __call__(self, progress: Progress) -> None:
        if progress.seconds >= self._next:
            self._next = progress.seconds + LINE_SECONDS
            say(_line(progress))


def _line(progress: Progress) -> str:
    """Files, bytes, rates, and how long it will take: by what is left of files or of bytes, whichever is more."""
    plan, seconds = progress.plan, max(progress.seconds, 0.001)
    parts = [(progress.files, plan.files)] + ([(progress.bytes, plan.bytes)] if progress.bytes else [])
    done = min((min(1.0, part / whole) for part, whole in parts if whole), default=1.0)
    left = timedelta(seconds=round(seconds * (1 - done) / done)) if done else "unknown"
    return (
        f"{progress.files:,}/{plan.files:,} files, {_size(progress.bytes)}/{_size(plan.bytes)}, "
        f"{progress.files / seconds:,.0f} files/s, {_size(progress.bytes / seconds)}/s, ETA {left}"
        + (f", {progress.waiting:,} wait" if progress.waiting else "")
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"
