"""The tables we keep in Rucio's own database.

Hooks write `outbox` and `unlocked`; the policy package writes `intentions` and, on SQLite, `acting`;
the recorder writes the rest and takes rows out; the metadata plugin only reads `products`.

On PostgreSQL they live in a schema of their own, `traceability`, so that Rucio's migrations and dumps never meet them.
SQLite has no schemas: there the same tables carry the prefix `traceability_`.
There is no foreign key into Rucio's tables, and nothing a trigger writes has a constraint that could fail:
a row refused here would be an upload refused there.

Scopes and accounts are Rucio's *internal* strings (`InternalScope(value, from_external=False)` reads them back),
RSE ids are 32 lower-case hexadecimal digits as Rucio's Python shows them, and every time is an aware UTC `datetime`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Integer, MetaData, Table, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

SCHEMA = "traceability"
DIALECTS = ("postgresql", "sqlite")


class Moment(TypeDecorator[datetime]):
    """An instant, aware in Python; in the database naive UTC, which is how Rucio keeps its own times."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is None:  # a naive time comes from Rucio's own tables
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


# A 64-bit number; SQLite keeps every INTEGER in up to 64 bits and numbers rows by itself only under that name.
_Serial: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")


def _serial(metadata: MetaData) -> Column[int]:
    """The column that orders what triggers write.

    Not a primary key on PostgreSQL: after a sequence is set back by mistake a unique index would refuse Rucio's work.
    """
    if metadata.schema is None:
        return Column("id", _Serial, primary_key=True)
    return Column("id", _Serial, Identity(), nullable=False, index=True)


@dataclass(frozen=True)
class Tables:
    """Every table of ours, as it is called in one kind of database."""

    metadata: MetaData
    outbox: Table
    unlocked: Table
    intentions: Table
    acting: Table
    outcomes: Table
    replicas: Table
    products: Table
    rse_names: Table
    rse_guards: Table
    installations: Table


@cache
def tables(dialect_name: str) -> Tables:
    """Our tables for `postgresql` or `sqlite`; one object per dialect, safe to share between threads."""
    if dialect_name not in DIALECTS:
        raise ValueError(f"Rucio's database should be one of {', '.join(DIALECTS)}, found {dialect_name}")
    metadata = MetaData(schema=SCHEMA if dialect_name == "postgresql" else None)
    prefix = "" if dialect_name == "postgresql" else f"{SCHEMA}_"
    return Tables(
        metadata=metadata,
        outbox=_outbox(metadata, prefix),
        unlocked=_unlocked(metadata, prefix),
        intentions=_intentions(metadata, prefix),
        acting=_acting(metadata, prefix),
        outcomes=_outcomes(metadata, prefix),
        replicas=_replicas(metadata, prefix),
        products=_products(metadata, prefix),
        rse_names=_rse_names(metadata, prefix),
        rse_guards=_rse_guards(metadata, prefix),
        installations=_installations(metadata, prefix),
    )


def _outbox(metadata: MetaData, prefix: str) -> Table:
    """One row per change of a replica's state, in the order of `id`; rows are taken and deleted, never remembered."""
    return Table(
        f"{prefix}outbox",
        metadata,
        _serial(metadata),
        Column("event_id", Text, comment="random UUID: the identity of the event"),
        Column("rse_id", Text),
        Column("scope", Text),
        Column("name", Text),
        Column("old_state", Text, comment="NULL: the replica was inserted"),
        Column("new_state", Text, comment="NULL: the replica was deleted"),
        Column("bytes", BigInteger),
        Column("adler32", Text),
        Column("md5", Text),
        Column("generation", Moment, comment="dids.created_at when the change was made"),
        Column("account", Text, comment="who asked; NULL: Rucio itself"),
        Column("action", Text),
        Column("rule", Text),
        Column("at", Moment, comment="the database's clock at the change"),
        Column("claimed_by", Text),
        Column("claimed_until", Moment),
        Column("attempts", Integer, server_default="0"),
        Column("not_before", Moment),
        Column("missing_since", Moment, comment="when storage first answered that the file is not there"),
        Column("last_error", Text),
        Column("message", Text, comment="the signed trace, kept before it is sent"),
        Index(f"{prefix}outbox_product", "scope", "name", "id"),
    )


def _unlocked(metadata: MetaData, prefix: str) -> Table:
    """One row per lock that a rule gave up: what tells later which rule let the reaper have a replica."""
    return Table(
        f"{prefix}unlocked",
        metadata,
        _serial(metadata),
        Column("rule", Text),
        Column("rse_id", Text),
        Column("scope", Text),
        Column("name", Text),
        Column("rule_scope", Text, comment="with rule_name, the DID the rule was made for"),
        Column("rule_name", Text),
        Column("rule_created_at", Moment),
        Column("rule_expires_at", Moment),
        Column("account", Text),
        Column("action", Text),
        Column("at", Moment),
        Index(f"{prefix}unlocked_replica", "scope", "name", "rse_id"),
    )


def _intentions(metadata: MetaData, prefix: str) -> Table:
    """Who asked for a rule or a DID to go away; it counts once that has really happened."""
    return Table(
        f"{prefix}intentions",
        metadata,
        _serial(metadata),
        Column("rule", Text, index=True),
        Column("scope", Text, comment="with name, for an erased DID"),
        Column("name", Text),
        Column("account", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("at", Moment, nullable=False),
        Index(f"{prefix}intentions_did", "scope", "name"),
    )


def _acting(metadata: MetaData, prefix: str) -> Table:
    """SQLite only: who acts in the present transaction. Holds one row inside it, none outside."""
    return Table(
        f"{prefix}acting",
        metadata,
        Column("account", Text),
        Column("action", Text),
        Column("rule", Text),
    )


def _outcomes(metadata: MetaData, prefix: str) -> Table:
    """How many outbox rows of an RSE ended in which event, or for which reason in none."""
    return Table(
        f"{prefix}outcomes",
        metadata,
        Column("rse_id", Text, primary_key=True),
        Column("reason", Text, primary_key=True),
        Column("count", BigInteger, nullable=False),
    )


def _product_key() -> tuple[Column[str], Column[str], Column[datetime]]:
    return (
        Column("scope", Text, primary_key=True),
        Column("name", Text, primary_key=True),
        Column("generation", Moment, primary_key=True, comment="dids.created_at"),
    )


def _replicas(metadata: MetaData, prefix: str) -> Table:
    """What is proven of each replica; `rse` is the name that was last signed."""
    return Table(
        f"{prefix}replicas",
        metadata,
        *_product_key(),
        Column("rse_id", Text, primary_key=True),
        Column("rse", Text),
        Column("state", Text, nullable=False),
        Column("trace_id", Text),
        Column("proven_at", Moment),
        Column("position", BigInteger, comment="the store's position this row was computed from"),
    )


def _products(metadata: MetaData, prefix: str) -> Table:
    """The status of each product, as the metadata plugin shows it."""
    return Table(
        f"{prefix}products",
        metadata,
        *_product_key(),
        Column("status", Text, nullable=False),
        Column("proven", Integer, nullable=False),
        Column("total", Integer, nullable=False),
        Column("trace_id", Text),
        Column("hash", Text),
        Column("hash_algorithm", Text),
        Column("signer", Text),
        Column("verified_at", Moment, comment="the youngest proof"),
        Column("attributes", Text, comment="a JSON object, names without the trace_ prefix"),
        Column("position", BigInteger, comment="the store's position this row was computed from"),
        Index(f"{prefix}products_status", "status"),
    )


def _rse_names(metadata: MetaData, prefix: str) -> Table:
    """Every name under which an RSE ever was signed: an RSE can be renamed, a signed name cannot."""
    return Table(
        f"{prefix}rse_names",
        metadata,
        Column("name", Text, primary_key=True),
        Column("rse_id", Text, primary_key=True),
    )


def _rse_guards(metadata: MetaData, prefix: str) -> Table:
    """How many files of an RSE were found lost without one found good between: too many, and nothing more is signed."""
    return Table(
        f"{prefix}rse_guards",
        metadata,
        Column("rse_id", Text, primary_key=True),
        Column("lost_in_a_row", Integer, nullable=False),
        Column("stopped_at", Moment, comment="NULL: signing goes on"),
    )


def _installations(metadata: MetaData, prefix: str) -> Table:
    """When hooks of which version came: products older than the first row were never seen arriving."""
    return Table(
        f"{prefix}installations",
        metadata,
        Column("version", Integer, nullable=False),
        Column("at", Moment, nullable=False),
    )
