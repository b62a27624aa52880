"""The report of audits: how well each RSE is covered, what is read of it a day, and when all of it will have been read.

What a report says is computed here from a few queries; how it looks is `page` and the command line.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio.db.sqla import models
from rucio_trace_policy.database import clock
from rucio_trace_policy.tables import tables
from sqlalchemy import func, literal, select

from rucio_trace_daemons.auditor.campaigns import AUDITED, campaigns, sift
from rucio_trace_daemons.auditor.copies import count_copies, days_before
from rucio_trace_daemons.auditor.forecast import DAY, DAYS, daily_bytes, pace, sweep_end
from rucio_trace_daemons.auditor.progress import progress
from rucio_trace_daemons.rses import Rses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Engine

    from rucio_trace_daemons.auditor.copies import AgeGroup
    from rucio_trace_daemons.auditor.progress import Progress
    from rucio_trace_daemons.rses import Rse

__all__ = ["AGE_CLASSES", "Coverage", "Report", "report", "reported"]

AGE_CLASSES = (1, 7, 30, 90, 365)
"""Upper bounds, in days, of the classes in which ages of proofs are shown; one more class is open."""

WEEK = 7


@dataclass(frozen=True, slots=True)
class Coverage:
    """One RSE: what of it is proven, and what is read.

    `replicas` are all that count: proven, never proven, corrupt and lost. `ages` counts the proven ones by
    `AGE_CLASSES`, one more than those. `daily_bytes`: read in each of the last 30 times 24 hours, the oldest first;
    a pace is bytes per day, over so many days or since reading began.
    """

    rse: str
    method: str
    replicas: int
    bytes: int
    proven: int
    never_proven: int
    corrupt: int
    lost: int
    oldest_proof: datetime | None
    median_age_days: int | None
    ages: tuple[int, ...]
    overdue: int
    overdue_bytes: int
    left_bytes: int
    daily_bytes: tuple[int, ...]
    bytes_per_day_7: float
    bytes_per_day_30: float
    all_read_by: datetime | None

    @property
    def bad(self) -> int:
        return self.corrupt + self.lost


@dataclass(frozen=True, slots=True)
class Report:
    """All of it, as it was `at` a moment; `subject` says of what in a few words."""

    at: datetime
    subject: str
    overdue: timedelta
    rses: Sequence[Coverage]
    rounds: Sequence[Progress]


def reported(engine: Engine, number: int | None, expression: str | None) -> tuple[str, list[Rse]]:
    """What a report is about, and its RSEs by name: those of *expression*, else of the campaign, else all audited ones.

    Raises:
        ConfigurationError: there is no such campaign, or the expression names no RSE.
    """
    about, said_in = [], "--rses"
    if number is not None:
        with engine.connect() as connection:
            (campaign,) = campaigns(connection, number)
        about.append(f"campaign {number}")
        if expression is None:
            expression, said_in = campaign.rses, about[0]
    if expression is None:
        return "all RSEs that can be audited", _all_audited(engine)
    read, others = sift(engine, expression, said_in)
    about.append(f"RSEs {expression}")
    return ", ".join(about), sorted([*read, *others], key=lambda rse: rse.name)


def _all_audited(engine: Engine) -> list[Rse]:
    """Not by the expression `*`, which is an error in a Rucio without RSEs."""
    c = models.RSE.__table__.c
    with engine.connect() as connection:
        ids = connection.scalars(select(c.id).where(c.deleted.is_(False))).all()
    return sorted((rse for rse in Rses(engine).get(ids).values() if rse.method in AUDITED), key=lambda rse: rse.name)


def report(engine: Engine, overdue: timedelta, number: int | None = None, expression: str | None = None) -> Report:
    """The report on RSEs (see `reported`); what is read a day is of the campaign of that number, or of all together.

    *overdue*: how old a last proof may be.

    Raises:
        ConfigurationError: there is no such campaign, or the expression names no RSE.
    """
    subject, rses = reported(engine, number, expression)
    rse_ids = {rse.id for rse in rses}
    rounds = [line for line in progress(engine, number) if line.rse_id in rse_ids]
    with engine.connect() as connection:
        now = clock(connection)
        reading = _Reading(connection, now, number)
        groups: dict[str, list[AgeGroup]] = defaultdict(list)
        for group in count_copies(connection, list(rse_ids), now, overdue, reading.sweeps):
            groups[group.rse_id].append(group)
    return Report(now, subject, overdue, [_coverage(rse, groups[rse.id], reading, now) for rse in rses], rounds)


class _Reading:
    """What was read of each RSE in the last days, when reading began, and when the present sweep began."""

    def __init__(self, connection: Connection, now: datetime, number: int | None) -> None:
        ours = tables(connection.dialect.name)
        r, w = ours.audit_rounds.c, ours.audit_work.c
        since = literal(now - DAY * DAYS, r.ended_at.type)
        rounds_meant = () if number is None else (r.audit == number,)
        work_meant = () if number is None else (w.audit == number,)
        begun = select(r.rse_id, func.min(r.started_at), func.max(r.sweep_at)).where(*rounds_meant)
        self.first: dict[str, datetime] = {}
        self.sweeps: dict[str, datetime] = {}
        for rse_id, first, sweep in connection.execute(begun.group_by(r.rse_id)):
            self.first[rse_id], self.sweeps[rse_id] = first, sweep
        ended = select(r.rse_id, r.started_at, r.ended_at, r.bytes_read).where(r.ended_at > since, *rounds_meant)
        spans: dict[str, list[tuple[datetime, datetime, int]]] = defaultdict(list)
        for rse_id, *span in connection.execute(ended):
            spans[rse_id].append((span[0], span[1], span[2]))
        self.daily = defaultdict(lambda: [0] * DAYS, {key: daily_bytes(value, now) for key, value in spans.items()})
        day = days_before(connection.dialect.name, now, w.observed).label("day")
        read = select(w.rse_id, day, w.bytes).where(w.outcome.in_(("good", "bad")), w.observed > since, *work_meant)
        rows = read.subquery().c
        by_day = select(rows.rse_id, rows.day, func.coalesce(func.sum(rows.bytes), 0)).group_by(rows.rse_id, rows.day)
        for rse_id, days_ago, size in connection.execute(by_day):
            self.daily[rse_id][DAYS - 1 - min(max(int(days_ago), 0), DAYS - 1)] += int(size)


def _coverage(rse: Rse, groups: Sequence[AgeGroup], reading: _Reading, now: datetime) -> Coverage:
    sound = [group for group in groups if group.bad is None]
    aged = {group.age_days: group.replicas for group in sound if group.age_days is not None}
    counts = {bad: sum(group.replicas for group in groups if group.bad == bad) for bad in ("corrupt", "lost")}
    left = sum(group.left_bytes for group in sound)
    daily, first = reading.daily[rse.id], reading.first.get(rse.id)
    per_day = pace(daily, DAYS, first, now)
    return Coverage(
        rse=rse.name,
        method=str(rse.method),
        replicas=sum(group.replicas for group in groups),
        bytes=sum(group.bytes for group in groups),
        proven=sum(aged.values()),
        never_proven=sum(group.replicas for group in sound if group.age_days is None),
        **counts,
        oldest_proof=min((group.oldest for group in sound if group.oldest is not None), default=None),
        median_age_days=_median(aged),
        ages=_classes(aged.items()),
        overdue=sum(group.overdue for group in sound),
        overdue_bytes=sum(group.overdue_bytes for group in sound),
        left_bytes=left,
        daily_bytes=tuple(daily),
        bytes_per_day_7=pace(daily, WEEK, first, now),
        bytes_per_day_30=per_day,
        all_read_by=sweep_end(left, per_day, now),
    )


def _median(counts: Mapping[int, int]) -> int | None:
    """The value that half of all, counted by value, do not exceed."""
    half = (sum(counts.values()) + 1) // 2
    for value in sorted(counts):
        half -= counts[value]
        if half <= 0:
            return value
    return None


def _classes(counts: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    classes = [0] * (len(AGE_CLASSES) + 1)
    for age, replicas in counts:
        classes[sum(age >= bound for bound in AGE_CLASSES)] += replicas
    return tuple(classes)
