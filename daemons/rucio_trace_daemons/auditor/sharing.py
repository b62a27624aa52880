"""How auditors that run at the same time share what an RSE grants: by Rucio's heartbeats."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rucio.db.sqla.models import Heartbeat
from sqlalchemy import select

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from rucio_trace_daemons.rses import Rse

__all__ = ["Share"]

# Rucio counts a daemon that was silent for so long as gone.
SILENT = timedelta(seconds=600)


class Share:
    """Which of how many processes this one is."""

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        self._rank, self._processes = rank, processes

    @classmethod
    def of(cls, engine: Engine, executable: str) -> Share:
        """As Rucio's table of heartbeats has it now."""
        me = (socket.getfqdn(), os.getpid())
        since = datetime.now(UTC).replace(tzinfo=None) - SILENT
        c = Heartbeat.__table__.c
        query = select(c.hostname, c.pid).where(c.readable == executable, c.updated_at >= since).distinct()
        with engine.connect() as connection:
            processes = sorted({me, *((row.hostname, row.pid) for row in connection.execute(query))})
        return cls(processes.index(me), len(processes))

    def grant(self, rse: Rse) -> Rse | None:
        """*rse* with this process's part of its streams and bytes a second; None if no stream is left for it."""
        streams, rate = rse.streams, rse.bytes_per_second
        if streams is not None:
            streams = streams // self._processes + (self._rank < streams % self._processes)
            if not streams:
                return None
        if rate is not None:
            rate = max(1, rate // self._processes)
        return replace(rse, streams=streams, bytes_per_second=rate)
