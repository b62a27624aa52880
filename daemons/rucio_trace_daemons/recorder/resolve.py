"""What Rucio knows about the products of a batch: a handful of queries, however many rows.

Rucio's tables are named here with the few columns we read and without its Python types: converting each scope and
each state of thousands of rows costs more than asking for them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rucio.common.types import InternalScope
from rucio.db.sqla.session import DEFAULT_SCHEMA_NAME
from rucio.db.sqla.types import GUID
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, cast, column, func, select, table

from rucio_trace.trace import ProductKey, format_time
from rucio_trace_daemons.recorder.sets import among

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from rucio_trace_daemons.recorder.outbox import Product

__all__ = [
    "Facts",
    "Known",
    "Named",
    "Transfer",
    "alive",
    "first_installed",
    "guid",
    "product_key",
    "replicas_of_rse",
    "resolve",
    "rse_vos",
    "rucio_table",
]

# A transfer request that brought its file; others (queued, failed, lost) brought nothing.
DONE = "D"


@dataclass(frozen=True, slots=True)
class Known:
    """A replica as Rucio's table has it now."""

    rse_id: str
    state: str
    path: str | None
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer request to an RSE, pending or past; `job` is the transfer tool's, one for all hops of a path."""

    id: str
    rse_id: str
    source_rse_id: str | None
    rule: str | None
    activity: str | None
    account: str | None
    tool: str | None
    adler32: str | None
    md5: str | None
    state: str
    job: str | None
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What Rucio knows, by product."""

    replicas: Mapping[Product, Sequence[Known]]
    transfers: Mapping[Product, Sequence[Transfer]]


def rucio_table(name: str, *columns: Any) -> Any:
    """One of Rucio's tables with the columns that are needed of it."""
    return table(name, *columns, schema=DEFAULT_SCHEMA_NAME)


def guid(name: str) -> Any:
    """A column that holds an id, which is kept otherwise in each database."""
    return column(name, GUID())


_REPLICAS = rucio_table("replicas", *map(column, ("scope", "name", "state", "path", "created_at")), guid("rse_id"))
_REQUESTS = tuple(
    rucio_table(
        name,
        *map(column, ("scope", "name", "activity", "account", "transfertool", "adler32", "md5", "state")),
        *map(column, ("external_id", "created_at")),
        *map(guid, ("id", "dest_rse_id", "source_rse_id", "rule_id")),
    )
    for name in ("requests", "requests_history")
)
_RSES = rucio_table("rses", guid("id"), column("vo"))
_DIDS = rucio_table("dids", column("scope"), column("name"), column("created_at"))


def resolve(engine: Engine, products: Collection[Product], arrived: Collection[Product]) -> Facts:
    """Ask for the replicas of *products*, and for the transfers of those in *arrived*; nothing stays open."""
    with engine.connect() as connection:
        return Facts(_replicas(connection, products), _transfers(connection, arrived))


def _replicas(connection: Connection, products: Collection[Product]) -> Mapping[Product, Sequence[Known]]:
    c = _REPLICAS.c
    found = _ask(connection, [c.rse_id, c.state, c.path, c.created_at], _REPLICAS, products)
    return _grouped((row[:2], Known(row[2], row[3], row[4], _moment(row[5]))) for row in found)


def _transfers(connection: Connection, products: Collection[Product]) -> Mapping[Product, Sequence[Transfer]]:
    found: list[Any] = []
    for requests in _REQUESTS:
        c = requests.c
        columns = [
            c.id, c.dest_rse_id, c.source_rse_id, c.rule_id, c.activity, c.account, c.transfertool,
            c.adler32, c.md5, c.state, c.external_id, c.created_at,
        ]  # fmt: skip
        found += _ask(connection, columns, requests, products)
    return _grouped((row[:2], Transfer(*row[2:-1], _moment(row[-1]))) for row in found)


def _ask(connection: Connection, columns: Sequence[Any], source: Any, products: Collection[Product]) -> list[Any]:
    if not products:
        return []
    key = (source.c.scope, source.c.name)
    where = among(connection.dialect.name, key, (Text(), Text()), products)
    return list(connection.execute(select(*key, *columns).where(where)))


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Product, list[Any]]:
    groups: dict[Product, list[Any]] = defaultdict(list)
    for product, value in pairs:
        groups[product[0], product[1]].append(value)
    return groups


def _moment(value: datetime | str | None) -> datetime | None:
    """Rucio keeps naive UTC; SQLite hands it out as text."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return None if value is None else value.replace(tzinfo=UTC)


def product_key(instance: str, scope: str, name: str, generation: datetime) -> ProductKey:
    """The product as traces name it; *scope* as Rucio keeps it, which tells the VO too."""
    internal = InternalScope(scope, from_external=False)
    return ProductKey(instance, internal.vo, str(internal.external), name, format_time(generation))


def first_installed(engine: Engine) -> datetime | None:
    """When hooks first came: older products were never seen arriving."""
    installations = tables(engine.dialect.name).installations
    with engine.connect() as connection:
        return connection.scalar(select(func.min(installations.c.at)))


def alive(connection: Connection, products: Collection[Product]) -> dict[Product, datetime | None]:
    """The living ones of *products* with the begin of their generation."""
    found = _ask(connection, [_DIDS.c.created_at], _DIDS, products)
    return {(row[0], row[1]): _moment(row[2]) for row in found}


def rse_vos(connection: Connection) -> dict[str, str]:
    """The VO of every RSE there is or was, by the RSE's id."""
    return {row.id: row.vo for row in connection.execute(select(_RSES.c.id, _RSES.c.vo))}


@dataclass(frozen=True, slots=True)
class Named:
    """A replica of some RSE; scope and name as users write them."""

    scope: str
    name: str
    path: str | None


def replicas_of_rse(connection: Connection, rse_id: str, limit: int) -> list[Named]:
    """Any *limit* replicas that should be available on an RSE."""
    c = _REPLICAS.c
    # Compared as text: the state is an enumeration on PostgreSQL.
    query = select(c.scope, c.name, c.path).where(c.rse_id == rse_id, cast(c.state, Text) == "A").limit(limit)
    return [
        Named(str(InternalScope(row.scope, from_external=False).external), row.name, row.path)
        for row in connection.execute(query)
    ]
