"""The statements of a search for gaps: three tables walked along their keys, everything else looked up by key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    table,
    true,
)

from rucio_trace_daemons.recorder.sets import after

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

__all__ = ["Query", "available", "counts", "dead", "unsigned", "vanished"]

# Rucio's tables with the columns we read, without its Python types (see `recorder.resolve`), and under names that no
# table of ours has: within a sub-query `replicas` would be whichever the database finds first.
_REPLICAS = table(
    "replicas",
    *(column(name, Text()) for name in ("scope", "name", "adler32", "md5")),
    column("state"),
    column("rse_id", GUID()),
    column("bytes", BigInteger()),
    schema=DEFAULT_SCHEMA_NAME,
).alias("rucio_replicas")
_DIDS = table(
    "dids",
    *(column(name, Text()) for name in ("scope", "name", "adler32", "md5")),
    column("bytes", BigInteger()),
    column("created_at", Moment()),
    schema=DEFAULT_SCHEMA_NAME,
).alias("rucio_dids")


# Makes the statement for a page: up to `count` rows of the table it walks, after the one whose key is `last`. It gives
# those that are a `gap` and in any case the one that is number `count`; the key stands first, in `number`'s order.
Query = Callable[["Connection", "Collection[str]", Any, int], "Select[Any]"]


def available(connection: Connection, rse_ids: Collection[str], last: Any, count: int) -> Select[Any]:
    """Available replicas on the RSEs of which there is no trace, or that are not what their origin signs."""
    r, d, s = _REPLICAS.c, _DIDS.c, tables(connection.dialect.name).signed.c
    p = _page(connection, _REPLICAS, (r.scope, r.name, r.rse_id), _is_available(rse_ids), last, count)
    differs = or_(*(of[name] != s[name] for of in (p, d) for name in ("bytes", "adler32", "md5")))
    rows = _held_against_ours(connection, p, p.number, differs.label("differs")).subquery("replicas").c
    gap = and_(rows.generation.is_not(None), ~rows.pending, or_(rows.traced.is_(None), rows.differs))
    return _gaps(list(rows), gap, count)


def counts(connection: Connection, rse_ids: Collection[str]) -> Select[Any]:
    """By RSE: available replicas, and of them those with a change pending, the incomparable and the untraced ones."""
    page = select(_REPLICAS).where(_is_available(rse_ids)).subquery("page").c
    rows = _held_against_ours(connection, page).subquery("replicas").c
    untraced = and_(~rows.pending, rows.traced.is_(None))
    incomparable = and_(~rows.pending, rows.traced.is_not(None), rows.signed_bytes.is_(None))
    return select(
        rows.rse_id,
        func.count().label("replicas"),
        func.count(case((rows.pending, 1))).label("pending"),
        func.count(case((incomparable, 1))).label("incomparable"),
        func.count(case((untraced, 1))).label("untraced"),
        func.coalesce(func.sum(case((untraced, rows.bytes))), 0).label("bytes"),
    ).group_by(rows.rse_id)


def _is_available(rse_ids: Collection[str]) -> ColumnElement[bool]:
    # An untyped literal fits a text and an enumeration, and the planner knows how many rows it stands for.
    return and_(_REPLICAS.c.state == literal_column("'A'"), _REPLICAS.c.rse_id.in_(list(rse_ids)))


def _held_against_ours(connection: Connection, of: Any, *more: Any) -> Select[Any]:
    """Rucio's replicas *of* a page, with what is traced of each and what its origin signs."""
    ours, d = tables(connection.dialect.name), _DIDS.c
    t, s, rse_id = ours.replicas.c, ours.signed.c, _rse_id(connection, of.rse_id)
    return (
        select(
            *(of.scope, of.name, rse_id.label("rse_id"), of.bytes, of.adler32, of.md5),
            *(d.bytes.label("did_bytes"), d.adler32.label("did_adler32"), d.md5.label("did_md5")),
            *(s.bytes.label("signed_bytes"), s.adler32.label("signed_adler32"), s.md5.label("signed_md5")),
            *(d.created_at.label("generation"), t.state.label("traced"), *more),
            _pending(ours, of, rse_id).label("pending"),
        )
        .outerjoin(_DIDS, and_(d.scope == of.scope, d.name == of.name))
        .outerjoin(ours.replicas, and_(*_same(t, of, d.created_at), t.rse_id == rse_id))
        .outerjoin(ours.signed, and_(*_same(s, of, d.created_at)))
    )


def vanished(connection: Connection, rse_ids: Collection[str], last: Any, count: int) -> Select[Any]:
    """Replicas on the RSEs of which there is a trace, and which Rucio does not have."""
    ours, r = tables(connection.dialect.name), _REPLICAS.c
    t = ours.replicas.c
    key = (t.scope, t.name, t.generation, t.rse_id)
    p = _page(connection, ours.replicas, key, t.rse_id.in_(list(rse_ids)), last, count)
    scope, name = _as_rucio_writes(connection, p)
    replica = exists(select(null()).where(r.scope == scope, r.name == name, _rse_id(connection, r.rse_id) == p.rse_id))
    gap = and_(or_(~replica, ~_lives(scope, name, p.generation)), ~_pending(ours, p, p.rse_id))
    return _gaps((p.scope, p.name, p.generation, p.rse_id, p.state, p.number), gap, count)


def dead(connection: Connection, _rse_ids: Collection[str], last: Any, count: int) -> Select[Any]:
    """Products with a status that Rucio does not have, and of no replica of which there is a trace."""
    ours = tables(connection.dialect.name)
    c, t, o = ours.products.c, ours.replicas.c, ours.outbox.c
    p = _page(connection, ours.products, (c.scope, c.name, c.generation), true(), last, count)
    lives = _lives(*_as_rucio_writes(connection, p), p.generation)
    traced = exists(select(null()).where(*_same(t, p, p.generation)))
    pending = exists(select(null()).where(o.scope == p.scope, o.name == p.name))
    return _gaps((p.scope, p.name, p.generation, p.status, p.number), ~or_(lives, traced, pending), count)


def unsigned(connection: Connection, last: Any, count: int) -> Select[Any]:
    """The keys of up to *count* living products after *last* that have an origin of which nothing was kept."""
    ours = tables(connection.dialect.name)
    p, s = ours.products.c, ours.signed.c
    key = (p.scope, p.name, p.generation)
    lives = _lives(*_as_rucio_writes(connection, p), p.generation)
    kept = exists(select(null()).where(*_same(s, p, p.generation)))
    keys = select(*key).where(p.trace_id.is_not(None), lives, ~kept)
    return (keys if last is None else keys.where(after(connection.dialect.name, key, last))).order_by(*key).limit(count)


def _page(
    connection: Connection, walked: Any, key: Sequence[Any], which: ColumnElement[bool], last: Any, count: int
) -> Any:
    """The columns of a page of the table *walked*, numbered from 1 in the order of its *key*."""
    rows = select(walked).where(which)
    if last is not None:
        rows = rows.where(after(connection.dialect.name, key, last))
    page = rows.order_by(*key).limit(count).subquery("walked")
    number = func.row_number().over(order_by=[page.c[column.name] for column in key])
    return select(page, number.label("number")).subquery("page").c


def _gaps(columns: Sequence[Any], gap: ColumnElement[bool], count: int) -> Select[Any]:
    found = select(*columns, gap.label("gap")).subquery("found").c
    return select(found).where(or_(found.gap, found.number == count)).order_by(found.number)


def _same(ours: Any, of: Any, generation: Any) -> Sequence[ColumnElement[bool]]:
    return ours.scope == of.scope, ours.name == of.name, ours.generation == generation


def _lives(scope: Any, name: Any, generation: Any) -> ColumnElement[bool]:
    d = _DIDS.c
    return exists(select(null()).where(d.scope == scope, d.name == name, d.created_at == generation))


def _pending(ours: Any, of: Any, rse_id: Any) -> ColumnElement[bool]:
    o = ours.outbox.c
    return exists(select(null()).where(o.scope == of.scope, o.name == of.name, o.rse_id == rse_id))


def _rse_id(connection: Connection, rse_id: Any) -> ColumnElement[str]:
    """Rucio's *rse_id* as our tables write it, and the triggers."""
    match connection.dialect.name:
        case "postgresql":
            return func.replace(cast(rse_id, Text), "-", "", type_=Text)
        case "mysql":
            return func.lower(func.hex(rse_id), type_=Text)
        case _:
            return cast(rse_id, Text)


def _as_rucio_writes(connection: Connection, of: Any) -> Sequence[Any]:
    """Scope and name of a table of ours in the character set of Rucio's; else MariaDB would not use its index."""
    if connection.dialect.name != "mysql":
        return of.scope, of.name
    charset = connection.execute(
        select(literal_column("character_set_name"))
        .select_from(table("columns", schema="information_schema"))
        .where(literal_column("table_schema") == func.database(), literal_column("table_name") == "replicas")
        .where(literal_column("column_name") == "scope")
    ).scalar_one()
    return [literal_column(f"CONVERT({c.table.name}.{c.name} USING {charset})") for c in (of.scope, of.name)]
