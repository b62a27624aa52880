"""Recorders that empty the outbox of some RSEs: threads of this process, or several processes of some threads each.

Large files hash beside each other in the threads of one process; small ones keep the interpreter busy, and only
another process adds to them. The processes share out each RSE's bounds, so that all of them together keep to it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rucio.common.exception import DatabaseException
from rucio.daemons.common import HeartbeatHandler
from rucio_trace_policy.database import open_database
from sqlalchemy.exc import DBAPIError

from rucio_trace.errors import StorageError, Undecided
from rucio_trace_daemons.recorder.service import Recorder
from rucio_trace_daemons.rses import ALONE, Rses, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.process import BaseProcess

    from rucio_trace.config import Settings
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.recorder.prove import Read

__all__ = ["Crew", "Processes", "Task", "Threads"]

EXECUTABLE = "traceability-backfill"
LOG = logging.getLogger(EXECUTABLE)

HEARTBEAT_SECONDS = 60
IDLE_SECONDS = 0.2  # until an empty outbox is looked at again: it is being filled
RETRY_SECONDS = 10.0  # after a database or the store did not answer


class Crew(Protocol):
    """Who works. `stop`, once set, makes all of them end."""

    stop: Any  # threading.Event, or multiprocessing's of the same face

    def start(self) -> None: ...

    def check(self) -> None:
        """Raises what ended a worker before it was asked to end."""

    def end(self) -> None:
        """Ask all to end, and wait for that: readings under way are given up, rows are given back."""

    @property
    def bytes(self) -> int:
        """How many bytes were read so far."""


@dataclass(frozen=True)
class Task:
    """What every worker is told. `rse_ids` are the RSEs to work for."""

    settings: Settings
    options: Options
    rse_ids: frozenset[str]


class Threads:
    """`options.threads` workers in this process, which reads by itself or has it *read* elsewhere."""

    def __init__(
        self,
        task: Task,
        stop: Any = None,
        *,
        share: Share = ALONE,
        read: Callable[[Recorder], Read] | None = None,
        told: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.stop, self._told = stop or threading.Event(), told
        engine, _schema = open_database()
        rses = Rses(engine, share)
        everything = Rses(engine)

        def chosen() -> set[str]:
            return {i for i, rse in everything.get(task.rse_ids).items() if share.reads(rse)}

        self._recorder = Recorder.open(task.settings, task.options, engine, self.stop, rses=rses, chosen=chosen)
        if read is not None:
            self._recorder.read = read(self._recorder)
        self._failures: list[BaseException] = []
        self._lock, self._bytes = threading.Lock(), 0
        self._threads = [threading.Thread(target=self._run, name=f"backfill-{n}") for n in range(task.options.threads)]

    @property
    def bytes(self) -> int:
        return self._bytes

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        if self._failures:
            raise self._failures[0]

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()
        self._recorder.close()

    def _run(self) -> None:
        try:
            with HeartbeatHandler(EXECUTABLE, HEARTBEAT_SECONDS) as heartbeat:
                self._work(heartbeat)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            self._failures.append(error)

    def _work(self, heartbeat: HeartbeatHandler) -> None:
        recorder, stop = self._recorder, self.stop
        worker = recorder.worker(watched=self._count)
        while not stop.is_set():
            try:
                heartbeat.live()
                recorder.follow()
                if not worker.step():
                    stop.wait(IDLE_SECONDS)
            except (DatabaseException, DBAPIError, StorageError) as error:
                if not stop.is_set():
                    LOG.error("waiting %s: %s", type(error).__name__, str(error).splitlines()[0])
                    stop.wait(RETRY_SECONDS)

    def _count(self, count: int) -> None:
        if count:
            with self._lock:
                self._bytes += count
            self._told(count)


class Processes:
    """*count* processes, each with `options.threads` workers."""

    def __init__(self, task: Task, count: int) -> None:
        # Not forked: locks that other threads of ours hold would stay held in the child.
        context = multiprocessing.get_context("spawn")
        self.stop = context.Event()
        self._read = context.Value("Q", 0)
        self._processes: Sequence[BaseProcess] = [
            context.Process(target=_process, args=(task, self.stop, Share(index, count), self._read, os.getpid()))
            for index in range(count)
        ]

    @property
    def bytes(self) -> int:
        return int(self._read.value)

    def start(self) -> None:
        for process in self._processes:
            process.start()

    def check(self) -> None:
        for process in self._processes:
            if process.exitcode is not None:
                raise Undecided(
                    "a process of the backfill",
                    expected="to work on",
                    found=f"it ended with {process.exitcode}",
                    hint="its own message stands above",
                )

    def end(self) -> None:
        self.stop.set()
        for process in self._processes:
            if process.pid is not None:
                process.join()


def _process(task: Task, stop: Any, share: Share, read: Any, parent: int) -> None:
    """The main thread of one of several processes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends it to all; the parent says what it means
        signal.signal(number, signal.SIG_IGN)

    def told(count: int) -> None:
        with read.get_lock():
            read.value += count

    crew = Threads(task, stop, share=share, told=told)
    crew.start()
    try:
        while not stop.wait(1.0):
            crew.check()
            if os.getppid() != parent:  # nobody is left to say so
                stop.set()
    finally:
        crew.end()
