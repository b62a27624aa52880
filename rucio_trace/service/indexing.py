"""What registration leaves for later: a thread in each process, of which one works and the others find nothing."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from rucio_trace.errors import StorageError

if TYPE_CHECKING:
    from rucio_trace.store import Store

__all__ = ["Indexing"]

_IDLE_SECONDS: Final = 1.0
_AWAY_SECONDS: Final = 5.0  # until a database that did not answer is asked again
_PREPARE_SECONDS: Final = 3_600

LOG = logging.getLogger("rucio-trace.service")


class Indexing:
    """Lets traces be found by members and words soon after they were registered, and makes room for those to come."""

    def __init__(self, store: Store) -> None:
        self._store, self._stop = store, threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexing")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End after the transaction that is under way; what is left waits for the next process."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except Exception:  # a bug: traces that are not found any more must not go unnoticed
            LOG.exception("index-ends; so does this process, for its supervisor to begin another")
            os.kill(os.getpid(), signal.SIGTERM)

    def _work(self) -> None:
        prepare_at = 0.0
        while not self._stop.is_set():
            try:
                pause = 0.0 if self._store.index() else _IDLE_SECONDS
                if time.monotonic() >= prepare_at:
                    prepare_at = time.monotonic() + _PREPARE_SECONDS
                    self._store.prepare()
            except StorageError as error:
                LOG.warning("index-waits %s", error)
                pause = _AWAY_SECONDS
            self._stop.wait(pause)
