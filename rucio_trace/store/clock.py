"""Time is the database's: there may be many of our hosts, each with a clock of its own."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, literal_column, select

from rucio_trace.store.errors import CorruptRow
from rucio_trace.store.tables import head

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rucio_trace.store.database import Database

__all__ = ["Clock", "clock", "lock_head"]

_RECKONED_SECONDS: Final = 10.0
"""A clock gains or loses a millisecond meanwhile; one that is set anew is followed by then."""


_JOURNEY_SECONDS: Final = 1.0


class Clock:
    """The database's time without asking it each time: that took as long as all else that is done to judge a trace."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: tuple[float, datetime] | None = None

    def now(self) -> datetime:
        """May ask, and so raise StorageError."""
        asked = self._asked
        if asked is None or _ticking() - asked[0] > _RECKONED_SECONDS:
            with self._database.reading() as connection:
                begun, now = _ticking(), clock(connection)
            asked = _ticking(), now
            if asked[0] - begun > _JOURNEY_SECONDS:  # when it was so late is not known well enough
                return now
            self._asked = asked
        at, then = asked
        return then + timedelta(seconds=_ticking() - at)


def _ticking() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the host is suspended


def clock(connection: Connection) -> datetime:
    """The database's clock at this moment."""
    if connection.dialect.name == "postgresql":
        now = connection.scalar(_POSTGRESQL)
    elif connection.dialect.name == "mysql":
        now = connection.execute(_MYSQL).scalar_one().replace(tzinfo=UTC)
    else:
        now = datetime.fromisoformat(str(connection.scalar(_SQLITE)))
    assert isinstance(now, datetime)
    return now.astimezone(UTC)


_POSTGRESQL: Final = select(func.clock_timestamp())
_MYSQL: Final = select(func.utc_timestamp(6))
_SQLITE: Final = select(func.strftime(literal_column("'%Y-%m-%dT%H:%M:%f+00:00'"), "now"))

_LOCK: Final = select(head.c.position).with_for_update()
# One journey less. Where another has moved the head while this waited for it, PostgreSQL reads row and clock again;
# else the time is that at which the waiting began, and still not before that of the traces below.
_LOCK_AND_CLOCK: Final = _LOCK.add_columns(func.clock_timestamp())


def lock_head(connection: Connection) -> tuple[int, datetime]:
    """Let nobody else give out positions until the transaction ends; the last one given out, and the time of asking."""
    if connection.dialect.name == "postgresql":
        row = connection.execute(_LOCK_AND_CLOCK).one_or_none()
        found = None if row is None else (int(row[0]), row[1].astimezone(UTC))
    else:
        position = connection.scalar(_LOCK)
        found = None if position is None else (int(position), clock(connection))
    if found is None:
        raise CorruptRow("none", "table trace_head", "one row", "none")
    return found
