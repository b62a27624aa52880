"""Campaigns and their rounds: which replicas are read next, and when a round is over. All of it is in the database.

On every RSE a campaign goes round by round: the replicas with the oldest proof (those without one first), as many as
the campaign's budget allows, among those that were not proven since the sweep began. After the round that takes on all
that are left the next sweep begins: what cannot be read holds up no other. So with a budget of a third every replica is
read once in three rounds, the oldest proof first.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, and_, case, cast, column, exists, func, literal, or_, select

from rucio_trace_daemons.auditor.campaigns import campaigns
from rucio_trace_daemons.recorder.resolve import guid, rucio_table

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine, Row, Select

    from rucio_trace_daemons.auditor.campaigns import Campaign
    from rucio_trace_daemons.rses import Rse

__all__ = ["Round", "Rounds"]

LOG = logging.getLogger("traceability-auditor")

# A DISPUTED product has no origin to hold a copy against, a REVOKED one had none that counts.
_AUDITABLE = ("GENUINE", "DEGRADED", "TAMPERED", "OBSOLETE", "PENDING")
_REPLICAS = rucio_table("replicas", *map(column, ("scope", "name", "state", "bytes")), guid("rse_id"))


@dataclass(frozen=True, slots=True)
class Round:
    """A round under way on one RSE."""

    audit: int
    rse_id: str
    number: int
    stopped: bool  # its campaign was: what was found is signed, nothing more is read


class Rounds:
    """The rounds of all campaigns in one Rucio."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ours = tables(engine.dialect.name)

    def running(self) -> list[Campaign]:
        """The campaigns that go on."""
        with self._engine.connect() as connection:
            return campaigns(connection)

    def under_way(self, rse_ids: Collection[str] | None) -> list[Round]:
        """The rounds on these RSEs (None: any) that have not ended."""
        rounds, audits = self._ours.audit_rounds, self._ours.audits
        query = (
            select(rounds.c.audit, rounds.c.rse_id, rounds.c.round, audits.c.stopped_at.is_not(None))
            .join(audits, audits.c.id == rounds.c.audit)
            .where(rounds.c.ended_at.is_(None))
            .order_by(rounds.c.audit, rounds.c.rse_id)
        )
        if rse_ids is not None:
            query = query.where(rounds.c.rse_id.in_(rse_ids))
        with self._engine.connect() as connection:
            return [Round(row[0], row[1], row[2], bool(row[3])) for row in connection.execute(query)]

    def begin(self, audit: Campaign, rse: Rse) -> bool:
        """Begin the next round of a campaign on *rse* if it is due and there is something to read."""
        ours = self._ours
        with self._engine.connect() as connection:  # most looks end here, and lock nothing
            if not _is_due(self._last(connection, audit.id, rse.id), audit, clock(connection)):
                return False
        with writing(self._engine) as connection:
            locked = select(ours.audits.c.id).where(ours.audits.c.id == audit.id, ours.audits.c.stopped_at.is_(None))
            if connection.scalar(locked.with_for_update()) is None:
                return False
            now, last = clock(connection), self._last(connection, audit.id, rse.id)
            if not _is_due(last, audit, now):
                return False
            sweep_at: datetime = now if last is None or last.ends_sweep else last.sweep_at
            count, size, ends = self._take_on(connection, audit, rse, sweep_at)
            if not count and sweep_at != now:  # others proved what was left
                sweep_at = now
                count, size, ends = self._take_on(connection, audit, rse, sweep_at)
            if not count:
                return False
            if sweep_at == now:
                unread = ours.audit_unread
                connection.execute(unread.delete().where(unread.c.rse_id == rse.id, unread.c.at < now))
            counts = {"good": 0, "bad": 0, "unread": 0, "bytes_read": 0}
            number = last.round + 1 if last is not None else 1
            values = {"audit": audit.id, "rse_id": rse.id, "round": number, "sweep_at": sweep_at, "started_at": now}
            values |= {"ends_sweep": ends, "replicas": count, "bytes": size}
            connection.execute(ours.audit_rounds.insert().values(**values, **counts))
        self._analyse()
        LOG.info(
            "round-begun audit=%d rse=%s round=%d replicas=%d bytes=%d", audit.id, rse.label, number, count, size or 0
        )
        return True

    def _analyse(self) -> None:
        """Tell PostgreSQL how many rows came: until then it would read the whole round for each claim of a hundred.

        Where the table is not our role's own, PostgreSQL warns and leaves it to autovacuum.
        """
        if self._engine.dialect.name == "postgresql":
            with self._engine.begin() as connection:
                connection.exec_driver_sql(f"ANALYZE {self._ours.audit_work.fullname}")

    def end(self, round_: Round, rse_name: str) -> bool:
        """End *round_* if all of it was read and what was found good is signed; returns whether it is over."""
        rounds, work, batches = self._ours.audit_rounds, self._ours.audit_work, self._ours.audit_batches
        of = _of(work, round_.audit, round_.rse_id)
        unfinished = (
            exists().where(*of, work.c.outcome.is_(None)),
            exists().where(*of, work.c.outcome == "good", work.c.batch.is_(None)),
            exists().where(*_of(batches, round_.audit, round_.rse_id)),
        )
        with self._engine.connect() as connection:
            if connection.scalar(select(or_(*unfinished))):  # at one moment: a batch that is undone moves rows back
                return False
        with writing(self._engine) as connection:
            this = and_(*_of(rounds, round_.audit, round_.rse_id), rounds.c.round == round_.number)
            if (
                connection.scalar(select(rounds.c.round).where(this, rounds.c.ended_at.is_(None)).with_for_update())
                is None
            ):
                return True  # another auditor ended it
            counts = dict(_counts(connection, work, of))
            connection.execute(rounds.update().where(this).values(ended_at=clock(connection), **counts))
            connection.execute(work.delete().where(*of))
        LOG.info(
            "round-ended audit=%d rse=%s round=%d %s",
            round_.audit, rse_name, round_.number, " ".join(f"{word}={count}" for word, count in counts.items()),
        )  # fmt: skip
        return True

    def _last(self, connection: Connection, audit: int, rse_id: str) -> Row[Any] | None:
        rounds = self._ours.audit_rounds
        query = select(rounds).where(*_of(rounds, audit, rse_id)).order_by(rounds.c.round.desc()).limit(1)
        return connection.execute(query).one_or_none()

    def _take_on(self, connection: Connection, audit: Campaign, rse: Rse, sweep_at: datetime) -> tuple[int, int, bool]:
        """Write down what the next round reads; returns how many replicas, bytes, and whether the sweep has no more."""
        work = self._ours.audit_work
        everything = self._auditable(rse).subquery()
        c = everything.c
        # What could not be read has had its turn in this sweep: it holds up no other.
        unread = self._ours.audit_unread.c
        same = (unread.scope == c.scope, unread.name == c.name, unread.generation == c.generation)
        given_up = exists().where(*same, unread.rse_id == rse.id, unread.at >= sweep_at)
        left = and_(c.proven_at.is_(None) | (c.proven_at < sweep_at), ~given_up)
        total, in_sweep = connection.execute(
            select(func.count(), func.count(case((left, 1)))).select_from(everything)
        ).one()
        if not in_sweep:
            return 0, 0, True
        oldest_first = (case((c.proven_at.is_(None), 0), else_=1), c.proven_at, c.scope, c.name)
        due = (
            select(
                *(c[name] for name in ("scope", "name", "generation", "bytes")),
                func.row_number().over(order_by=oldest_first).label("ordinal"),
                func.sum(func.coalesce(c.bytes, 0)).over(order_by=oldest_first, rows=(None, 0)).label("up_to"),
            )
            .where(left)
            .subquery()
        )
        names = ("scope", "name", "generation", "ordinal", "bytes")
        chosen = select(literal(audit.id), literal(rse.id), *(due.c[name] for name in names)).where(
            due.c.ordinal <= math.ceil(audit.sample * total)
        )
        if audit.bytes is not None:  # the first one always fits: nothing is too large to be read ever
            chosen = chosen.where(due.c.up_to - func.coalesce(due.c.bytes, 0) < audit.bytes)
        connection.execute(work.insert().from_select(["audit", "rse_id", *names], chosen))
        taken = select(func.count(), func.coalesce(func.sum(work.c.bytes), 0)).where(*_of(work, audit.id, rse.id))
        count, size = connection.execute(taken).one()
        return int(count), int(size), count == in_sweep

    def _auditable(self, rse: Rse) -> Select[Any]:
        """The replicas that Rucio has available on *rse*, whose product has an origin, and about which nothing is
        pending."""
        ours, rucio = self._ours, _REPLICAS.c
        r, p, o = ours.replicas.c, ours.products.c, ours.outbox.c
        pending = exists().where(o.scope == r.scope, o.name == r.name, o.rse_id == rse.id)
        return (
            select(r.scope, r.name, r.generation, r.proven_at, rucio.bytes)
            .join(_REPLICAS, and_(rucio.scope == r.scope, rucio.name == r.name))
            .join(ours.products, and_(p.scope == r.scope, p.name == r.name, p.generation == r.generation))
            .where(
                r.rse_id == rse.id,
                rucio.rse_id == rse.id,
                cast(rucio.state, Text) == "A",  # an enumeration on PostgreSQL
                r.state.in_(("proven", "waiting")),
                p.status.in_(_AUDITABLE),
                p.trace_id.is_not(None),
                ~pending,
            )
        )


def _of(table: Any, audit: int, rse_id: str) -> tuple[Any, Any]:
    return table.c.audit == audit, table.c.rse_id == rse_id


def _is_due(last: Row[Any] | None, audit: Campaign, now: datetime) -> bool:
    if last is None:
        return True
    return last.ended_at is not None and last.started_at + timedelta(seconds=audit.every_seconds) <= now


def _counts(connection: Connection, work: Any, of: Sequence[Any]) -> dict[str, int]:
    c = work.c
    read = c.outcome.in_(("good", "bad"))
    query = select(
        *(func.count(case((c.outcome == word, 1))).label(word) for word in ("good", "bad", "unread")),
        func.coalesce(func.sum(case((read, c.bytes))), 0).label("bytes_read"),
    ).where(*of)
    return connection.execute(query).one()._asdict()
