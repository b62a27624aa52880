"""Queue what a search found for the recorder, as rows of the outbox that no trigger wrote; their action is `gaps`.

    untraced   A>A: look at it. Nobody saw it arrive, so nobody signs that it did (docs/format.md, 2.4)
               ->A where no byte is looked at (trace_method none, transfer), if there is something to say
    vanished   A>-: it is signed as DELETE, at the time it was found gone
    differs    A>A: look at it, for whoever changes a file may change the catalogue too
    dead       nothing to sign: the status is removed here

The recorder holds each such row against Rucio once more before it says anything: in the meantime the replica may have
gone, or come back.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rucio_trace_policy.columns import Moment
from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, select

from rucio_trace_daemons.gaps.find import Gap, Kind
from rucio_trace_daemons.methods import Method
from rucio_trace_daemons.recorder.resolve import resolve
from rucio_trace_daemons.recorder.rows import QUEUED_BY_GAPS
from rucio_trace_daemons.recorder.sets import among
from rucio_trace_daemons.recorder.transferred import compared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from rucio_trace_daemons.rses import Rse, Rses

__all__ = ["MEND_ROWS", "mend"]

# Rows a transaction: short enough that nobody waits for it.
MEND_ROWS = 1_000

_LOOKED_AT = (Method.READ, Method.STORAGE)


def mend(engine: Engine, gaps: Sequence[Gap], rses: Rses) -> list[Gap]:
    """Queue or remove what can be mended of *gaps*, at most `MEND_ROWS`, in one transaction; returns the others."""
    known = rses.get({gap.rse_id for gap in gaps if gap.rse_id is not None})
    transferred = _transferred(engine, gaps, known, rses)
    rows, dead, left = [], [], []
    for gap in gaps:
        if gap.kind is Kind.DEAD:
            dead.append(gap)
        elif (change := _change(gap, known, speaks=gap in transferred)) is not None:
            rows.append(_row(gap, *change))
        else:
            left.append(gap)
    if not rows and not dead:
        return left
    ours = tables(engine.dialect.name)
    with writing(engine) as connection:
        if rows := _still_untraced(connection, gaps, rows):
            now = clock(connection)
            connection.execute(ours.outbox.insert(), [row | {"at": now} for row in rows])
        if dead:
            keys = [(gap.scope, gap.name, gap.generation) for gap in dead]
            for table in (ours.signed, ours.products):
                c, types = table.c, (Text(), Text(), Moment())
                of = among(connection.dialect.name, (c.scope, c.name, c.generation), types, keys)
                connection.execute(table.delete().where(of))
    return left


def _still_untraced(
    connection: Connection, gaps: Sequence[Gap], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """*rows* without those of replicas that were untraced when found, and are traced or queued by now."""
    ours, names = tables(connection.dialect.name), ("scope", "name", "generation", "rse_id")
    untraced = {tuple(getattr(gap, name) for name in names) for gap in gaps if gap.kind is Kind.UNTRACED}
    if not untraced:
        return list(rows)
    by_now: set[Any] = set()
    for c in (ours.replicas.c, ours.outbox.c):
        types, keys = (Text(), Text(), Moment()), {key[:3] for key in untraced}
        of = among(connection.dialect.name, (c.scope, c.name, c.generation), types, keys)
        by_now |= {tuple(row) for row in connection.execute(select(*(c[name] for name in names)).where(of))}
    return [row for row in rows if tuple(row[name] for name in names) not in untraced & by_now]


def _change(gap: Gap, rses: Mapping[str, Rse], *, speaks: bool) -> tuple[str | None, str | None] | None:
    """The state before and after, as the recorder is told; None where it could say nothing."""
    if gap.kind is Kind.VANISHED:
        return "A", None
    method = rses[gap.rse_id or ""].method
    if method in _LOOKED_AT:
        return "A", "A"
    if gap.kind is Kind.UNTRACED and (method is Method.NONE or speaks):
        return None, "A"
    return None


def _row(gap: Gap, old: str | None, new: str | None) -> dict[str, Any]:
    names = ("rse_id", "scope", "name", "generation", "bytes", "adler32", "md5")
    values = {name: getattr(gap, name) for name in names}
    return values | {
        "event_id": str(uuid.uuid4()),
        "old_state": old,
        "new_state": new,
        "action": QUEUED_BY_GAPS,
        "attempts": 0,
    }


def _transferred(engine: Engine, gaps: Sequence[Gap], known: Mapping[str, Rse], rses: Rses) -> set[Gap]:
    """Those on RSEs of the method `transfer` that a transfer brought which compared a checksum."""
    asked = [g for g in gaps if g.kind is Kind.UNTRACED and known[g.rse_id or ""].method is Method.TRANSFER]
    if not asked:
        return set()
    transfers = resolve(engine, (), {(gap.scope, gap.name) for gap in asked}).transfers
    ends = {end for of in transfers.values() for t in of for end in (t.source_rse_id, t.rse_id) if end}
    on_the_way = rses.get(ends)
    return {
        gap
        for gap in asked
        for of in [transfers.get((gap.scope, gap.name), ())]
        if any(t.rse_id == gap.rse_id and compared(t, of, on_the_way) for t in of)
    }
