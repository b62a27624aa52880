"""How auditors that run at the same time share what an RSE grants: by Rucio's heartbeats."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rucio.db.sqla.models import Heartbeat
from sqlalchemy import select

from rucio_trace.errors import ConfigurationError
from rucio_trace_daemons.rses import Share, matching
from rucio_trace_daemons.running import heartbeat_rses, is_heartbeat_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

__all__ = ["SILENT", "Shares", "shares_of"]

# Rucio counts a daemon that was silent for so long as gone.
SILENT = timedelta(seconds=600)

Process = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Shares:
    """The auditors that live, each with the ids of the RSEs it reads (None: all)."""

    processes: Mapping[Process, frozenset[str] | None] = field(default_factory=dict)
    me: Process = field(default_factory=lambda: (socket.getfqdn(), os.getpid()))

    def of(self, rse_id: str) -> Share:
        """Which of how many of those that read an RSE this process is."""
        readers = {process for process, rses in self.processes.items() if rses is None or rse_id in rses}
        readers_and_me = sorted(readers | {self.me})
        return Share(readers_and_me.index(self.me), len(readers_and_me))


def shares_of(engine: Engine, executable: str) -> Shares:
    """Of the processes of *executable*, as Rucio's table of heartbeats has them now."""
    since = datetime.now(UTC).replace(tzinfo=None) - SILENT
    c = Heartbeat.__table__.c
    query = (
        select(c.hostname, c.pid, c.readable)
        .where(is_heartbeat_of(executable, c.readable), c.updated_at >= since)
        .distinct()
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return Shares({(row.hostname, row.pid): _rses(heartbeat_rses(row.readable)) for row in rows})


def _rses(expression: str) -> frozenset[str] | None:
    if expression == "*":
        return None
    try:
        return frozenset(matching(expression))
    except ConfigurationError:  # it names none any more
        return frozenset()
