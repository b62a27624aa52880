"""The status of datasets, counted from their files': not a million times for a million files.

Whoever writes a file's status marks its datasets in the same transaction (`mark_parents`). A marked dataset is counted
at once, or once its pause is over: ten times as long as the counting took, so that a large one costs a tenth of one
connection at most. While it is counted it is under a lease; a mark that comes meanwhile makes it due again. Once a day
it is counted unasked: Rucio says nothing of a file that is put into an open dataset.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rucio_trace_policy import ddl
from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import and_, case, func, or_, select, update

from rucio_trace.dataset import aggregate
from rucio_trace_daemons.recorder.members import content_of, parents_of
from rucio_trace_daemons.recorder.outbox import STOPPED
from rucio_trace_daemons.recorder.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Engine, Table

    from rucio_trace.status import ProductStatus
    from rucio_trace_daemons.recorder.members import Content, Key

__all__ = ["Counting", "mark_parents", "note_dataset"]

DATASETS_AT_ONCE = 20
SHORTEST_PAUSE, PAUSE_FACTOR = timedelta(seconds=10), 10
UNASKED = timedelta(days=1)


def mark_parents(connection: Connection, files: Sequence[Key]) -> None:
    """Let the datasets that hold any of *files* be counted."""
    parents = parents_of(connection, {(scope, name) for scope, name, _ in files})
    if parents:
        table = tables(connection.dialect.name).datasets
        now = clock(connection)
        upsert(connection, table, [_new_row(key, now) for key in parents], lambda _new: {"due_at": _soon(table)})


def note_dataset(connection: Connection, key: Key, status: ProductStatus) -> None:
    """Keep what a dataset's own traces amount to, unless something younger is there, and let it be counted."""
    table = tables(connection.dialect.name).datasets
    origin = status.origin.trace.statement if status.origin else None
    facts = {
        "status": str(status.status),
        "trace_id": status.origin.id if status.origin else None,
        "hash": origin and origin.hash,
        "hash_algorithm": origin and origin.hash_algorithm,
        "signer": origin and origin.signer,
        "members": origin and origin.members,
        "bytes": origin and origin.size,
        "position": status.position,
    }

    def change(new: Any) -> dict[str, Any]:
        newer = func.coalesce(table.c.position, -1) <= new.position
        # `position` comes last, as in the table: MariaDB sets one column after the other.
        return {"due_at": _soon(table)} | {
            name: case((newer, getattr(new, name)), else_=table.c[name]) for name in facts
        }

    upsert(connection, table, [_new_row(key, clock(connection)) | facts], change)


def _new_row(key: Key, now: datetime) -> dict[str, Any]:
    return {"scope": key[0], "name": key[1], "generation": key[2], "due_at": now, "not_before": now}


def _soon(table: Table) -> Any:
    return case((table.c.due_at > table.c.not_before, table.c.not_before), else_=table.c.due_at)


class Counting:
    """Counts marked datasets, a few at once; `worker` names who holds their lease."""

    def __init__(self, engine: Engine, worker: str, lease: timedelta, seam: Callable[[str], None]) -> None:
        self._engine, self._worker, self._lease, self._seam = engine, worker, lease, seam
        self._table = tables(engine.dialect.name).datasets

    def step(self) -> int:
        """Count what is due; returns how many datasets."""
        keys = self._claim()
        for key in keys:
            began = time.monotonic()
            with self._engine.connect() as connection:
                content = content_of(connection, key)
            self._seam("counted")
            self._write(key, content, timedelta(seconds=time.monotonic() - began))
        return len(keys)

    def _claim(self) -> list[Key]:
        c = self._table.c
        with writing(self._engine) as connection:
            now = clock(connection)
            due = and_(c.due_at <= now, or_(c.claimed_until.is_(None), c.claimed_until <= now))
            query = select(c.scope, c.name, c.generation).where(due).order_by(c.due_at).limit(DATASETS_AT_ONCE)
            keys = [tuple(row) for row in connection.execute(query.with_for_update(skip_locked=True))]
            until = now + self._lease
            for key in keys:
                claimed = {"claimed_by": self._worker, "claimed_until": until, "due_at": until}
                connection.execute(update(self._table).where(self._is(key)).values(**claimed))
        return keys

    def _write(self, key: Key, content: Content | None, took: timedelta) -> None:
        """One transaction: the status, when to count again, and a list that waited for its files is due now."""
        c, products = self._table.c, tables(self._engine.dialect.name).products
        with writing(self._engine) as connection:
            mine = and_(self._is(key), c.claimed_by == self._worker)
            row = connection.execute(select(self._table).where(mine).with_for_update()).one_or_none()
            if row is None:
                return  # the lease ran out: somebody else counts
            p = products.c
            connection.execute(products.delete().where(p.scope == key[0], p.name == key[1], p.generation == key[2]))
            if content is None:
                connection.execute(self._table.delete().where(mine))
                return
            connection.execute(products.insert().values(**_product(row, content)))
            now = clock(connection)
            pause = now + max(SHORTEST_PAUSE, took * PAUSE_FACTOR)
            marked = row.due_at < row.claimed_until
            after = {"due_at": pause if marked else now + UNASKED, "not_before": pause}
            connection.execute(update(self._table).where(mine).values(claimed_by=None, claimed_until=None, **after))
            if not content.lacking:
                self._wake(connection, key)
            self._seam("counting")

    def _wake(self, connection: Connection, key: Key) -> None:
        o = tables(self._engine.dialect.name).outbox
        waiting = (o.c.rse_id.is_(None), o.c.message.is_(None), o.c.claimed_by.is_(None), o.c.not_before < STOPPED)
        of_key = (o.c.scope == key[0], o.c.name == key[1], o.c.generation == key[2])
        connection.execute(update(o).where(*of_key, *waiting).values(not_before=ddl.now(self._engine.dialect.name)))

    def _is(self, key: Key) -> ColumnElement[bool]:
        c = self._table.c
        return and_(c.scope == key[0], c.name == key[1], c.generation == key[2])


def _product(row: Any, content: Content) -> dict[str, Any]:
    status = aggregate(content.counted, closed=content.closed, own=row.status, members=row.members, size=row.bytes)
    return {
        "scope": row.scope,
        "name": row.name,
        "generation": row.generation,
        "status": status,
        "proven": content.counted.genuine,
        "total": content.counted.total,
        "trace_id": row.trace_id,
        "hash": row.hash,
        "hash_algorithm": row.hash_algorithm,
        "signer": row.signer,
        "verified_at": content.proven_at,
        "position": row.position,
    }
