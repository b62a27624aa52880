"""`python -m rucio_trace_daemons.health EXECUTABLE`: whether a daemon of this host is at work, for health checks.

It is if Rucio's table of heartbeats says so: every daemon of Rucio's kind writes there before each round. A recorder
that reads a large file is between two rounds for long; then the lease it renews meanwhile speaks for it. Whoever
asks needs the daemon's own rucio.cfg, so a database that is out of reach is no health either.
"""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rucio_trace_policy.database import open_database
from rucio_trace_policy.tables import tables
from sqlalchemy import func, select

from rucio_trace_daemons.running import is_heartbeat_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

__all__ = ["last_sign_of_life", "main"]

RECORDER = "traceability-recorder"
# A daemon with nothing to do writes whenever its sleep ends, which is a minute at most unless somebody changed it.
LONGEST_SILENCE = timedelta(minutes=3)


def main(argv: Sequence[str]) -> int:
    """0: at work. 1: not, and why. 2: wrong usage."""
    if len(argv) != 1:
        print("usage: python -m rucio_trace_daemons.health EXECUTABLE", file=sys.stderr)  # noqa: T201
        return 2
    engine, _schema = open_database()
    with engine.connect() as connection:
        last = last_sign_of_life(connection, argv[0])
    if last is None:
        print(f"{argv[0]}: no heartbeat from {socket.getfqdn()}", file=sys.stderr)  # noqa: T201
        return 1
    silence = datetime.now(UTC) - last
    print(f"{argv[0]}: last heard of {max(silence.total_seconds(), 0):.0f} s ago")  # noqa: T201
    return int(silence > LONGEST_SILENCE)


def last_sign_of_life(connection: Connection, executable: str) -> datetime | None:
    """When a process of this host that calls itself *executable* last said that it lives; None: never."""
    from rucio.db.sqla.models import Heartbeat

    mine = (is_heartbeat_of(executable, Heartbeat.readable), Heartbeat.hostname == socket.getfqdn())
    beat = connection.scalar(select(func.max(Heartbeat.updated_at)).where(*mine))
    if beat is None:
        return None
    now = datetime.now(UTC)
    if executable == RECORDER and _holds_a_lease(connection, now):
        return now
    return beat.replace(tzinfo=UTC)


def _holds_a_lease(connection: Connection, now: datetime) -> bool:
    outbox = tables(connection.dialect.name).outbox.c
    mine = outbox.claimed_by.startswith(f"{socket.gethostname()}:", autoescape=True)
    return connection.scalar(select(outbox.id).where(mine, outbox.claimed_until > now).limit(1)) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
