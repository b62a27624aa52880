"""What somebody should look at, told once: as one of Rucio's messages, which Hermes carries on, and in the log.

Reports of one kind and subject (an RSE, a site) are one alarm. The first report is told at once; what is reported
after that is counted, and told as one summary when the window is over. An alarm of which nothing was heard for a day
is over, and the next report is a first one again.

Counting and telling are two transactions. Whoever finds something counts it in the transaction that writes down what it
found, so it is counted exactly once; whoever comes next, on whatever host, tells what has not been told, in the
transaction that writes the messages: a kill in between delays an alarm and loses none.

An alarm holds DIDs, names of RSEs and reasons: no PFN, no account, no secret. Safe to share between threads.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from rucio.common.exception import DatabaseException, RucioException
from rucio.core.message import add_message
from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from rucio_trace_daemons.recorder.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Engine, Row

    from rucio_trace.config import Settings
    from rucio_trace_daemons.keys import Keys

__all__ = ["Alarms", "Kind", "check_certificate"]

LOG = logging.getLogger("traceability-alarms")

EVENT_TYPE = "traceability-alarm"  # of the messages
# So many entries of each list in a detail are told; the count says how many there are.
FEW = 10
OVER_AFTER = timedelta(days=1)
CERTIFICATE_DAYS = 14


class Kind(StrEnum):
    """What happened; the words of messages, log and metrics."""

    CORRUPT = "CORRUPT"
    LOST = "LOST"
    LAST_COPY = "LAST_COPY"
    BREAKER_OPEN = "BREAKER_OPEN"
    SIGNING_STOPPED = "SIGNING_STOPPED"
    OUTBOX_STUCK = "OUTBOX_STUCK"
    STORE_REFUSES = "STORE_REFUSES"
    CERTIFICATE_ENDS = "CERTIFICATE_ENDS"
    CERTIFICATE_UNFIT = "CERTIFICATE_UNFIT"


TEXTS = {
    Kind.CORRUPT: "replicas hold other bytes than their product",
    Kind.LOST: "replicas have no file any more",
    Kind.LAST_COPY: "bad copies of which no other is proven good: nothing was declared, and recovery needs a human",
    Kind.BREAKER_OPEN: "so much is bad that the storage itself is in doubt; nothing more is declared there",
    Kind.SIGNING_STOPPED: "so many replicas in a row are lost that nothing more is signed there",
    Kind.OUTBOX_STUCK: "changes that no time will mend wait for an operator (rucio-trace outbox list --failed)",
    Kind.STORE_REFUSES: "the trace store refuses our traces; they wait in the outbox",
    Kind.CERTIFICATE_ENDS: f"the signing certificate ends within {CERTIFICATE_DAYS} days; then nothing is signed",
    Kind.CERTIFICATE_UNFIT: "key or certificate on disk cannot be used; what was in use before still is",
}
# States that are reported every hour as long as they last: told again by the day, over when that stops.
LASTING = frozenset({Kind.CERTIFICATE_ENDS, Kind.CERTIFICATE_UNFIT})
LASTING_AGAIN, LASTING_OVER = timedelta(days=1), timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class Alarms:
    """Counts and tells; `rucio` is the instance's name, `email` whom Hermes shall write to."""

    engine: Engine
    rucio: str = ""
    window: timedelta = timedelta(hours=1)
    email: tuple[str, ...] = ()

    @classmethod
    def of(cls, engine: Engine, settings: Settings) -> Self:
        window = timedelta(seconds=settings.alarms.window_seconds)
        return cls(engine, settings.instance.name, window, settings.alarms.email)

    def report(self, kind: Kind, subject: str, detail: Mapping[str, Any], count: int = 1) -> None:
        """Count *count* of *kind* on *subject*, and tell what is due; see `note`.

        Raises:
            DBAPIError, DatabaseException: Rucio's database is away.
        """
        with writing(self.engine) as connection:
            self.note(connection, kind, subject, detail, count)
        self.tell()

    def note(self, connection: Connection, kind: Kind, subject: str, detail: Mapping[str, Any], count: int = 1) -> None:
        """The same in the caller's transaction, which `tell` has to follow.

        *detail* is JSON. Of a list (`dids`) the first few entries since the last message are kept, of any other value
        the latest. Several alarms in one transaction are noted in the order of kind and subject, so that no two
        transactions wait for each other.
        """
        table, now = tables(connection.dialect.name).alarms, clock(connection)
        c = table.c
        new = {"kind": kind, "subject": subject, "first_at": now, "last_at": now, "count": count, "told": 0}
        # A change, not a second insert, holds the row: nobody takes an alarm for over that has just been reported.
        upsert(connection, table, [new], lambda new: {"last_at": new.last_at, "count": c.count + new.count})
        this = and_(c.kind == kind, c.subject == subject)
        row = connection.execute(select(c.count, c.told, c.detail).where(this)).one()
        untold = json.loads(row.detail) if row.detail and row.count - count > row.told else {}
        merged = {key: _few(untold.get(key), value) for key, value in detail.items()}
        values = {"detail": json.dumps(untold | merged, ensure_ascii=False, sort_keys=True)}
        connection.execute(update(table).where(this).values(**values))

    def tell(self) -> int:
        """Tell every alarm that is due, each as one message, and forget those that are over; returns how many.

        What another process is telling at this moment is left to it.
        """
        told: list[dict[str, Any]] = []
        with writing(self.engine) as connection:
            table, now = tables(connection.dialect.name).alarms, clock(connection)
            c = table.c
            open_ones = or_(c.count > c.told, c.last_at <= now - min(OVER_AFTER, LASTING_OVER))
            query = select(table).where(open_ones).order_by(c.kind, c.subject).with_for_update(skip_locked=True)
            for row in connection.execute(query).all():
                this = and_(c.kind == row.kind, c.subject == row.subject)
                if self._over(row, now):
                    connection.execute(table.delete().where(this))
                elif self._due(row, now) and self._send(connection, payload := self._payload(row)):
                    connection.execute(update(table).where(this).values(told=row.count, told_at=now))
                    told.append(payload)
        for payload in told:
            fields = " ".join(f"{name}={payload[name]}" for name in ("kind", "subject", "count", "new"))
            LOG.error("alarm %s detail=%s", fields, json.dumps(payload["detail"], ensure_ascii=False))
        return len(told)

    def _due(self, row: Row[Any], now: datetime) -> bool:
        again = LASTING_AGAIN if row.kind in LASTING else self.window
        return row.told_at is None or (row.count > row.told and row.told_at <= now - again)

    @staticmethod
    def _over(row: Row[Any], now: datetime) -> bool:
        """Nothing was heard of it for long, and nothing of it is untold; that a state no longer lasts is no news."""
        if row.kind in LASTING:
            return row.told_at is not None and row.last_at <= now - LASTING_OVER
        return row.count == row.told and row.last_at <= now - OVER_AFTER

    def _payload(self, row: Row[Any]) -> dict[str, Any]:
        return {
            "kind": row.kind,
            "subject": row.subject,
            "text": TEXTS.get(row.kind, ""),
            "count": row.count,
            "new": row.count - row.told,
            "first_at": _shown(row.first_at),
            "last_at": _shown(row.last_at),
            "rucio": self.rucio,
            "detail": json.loads(row.detail) if row.detail else {},
        }

    def _send(self, connection: Connection, payload: dict[str, Any]) -> bool:
        """Give Rucio the messages, in this transaction; False if its rucio.cfg names services that do not exist."""
        with Session(bind=connection) as session:
            try:
                add_message(EVENT_TYPE, payload, session=session)
                if self.email:
                    add_message("email", self._mail(payload), session=session)
            except DatabaseException:
                raise
            except RucioException as error:
                LOG.error("alarm-untold kind=%s subject=%s %s", payload["kind"], payload["subject"], error)
                return False
        return True

    def _mail(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        subject = f"{payload['kind']} on {payload['subject']}: {payload['new']} new, {payload['count']} in all"
        lines = [payload["text"], "", *(f"{name}: {payload[name]}" for name in ("rucio", "first_at", "last_at"))]
        for name, value in payload["detail"].items():
            lines += (
                [f"{name}:", *(f"  {entry}" for entry in value)] if isinstance(value, list) else [f"{name}: {value}"]
            )
        return {"to": list(self.email), "subject": f"[rucio-trace] {subject}", "body": "\n".join(lines)}


def check_certificate(alarms: Alarms, keys: Keys, site: str, now: datetime) -> None:
    """Report what is wrong with the signing certificate, or soon will be; called every hour."""
    if keys.fault:
        alarms.report(Kind.CERTIFICATE_UNFIT, site, {"reason": keys.fault})
    if keys.not_after - now < timedelta(days=CERTIFICATE_DAYS):
        alarms.report(Kind.CERTIFICATE_ENDS, site, {"ends": _shown(keys.not_after)})


def _few(untold: Any, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    before: Sequence[Any] = untold if isinstance(untold, list) else ()
    return [*before, *value][:FEW]


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
