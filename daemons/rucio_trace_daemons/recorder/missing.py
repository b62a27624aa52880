"""When a file that is not there may be called lost (docs/format.md, section 3).

One "not found" proves nothing: storage may be unmounted, moved or half up. LOST is signed only when the file was
missing twice, `lost_after` apart, the RSE's folder could be looked into both times, and another replica of that RSE
was found. Where a protocol has no folder to look into, another replica must have been found both times. And when too
many in a row seem lost, it is the storage that is in doubt, not the files.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rucio_trace_policy.tables import tables
from sqlalchemy import func, select

from rucio_trace.errors import StorageError
from rucio_trace_daemons.recorder.resolve import replicas_of_rse
from rucio_trace_daemons.recorder.upsert import upsert
from rucio_trace_daemons.storage import Replica
from rucio_trace_daemons.storage_errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.rses import Rse
    from rucio_trace_daemons.storage import Storage

__all__ = ["Guards", "NotYetLost", "TooManyLost", "check_lost"]

# How many other replicas are looked for before the RSE counts as doubtful.
WITNESSES = 20


class NotYetLost(StorageError):
    """The file is missing; that it is lost is not established."""

    def __init__(self, replica: Replica, reason: str) -> None:
        super().__init__(str(replica), found="no such file", hint=reason)


class TooManyLost(StorageError):
    """So many files of one RSE in a row seem lost that nothing is signed for it any more."""

    def __init__(self, rse: Rse, count: int) -> None:
        super().__init__(
            f"RSE {rse.name}",
            expected=f"at most {count} replicas lost in a row",
            found="more",
            hint=f"look at the storage, then `rucio-trace outbox retry --rse {rse.name}`",
        )


def check_lost(
    storage: Storage,
    engine: Engine,
    replica: Replica,
    since: datetime | None,
    now: datetime,
    options: Options,
    watch: Callable[[int], None],
) -> None:
    """Return if *replica*, just not found, and missing since *since*, is lost.

    `watch` is called between the questions to the storage and may raise to give up.

    Raises:
        NotYetLost: not enough is known to say so.
        StorageError: the RSE's folder cannot be looked into, or the file is there when it is looked for; this
            "not found" does not count.
    """
    if storage.exists(replica):
        raise Unavailable(str(replica), "the storage cannot give the file, and says that it is there")
    looked_into = storage.check_prefix(replica.rse)
    if not looked_into and (doubt := _doubt(storage, engine, replica, watch)):
        raise Unavailable(str(replica), f"no such file, which counts for nothing: {doubt}")
    if since is None or now - since < options.lost_after:
        raise NotYetLost(replica, f"it is looked for again {options.lost_after} after the first time")
    if looked_into and (doubt := _doubt(storage, engine, replica, watch)):
        raise NotYetLost(replica, doubt)


def _doubt(storage: Storage, engine: Engine, replica: Replica, watch: Callable[[int], None]) -> str | None:
    """Why a "not found" may be an outage: None where another replica of the RSE is found now."""
    with engine.connect() as connection:
        names = replicas_of_rse(connection, replica.rse.id, WITNESSES + 1)
    others = [name for name in names if (name.scope, name.name) != (replica.scope, replica.name)][:WITNESSES]
    if not others:
        return "the RSE has no other replica by which to tell a loss from an outage"
    for other in others:
        watch(0)
        if storage.exists(Replica(replica.rse, other.scope, other.name, None, other.path)):
            return None
    return f"none of {len(others)} other replicas of the RSE was found either"


@dataclass(slots=True)
class Guards:
    """Per RSE: how many replicas were found lost since the last one found good. One batch's view, then written."""

    limit: int
    lost: Counter[str] = field(default_factory=Counter)
    stopped: set[str] = field(default_factory=set)
    unsaved: set[str] = field(default_factory=set)  # stopped in this batch, and not yet written down

    @classmethod
    def load(cls, engine: Engine, rse_ids: Collection[str], limit: int) -> Guards:
        guards = tables(engine.dialect.name).rse_guards
        with engine.connect() as connection:
            rows = connection.execute(select(guards).where(guards.c.rse_id.in_(rse_ids))).all()
        return cls(
            limit,
            Counter({row.rse_id: row.lost_in_a_row for row in rows}),
            {row.rse_id for row in rows if row.stopped_at is not None},
        )

    def check(self, rse: Rse) -> None:
        """Raises TooManyLost if nothing may be signed for *rse*."""
        if rse.id in self.stopped:
            raise TooManyLost(rse, self.limit)

    def count_lost(self, rse: Rse) -> None:
        """Count one more; raises TooManyLost if that is one too many."""
        if self.lost[rse.id] >= self.limit:
            self.stopped.add(rse.id)
            self.unsaved.add(rse.id)
        self.check(rse)
        self.lost[rse.id] += 1

    def count_found(self, rse_id: str) -> None:
        self.lost[rse_id] = 0

    def save(self, connection: Connection, rse_ids: Iterable[str], now: datetime) -> None:
        """Write the counts of *rse_ids* that are not nought, in the caller's transaction."""
        touched = sorted(set(rse_ids))
        if not touched:
            return
        guards = tables(connection.dialect.name).rse_guards
        values = [
            {"rse_id": i, "lost_in_a_row": self.lost[i], "stopped_at": now if i in self.stopped else None}
            for i in touched
            if self.lost[i] or i in self.stopped
        ]
        good = set(touched) - {value["rse_id"] for value in values}
        # A stop that another worker found meanwhile stays: only an operator's retry ends it.
        connection.execute(guards.delete().where(guards.c.rse_id.in_(good), guards.c.stopped_at.is_(None)))
        if values:
            upsert(
                connection,
                guards,
                values,
                lambda new: {
                    "lost_in_a_row": new.lost_in_a_row,
                    "stopped_at": func.coalesce(guards.c.stopped_at, new.stopped_at),
                },
            )
