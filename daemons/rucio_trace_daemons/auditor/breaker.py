"""The circuit breaker of an RSE: a storage that fails is not mass corruption.

It opens after so many bad replicas in a row, when too large a share of what a round has read is bad, or, where bad ones
are declared, when too many wait for that at once. Open, the auditor reads and declares nothing on that RSE; only an
operator closes it.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from rucio_trace_policy.database import clock
from rucio_trace_policy.tables import tables
from sqlalchemy import select

from rucio_trace_daemons.alarms import Kind
from rucio_trace_daemons.recorder.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

    from rucio_trace_daemons.alarms import Alarms
    from rucio_trace_daemons.auditor.options import Options
    from rucio_trace_daemons.rses import Rse

__all__ = [
    "MINIMUM_READ",
    "count_bad",
    "count_good",
    "good_enough",
    "last_reset",
    "open_breaker",
    "open_breakers",
    "share_exceeded",
]

LOG = logging.getLogger("traceability-auditor")

# A share of fewer replicas says nothing.
MINIMUM_READ = 20


def open_breakers(connection: Connection) -> set[str]:
    """The ids of the RSEs whose breaker is open."""
    breakers = tables(connection.dialect.name).breakers
    return set(connection.scalars(select(breakers.c.rse_id).where(breakers.c.opened_at.is_not(None))))


def count_good(connection: Connection, rse_ids: Collection[str]) -> None:
    """A good replica on each of *rse_ids*: the row of bad ones is broken. An open breaker stays open."""
    breakers = tables(connection.dialect.name).breakers
    counting = (breakers.c.rse_id.in_(rse_ids), breakers.c.opened_at.is_(None), breakers.c.bad_in_a_row > 0)
    connection.execute(breakers.update().where(*counting).values(bad_in_a_row=0))


def count_bad(connection: Connection, rse_id: str, options: Options) -> str | None:
    """One more bad replica in a row; why the breaker has to open, if that was one too many."""
    breakers = tables(connection.dialect.name).breakers
    one = [{"rse_id": rse_id, "bad_in_a_row": 1, "opened_at": None, "reason": None}]
    upsert(connection, breakers, one, lambda new: {"bad_in_a_row": breakers.c.bad_in_a_row + new.bad_in_a_row})
    count = connection.scalar(select(breakers.c.bad_in_a_row).where(breakers.c.rse_id == rse_id)) or 0
    return f"{count} bad replicas in a row" if count >= options.bad_in_a_row else None


def last_reset(connection: Connection, rse_id: str) -> datetime | None:
    """When the breaker of an RSE was last closed: what was read before that counts no more."""
    breakers = tables(connection.dialect.name).breakers
    return connection.scalar(select(breakers.c.reset_at).where(breakers.c.rse_id == rse_id))


def good_enough(bad: int, options: Options) -> int:
    """So many good replicas beside *bad* ones open no breaker, and more need not be counted."""
    return max(MINIMUM_READ, math.ceil(bad / options.bad_share) if options.bad_share else 0)


def share_exceeded(good: int, bad: int, options: Options) -> str | None:
    """Why what a round has read by now opens the breaker, if it does."""
    if good + bad < MINIMUM_READ or bad <= options.bad_share * (good + bad):
        return None
    return f"{bad} of {good + bad} replicas read are bad"


def open_breaker(connection: Connection, alarms: Alarms, rse: Rse, reason: str) -> bool:
    """Open it in the caller's transaction, which `Alarms.tell` has to follow; False if it was open already."""
    breakers = tables(connection.dialect.name).breakers
    upsert(connection, breakers, [{"rse_id": rse.id, "bad_in_a_row": 0, "opened_at": None, "reason": None}])
    opened = connection.execute(
        breakers.update()
        .where(breakers.c.rse_id == rse.id, breakers.c.opened_at.is_(None))
        .values(opened_at=clock(connection), reason=reason)
    )
    if not opened.rowcount:
        return False
    alarms.note(connection, Kind.BREAKER_OPEN, rse.label, {"reason": reason})
    LOG.error("breaker-opened rse=%s %s; look at the storage, then `rucio-trace audit reset`", rse.label, reason)
    return True
