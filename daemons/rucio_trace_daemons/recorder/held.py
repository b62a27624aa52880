"""The rows a worker holds: their lease is kept alive, and they are given back when the worker has to stop."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from rucio.common.exception import DatabaseException
from sqlalchemy.exc import DBAPIError

from rucio_trace_daemons.storage_errors import LeaseLost, Stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from rucio_trace_daemons.recorder.outbox import Outbox
    from rucio_trace_daemons.recorder.rows import Row

__all__ = ["Held"]

LOG = logging.getLogger("traceability-recorder")


class Held:
    """Of one worker, which belongs to one thread."""

    def __init__(self, outbox: Outbox, lease: timedelta, stopping: Callable[[], bool]) -> None:
        self._outbox, self._lease, self._stopping = outbox, lease, stopping
        self._rows: list[Row] = []
        self._renewed = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def hold(self, rows: Sequence[Row]) -> None:
        """These and no others, as they were claimed just now."""
        self._rows, self._renewed = list(rows), time.monotonic()

    def let_go(self, rows: Sequence[Row]) -> None:
        done = {row.event_id for row in rows}
        self._rows = [row for row in self._rows if row.event_id not in done]

    def watch(self) -> None:
        """Called during long work: keeps the lease alive.

        Raises:
            LeaseLost, Stopping: nothing more may be done about these rows.
        """
        if self._stopping():
            raise Stopping
        if time.monotonic() - self._renewed > self._lease.total_seconds() / 3:
            held = self._outbox.renew(self._rows)
            self._renewed = time.monotonic()
            if len(held) < len(self._rows):
                raise LeaseLost

    def give_back(self) -> None:
        """Let others take what is held; if even that fails, the lease runs out by itself."""
        rows, self._rows = self._rows, []
        if rows:
            try:
                self._outbox.release(rows)
            except (DBAPIError, DatabaseException):  # the error that brought us here is the one to report
                LOG.debug("release-failed rows=%d", len(rows))
