"""The outbox: rows are claimed by lease, mended, given back and taken out, each in a short transaction.

Rows of one product are with one worker at a time, whatever their RSE. On PostgreSQL that is an advisory lock held
while claiming, and a look at the leases under it; on MariaDB one claims at a time, and on SQLite a claim is the
database's only writer. A lease that ran out
is another worker's: everything that writes says whose lease it believes to hold, and learns which rows it lost.

Ids order rows but do not name them: SQLite gives the highest one out again. The name is `event_id`.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import BigInteger, Text, and_, bindparam, or_, select, text, update

from rucio_trace_daemons.recorder.rows import Row
from rucio_trace_daemons.recorder.sets import among

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Engine

__all__ = ["STOPPED", "Claim", "Outbox"]

# `not_before` of a row that no time will mend: only an operator's retry or skip moves it.
STOPPED = datetime(9999, 1, 1, tzinfo=UTC)
# No wait of ours is longer. A later `not_before` or `claimed_until` was written by a clock that ran ahead.
LONGEST_WAIT = timedelta(days=1)

_LOCK_SPACE = 0x74726163  # "trac": keeps our advisory locks apart from others' in the database

Product = tuple[str, str]  # scope and name, as Rucio keeps them


@dataclass(frozen=True, slots=True)
class Claim:
    """What one worker holds until its lease ends."""

    rows: Sequence[Row]  # in id order
    others: Sequence[Row]  # pending rows of the same products on RSEs that are not ours
    now: datetime  # the database's clock


class Outbox:
    """One worker's access to the outbox. `seam` is called between steps, by name (for tests that kill the process)."""

    def __init__(self, engine: Engine, lease: timedelta, seam: Callable[[str], None]) -> None:
        self._engine, self._lease, self._seam = engine, lease, seam
        self._table = tables(engine.dialect.name).outbox
        self._postgresql = engine.dialect.name == "postgresql"
        self._columns = [self._table.c[column.name] for column in fields(Row)]
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}:{uuid.uuid4().hex[:8]}"

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A short transaction that writes."""
        with writing(self._engine) as connection:
            yield connection

    def claim(self, limit: int, rse_ids: Collection[str] | None) -> Claim:
        """Take every pending row of the products of up to *limit* due rows; None of *rse_ids* means any RSE."""
        if rse_ids is not None and not rse_ids:
            return Claim((), (), datetime.now(UTC))
        rse_id = self._table.c.rse_id
        of_mine = rse_id.is_not(None) if rse_ids is None else rse_id.in_(rse_ids)
        return self._claim(limit, of_mine, lambda row: row.rse_id and (rse_ids is None or row.rse_id in rse_ids))

    def claim_datasets(self, limit: int) -> Claim:
        """The same for rows of datasets, which are of no RSE."""
        return self._claim(limit, self._table.c.rse_id.is_(None), lambda row: row.rse_id is None)

    def _claim(self, limit: int, of_mine: ColumnElement[bool], is_mine: Callable[[Row], object]) -> Claim:
        with self.transaction() as connection:
            self._wait_for_turn(connection)
            now = clock(connection)
            products = self._due_products(connection, now, limit, of_mine)
            pending = self._pending(connection, products, now) if products else []
            mine = [row for row in pending if is_mine(row)]
            taken = {row.id for row in mine}
            if taken:
                connection.execute(
                    update(self._table)
                    .where(self._ids(taken))
                    .values(claimed_by=self.worker, claimed_until=now + self._lease)
                )
            self._seam("claiming")
        self._seam("claimed")
        return Claim(mine, [row for row in pending if row.id not in taken], now)

    def _wait_for_turn(self, connection: Connection) -> None:
        if (
            self._engine.dialect.name == "mysql"
        ):  # its advisory locks outlive the transaction: rows that never change do
            installations = tables("mysql").installations
            connection.execute(select(installations.c.version).with_for_update()).all()

    def _due_products(
        self, connection: Connection, now: datetime, limit: int, of_mine: ColumnElement[bool]
    ) -> list[Product]:
        c = self._table.c
        due = and_(_passed(c.not_before, now, STOPPED), _passed(c.claimed_until, now), of_mine)
        query = select(c.scope, c.name).where(due).order_by(c.id).limit(limit).with_for_update(skip_locked=True)
        products = list(dict.fromkeys((row.scope, row.name) for row in connection.execute(query)))
        if not self._postgresql or not products:
            return products
        locked = text(
            "SELECT p.scope, p.name FROM unnest(CAST(:scopes AS text[]), CAST(:names AS text[])) AS p(scope, name) "
            "WHERE pg_try_advisory_xact_lock(:space, hashtext(p.scope || ':' || p.name))"
        )
        scopes, names = zip(*products, strict=True)
        parameters = {"scopes": list(scopes), "names": list(names), "space": _LOCK_SPACE}
        return [(row.scope, row.name) for row in connection.execute(locked, parameters)]

    def _pending(self, connection: Connection, products: Sequence[Product], now: datetime) -> list[Row]:
        """All rows of those *products* of which nobody else holds a row."""
        c = self._table.c
        where = among(connection.dialect.name, (c.scope, c.name), (Text(), Text()), products)
        query = select(*self._columns, c.claimed_until).where(where).order_by(c.id)
        found = connection.execute(query).all()
        taken = {(r.scope, r.name) for r in found if not _has_passed(r.claimed_until, now)}
        return [Row(*r[:-1]) for r in found if (r.scope, r.name) not in taken]

    def renew(self, rows: Iterable[Row]) -> set[str]:
        """Prolong the lease; returns the event ids of the rows still held."""
        with self.transaction() as connection:
            until = clock(connection) + self._lease
            mine = self._mine(rows)
            held = connection.scalars(select(self._table.c.event_id).where(mine).with_for_update()).all()
            connection.execute(update(self._table).where(mine).values(claimed_until=until))
            return set(held)

    def keep(
        self,
        messages: Mapping[str, str],
        rows: Sequence[Row],
        overtaken: Callable[[Connection], Collection[str]] = lambda _connection: (),
    ) -> set[str]:
        """Write the signed traces of *messages* (by event id) into their rows, among *rows*; returns those kept.

        From here on these bytes and no others are sent for these events, by whomever. *overtaken* is asked, once the
        rows are locked, which of them have to be decided anew: these are given back.
        """
        c = self._table.c
        with self.transaction() as connection:
            # Locked first: a lease that runs out now cannot be taken before we are done.
            held = {
                row.event_id: row.id
                for row in connection.execute(select(c.id, c.event_id).where(self._mine(rows)).with_for_update())
            }
            again = [held.pop(event) for event in overtaken(connection) if event in held]
            if again:
                given_back = update(self._table).where(self._ids(again))
                connection.execute(given_back.values(claimed_by=None, claimed_until=None))
            kept = [{"of": held[e], "text": message} for e, message in messages.items() if e in held]
            if kept:
                statement = update(self._table).where(c.id == bindparam("of")).values(message=bindparam("text"))
                connection.execute(statement, kept)
            self._seam("keeping")
        self._seam("kept")
        return set(held)

    def postpone(
        self,
        waits: Mapping[str, Mapping[str, Any]],
        rows: Sequence[Row],
        also: Callable[[Connection], None] = lambda _connection: None,
    ) -> None:
        """Give rows back with the columns in *waits* (by event id); rows whose lease was lost stay as they are.

        `also` is done in the same transaction.
        """
        c = self._table.c
        changed = [
            {"of": row.id, "event": row.event_id, "mine": self.worker, **waits[row.event_id]}
            for row in rows
            if row.event_id in waits
        ]
        if not changed:
            return
        names = [name for name in changed[0] if name not in ("of", "event", "mine")]
        statement = (
            update(self._table)
            .where(c.id == bindparam("of"), c.event_id == bindparam("event"), c.claimed_by == bindparam("mine"))
            .values(claimed_by=None, claimed_until=None, **{name: bindparam(name) for name in names})
        )
        with self.transaction() as connection:
            connection.execute(statement, changed)
            also(connection)
            self._seam("postponing")

    def release(self, rows: Sequence[Row]) -> None:
        """Give rows back as they are."""
        with self.transaction() as connection:
            connection.execute(update(self._table).where(self._mine(rows)).values(claimed_by=None, claimed_until=None))

    def remove(self, connection: Connection, names: Collection[tuple[int, str]]) -> set[str]:
        """Delete rows by (id, event id) in the caller's transaction; returns the event ids that were still there."""
        if not names:
            return set()
        c = self._table.c
        condition = among(connection.dialect.name, (c.id, c.event_id), (BigInteger(), Text()), names)
        there = connection.scalars(select(c.event_id).where(condition).with_for_update()).all()
        connection.execute(self._table.delete().where(condition))
        return set(there)

    def _mine(self, rows: Iterable[Row]) -> ColumnElement[bool]:
        return and_(self._table.c.claimed_by == self.worker, self._ids([row.id for row in rows]))

    def _ids(self, ids: Collection[int]) -> ColumnElement[bool]:
        return among(self._engine.dialect.name, (self._table.c.id,), (BigInteger(),), [(i,) for i in ids])


def _passed(column: Any, now: datetime, except_for: datetime | None = None) -> ColumnElement[bool]:
    """*column* is empty, over, or so far ahead that a wrong clock must have written it."""
    ahead = column > now + LONGEST_WAIT
    if except_for is not None:
        ahead = and_(ahead, column < except_for)
    return or_(column.is_(None), column <= now, ahead)


def _has_passed(moment: datetime | None, now: datetime) -> bool:
    return moment is None or moment <= now or moment > now + LONGEST_WAIT
