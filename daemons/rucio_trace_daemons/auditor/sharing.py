"""How auditors that run at the same time share what an RSE grants: by Rucio's heartbeats."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rucio.db.sqla.models import Heartbeat
from sqlalchemy import select

from rucio_trace_daemons.rses import Share

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["SILENT", "share_of"]

# Rucio counts a daemon that was silent for so long as gone.
SILENT = timedelta(seconds=600)


def share_of(engine: Engine, executable: str) -> Share:
    """Which of how many processes of *executable* this one is, as Rucio's table of heartbeats has it now."""
    me = (socket.getfqdn(), os.getpid())
    since = datetime.now(UTC).replace(tzinfo=None) - SILENT
    c = Heartbeat.__table__.c
    query = select(c.hostname, c.pid).where(c.readable == executable, c.updated_at >= since).distinct()
    with engine.connect() as connection:
        processes = sorted({me, *((row.hostname, row.pid) for row in connection.execute(query))})
    return Share(processes.index(me), len(processes))
