"""Looking at the outbox and mending it by hand: what `rucio-trace outbox` does.

Rows that a recorder holds at the moment are left alone: it decides about them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rucio.db.sqla import models
from rucio_trace_policy.columns import Moment
from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import and_, case, func, or_, select, tuple_, update

from rucio_trace_daemons.recorder.decide import DATASETS, Reason
from rucio_trace_daemons.recorder.finish import count_outcomes
from rucio_trace_daemons.recorder.outbox import STOPPED
from rucio_trace_daemons.recorder.removals import forget_removals

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Engine, Row

__all__ = ["Backlog", "Choice", "Line", "Summary", "backlog", "chosen", "retry", "skip", "summarise"]

LOG = logging.getLogger("traceability-recorder")

# PostgreSQL takes 65,535 parameters a statement, SQLite 32,766; an RSE given up may have millions of rows waiting.
SKIP_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows are meant; all of what is given must hold, and nothing given means every row."""

    event_ids: Sequence[str] = ()
    rse: str | None = None  # or `datasets`
    scope: str | None = None
    name: str | None = None
    failed: bool = False  # only those with an error


@dataclass(frozen=True, slots=True)
class Line:
    """The rows of one RSE, or of datasets (which have no `rse_id`), by what they wait for."""

    rse_id: str | None
    rse: str
    due: int
    held: int
    waiting: int
    stopped: int
    oldest: datetime | None
    oldest_moving: datetime | None  # of those that are not stopped
    lost_in_a_row: int
    signing_stopped: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """The outbox, and how all rows so far ended."""

    lines: Sequence[Line]
    outcomes: dict[str, int]


def summarise(engine: Engine) -> Summary:
    """Counts by RSE; one pass over the outbox."""
    ours = tables(engine.dialect.name)
    c = ours.outbox.c
    with engine.connect() as connection:
        now = clock(connection)
        held, stopped, waiting = _held(ours.outbox, now), c.not_before >= STOPPED, c.not_before > now
        counts = {
            row.rse_id: row
            for row in connection.execute(
                select(
                    c.rse_id,
                    func.count().label("rows"),
                    _count(held).label("held"),
                    _count(and_(~held, stopped)).label("stopped"),
                    _count(and_(~held, waiting, ~stopped)).label("waiting"),
                    func.min(c.at).label("oldest"),
                    func.min(case((stopped, None), else_=c.at), type_=Moment()).label("oldest_moving"),
                ).group_by(c.rse_id)
            )
        }
        guards = {row.rse_id: row for row in connection.execute(select(ours.rse_guards))}
        names = _names(connection, {*counts, *guards})
        outcomes = {
            row.reason: int(row.total)
            for row in connection.execute(
                select(ours.outcomes.c.reason, func.sum(ours.outcomes.c.count).label("total")).group_by(
                    ours.outcomes.c.reason
                )
            )
        }
    lines = [
        _line(rse_id, _label(names, rse_id), counts.get(rse_id), guards.get(rse_id)) for rse_id in {*counts, *guards}
    ]
    return Summary(sorted(lines, key=lambda line: line.rse), outcomes)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Rows of some RSEs: `ready` ones are due or held; `waiting` ones were tried, or an operator has to move them."""

    ready: int
    waiting: int


def backlog(engine: Engine, rse_ids: Collection[str]) -> Backlog:
    """What the outbox has of *rse_ids*; it counts every row of theirs."""
    outbox = tables(engine.dialect.name).outbox
    c = outbox.c
    with engine.connect() as connection:
        now = clock(connection)
        waiting = _count(and_(~_held(outbox, now), c.not_before > now))
        rows, later = connection.execute(select(func.count(), waiting).where(c.rse_id.in_(list(rse_ids)))).one()
    return Backlog(int(rows) - int(later), int(later))


def _line(rse_id: str | None, rse: str, counts: Any, guard: Any) -> Line:
    rows, held, waiting, stopped = (
        (counts.rows, counts.held or 0, counts.waiting or 0, counts.stopped or 0) if counts else (0, 0, 0, 0)
    )
    return Line(
        rse_id,
        rse,
        rows - held - waiting - stopped,
        held,
        waiting,
        stopped,
        counts.oldest if counts else None,
        counts.oldest_moving if counts else None,
        guard.lost_in_a_row if guard else 0,
        guard is not None and guard.stopped_at is not None,
    )


def chosen(engine: Engine, choice: Choice, limit: int) -> list[tuple[str, Row[Any]]]:
    """The first *limit* rows that are meant, each with the name of its RSE."""
    outbox = tables(engine.dialect.name).outbox
    with engine.connect() as connection:
        where = _where(connection, outbox, choice)
        rows = connection.execute(select(outbox).where(where).order_by(outbox.c.id).limit(limit)).all()
        names = _names(connection, {row.rse_id for row in rows})
    return [(_label(names, row.rse_id), row) for row in rows]


def retry(engine: Engine, choice: Choice, *, discard_signature: bool = False) -> int:
    """Make the rows that are meant due now, and let their RSEs be signed for again; returns how many rows.

    `discard_signature` also forgets the traces kept in them, so that they are signed anew. Only for traces that no
    store has taken: one that has will refuse the new one.
    """
    ours = tables(engine.dialect.name)
    values: dict[str, Any] = {"not_before": None, "attempts": 0, "last_error": None}
    if discard_signature:
        values["message"] = None
    with writing(engine) as connection:
        where = and_(_where(connection, ours.outbox, choice), ~_held(ours.outbox, clock(connection)))
        rse_ids = connection.scalars(select(ours.outbox.c.rse_id).where(where).distinct()).all()
        if choice.rse is not None:
            rse_ids = [*rse_ids, *_ids(connection, choice.rse)]
        connection.execute(ours.rse_guards.delete().where(ours.rse_guards.c.rse_id.in_(rse_ids)))
        return connection.execute(update(ours.outbox).where(where).values(**values)).rowcount


def skip(engine: Engine, choice: Choice, reason: str) -> int:
    """Take the rows that are meant out of the outbox without a trace, counted as skipped; returns how many."""
    skipped = 0
    while rows := _skip_some(engine, choice):
        skipped += len(rows)
        for row in rows:
            LOG.warning(
                "skipped event_id=%s did=%s:%s change=%s>%s reason=%r",
                *(row.event_id, row.scope, row.name, row.old_state, row.new_state, reason),
            )
    return skipped


def _skip_some(engine: Engine, choice: Choice) -> Sequence[Row[Any]]:
    """One transaction of a bounded number of rows, locked so that no recorder claims them in between."""
    outbox = tables(engine.dialect.name).outbox
    c = outbox.c
    with writing(engine) as connection:
        where = and_(_where(connection, outbox, choice), ~_held(outbox, clock(connection)))
        query = select(c.id, c.event_id, c.rse_id, c.scope, c.name, c.old_state, c.new_state, c.at).where(where)
        rows = connection.execute(query.order_by(c.id).limit(SKIP_ROWS).with_for_update()).all()
        if rows:
            names = [(row.id, row.event_id) for row in rows]
            connection.execute(outbox.delete().where(tuple_(c.id, c.event_id).in_(names)))
            count_outcomes(connection, [(row, Reason.SKIPPED) for row in rows])  # type: ignore[misc]
            forget_removals(connection, rows)  # type: ignore[arg-type]
    return rows


def _where(connection: Connection, outbox: Any, choice: Choice) -> ColumnElement[bool]:
    c = outbox.c
    conditions = []
    if choice.event_ids:
        conditions.append(c.event_id.in_(choice.event_ids))
    if choice.rse == DATASETS:  # no RSE is called so: their names are in capitals
        conditions.append(c.rse_id.is_(None))
    elif choice.rse is not None:
        conditions.append(c.rse_id.in_(_ids(connection, choice.rse)))
    if choice.scope is not None:
        conditions.append(c.scope == choice.scope)
    if choice.name is not None:
        conditions.append(c.name == choice.name)
    if choice.failed:
        conditions.append(c.last_error.is_not(None))
    return and_(c.id.is_not(None), *conditions)


def _held(outbox: Any, now: datetime) -> ColumnElement[bool]:
    c = outbox.c
    return and_(c.claimed_by.is_not(None), c.claimed_until > now)


def _count(condition: ColumnElement[bool]) -> Any:
    return func.count(case((condition, 1)))


def _label(names: dict[str, str], rse_id: str | None) -> str:
    return DATASETS if rse_id is None else names.get(rse_id, rse_id)


def _names(connection: Connection, rse_ids: set[str]) -> dict[str, str]:
    c = models.RSE.__table__.c
    return {row.id: row.rse for row in connection.execute(select(c.id, c.rse).where(c.id.in_(rse_ids)))}


def _ids(connection: Connection, rse: str) -> list[str]:
    """The ids of the RSEs of this name, in whatever VO; the name may also be an id."""
    c = models.RSE.__table__.c
    known = list(connection.scalars(select(c.id).where(or_(c.rse == rse))))
    return known or [rse]
