"""How our daemons are started and ended: one command line, with the flags of Rucio's own daemons."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rucio_trace import __version__
from rucio_trace.config import Settings
from rucio_trace.errors import TraceabilityError
from rucio_trace_daemons.running import Daemon, Worker, heartbeat_name, run_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rucio_trace_daemons.keys import Keys
    from rucio_trace_daemons.rses import Rses

__all__ = ["Options", "Program", "Service"]


class Options(Protocol):
    """What every daemon is told."""

    @property
    def rses(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def sleep(self) -> timedelta: ...


class Service(Protocol):
    """What the threads of a daemon share."""

    @property
    def options(self) -> Options: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def rses(self) -> Rses: ...
    @property
    def stop(self) -> threading.Event: ...
    def follow(self) -> None: ...
    def worker(self) -> Worker: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A daemon as an operator knows it."""

    name: str
    executable: str  # its name in Rucio's table of heartbeats, and of its log
    description: str
    example: str  # options that make sense together
    once: str  # what `--run-once` does
    bulk: str  # what `--bulk` counts
    # The classes of its options and of its service, which cannot be imported where there is no rucio.cfg.
    parts: Callable[[], tuple[Any, Any]]
    switches: Mapping[str, str] = field(default_factory=dict)  # more options, which are on or off, with their help
    graceful_stop: threading.Event = field(default_factory=threading.Event)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Entry point of the program; returns its exit status."""
        arguments = self.parser().parse_args(argv)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        from rucio.common.logging import setup_logging

        setup_logging(process_name=self.executable)
        for talkative in ("httpx", "httpcore"):  # a line for every question to a service
            logging.getLogger(talkative).setLevel(logging.WARNING)
        try:
            settings = Settings.load(arguments.config)
            if arguments.metrics_port is not None:
                settings = replace(settings, metrics=replace(settings.metrics, port=arguments.metrics_port))
            self.run(settings, once=arguments.run_once, **self._overrides(arguments))
        except TraceabilityError as error:
            logging.getLogger(self.executable).critical("cannot-run %s", error)
            print(f"{self.name}: {error}", file=sys.stderr)  # noqa: T201 - also where no log is configured
            return 1
        return 0

    def parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=self.name, description=self.description, epilog=f"Example: {self.name} {self.example}"
        )
        parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
        parser.add_argument("--config", type=Path, metavar="FILE", help="settings, instead of those found by default")
        parser.add_argument("--run-once", action="store_true", help=self.once)
        parser.add_argument("--threads", type=int, metavar="N", help="workers side by side")
        parser.add_argument("--bulk", type=int, metavar="N", help=self.bulk)
        parser.add_argument("--sleep-time", type=int, metavar="SECONDS", help="pause when nothing is due")
        parser.add_argument("--rses", metavar="EXPRESSION", help="only RSEs of this RSE expression")
        for switch, meaning in self.switches.items():
            parser.add_argument(f"--{switch}", action="store_true", default=None, help=meaning)
        parser.add_argument("--metrics-port", type=int, metavar="N", help="serve metrics for Prometheus there")
        return parser

    def _overrides(self, arguments: argparse.Namespace) -> dict[str, Any]:
        sleep = None if arguments.sleep_time is None else timedelta(seconds=arguments.sleep_time)
        names = ("threads", "bulk", "rses", *self.switches)
        given = {name: getattr(arguments, name) for name in names} | {"sleep": sleep}
        return {name: value for name, value in given.items() if value is not None}

    def stop(self, signum: int | None = None, frame: Any = None) -> None:
        """End gracefully: readings under way are given up, what was claimed is given back."""
        self.graceful_stop.set()

    def run(self, settings: Settings, *, once: bool = False, **overrides: Any) -> None:
        """Run until stopped, or (`once`) until nothing is due. `overrides` are fields of the daemon's `Options`.

        Raises:
            TraceabilityError: it cannot begin: settings, hooks, key or store are not fit.
        """
        from rucio_trace_policy.database import open_database

        engine, schema = open_database()
        # Rucio's own modules cannot even be imported where there is no rucio.cfg.
        from rucio_trace_policy import hooks

        from rucio_trace_daemons.monitoring import served

        hooks.check(engine, schema)
        options, opened = self.parts()
        given = replace(options.of(settings), **overrides)
        service: Service = opened.open(settings, given, engine, self.graceful_stop)
        try:
            with served(settings.metrics, self.executable, engine, service.rses, service.keys):
                run_threads(self.daemon(service), once=once)
        finally:
            service.close()

    def daemon(self, service: Service) -> Daemon:
        """How *service* runs."""
        options = service.options
        named = (self.executable, heartbeat_name(self.executable, options.rses))
        return Daemon(*named, options.threads, options.sleep, service.stop, service.follow, service.worker)
