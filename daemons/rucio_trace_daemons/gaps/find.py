"""Gaps: four ways in which Rucio's catalogue and our traces do not fit together.

untraced   an available replica of which there is no trace, and nothing in the outbox that will become one
vanished   a trace of a replica that Rucio no longer has, and nothing in the outbox that says so
differs    size or checksums in Rucio's catalogue are not those that the origin's trace signs
dead       the status of a product whose DID Rucio no longer has
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rucio.db.sqla.session import DEFAULT_SCHEMA_NAME
from rucio.db.sqla.types import GUID
from rucio_trace_policy.tables import Moment, tables
from sqlalchemy import (
    BigInteger,
    Text,
    and_,
    cast,
    column,
    exists,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    table,
    tuple_,
)

from rucio_trace_daemons.recorder.prove import checksums

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Engine, Row, Select

    from rucio_trace_daemons.rses import Rse

__all__ = ["Gap", "Kind", "Line", "Search"]

# Enough to make the statement's own cost small; a page of them takes some 20 MB.
PAGE_ROWS = 10_000


class Kind(StrEnum):
    """What does not fit."""

    UNTRACED = "untraced"
    VANISHED = "vanished"
    DIFFERS = "differs"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Gap:
    """One of them; `scope` as Rucio keeps it. `rse_id` is None for a product as a whole."""

    kind: Kind
    rse_id: str | None
    scope: str
    name: str
    generation: datetime
    bytes: int | None = None
    adler32: str | None = None
    md5: str | None = None
    detail: str = ""


@dataclass(slots=True)
class Line:
    """What was counted on one RSE. `pending`: changes of available replicas wait in the outbox."""

    replicas: int = 0
    pending: int = 0
    untraced: int = 0
    vanished: int = 0
    differs: int = 0
    incomparable: int = 0  # traced, and nothing is known of what its origin signed


@dataclass(slots=True)
class Search:
    """Looks at the available replicas on *rses* (by id), and *everywhere* also at products that are on none.

    Counts, in `lines` and `dead`, while its gaps are taken from it.
    """

    engine: Engine
    rses: Mapping[str, Rse]
    everywhere: bool = False
    lines: dict[str, Line] = field(default_factory=dict)
    dead: int = 0

    def __post_init__(self) -> None:
        self.lines = {rse_id: Line() for rse_id in self.rses}

    def gaps(self) -> Iterator[Gap]:
        yield from self.of_catalogue()
        yield from self._vanished()
        if self.everywhere:
            yield from self._dead()

    def of_catalogue(self) -> Iterator[Gap]:
        """Those that Rucio's own replicas show: untraced and differing ones, in the order of their DIDs."""
        if not self.rses:
            return
        query = _catalogue(self.engine.dialect.name, self.rses)
        for row in self._pages(query, _REPLICA_KEY):
            line = self.lines[row.rse_id]
            line.replicas += 1
            if row.pending:
                line.pending += 1
            elif row.traced is None:
                line.untraced += 1
                yield _gap(Kind.UNTRACED, row)
            elif row.signed_bytes is None:
                line.incomparable += 1
            elif detail := _difference(row):
                line.differs += 1
                yield _gap(Kind.DIFFERS, row, detail)

    def count_untraced(self) -> tuple[int, int]:
        """How many replicas are untraced, and their bytes; in one statement."""
        if not self.rses:
            return 0, 0
        rows = _catalogue(self.engine.dialect.name, self.rses).subquery()
        query = select(func.count(), func.coalesce(func.sum(rows.c.bytes), 0)).where(
            rows.c.traced.is_(None), ~rows.c.pending
        )
        with self.engine.connect() as connection:
            count, size = connection.execute(query).one()
        return int(count), int(size)

    def _vanished(self) -> Iterator[Gap]:
        if not self.rses:
            return
        with self.engine.connect() as connection:
            query = _vanished(connection, self.rses)
        t = tables(self.engine.dialect.name).replicas.c
        for row in self._pages(query, (t.scope, t.name, t.generation, t.rse_id)):
            self.lines[row.rse_id].vanished += 1
            yield Gap(Kind.VANISHED, row.rse_id, row.scope, row.name, row.generation, detail=f"was {row.state}")

    def _dead(self) -> Iterator[Gap]:
        with self.engine.connect() as connection:
            query = _dead(connection)
        p = tables(self.engine.dialect.name).products.c
        for row in self._pages(query, (p.scope, p.name, p.generation)):
            self.dead += 1
            yield Gap(Kind.DEAD, None, row.scope, row.name, row.generation, detail=f"shows {row.status}")

    def _pages(self, query: Select[Any], key: Sequence[ColumnElement[Any]]) -> Iterator[Row[Any]]:
        """The rows of *query*, whose first columns are *key*, page by page; nothing is open between two."""
        query = query.order_by(*key).limit(PAGE_ROWS)
        page = query
        while True:
            with self.engine.connect() as connection:
                rows = connection.execute(page).all()
            yield from rows
            if len(rows) < PAGE_ROWS:
                return
            page = query.where(_after(self.engine.dialect.name, key, rows[-1][: len(key)]))


# The queries ----------------------------------------------------------------------------------------------------------

# Rucio's tables with the columns we read, without its Python types (see `recorder.resolve`), and under names that no
# table of ours has: within a sub-query `replicas` would be whichever the database finds first.
_REPLICAS = table(
    "replicas",
    *map(column, ("scope", "name", "state", "adler32", "md5")),
    column("rse_id", GUID()),
    column("bytes", BigInteger()),
    schema=DEFAULT_SCHEMA_NAME,
).alias("rucio_replicas")
_DIDS = table(
    "dids",
    *map(column, ("scope", "name", "adler32", "md5")),
    column("bytes", BigInteger()),
    column("created_at", Moment()),
    schema=DEFAULT_SCHEMA_NAME,
).alias("rucio_dids")
_REPLICA_KEY = (_REPLICAS.c.scope, _REPLICAS.c.name, _REPLICAS.c.rse_id)


def _catalogue(dialect_name: str, rse_ids: Collection[str]) -> Select[Any]:
    """Every available replica on the RSEs, with its DID, what is traced of it and what its origin signs."""
    ours = tables(dialect_name)
    r, d, t, s = _REPLICAS.c, _DIDS.c, ours.replicas.c, ours.signed.c
    of_product = [and_(c.scope == r.scope, c.name == r.name, c.generation == d.created_at) for c in (t, s)]
    columns = [
        *(d.created_at.label("generation"), r.bytes, r.adler32, r.md5),
        *(d.bytes.label("did_bytes"), d.adler32.label("did_adler32"), d.md5.label("did_md5")),
        *(s.bytes.label("signed_bytes"), s.adler32.label("signed_adler32"), s.md5.label("signed_md5")),
        t.state.label("traced"),
        _pending(ours, r.scope, r.name, _rse_id(dialect_name)).label("pending"),
    ]
    return (
        select(*_REPLICA_KEY, *columns)
        .join(_DIDS, and_(d.scope == r.scope, d.name == r.name))
        .outerjoin(ours.replicas, and_(of_product[0], t.rse_id == _rse_id(dialect_name)))
        .outerjoin(ours.signed, of_product[1])
        # Compared as text: the state is an enumeration on PostgreSQL.
        .where(cast(r.state, Text) == "A", r.rse_id.in_(list(rse_ids)))
    )


def _vanished(connection: Connection, rse_ids: Collection[str]) -> Select[Any]:
    """What is traced on the RSEs without a replica of the same product in Rucio."""
    ours = tables(connection.dialect.name)
    r, t = _REPLICAS.c, ours.replicas.c
    scope, name = _as_rucio_writes(connection, t.scope, t.name)
    here = and_(r.scope == scope, r.name == name, _rse_id(connection.dialect.name) == t.rse_id)
    replica = exists(select(null()).select_from(_REPLICAS).where(here))
    return select(t.scope, t.name, t.generation, t.rse_id, t.state).where(
        t.rse_id.in_(list(rse_ids)),
        or_(~replica, ~_lives(scope, name, t.generation)),
        ~_pending(ours, t.scope, t.name, t.rse_id),
    )


def _dead(connection: Connection) -> Select[Any]:
    """Products that Rucio no longer has, of no replica of which there is a trace."""
    ours = tables(connection.dialect.name)
    p, t, o = ours.products.c, ours.replicas.c, ours.outbox.c
    traced = and_(t.scope == p.scope, t.name == p.name, t.generation == p.generation)
    return select(p.scope, p.name, p.generation, p.status).where(
        ~_lives(*_as_rucio_writes(connection, p.scope, p.name), p.generation),
        ~exists(select(null()).select_from(ours.replicas).where(traced)),
        ~exists(select(null()).select_from(ours.outbox).where(o.scope == p.scope, o.name == p.name)),
    )


def _lives(scope: Any, name: Any, generation: Any) -> ColumnElement[bool]:
    d = _DIDS.c
    of = and_(d.scope == scope, d.name == name, d.created_at == generation)
    return exists(select(null()).select_from(_DIDS).where(of))


def _pending(ours: Any, scope: Any, name: Any, rse_id: Any) -> ColumnElement[bool]:
    o = ours.outbox.c
    return exists(select(null()).select_from(ours.outbox).where(o.scope == scope, o.name == name, o.rse_id == rse_id))


def _rse_id(dialect_name: str) -> ColumnElement[str]:
    """The RSE of one of Rucio's replicas, written as our tables do (and as the triggers write it)."""
    rse_id = _REPLICAS.c.rse_id
    match dialect_name:
        case "postgresql":
            return func.replace(cast(rse_id, Text), "-", "", type_=Text)
        case "mysql":
            return func.lower(func.hex(rse_id), type_=Text)
        case _:
            return cast(rse_id, Text)


def _as_rucio_writes(connection: Connection, *columns: Any) -> Sequence[Any]:
    """Our *columns* in the character set of Rucio's, without which MariaDB would not use its index."""
    if connection.dialect.name != "mysql":
        return columns
    charset = connection.execute(
        select(literal_column("character_set_name"))
        .select_from(table("columns", schema="information_schema"))
        .where(literal_column("table_schema") == func.database(), literal_column("table_name") == "replicas")
        .where(literal_column("column_name") == "scope")
    ).scalar_one()
    return [literal_column(f"CONVERT({c.table.name}.{c.name} USING {charset})") for c in columns]


def _after(dialect_name: str, key: Sequence[ColumnElement[Any]], last: Sequence[Any]) -> ColumnElement[bool]:
    """The rows after the one with the key *last*, in the form for which the database uses its index."""
    if dialect_name != "mysql":
        return tuple_(*key) > tuple_(*(literal(value, c.type) for c, value in zip(key, last, strict=True)))
    return or_(
        *(and_(*(k == v for k, v in zip(key[:i], last[:i], strict=True)), key[i] > last[i]) for i in range(len(key)))
    )


# The rows -------------------------------------------------------------------------------------------------------------


def _gap(kind: Kind, row: Row[Any], detail: str = "") -> Gap:
    values = (row.rse_id, row.scope, row.name, row.generation, row.bytes, row.adler32, row.md5)
    return Gap(kind, *values, detail=detail)


def _difference(row: Row[Any]) -> str:
    """Where Rucio's two tables say something else than the origin's trace; empty if nowhere."""
    signed = checksums(row.signed_adler32, row.signed_md5)
    found = []
    for where, size, adler32, md5 in (
        ("replica", row.bytes, row.adler32, row.md5),
        ("DID", row.did_bytes, row.did_adler32, row.did_md5),
    ):
        if size is not None and size != row.signed_bytes:
            found.append(f"{where}: {size} bytes, signed {row.signed_bytes}")
        for algorithm, value in checksums(adler32, md5).items():
            if value != signed.get(algorithm, value):
                found.append(f"{where}: {algorithm} {value}, signed {signed[algorithm]}")
    return "; ".join(found)
