"""Beginning and ending campaigns, and closing breakers by hand: what `rucio-trace audit` changes.

Auditors follow the tables by themselves: they begin the rounds of a campaign and stop reading for one that has ended.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio.db.sqla import models
from rucio_trace_policy.database import clock, writing
from rucio_trace_policy.tables import tables
from sqlalchemy import func, insert, select, update

from rucio_trace.errors import ConfigurationError
from rucio_trace_daemons.methods import Method
from rucio_trace_daemons.rses import Rses, matching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from rucio_trace_daemons.rses import Rse

__all__ = ["AUDITED", "Breaker", "Campaign", "Started", "Stopped", "campaigns", "reset", "sift", "start", "stop"]

LOG = logging.getLogger("traceability-auditor")

AUDITED = (Method.READ, Method.STORAGE)
_WHY_NOT = {
    Method.TRANSFER: "its replicas are not read (tape, staging, or trace_method = transfer)",
    Method.NONE: "trace_method is none",
    Method.EXCLUDED: "it is volatile",
    Method.UNKNOWN: "its trace_method is no word we know",
}

# A transaction of about a second: auditors that look at the same rows wait no longer.
_REMOVED_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Campaign:
    """A row of `audits`."""

    id: int
    rses: str
    sample: float
    bytes: int | None
    every_seconds: int
    started_at: datetime
    stopped_at: datetime | None


@dataclass(frozen=True, slots=True)
class Started:
    """A campaign's number, the RSEs it audits, and why not each other one of its expression."""

    number: int
    read: Sequence[Rse]
    others: Mapping[Rse, str]


@dataclass(frozen=True, slots=True)
class Stopped:
    """What stopping left: `unread` replicas that nobody will read, `read` and good ones that are still to be signed."""

    campaign: Campaign
    already: bool
    unread: int
    read: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """Why nothing was declared on an RSE."""

    rse: str
    opened_at: datetime
    reason: str | None


class NoSuchCampaign(ConfigurationError):
    """A number that no campaign has."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"campaign {number}", expected="a campaign's number", hint="`audit status` lists those that run"
        )


def sift(engine: Engine, expression: str, subject: str = "--rses") -> tuple[list[Rse], dict[Rse, str]]:
    """The RSEs of an RSE expression by name: those an auditor reads, and why not for each of the others.

    Raises:
        ConfigurationError: it is no RSE expression, or names no RSE.
    """
    rses = sorted(Rses(engine).get(matching(expression, subject)).values(), key=lambda rse: rse.name)
    read = [rse for rse in rses if rse.method in AUDITED]
    return read, {rse: _WHY_NOT[rse.method] for rse in rses if rse.method not in AUDITED}


def start(engine: Engine, expression: str, *, sample: float, most_bytes: int | None, every_seconds: int) -> Started:
    """Begin a campaign; *sample* and *most_bytes* bound one round on one RSE.

    Raises:
        ConfigurationError: the expression names no RSE that can be audited.
    """
    read, others = sift(engine, expression)
    if not read:
        found = "; ".join(f"{rse.name}: {reason}" for rse, reason in others.items())
        raise ConfigurationError("--rses", expected="an RSE that can be audited", found=found)
    audits = tables(engine.dialect.name).audits
    with writing(engine) as connection:
        values = {
            "rses": expression,
            "sample": sample,
            "bytes": most_bytes,
            "every_seconds": every_seconds,
            "started_at": clock(connection),
        }
        number = connection.execute(insert(audits).values(values)).inserted_primary_key[0]
    return Started(int(number), read, others)


def campaigns(connection: Connection, number: int | None = None) -> list[Campaign]:
    """The campaign of that number, or all that run.

    Raises:
        NoSuchCampaign: there is none of that number.
    """
    audits = tables(connection.dialect.name).audits
    meant = audits.c.stopped_at.is_(None) if number is None else audits.c.id == number
    found = [Campaign(*row) for row in connection.execute(select(audits).where(meant).order_by(audits.c.id))]
    if number is not None and not found:
        raise NoSuchCampaign(number)
    return found


def stop(engine: Engine, number: int) -> Stopped:
    """End a campaign: what is not read yet never will be, what was read is still signed. May be repeated.

    Raises:
        NoSuchCampaign: there is none of that number.
    """
    ours = tables(engine.dialect.name)
    with writing(engine) as connection:
        # Before any of its work goes: who begins a round locks this row, and then finds the campaign ended.
        ending = update(ours.audits).where(ours.audits.c.id == number, ours.audits.c.stopped_at.is_(None))
        already = connection.execute(ending.values(stopped_at=clock(connection))).rowcount == 0
        (campaign,) = campaigns(connection, number)
    work = ours.audit_work.c
    with engine.connect() as connection:
        rse_ids = connection.scalars(select(work.rse_id).where(work.audit == number).distinct()).all()
    unsigned = (work.audit == number, work.outcome == "good", work.batch.is_(None))
    unread = sum(_remove_unread(engine, number, rse_id) for rse_id in rse_ids)
    with engine.connect() as connection:
        read = connection.scalar(select(func.count()).where(*unsigned))
    return Stopped(campaign, already, unread, read or 0)


def _remove_unread(engine: Engine, number: int, rse_id: str) -> int:
    """In the order of the ordinals, as auditors claim them: nobody waits for anybody in a circle."""
    table = tables(engine.dialect.name).audit_work
    c = table.c
    unread = (c.audit == number, c.rse_id == rse_id, c.outcome.is_(None))
    removed = 0
    while True:
        with writing(engine) as connection:
            first = select(c.ordinal).where(*unread).order_by(c.ordinal).limit(_REMOVED_AT_ONCE).subquery()
            last = connection.scalar(select(func.max(first.c.ordinal)))
            if last is None:
                return removed
            removed += connection.execute(table.delete().where(*unread, c.ordinal <= last)).rowcount


def reset(engine: Engine, rse: str, reason: str) -> Breaker | None:
    """Close the breaker of an RSE, for *reason*, which goes to the log; None where it is not open.

    Raises:
        ConfigurationError: there is no such RSE.
    """
    breakers = tables(engine.dialect.name).breakers
    c = models.RSE.__table__.c
    with writing(engine) as connection:
        ids = connection.scalars(select(c.id).where(c.rse == rse)).all()
        if not ids:
            raise ConfigurationError(rse, expected="the name of an RSE", found="none of that name")
        opened = breakers.c.rse_id.in_(ids) & breakers.c.opened_at.is_not(None)
        row = connection.execute(select(breakers).where(opened).with_for_update()).first()
        if row is None:
            return None
        values = {"bad_in_a_row": 0, "opened_at": None, "reason": reason, "reset_at": clock(connection)}
        connection.execute(update(breakers).where(opened).values(values))
    LOG.warning("breaker-closed rse=%s opened_at=%s reason=%r", rse, row.opened_at.isoformat(), reason)
    return Breaker(rse, row.opened_at, row.reason)
