"""`rucio-trace-recorder`: the daemon, with the habits of Rucio's own."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rucio_trace import __version__
from rucio_trace.config import Settings
from rucio_trace.errors import TraceabilityError
from rucio_trace_daemons.running import Daemon, run_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rucio_trace_daemons.recorder.service import Recorder

__all__ = ["main", "run", "stop"]

EXECUTABLE = "traceability-recorder"
LOG = logging.getLogger(EXECUTABLE)
GRACEFUL_STOP = threading.Event()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the program; returns its exit status."""
    arguments = _parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    from rucio.common.logging import setup_logging

    setup_logging(process_name=EXECUTABLE)
    try:
        settings = Settings.load(arguments.config)
        if arguments.metrics_port is not None:
            settings = replace(settings, metrics=replace(settings.metrics, port=arguments.metrics_port))
        run(settings, once=arguments.run_once, **_overrides(arguments))
    except TraceabilityError as error:
        LOG.critical("cannot-run %s", error)
        print(f"rucio-trace-recorder: {error}", file=sys.stderr)  # noqa: T201 - also where no log is configured
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rucio-trace-recorder",
        description="Sign a trace for every replica that comes, goes or is doubted in Rucio.",
        epilog="Example: rucio-trace-recorder --rses 'site=A' --threads 4",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, instead of those found by default")
    parser.add_argument("--run-once", action="store_true", help="handle what is due, then end")
    parser.add_argument("--threads", type=int, metavar="N", help="workers side by side")
    parser.add_argument("--bulk", type=int, metavar="N", help="due rows a batch")
    parser.add_argument("--sleep-time", type=int, metavar="SECONDS", help="pause when nothing is due")
    parser.add_argument("--rses", metavar="EXPRESSION", help="only RSEs of this RSE expression")
    parser.add_argument("--metrics-port", type=int, metavar="N", help="serve metrics for Prometheus there")
    return parser


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    sleep = None if arguments.sleep_time is None else timedelta(seconds=arguments.sleep_time)
    given = {"threads": arguments.threads, "bulk": arguments.bulk, "sleep": sleep, "rses": arguments.rses}
    return {name: value for name, value in given.items() if value is not None}


def stop(signum: int | None = None, frame: Any = None) -> None:
    """End gracefully: readings under way are given up, rows are given back."""
    GRACEFUL_STOP.set()


def run(settings: Settings, *, once: bool = False, **overrides: Any) -> None:
    """Record until stopped, or (`once`) until nothing is due. `overrides` are fields of `Options`.

    Raises:
        TraceabilityError: the recorder cannot begin: settings, hooks, key or store are not fit.
    """
    from rucio_trace_policy.database import open_database

    engine, schema = open_database()
    # Rucio's own modules cannot even be imported where there is no rucio.cfg.
    from rucio_trace_policy import hooks

    from rucio_trace_daemons.monitoring import served
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.recorder.service import Recorder

    options = replace(Options.of(settings), **overrides)
    hooks.check(engine, schema)
    recorder = Recorder.open(settings, options, engine, GRACEFUL_STOP)
    try:
        with served(settings.metrics, EXECUTABLE, engine, recorder.rses, recorder.keys):
            run_threads(daemon(recorder), once=once)
    finally:
        recorder.close()


def daemon(recorder: Recorder) -> Daemon:
    """How *recorder* runs."""
    options = recorder.options
    return Daemon(EXECUTABLE, options.threads, options.sleep, recorder.stop, recorder.follow, recorder.worker)


if __name__ == "__main__":
    sys.exit(main())
