"""The bytes are read by the workers of a Dask cluster, near the storage; what they found is signed here.

A worker opens the storage as every recorder does: it needs our packages, a `RUCIO_HOME` with a server's rucio.cfg, and
the credentials. It sends digests back, never bytes, and holds no key. Whoever controls the cluster decides what is
found, and what is found is signed: it must be as trustworthy as this host.

The bounds of an RSE are kept here: a reading is only handed out once a stream is free, and each stream gets its part
of the bytes a second.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from distributed import Client, Future
from distributed.client import ClosedClientError

from rucio_trace import __version__
from rucio_trace.errors import ConfigurationError, TraceabilityError
from rucio_trace_daemons.recorder.prove import Found, read_here
from rucio_trace_daemons.staging import Staging
from rucio_trace_daemons.storage import Storage
from rucio_trace_daemons.storage_errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rucio_trace.archive import ArchiveLimits
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.storage import Replica

__all__ = ["RemoteReading", "connected"]

# How long a scheduler has to answer, and how often a reading is asked whether it is still wanted.
CONNECT_SECONDS, LOOK_SECONDS = 10, 1.0


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of the cluster whose scheduler is at that address, all of whose present workers can read for us.

    Raises:
        ConfigurationError: there is no such scheduler, it has no worker, or one that is of another version.
    """
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"Dask scheduler {scheduler}", found=str(error) or type(error).__name__) from error
    with client:
        versions = client.run(_version, on_error="return")
        if not versions:
            raise ConfigurationError(f"Dask scheduler {scheduler}", expected="workers", found="none")
        for worker, found in versions.items():
            if found != __version__:
                raise ConfigurationError(
                    f"Dask worker {worker}", expected=f"rucio-trace {__version__}", found=str(found)
                )
        yield client


@dataclass(frozen=True, slots=True)
class RemoteReading:
    """Has replicas read by the workers of *client*; a `Read`, safe to share between threads.

    `storage` keeps the bounds, and reads nothing.
    """

    client: Client
    storage: Storage
    options: Options

    def __call__(
        self, replica: Replica, algorithms: tuple[str, ...], contents: bool, watch: Callable[[int], None]
    ) -> Found:
        with self.storage.turn(replica, watch):
            found = self._submit(self._bounded(replica), algorithms, contents, watch)
        watch(found.size)
        return found

    def _bounded(self, replica: Replica) -> Replica:
        """*replica* with what one stream may take of its RSE."""
        rse, threads = replica.rse, self.options.threads
        if rse.bytes_per_second is None:
            return replica
        part = max(1, rse.bytes_per_second // min(threads, rse.streams or threads))
        return replace(replica, rse=replace(rse, bytes_per_second=part))

    def _submit(
        self, replica: Replica, algorithms: tuple[str, ...], contents: bool, watch: Callable[[int], None]
    ) -> Found:
        options = self.options
        staging = (options.staging_folder, options.staging_bytes)
        done = threading.Event()
        try:
            # Not pure: Dask would give the answer of an earlier reading again.
            future = self.client.submit(
                _read, replica, algorithms, contents, options.limits, staging, pure=False, retries=0
            )
        except (ClosedClientError, OSError) as error:
            raise _lost(replica, "its scheduler is away") from error
        future.add_done_callback(lambda _future: done.set())
        try:
            while not done.wait(LOOK_SECONDS) and future.status == "pending":
                watch(0)
            return _answer(replica, future)
        finally:
            future.cancel()  # what has not begun never will; a reading under way ends by itself, for nobody


def _answer(replica: Replica, future: Future[Found | TraceabilityError]) -> Found:
    if future.status == "error":  # not an answer of the storage: a worker was killed again and again, lacks a package
        error = future.exception()
        raise _lost(replica, f"{type(error).__name__}: {error}".splitlines()[0])
    if future.status != "finished":
        raise _lost(replica, f"the reading is {future.status}")
    found = future.result()
    if isinstance(found, TraceabilityError):
        raise found
    return found


def _lost(replica: Replica, reason: str) -> Unavailable:
    return Unavailable(str(replica), f"the Dask cluster did not read it: {reason}")


# What runs on a worker ------------------------------------------------------------------------------------------------


def _version() -> str:
    return __version__


def _read(
    replica: Replica,
    algorithms: tuple[str, ...],
    contents: bool,
    limits: ArchiveLimits,
    staging: tuple[Path | None, int],
) -> Found | TraceabilityError:
    """What the storage says is a value: an exception is one of the cluster's own, which says nothing of the file."""
    try:
        return read_here(_storage(*staging), limits, replica, algorithms, contents, lambda _count: None)
    except TraceabilityError as error:
        return error


@cache
def _storage(folder: Path | None, limit_bytes: int) -> Storage:
    """One for the whole process, whose threads share what an RSE allows."""

    def pause(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    return Storage(Staging(folder, limit_bytes), pause)
