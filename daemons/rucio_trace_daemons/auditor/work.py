"""One worker's share of a round: replicas claimed by lease, the oldest proof first, and what was found.

What was found is written every few seconds and counts from then on: it is never read again in this round. A worker
that is killed loses what it had not written, and another reads that when the lease has run out.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from rucio.common.types import InternalScope
from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, and_, bindparam, cast, column, func, or_, select, update

from rucio_trace_daemons.auditor import breaker
from rucio_trace_daemons.auditor.examine import Bad, Good
from rucio_trace_daemons.recorder.resolve import alive, guid, rucio_table
from rucio_trace_daemons.recorder.rows import AUDIT
from rucio_trace_daemons.recorder.sets import among
from rucio_trace_daemons.recorder.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Engine

    from rucio_trace_daemons.alarms import Alarms
    from rucio_trace_daemons.auditor.options import Options
    from rucio_trace_daemons.auditor.rounds import Round
    from rucio_trace_daemons.rses import Rse

__all__ = ["GONE", "Claim", "Found", "Outcome", "Task", "Unread", "Work"]

# A replica that could not be read is tried again within the round, later each time: some 15 minutes in all.
ATTEMPTS = 5
_REPLICAS = rucio_table("replicas", *map(column, ("scope", "name", "state")), guid("rse_id"))
FIRST_WAIT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Task:
    """One replica to read; scope as Rucio keeps it."""

    scope: str
    name: str
    generation: datetime
    bytes: int | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Nothing can be said. `again`: it may be tried later; else the replica is not what was to be read any more."""

    reason: str
    again: bool


Outcome = Good | Bad | Unread
GONE = Unread("Rucio has it available no more", again=False)


@dataclass(slots=True)
class Claim:
    """What one worker holds of one round until its lease ends."""

    round: Round
    tasks: Sequence[Task]
    now: datetime  # the database's clock


@dataclass(frozen=True, slots=True)
class Found:
    """What became of tasks that were written: how many of which outcome, and whether the RSE's breaker is open now."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: Sequence[str] = ()  # DIDs
    broken: bool = False


class Work:
    """One worker's access to what rounds have to read. `seam` is called between steps, by name."""

    def __init__(self, engine: Engine, options: Options, alarms: Alarms, seam: Callable[[str], None]) -> None:
        self._engine, self._options, self._alarms, self._seam = engine, options, alarms, seam
        self._ours = tables(engine.dialect.name)
        self._table = self._ours.audit_work
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}:{uuid.uuid4().hex[:8]}"

    def claim(self, round_: Round) -> Claim:
        """Take replicas of *round_* that nobody holds, the oldest proof first."""
        c = self._table.c
        with writing(self._engine) as connection:
            now = clock(connection)
            due = and_(self._open(round_), _passed(c.claimed_until, now), _passed(c.not_before, now))
            # In the order of the index, constants included: PostgreSQL would sort all that is open for each claim.
            in_turn = (c.outcome, c.batch, c.ordinal)
            query = select(c.scope, c.name, c.generation, c.bytes, c.attempts).where(due).order_by(*in_turn)
            rows = connection.execute(query.limit(self._options.bulk).with_for_update(skip_locked=True)).all()
            tasks = [Task(*row) for row in rows]
            if tasks:
                values = {"claimed_by": self.worker, "claimed_until": now + self._options.lease}
                connection.execute(update(self._table).where(self._are(round_, tasks)).values(**values))
            self._seam("claiming")
        self._seam("claimed")
        return Claim(round_, tasks, now)

    def renew(self, claim: Claim, tasks: Sequence[Task]) -> bool:
        """Prolong the lease; returns whether all *tasks* are still held."""
        with writing(self._engine) as connection:
            held = self._hold(connection, claim.round, tasks)
            until = clock(connection) + self._options.lease
            if held:
                connection.execute(update(self._table).where(self._are(claim.round, held)).values(claimed_until=until))
        return len(held) == len(tasks)

    def release(self, claim: Claim, tasks: Sequence[Task], wait: timedelta = timedelta()) -> None:
        """Give *tasks* back as they are, to be taken again after *wait*."""
        if not tasks:
            return
        with writing(self._engine) as connection:
            if held := self._hold(connection, claim.round, tasks):
                values = {"claimed_by": None, "claimed_until": None, "not_before": clock(connection) + wait}
                connection.execute(update(self._table).where(self._are(claim.round, held)).values(**values))

    def write(self, claim: Claim, rse: Rse, found: Mapping[Task, Outcome]) -> Found:
        """Write what was found, in one transaction; what another worker holds by now is left to that one.

        A bad replica leaves its doubt in the outbox: the recorder looks for itself and signs what it finds. One that
        Rucio has removed since it was claimed is not bad.
        """
        if not found:
            return Found()
        with writing(self._engine) as connection:
            held = set(self._hold(connection, claim.round, list(found)))
            kept = {task: outcome for task, outcome in found.items() if task in held}
            bad = [task for task, outcome in kept.items() if isinstance(outcome, Bad)]
            kept |= dict.fromkeys(_removed(connection, rse, bad), GONE)
            self._update(connection, claim.round, kept)
            self._give_up(connection, rse, [task for task, outcome in kept.items() if _word(task, outcome) == "unread"])
            result = self._judge(connection, claim.round, rse, kept)
            self._seam("writing")
        self._seam("written")
        return result

    def _hold(self, connection: Connection, round_: Round, tasks: Sequence[Task]) -> list[Task]:
        """Those of *tasks* that we still hold, their rows locked, in the order in which a campaign ends."""
        c = self._table.c
        mine = and_(self._are(round_, tasks), c.claimed_by == self.worker)
        query = select(c.scope, c.name).where(mine).order_by(c.ordinal).with_for_update()
        held = {tuple(row) for row in connection.execute(query)}
        return [task for task in tasks if (task.scope, task.name) in held]

    def _update(self, connection: Connection, round_: Round, found: Mapping[Task, Outcome]) -> None:
        now, c = clock(connection), self._table.c
        values = [
            {"of_scope": task.scope, "of_name": task.name, **_columns(task, outcome, now)}
            for task, outcome in found.items()
        ]
        if not values:
            return
        names = [name for name in values[0] if not name.startswith("of_")]
        statement = (
            update(self._table)
            .where(self._open(round_), c.scope == bindparam("of_scope"), c.name == bindparam("of_name"))
            .values(claimed_by=None, claimed_until=None, **{n: bindparam(n, type_=c[n].type) for n in names})
        )
        connection.execute(statement, values)

    def _give_up(self, connection: Connection, rse: Rse, tasks: Sequence[Task]) -> None:
        """Note which replicas could not be read, for the rounds to come."""
        if not tasks:
            return
        now = clock(connection)
        rows = [
            {"scope": task.scope, "name": task.name, "generation": task.generation, "rse_id": rse.id, "at": now}
            for task in sorted(tasks, key=lambda task: (task.scope, task.name))
        ]
        upsert(connection, self._ours.audit_unread, rows, lambda new: {"at": new["at"]})

    def _judge(self, connection: Connection, round_: Round, rse: Rse, found: Mapping[Task, Outcome]) -> Found:
        """Leave the doubts, and let the breaker count: in the order in which the replicas were read."""
        counts = Counter(_word(task, outcome) for task, outcome in found.items())
        bad: list[str] = []
        reason, good = None, False
        for task, outcome in found.items():
            if isinstance(outcome, Good):
                good = True
            elif isinstance(outcome, Bad):
                if good:
                    breaker.count_good(connection, [rse.id])
                    good = False
                bad.append(f"{InternalScope(task.scope, from_external=False).external}:{task.name}")
                self._doubt(connection, round_, task)
                reason = breaker.count_bad(connection, rse.id, self._options) or reason
        if good:
            breaker.count_good(connection, [rse.id])
        if bad and reason is None:
            reason = self._share(connection, round_)
        if reason is not None:
            breaker.open_breaker(connection, self._alarms, rse, reason)
        return Found(counts, bad, rse.id in breaker.open_breakers(connection))

    def _doubt(self, connection: Connection, round_: Round, task: Task) -> None:
        """The outbox row by which the recorder looks at the replica; Rucio's own state does not change."""
        values = {
            "event_id": str(uuid.uuid4()),
            "rse_id": round_.rse_id,
            "scope": task.scope,
            "name": task.name,
            "old_state": "A",
            "new_state": "A",
            "bytes": task.bytes,
            "generation": task.generation,
            "action": AUDIT,
            "at": clock(connection),
        }
        connection.execute(self._ours.outbox.insert().values(**values))

    def _share(self, connection: Connection, round_: Round) -> str | None:
        c = self._table.c
        of_round = and_(c.audit == round_.audit, c.rse_id == round_.rse_id)
        if (reset_at := breaker.last_reset(connection, round_.rse_id)) is not None:
            of_round = and_(of_round, c.observed >= reset_at)
        bad = connection.scalar(select(func.count()).where(of_round, c.outcome == "bad")) or 0
        some = select(c.name).where(of_round, c.outcome == "good").limit(breaker.good_enough(bad, self._options))
        good = connection.scalar(select(func.count()).select_from(some.subquery())) or 0
        return breaker.share_exceeded(good, bad, self._options)

    def _open(self, round_: Round) -> ColumnElement[bool]:
        c = self._table.c
        return and_(c.audit == round_.audit, c.rse_id == round_.rse_id, c.outcome.is_(None), c.batch.is_(None))

    def _are(self, round_: Round, tasks: Sequence[Task]) -> ColumnElement[bool]:
        c = self._table.c
        keys = [(task.scope, task.name) for task in tasks]
        named = among(self._engine.dialect.name, (c.scope, c.name), (Text(), Text()), keys)
        return and_(c.audit == round_.audit, c.rse_id == round_.rse_id, named)


def _removed(connection: Connection, rse: Rse, tasks: Sequence[Task]) -> list[Task]:
    """Those of *tasks* that Rucio has available on *rse* no more; the others stay as they are until we are done."""
    if not tasks:
        return []
    names = {(task.scope, task.name) for task in tasks}
    c = _REPLICAS.c
    named = among(connection.dialect.name, (c.scope, c.name), (Text(), Text()), names)
    # An enumeration on PostgreSQL. Locked, because Rucio's row in the outbox has to follow ours.
    query = select(c.scope, c.name).where(named, c.rse_id == rse.id, cast(c.state, Text) == "A")
    there = {tuple(row) for row in connection.execute(query.order_by(c.scope, c.name).with_for_update(read=True))}
    living = alive(connection, names)
    return [
        task
        for task in tasks
        if (task.scope, task.name) not in there or living.get((task.scope, task.name)) != task.generation
    ]


def _word(task: Task, outcome: Outcome) -> str:
    match outcome:
        case Good():
            return "good"
        case Bad():
            return "bad"
        case Unread(again=again):
            return "waiting" if again and task.attempts + 1 < ATTEMPTS else "unread"


def _columns(task: Task, outcome: Outcome, now: datetime) -> dict[str, object]:
    word = _word(task, outcome)
    good = outcome if isinstance(outcome, Good) else None
    return {
        "outcome": None if word == "waiting" else word,
        "method": good.method if good else None,
        "digest": good.digest if good else None,
        "observed": good.observed if good else now if word == "bad" else None,
        "last_error": None if good else outcome.reason,  # type: ignore[union-attr]
        "attempts": task.attempts + 1,
        "not_before": now + FIRST_WAIT * 2**task.attempts if word == "waiting" else None,
    }


def _passed(column: ColumnElement[datetime], now: datetime) -> ColumnElement[bool]:
    return or_(column.is_(None), column <= now)
