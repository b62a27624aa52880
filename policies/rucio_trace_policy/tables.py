"""The tables we keep in Rucio's own database.

Hooks write `outbox` and `unlocked`; the policy package writes `intentions` and, on SQLite, `acting`;
the metadata plugin reads `products` and writes `origins`; the recorder writes the rest and takes rows out.

On PostgreSQL they live in a schema of their own, `traceability`, so that Rucio's migrations and dumps never meet them.
SQLite has no schemas and a MariaDB dump restored without another database would leave triggers that fail: there the
same tables stand beside Rucio's and carry the prefix `traceability_`.
There is no foreign key into Rucio's tables, and nothing a trigger writes has a constraint that could fail:
a row refused here would be an upload refused there.

Scopes and accounts are Rucio's *internal* strings (`InternalScope(value, from_external=False)` reads them back),
RSE ids are 32 lower-case hexadecimal digits as Rucio's Python shows them, and every time is an aware UTC `datetime`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

SCHEMA = "traceability"
DIALECTS = ("postgresql", "sqlite", "mysql")  # MariaDB goes by the name that Rucio knows it by


class Moment(TypeDecorator[datetime]):
    """An instant, aware in Python; in the database naive UTC, which is how Rucio keeps its own times."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is None:  # a naive time comes from Rucio's own tables
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


# A 64-bit number; SQLite keeps every INTEGER in up to 64 bits and numbers rows by itself only under that name.
_Serial: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")


# MariaDB indexes no text without a bound, and at most 3,072 bytes of all: four a character. What can be signed has a
# name of up to 500 characters; what triggers write is bounded by Rucio's own keys there, of one byte a character.
_SCOPE, _NAME, _RSE, _WORD, _RUCIO_NAME = 60, 500, 200, 255, 3_072


def _text(length: int = _WORD) -> TypeEngine[str]:
    """Text; on MariaDB of at most *length* characters."""
    return Text().with_variant(mysql.VARCHAR(length), "mysql")


def _long_text() -> TypeEngine[str]:
    return Text().with_variant(mysql.LONGTEXT(), "mysql")


def _index(name: str, *columns: str) -> Index:
    """On MariaDB of as much of a name as can be signed."""
    return Index(name, *columns, mysql_length={"name": _NAME} if "name" in columns else None)


def _table(name: str, metadata: MetaData, *parts: Any) -> Table:
    """A table whose text MariaDB compares byte by byte, whatever the database's default."""
    options = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
    return Table(name, metadata, *parts, **options)


def _serial(metadata: MetaData) -> Column[int]:
    """The column that orders what triggers write.

    Not a primary key on PostgreSQL: after a sequence is set back by mistake a unique index would refuse Rucio's work.
    (InnoDB sets none back below what is there, and its clusters want a primary key.)
    """
    if metadata.schema is None:
        return Column("id", _Serial, primary_key=True)
    return Column("id", _Serial, Identity(), nullable=False, index=True)


@dataclass(frozen=True)
class Tables:
    """Every table of ours, as it is called in one kind of database."""

    dialect_name: str
    metadata: MetaData
    outbox: Table
    unlocked: Table
    intentions: Table
    acting: Table
    outcomes: Table
    replicas: Table
    products: Table
    origins: Table
    rse_names: Table
    rse_guards: Table
    signed: Table
    audits: Table
    audit_rounds: Table
    audit_work: Table
    audit_batches: Table
    breakers: Table
    alarms: Table
    followed: Table
    datasets: Table
    installations: Table


@cache
def tables(dialect_name: str) -> Tables:
    """Our tables for `postgresql`, `sqlite` or `mysql`; one object per dialect, safe to share between threads."""
    if dialect_name not in DIALECTS:
        raise ValueError(f"Rucio's database should be one of {', '.join(DIALECTS)}, found {dialect_name}")
    metadata = MetaData(schema=SCHEMA if dialect_name == "postgresql" else None)
    prefix = "" if dialect_name == "postgresql" else f"{SCHEMA}_"
    return Tables(
        dialect_name=dialect_name,
        metadata=metadata,
        outbox=_outbox(metadata, prefix),
        unlocked=_unlocked(metadata, prefix),
        intentions=_intentions(metadata, prefix),
        acting=_acting(metadata, prefix),
        outcomes=_outcomes(metadata, prefix),
        replicas=_replicas(metadata, prefix),
        products=_products(metadata, prefix),
        origins=_origins(metadata, prefix),
        rse_names=_rse_names(metadata, prefix),
        rse_guards=_rse_guards(metadata, prefix),
        signed=_signed(metadata, prefix),
        audits=_audits(metadata, prefix),
        audit_rounds=_audit_rounds(metadata, prefix),
        audit_work=_audit_work(metadata, prefix),
        audit_batches=_audit_batches(metadata, prefix),
        breakers=_breakers(metadata, prefix),
        alarms=_alarms(metadata, prefix),
        followed=_followed(metadata, prefix),
        datasets=_datasets(metadata, prefix),
        installations=_installations(metadata, prefix),
    )


def _outbox(metadata: MetaData, prefix: str) -> Table:
    """One row per change of a replica's state, in the order of `id`; rows are taken and deleted, never remembered.

    A row without `rse_id` is of a dataset, and its states are the words `open` and `closed`; `closed` to `closed` is
    a closed dataset whose content changed.
    """
    return _table(
        f"{prefix}outbox",
        metadata,
        _serial(metadata),
        Column("event_id", _text(), comment="random UUID: the identity of the event"),
        Column("rse_id", _text(_RSE), comment="NULL: of a dataset"),
        Column("scope", _text(_SCOPE)),
        Column("name", _text(_RUCIO_NAME)),
        Column("old_state", _text(), comment="NULL: the replica was inserted"),
        Column("new_state", _text(), comment="NULL: the replica was deleted"),
        Column("bytes", BigInteger),
        Column("adler32", _text()),
        Column("md5", _text()),
        Column("generation", Moment, comment="dids.created_at when the change was made"),
        Column("account", _text(), comment="who asked; NULL: Rucio itself"),
        Column("action", _text()),
        Column("rule", _text()),
        Column("at", Moment, comment="the database's clock at the change"),
        Column("claimed_by", _text()),
        Column("claimed_until", Moment),
        Column("attempts", Integer, server_default="0"),
        Column("not_before", Moment),
        Column("missing_since", Moment, comment="when storage first answered that the file is not there"),
        Column("last_error", _long_text()),
        Column("message", _long_text(), comment="the signed trace, kept before it is sent"),
        _index(f"{prefix}outbox_product", "scope", "name", "id"),
        _outbox_datasets(prefix),
    )


def _outbox_datasets(prefix: str) -> Index:
    """What finds the few rows of datasets among millions of replicas'; MariaDB knows no index of some rows only."""
    index = Index(f"{prefix}outbox_datasets", "rse_id", "id")
    for dialect in ("postgresql", "sqlite"):
        index.dialect_options[dialect]["where"] = text("rse_id IS NULL")
    return index


def _unlocked(metadata: MetaData, prefix: str) -> Table:
    """One row per lock that a rule gave up: what tells later which rule let the reaper have a replica."""
    return _table(
        f"{prefix}unlocked",
        metadata,
        _serial(metadata),
        Column("rule", _text()),
        Column("rse_id", _text(_RSE)),
        Column("scope", _text(_SCOPE)),
        Column("name", _text(_RUCIO_NAME)),
        Column("rule_scope", _text(_SCOPE), comment="with rule_name, the DID the rule was made for"),
        Column("rule_name", _text(_RUCIO_NAME)),
        Column("rule_created_at", Moment),
        Column("rule_expires_at", Moment),
        Column("account", _text()),
        Column("action", _text()),
        Column("at", Moment),
        _index(f"{prefix}unlocked_replica", "scope", "name", "rse_id"),
    )


def _intentions(metadata: MetaData, prefix: str) -> Table:
    """Who asked for a rule or a DID to go away; it counts once that has really happened."""
    return _table(
        f"{prefix}intentions",
        metadata,
        _serial(metadata),
        Column("rule", _text(), index=True),
        Column("scope", _text(_SCOPE), comment="with name, for an erased DID"),
        Column("name", _text(_RUCIO_NAME)),
        Column("account", _text(), nullable=False),
        Column("action", _text(), nullable=False),
        Column("at", Moment, nullable=False),
        _index(f"{prefix}intentions_did", "scope", "name"),
    )


def _acting(metadata: MetaData, prefix: str) -> Table:
    """SQLite only: who acts in the present transaction. Holds one row inside it, none outside."""
    return _table(
        f"{prefix}acting",
        metadata,
        Column("account", _text()),
        Column("action", _text()),
        Column("rule", _text()),
    )


def _outcomes(metadata: MetaData, prefix: str) -> Table:
    """How many outbox rows of an RSE ended in which event, or for which reason in none."""
    return _table(
        f"{prefix}outcomes",
        metadata,
        Column("rse_id", _text(_RSE), primary_key=True),
        Column("reason", _text(), primary_key=True),
        Column("count", BigInteger, nullable=False),
    )


def _product_key() -> tuple[Column[str], Column[str], Column[datetime]]:
    return (
        Column("scope", _text(_SCOPE), primary_key=True),
        Column("name", _text(_NAME), primary_key=True),
        Column("generation", Moment, primary_key=True, comment="dids.created_at"),
    )


def _replicas(metadata: MetaData, prefix: str) -> Table:
    """What is proven of each replica; `rse` is the name that was last signed."""
    return _table(
        f"{prefix}replicas",
        metadata,
        *_product_key(),
        Column("rse_id", _text(_RSE), primary_key=True),
        Column("rse", _text()),
        Column("state", _text(), nullable=False),
        Column("trace_id", _text()),
        Column("proven_at", Moment),
        Column("position", BigInteger, comment="the store's position this row was computed from"),
    )


def _products(metadata: MetaData, prefix: str) -> Table:
    """The status of each product, as the metadata plugin shows it."""
    return _table(
        f"{prefix}products",
        metadata,
        *_product_key(),
        Column("status", _text(), nullable=False),
        Column("proven", Integer, nullable=False),
        Column("total", Integer, nullable=False),
        Column("trace_id", _text()),
        Column("hash", _text()),
        Column("hash_algorithm", _text()),
        Column("signer", _text()),
        Column("verified_at", Moment, comment="the youngest proof"),
        Column("attributes", _long_text(), comment="a JSON object, names without the trace_ prefix"),
        Column("position", BigInteger, comment="the store's position this row was computed from"),
        _index(f"{prefix}products_status", "status"),
    )


def _origins(metadata: MetaData, prefix: str) -> Table:
    """The producer's own word on a product. A row outlives its product: no trace is ever the origin of two."""
    return _table(
        f"{prefix}origins",
        metadata,
        *_product_key(),
        Column("trace_id", _text(), nullable=False, unique=True),
        Column("trace", _long_text(), nullable=False, comment="JSON: the trace as it was signed"),
        Column("at", Moment, nullable=False),
    )


def _rse_names(metadata: MetaData, prefix: str) -> Table:
    """Every name under which an RSE ever was signed: an RSE can be renamed, a signed name cannot."""
    return _table(
        f"{prefix}rse_names",
        metadata,
        Column("name", _text(), primary_key=True),
        Column("rse_id", _text(_RSE), primary_key=True),
    )


def _rse_guards(metadata: MetaData, prefix: str) -> Table:
    """How many files of an RSE were found lost without one found good between: too many, and nothing more is signed."""
    return _table(
        f"{prefix}rse_guards",
        metadata,
        Column("rse_id", _text(_RSE), primary_key=True),
        Column("lost_in_a_row", Integer, nullable=False),
        Column("stopped_at", Moment, comment="NULL: signing goes on"),
    )


def _signed(metadata: MetaData, prefix: str) -> Table:
    """Size and checksums of each product as its origin's trace has them: what Rucio's catalogue is held against."""
    return _table(
        f"{prefix}signed",
        metadata,
        *_product_key(),
        Column("bytes", BigInteger, nullable=False),
        Column("adler32", _text(), comment="NULL: not signed"),
        Column("md5", _text(), comment="NULL: not signed"),
    )


def _audits(metadata: MetaData, prefix: str) -> Table:
    """Campaigns: every replica of some RSEs is read anew, in rounds, from the oldest proof on."""
    return _table(
        f"{prefix}audits",
        metadata,
        Column("id", _Serial, primary_key=True, autoincrement=True),
        Column("rses", _long_text(), nullable=False, comment="an RSE expression"),
        Column("sample", Float, nullable=False, comment="the share of an RSE's replicas that a round reads"),
        Column("bytes", BigInteger, comment="what a round reads of an RSE; NULL: no bound"),
        Column("every_seconds", Integer, nullable=False, comment="from the begin of an RSE's round to the next one's"),
        Column("started_at", Moment, nullable=False),
        Column("stopped_at", Moment, comment="NULL: it goes on"),
    )


def _audit_rounds(metadata: MetaData, prefix: str) -> Table:
    """A campaign's rounds on each RSE: what was taken on and, once it has ended, what was found."""
    return _table(
        f"{prefix}audit_rounds",
        metadata,
        Column("audit", _Serial, primary_key=True, autoincrement=False),
        Column("rse_id", _text(_RSE), primary_key=True),
        Column("round", Integer, primary_key=True, autoincrement=False, comment="from 1"),
        Column("sweep_at", Moment, nullable=False, comment="what was proven since is not read again in this sweep"),
        Column("ends_sweep", Boolean, nullable=False, server_default=false(), comment="it takes all that is left"),
        Column("started_at", Moment, nullable=False),
        Column("ended_at", Moment, comment="NULL: under way, its replicas are in audit_work"),
        Column("replicas", BigInteger, nullable=False, comment="taken on"),
        Column("bytes", BigInteger, nullable=False, comment="taken on"),
        Column("good", BigInteger, nullable=False),
        Column("bad", BigInteger, nullable=False, comment="other bytes, or not there"),
        Column("unread", BigInteger, nullable=False, comment="could not be read, or had left Rucio by then"),
        Column("bytes_read", BigInteger, nullable=False, comment="of those good and bad"),
        Index(f"{prefix}audit_rounds_ended", "ended_at"),
    )


def _audit_work(metadata: MetaData, prefix: str) -> Table:
    """What the present round of a campaign on an RSE is to read, and what it found: a row for each replica."""
    return _table(
        f"{prefix}audit_work",
        metadata,
        Column("audit", _Serial, primary_key=True, autoincrement=False),
        Column("rse_id", _text(_RSE), primary_key=True),
        Column("scope", _text(_SCOPE), primary_key=True),
        Column("name", _text(_NAME), primary_key=True),
        Column("generation", Moment, nullable=False),
        Column("ordinal", BigInteger, nullable=False, comment="the oldest proof first"),
        Column("bytes", BigInteger),
        Column("claimed_by", _text()),
        Column("claimed_until", Moment),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("not_before", Moment),
        Column("last_error", _long_text()),
        Column("outcome", _text(32), comment="NULL: still to be read; good, bad, unread"),
        Column("method", _text(), comment="read, or storage"),
        Column("digest", _text(), comment="ALGORITHM:hex, what was found good"),
        Column("observed", Moment),
        Column("batch", _text(64), comment="the event whose trace holds the line"),
        Index(f"{prefix}audit_work_order", "audit", "rse_id", "outcome", "batch", "ordinal"),
    )


def _audit_batches(metadata: MetaData, prefix: str) -> Table:
    """Signed VERIFY statements with their lines, kept before they are sent; gone once all of it is done."""
    return _table(
        f"{prefix}audit_batches",
        metadata,
        Column("id", _text(), primary_key=True, comment="the event's id"),
        Column("audit", _Serial, nullable=False),
        Column("rse_id", _text(_RSE), nullable=False),
        Column("at", Moment, nullable=False),
        Column("message", _long_text(), nullable=False, comment="the signed trace"),
        Column("lines", _long_text(), nullable=False, comment="the list it speaks of"),
        Column("claimed_by", _text()),
        Column("claimed_until", Moment),
        Column("last_error", _long_text()),
    )


def _breakers(metadata: MetaData, prefix: str) -> Table:
    """How many replicas of an RSE were found bad without a good one between; once open, nothing is declared there."""
    return _table(
        f"{prefix}breakers",
        metadata,
        Column("rse_id", _text(_RSE), primary_key=True),
        Column("bad_in_a_row", Integer, nullable=False),
        Column("opened_at", Moment, comment="NULL: closed"),
        Column("reason", _long_text()),
    )


def _alarms(metadata: MetaData, prefix: str) -> Table:
    """What somebody should look at, each kind and subject once: later reports of the same are counted."""
    return _table(
        f"{prefix}alarms",
        metadata,
        Column("kind", _text(), primary_key=True),
        Column("subject", _text(), primary_key=True, comment="an RSE, a site"),
        Column("first_at", Moment, nullable=False),
        Column("last_at", Moment, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("told_at", Moment, comment="when Rucio's messages last said so"),
        Column("told", BigInteger, nullable=False, comment="how many of them have been told"),
        Column("detail", _long_text(), comment="JSON: the latest of them"),
    )


def _followed(metadata: MetaData, prefix: str) -> Table:
    """How far the store's traces that speak of whole products are shown in Rucio: one row."""
    return _table(
        f"{prefix}followed",
        metadata,
        Column("one", Integer, primary_key=True, autoincrement=False),
        Column("position", BigInteger, nullable=False),
    )


def _datasets(metadata: MetaData, prefix: str) -> Table:
    """When each dataset's files are counted again, and what its own traces amount to: `products` is made of both."""
    return _table(
        f"{prefix}datasets",
        metadata,
        *_product_key(),
        Column("due_at", Moment, nullable=False, comment="when it is counted next"),
        Column("not_before", Moment, nullable=False, comment="a change of a file makes it due no earlier"),
        Column("claimed_by", _text()),
        Column("claimed_until", Moment),
        Column("status", _text(), comment="of its own traces; NULL: there are none"),
        Column("trace_id", _text(), comment="with what follows: the CREATE that stands"),
        Column("hash", _text()),
        Column("hash_algorithm", _text()),
        Column("signer", _text()),
        Column("members", BigInteger),
        Column("bytes", BigInteger),
        Column("position", BigInteger, comment="the store's position the traces were read at"),
        Index(f"{prefix}datasets_due", "due_at"),
    )


def _installations(metadata: MetaData, prefix: str) -> Table:
    """When hooks of which version came: products older than the first row were never seen arriving."""
    return _table(
        f"{prefix}installations",
        metadata,
        Column("version", Integer, nullable=False),
        Column("at", Moment, nullable=False),
    )
