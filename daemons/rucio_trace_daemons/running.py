"""How our daemons run, with the habits of Rucio's own.

Every thread has a heartbeat in Rucio's table and does steps until nothing is due, then waits. Named errors (a
database or the store away, a certificate that ended) are logged and tried again; anything else is a bug: it ends the
process, and the supervisor starts another.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rucio_trace.errors import TraceabilityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from sqlalchemy import ColumnElement

__all__ = ["Daemon", "Every", "Worker", "heartbeat_name", "heartbeat_rses", "is_heartbeat_of", "run_threads"]

# How long a thread whose heartbeat could not be written waits before it begins again.
RESTART_SECONDS = 5.0


class Worker(Protocol):
    """What one thread does: bounded steps, each safe to repeat."""

    def step(self) -> int:
        """How much was done; 0 when nothing is due."""
        ...


class Every:
    """Says to one of all threads, at most so often, that it is time."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock, self._at = seconds, threading.Lock(), 0.0

    def is_time(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._at:
                return False
            self._at = now + self._seconds
            return True

    def again_now(self) -> None:
        self._at = 0.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """What runs: `follow` is called before every step, `worker` once in each thread."""

    executable: str  # the name of its log
    heartbeat: str  # its name in Rucio's table of heartbeats
    threads: int
    sleep: timedelta
    stop: threading.Event
    follow: Callable[[], None]
    worker: Callable[[], Worker]


_RSES = "--rses "


def heartbeat_name(executable: str, rses: str) -> str:
    """The name in Rucio's table of heartbeats: it tells those apart that look at some RSEs only."""
    return executable if rses == "*" else f"{executable}{_RSES}{rses}"


def heartbeat_rses(name: str) -> str:
    """The RSE expression in such a name."""
    return name.partition(_RSES)[2] or "*"


def is_heartbeat_of(executable: str, name: ColumnElement[str]) -> ColumnElement[bool]:
    """The condition that *name* is one of *executable*, whatever its RSEs."""
    return (name == executable) | name.startswith(f"{executable}{_RSES}", autoescape=True)


def run_threads(daemon: Daemon, *, once: bool) -> None:
    """Run until stopped, or (`once`) until nothing is due; raises what ended a thread."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            _work(daemon, once=once)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            failures.append(error)
            daemon.stop.set()

    threads = [threading.Thread(target=work, name=f"{daemon.executable}-{n}") for n in range(daemon.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=1.0)  # so that this thread still receives signals
    if failures:
        raise failures[0]


def _work(daemon: Daemon, *, once: bool) -> None:
    """One thread: heartbeats and steps, until stopped."""
    from rucio.common.exception import DatabaseException
    from rucio.daemons.common import run_daemon
    from sqlalchemy.exc import DBAPIError

    log = logging.getLogger(daemon.executable)
    worker = daemon.worker()
    bugs: list[BaseException] = []

    def run_once(heartbeat_handler: Any, activity: str | None) -> bool:
        try:
            daemon.follow()
            while worker.step() and not daemon.stop.is_set():
                heartbeat_handler.live()
                daemon.follow()
        except (DatabaseException, DBAPIError, TraceabilityError) as error:
            if daemon.stop.is_set():
                return True  # giving up is what it was asked for
            if once:
                raise
            log.error("waiting %s: %s", type(error).__name__, str(error).splitlines()[0])
        except Exception as error:
            # Rucio's loop would log a bug and go on; a supervisor should rather begin afresh.
            bugs.append(error)
            daemon.stop.set()
            raise
        return True

    while not daemon.stop.is_set():
        try:
            run_daemon(
                once=once,
                graceful_stop=daemon.stop,
                executable=daemon.heartbeat,
                partition_wait_time=0,
                sleep_time=max(2, int(daemon.sleep.total_seconds())),
                run_once_fnc=run_once,
            )
        except (DatabaseException, DBAPIError) as error:
            if once:
                raise
            log.error("heartbeat-lost %s", str(error).splitlines()[0])
            daemon.stop.wait(RESTART_SECONDS)
        if once:
            break
    if bugs:
        raise bugs[0]
