"""What was found good, signed: one VERIFY for up to 10,000 replicas of an RSE, sent once and shown in Rucio.

    close    one transaction: lines are gathered, the statement about their list is signed, and both are kept
    deliver  the store takes statement and list; Rucio shows what they prove; the kept copy goes

Every step may be killed and repeated: what is kept is what is sent, by whomever.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rucio.common.types import InternalScope
from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, and_, func, or_, select, update

from rucio_trace.batch import Line, list_fields, list_name, product_of, read_lines, write_lines
from rucio_trace.envelope import dumps, parse_traces, sign
from rucio_trace.errors import StorageError, TraceabilityError
from rucio_trace.statement import DEFAULT_VO
from rucio_trace.store import Outcome
from rucio_trace.trace import Event, Statement, format_time, new_salt
from rucio_trace_daemons import metrics
from rucio_trace_daemons.recorder.refresh import refresh
from rucio_trace_daemons.recorder.sets import among
from rucio_trace_daemons.recorder.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine, Row

    from rucio_trace.envelope import Trace
    from rucio_trace.identity import Trust
    from rucio_trace.store import TraceStore
    from rucio_trace_daemons.auditor.options import Options
    from rucio_trace_daemons.auditor.rounds import Round
    from rucio_trace_daemons.keys import Keys
    from rucio_trace_daemons.recorder.finish import Names
    from rucio_trace_daemons.rses import Rse

__all__ = ["Batches", "NotTaken"]

LOG = logging.getLogger("traceability-auditor")


class NotTaken(StorageError):
    """The store does not take a signed batch; it is kept, and sent again."""


class NeverTaken(StorageError):
    """The store will never take a signed batch, and a new certificate is in use: its lines are signed anew."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Signs and delivers the batches of one Rucio. `seam` is told the name of each boundary between two steps."""

    engine: Engine
    options: Options
    store: TraceStore
    keys: Keys
    names: Names
    trust: Callable[[], Trust | None]
    seam: Callable[[str], None]

    def close(self, round_: Round, rse: Rse) -> int:
        """Sign what was found good on *rse*, if it is enough, old enough, or all; returns how many replicas."""
        ours = tables(self.engine.dialect.name)
        work, rounds = ours.audit_work.c, ours.audit_rounds.c
        of = and_(work.audit == round_.audit, work.rse_id == round_.rse_id)
        lines = and_(of, work.outcome == "good", work.batch.is_(None))
        with self.engine.connect() as connection:
            if not self._is_due(connection, round_, of, lines):
                return 0
        with writing(self.engine) as connection:
            this = and_(rounds.audit == round_.audit, rounds.rse_id == round_.rse_id, rounds.round == round_.number)
            here = select(rounds.round).where(this, rounds.ended_at.is_(None)).with_for_update(skip_locked=True)
            if connection.scalar(here) is None:
                return 0  # another worker is at it, or the round is over: what is there now is of the next one
            method = connection.scalar(select(work.method).where(lines).order_by(work.batch, work.ordinal).limit(1))
            columns = (work.scope, work.name, work.generation, work.digest, work.observed)
            query = select(*columns).where(lines, work.method == method).order_by(work.batch, work.ordinal)
            rows = connection.execute(query.limit(self.options.batch_lines)).all()
            if not rows:
                return 0
            event = self._keep(connection, round_, rse, method, rows)
            keys = among(
                connection.dialect.name, (work.scope, work.name), (Text(), Text()), [tuple(r[:2]) for r in rows]
            )
            connection.execute(update(ours.audit_work).where(of, keys).values(batch=event))
            self.seam("keeping")
        self.seam("kept")
        return len(rows)

    def _is_due(self, connection: Connection, round_: Round, of: Any, lines: Any) -> bool:
        """Enough lines, or the first of them is old enough, or no more will come."""
        work = tables(connection.dialect.name).audit_work.c
        if (first := connection.scalar(select(func.min(work.observed)).where(lines))) is None:
            return False
        if round_.stopped or clock(connection) - first >= self.options.batch:
            return True
        if connection.scalar(select(select(work.name).where(of, work.outcome.is_(None)).exists())) is False:
            return True
        some = select(work.name).where(lines).limit(self.options.batch_lines).subquery()
        return connection.scalar(select(func.count()).select_from(some)) == self.options.batch_lines

    def _keep(self, connection: Connection, round_: Round, rse: Rse, method: str, rows: Sequence[Row[Any]]) -> str:
        """Sign the statement about the list of *rows*, and keep both; returns its event id."""
        now = max(clock(connection), *(row.observed for row in rows))
        data = write_lines([_line(row) for row in rows])
        signer = self.keys.signer_at(now, now)
        event = str(uuid.uuid4())
        statement = Statement(
            **list_fields(data),
            name=list_name(rse.name, format_time(now)),
            event=Event.VERIFY,
            event_id=event,
            rucio=self.options.instance,
            vo=None if rse.vo == DEFAULT_VO else rse.vo,
            site=self.options.site,
            signer=signer.fingerprint,
            rse=rse.name,
            time=format_time(now),
            method=method,
            salt=new_salt(),
        )
        ours = tables(connection.dialect.name)
        kept = {"audit": round_.audit, "rse_id": rse.id, "at": now, "message": dumps([sign(statement, signer)])}
        connection.execute(ours.audit_batches.insert().values(id=event, lines=data.decode(), **kept))
        upsert(connection, ours.rse_names, [{"name": rse.name, "rse_id": rse.id}])
        self.names.note(rse.vo, rse.name, rse.id)
        return event

    def deliver(self, round_: Round, rse: Rse) -> int:
        """Bring one kept batch of this round to the store and into Rucio; returns how many lines, 0 without one.

        Raises:
            TraceabilityError: the store is away, or (NotTaken) refuses it for now; it stays, and says why.
        """
        worker = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}:{uuid.uuid4().hex[:8]}"
        batch = self._claim(round_, worker)
        if batch is None:
            return 0
        [trace] = parse_traces(batch.message.encode())
        try:
            lines = self._bring(trace, batch.lines.encode())
        except NeverTaken:
            self._undo(batch)
            LOG.warning("batch-undone audit=%d rse=%s trace=%s: it is signed anew", round_.audit, rse.label, trace.id)
            return 0
        except TraceabilityError as error:  # of a service also that it wants another token, or none of this
            self._release(batch.id, str(error))
            raise
        self._forget(batch)
        metrics.row_ended(rse.label, str(Event.VERIFY))
        self.seam("delivered")
        LOG.info(
            "batch-signed audit=%d rse=%s lines=%d trace=%s", round_.audit, trace.statement.rse, len(lines), trace.id
        )
        return len(lines)

    def _bring(self, trace: Trace, data: bytes) -> Sequence[Line]:
        """Register *trace* and its list, and show what they prove."""
        [answer] = self.store.register([trace], trust=self.trust(), lists={trace.id: data})
        self.seam("registered")
        if answer.outcome is Outcome.REFUSED and self._signs_otherwise_now(trace):
            raise NeverTaken(f"batch {trace.id}", found=str(answer.reason))
        if answer.outcome not in (Outcome.STORED, Outcome.KNOWN):
            raise NotTaken(f"batch {trace.id}", found=f"the store answers {answer.outcome}: {answer.reason}")
        lines = read_lines(data)
        self._show(trace.statement, lines)
        self.seam("shown")
        return lines

    def _signs_otherwise_now(self, trace: Trace) -> bool:
        """Whether another certificate is in use than the one of *trace*, which ended or was revoked since."""
        with self.engine.connect() as connection:
            now = clock(connection)
        return self.keys.signer_at(now, now).fingerprint != trace.statement.signer

    def _undo(self, batch: Row[Any]) -> None:
        """The kept copy goes and its lines are as they were: found good, and to be signed."""
        ours = tables(self.engine.dialect.name)
        work = ours.audit_work
        of = and_(work.c.audit == batch.audit, work.c.rse_id == batch.rse_id, work.c.batch == batch.id)
        with writing(self.engine) as connection:
            connection.execute(update(work).where(of).values(batch=None))
            connection.execute(ours.audit_batches.delete().where(ours.audit_batches.c.id == batch.id))

    def _claim(self, round_: Round, worker: str) -> Row[Any] | None:
        batches = tables(self.engine.dialect.name).audit_batches
        c = batches.c
        with writing(self.engine) as connection:
            now = clock(connection)
            free = or_(c.claimed_until.is_(None), c.claimed_until <= now)
            query = select(batches).where(c.audit == round_.audit, c.rse_id == round_.rse_id, free).order_by(c.at)
            batch = connection.execute(query.limit(1).with_for_update(skip_locked=True)).one_or_none()
            if batch is not None:
                values = {"claimed_by": worker, "claimed_until": now + self.options.lease}
                connection.execute(batches.update().where(c.id == batch.id).values(**values))
        return batch

    def _release(self, batch_id: str, error: str) -> None:
        batches = tables(self.engine.dialect.name).audit_batches
        with writing(self.engine) as connection:
            wait = clock(connection) + self.options.sleep  # the lease as a pause before the next try
            values = {"claimed_until": wait, "last_error": error}
            connection.execute(batches.update().where(batches.c.id == batch_id).values(**values))

    def _show(self, statement: Statement, lines: Sequence[Line]) -> None:
        """Recompute the status of every product in the list, from the store."""
        keys = {product_of(statement, line) for line in lines}
        refresh(self.engine, self.store, self.names, self.trust(), keys)

    def _forget(self, batch: Row[Any]) -> None:
        """The kept copy goes, and the batch is counted as what it is: one VERIFY of this RSE."""
        ours = tables(self.engine.dialect.name)
        with writing(self.engine) as connection:
            if connection.execute(ours.audit_batches.delete().where(ours.audit_batches.c.id == batch.id)).rowcount:
                one = [{"rse_id": batch.rse_id, "reason": str(Event.VERIFY), "count": 1}]
                upsert(connection, ours.outcomes, one, lambda new: {"count": ours.outcomes.c.count + new.count})
            self.seam("forgetting")


def _line(row: Row[Any]) -> Line:
    scope = InternalScope(row.scope, from_external=False)
    observed: datetime = row.observed
    return Line(
        f"{scope.external}:{row.name}", format_time(row.generation), row.digest, format_time(observed.astimezone(UTC))
    )
