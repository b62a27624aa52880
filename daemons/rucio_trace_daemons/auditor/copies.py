"""The replicas Rucio has, each with its last proof: counted by RSE and age, or one by one.

One pass over Rucio's replicas, in the database, however many there are. A proof counts for the living generation of a
name alone; a replica is counted while Rucio calls it available, and a bad one (corrupt, lost) as long as Rucio has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rucio.common.types import InternalScope
from rucio.db.sqla.session import DEFAULT_SCHEMA_NAME
from rucio.db.sqla.types import GUID
from rucio_trace_policy.columns import Moment
from rucio_trace_policy.tables import tables
from sqlalchemy import (
    BigInteger,
    Text,
    and_,
    case,
    cast,
    column,
    extract,
    func,
    literal,
    or_,
    select,
    table,
    text,
    type_coerce,
)

from rucio_trace_daemons.auditor.forecast import DAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Engine, Subquery

__all__ = ["AgeGroup", "Copy", "count_copies", "days_before", "each_copy"]

# Named with the columns we read and without Rucio's types, as in `recorder.resolve`.
_REPLICAS = table(
    "replicas",
    *map(column, ("scope", "name", "state", "bytes")),
    column("rse_id", GUID()),
    column("created_at", Moment()),
    schema=DEFAULT_SCHEMA_NAME,
)
_DIDS = table("dids", column("scope"), column("name"), column("created_at", Moment()), schema=DEFAULT_SCHEMA_NAME)

# Rows a database hands over at once, where they are read one by one.
_ROWS_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class AgeGroup:
    """Replicas of one RSE whose last proof is equally old; `age_days` is None without a proof.

    `bad` is `corrupt`, `lost` or None; of bad ones nothing is overdue.
    """

    rse_id: str
    bad: str | None
    age_days: int | None
    replicas: int
    bytes: int
    oldest: datetime | None
    overdue: int
    overdue_bytes: int
    left_bytes: int  # not proven since the present sweep began


@dataclass(frozen=True, slots=True)
class Copy:
    """One replica; scope and name as users write them, `state` as docs/format.md, section 8, or `unproven`."""

    rse_id: str
    scope: str
    name: str
    bytes: int
    state: str
    proven_at: datetime | None
    overdue: bool


def count_copies(
    connection: Connection, rse_ids: Sequence[str], now: datetime, overdue: timedelta, sweeps: Mapping[str, datetime]
) -> list[AgeGroup]:
    """All replicas of the RSEs, in groups of whole days; *sweeps*: when the present sweep of an RSE began.

    A replica is overdue if its last proof, or without one its arrival in Rucio, is longer ago than *overdue*.

    Cost: hash joins of Rucio's replicas and DIDs with our proofs; of a million replicas on PostgreSQL with its default
    settings and two busy cores, 6 to 9 s.
    """
    copies = _copies(connection.dialect.name, rse_ids)
    c = copies.c
    late = _overdue(c, now - overdue)
    left = and_(c.bad.is_(None), or_(c.proven_at.is_(None), c.proven_at < _sweep(c.rse_id, sweeps)))
    age = days_before(connection.dialect.name, now, c.proven_at).label("age")
    groups = (
        select(
            c.rse_id,
            c.bad,
            age,
            c.bytes,
            c.proven_at,
            case((late, 1), else_=0).label("late"),
            case((left, c.bytes), else_=0).label("left"),
        )
        .subquery()
        .c
    )
    query = select(
        groups.rse_id,
        groups.bad,
        groups.age,
        func.count(),
        func.sum(groups.bytes),
        func.min(groups.proven_at),
        func.sum(groups.late),
        func.sum(groups.late * groups.bytes),
        func.sum(groups.left),
    ).group_by(groups.rse_id, groups.bad, groups.age)
    return [_group(row) for row in connection.execute(query)]


def _group(row: Any) -> AgeGroup:
    rse_id, bad, age, replicas, size, oldest, *sums = row
    late, late_bytes, left = (int(value) for value in sums)
    age_days = None if age is None else max(int(age), 0)
    return AgeGroup(rse_id, bad, age_days, replicas, int(size), oldest, late, late_bytes, left)


def each_copy(engine: Engine, rse_ids: Sequence[str], overdue_since: datetime) -> Iterator[Copy]:
    """The same replicas one by one, the RSEs in the order given, the oldest proof first; in bounded memory.

    Cost: as `count_copies`, and a sort in the database: a million on PostgreSQL take 30 s, the first comes after 20 s,
    and the process never has more than 111 MB.
    """
    if not rse_ids:
        return
    c = _copies(engine.dialect.name, rse_ids).c
    late = case((_overdue(c, overdue_since), 1), else_=0)
    query = select(c.rse_id, c.scope, c.name, c.bytes, func.coalesce(c.state, "unproven"), c.proven_at, late)
    # NULLs come first on some databases and last on others.
    place = case({rse_id: number for number, rse_id in enumerate(rse_ids)}, value=c.rse_id)
    query = query.order_by(place, c.proven_at.is_not(None), c.proven_at, c.scope, c.name)
    with engine.connect().execution_options(yield_per=_ROWS_AT_ONCE) as connection:
        for rse_id, scope, name, size, state, proven_at, is_late in connection.execute(query):
            external = str(InternalScope(scope, from_external=False).external)
            yield Copy(rse_id, external, name, int(size), state, proven_at, bool(is_late))


def _copies(dialect_name: str, rse_ids: Sequence[str]) -> Subquery:
    proofs = tables(dialect_name).replicas
    r, d, p = _REPLICAS.c, _DIDS.c, proofs.c
    rse_id = _rse_id(dialect_name)
    proof = (p.scope == r.scope, p.name == r.name, p.generation == d.created_at, p.rse_id == rse_id)
    bad = case((p.state.in_(("corrupt", "lost")), p.state))
    # Compared as text: the state is an enumeration on PostgreSQL.
    counted = or_(cast(r.state, Text) == "A", bad.is_not(None))
    return (
        select(
            type_coerce(rse_id, Text).label("rse_id"),
            *(r.scope, r.name, r.bytes, r.created_at),
            p.state,
            p.proven_at,
            bad.label("bad"),
        )
        .select_from(_REPLICAS)
        .join(_DIDS, and_(d.scope == r.scope, d.name == r.name))
        .outerjoin(proofs, and_(*proof))
        .where(r.rse_id.in_(rse_ids), counted)
        .subquery()
    )


def _rse_id(dialect_name: str) -> Any:
    """Rucio's RSE id of a replica as our tables have it: a UUID on PostgreSQL, 16 bytes on MariaDB."""
    if dialect_name == "postgresql":
        return func.replace(cast(_REPLICAS.c.rse_id, Text), "-", "", type_=Text)
    return func.lower(func.hex(_REPLICAS.c.rse_id), type_=Text) if dialect_name == "mysql" else _REPLICAS.c.rse_id


def _overdue(copy: Any, since: datetime) -> ColumnElement[bool]:
    return and_(copy.bad.is_(None), func.coalesce(copy.proven_at, copy.created_at, type_=Moment()) < since)


def _sweep(rse_id: Any, sweeps: Mapping[str, datetime]) -> Any:
    """When the sweep of an RSE began; without one everything is still to be read."""
    never = literal(datetime(9999, 1, 1), Moment())  # noqa: DTZ001 - naive UTC, as the database has it
    whens = {rse: literal(moment, Moment()) for rse, moment in sweeps.items()}
    return case(whens, value=rse_id, else_=never) if whens else never


def days_before(dialect_name: str, now: datetime, moment: Any) -> Any:
    """How many times 24 hours *moment* (a column) lies before *now*, rounded down."""
    if dialect_name == "mysql":
        return func.timestampdiff(text("DAY"), moment, literal(now, Moment()))
    seconds = int(now.timestamp()) - cast(extract("epoch", moment), BigInteger)
    return seconds // int(DAY.total_seconds())
