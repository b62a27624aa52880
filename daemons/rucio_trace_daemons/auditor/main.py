"""`rucio-trace-auditor`: the daemon, with the habits of Rucio's own."""

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

    from rucio_trace_daemons.auditor.service import Auditor

__all__ = ["main", "run", "stop"]

EXECUTABLE = "traceability-auditor"
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
        print(f"rucio-trace-auditor: {error}", file=sys.stderr)  # noqa: T201 - also where no log is configured
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rucio-trace-auditor",
        description="Read every replica again in its turn, sign what is good, and have Rucio replace what is not.",
        epilog="Example: rucio-trace-auditor --rses 'site=A' --threads 4",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, instead of those found by default")
    parser.add_argument("--run-once", action="store_true", help="read what is due, then end")
    parser.add_argument("--threads", type=int, metavar="N", help="workers side by side")
    parser.add_argument("--bulk", type=int, metavar="N", help="replicas a claim")
    parser.add_argument("--sleep-time", type=int, metavar="SECONDS", help="pause when nothing is due")
    parser.add_argument("--rses", metavar="EXPRESSION", help="only RSEs of this RSE expression")
    parser.add_argument(
        "--declare", action="store_true", default=None, help="declare bad replicas in Rucio, which replaces them"
    )
    parser.add_argument("--metrics-port", type=int, metavar="N", help="serve metrics for Prometheus there")
    return parser


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    sleep = None if arguments.sleep_time is None else timedelta(seconds=arguments.sleep_time)
    given = {name: getattr(arguments, name) for name in ("threads", "bulk", "rses", "declare")} | {"sleep": sleep}
    return {name: value for name, value in given.items() if value is not None}


def stop(signum: int | None = None, frame: Any = None) -> None:
    """End gracefully: readings under way are given up, replicas are given back."""
    GRACEFUL_STOP.set()


def run(settings: Settings, *, once: bool = False, **overrides: Any) -> None:
    """Audit until stopped, or (`once`) until nothing is due. `overrides` are fields of `Options`.

    Raises:
        TraceabilityError: the auditor cannot begin: settings, hooks, key or store are not fit.
    """
    from rucio_trace_policy.database import open_database

    engine, schema = open_database()
    # Rucio's own modules cannot even be imported where there is no rucio.cfg.
    from rucio_trace_policy import hooks

    from rucio_trace_daemons.auditor.options import Options
    from rucio_trace_daemons.auditor.service import Auditor
    from rucio_trace_daemons.monitoring import served

    options = replace(Options.of(settings), **overrides)
    hooks.check(engine, schema)
    auditor = Auditor.open(settings, options, engine, GRACEFUL_STOP)
    try:
        with served(settings.metrics, EXECUTABLE, engine, auditor.rses, auditor.keys):
            run_threads(daemon(auditor), once=once)
    finally:
        auditor.close()


def daemon(auditor: Auditor) -> Daemon:
    """How *auditor* runs."""
    options = auditor.options
    return Daemon(EXECUTABLE, options.threads, options.sleep, auditor.stop, auditor.follow, auditor.worker)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
