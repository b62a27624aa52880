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
from functools import cache

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, text

from . import audit_tables
from .columns import RSE, RUCIO_NAME, SCOPE, Moment, index, long_text, product_key, serial, short_text, table

SCHEMA = "traceability"
_BAD = text("state IN ('corrupt', 'lost')")
DIALECTS = ("postgresql", "sqlite", "mysql")  # MariaDB goes by the name that Rucio knows it by


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
    audit_unread: Table
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
        audits=audit_tables.audits(metadata, prefix),
        audit_rounds=audit_tables.audit_rounds(metadata, prefix),
        audit_work=audit_tables.audit_work(metadata, prefix),
        audit_batches=audit_tables.audit_batches(metadata, prefix),
        audit_unread=audit_tables.audit_unread(metadata, prefix),
        breakers=audit_tables.breakers(metadata, prefix),
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
    return table(
        f"{prefix}outbox",
        metadata,
        serial(metadata),
        Column("event_id", short_text(), comment="random UUID: the identity of the event"),
        Column("rse_id", short_text(RSE), comment="NULL: of a dataset"),
        Column("scope", short_text(SCOPE)),
        Column("name", short_text(RUCIO_NAME)),
        Column("old_state", short_text(), comment="NULL: the replica was inserted"),
        Column("new_state", short_text(), comment="NULL: the replica was deleted"),
        Column("bytes", BigInteger),
        Column("adler32", short_text()),
        Column("md5", short_text()),
        Column("generation", Moment, comment="dids.created_at when the change was made"),
        Column("account", short_text(), comment="who asked; NULL: Rucio itself"),
        Column("action", short_text()),
        Column("rule", short_text()),
        Column("at", Moment, comment="the database's clock at the change"),
        Column("claimed_by", short_text()),
        Column("claimed_until", Moment),
        Column("attempts", Integer, server_default="0"),
        Column("not_before", Moment),
        Column("missing_since", Moment, comment="when storage first answered that the file is not there"),
        Column("last_error", long_text()),
        Column("message", long_text(), comment="the signed trace, kept before it is sent"),
        index(f"{prefix}outbox_product", "scope", "name", "id"),
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
    return table(
        f"{prefix}unlocked",
        metadata,
        serial(metadata),
        Column("rule", short_text()),
        Column("rse_id", short_text(RSE)),
        Column("scope", short_text(SCOPE)),
        Column("name", short_text(RUCIO_NAME)),
        Column("rule_scope", short_text(SCOPE), comment="with rule_name, the DID the rule was made for"),
        Column("rule_name", short_text(RUCIO_NAME)),
        Column("rule_created_at", Moment),
        Column("rule_expires_at", Moment),
        Column("account", short_text()),
        Column("action", short_text()),
        Column("at", Moment),
        index(f"{prefix}unlocked_replica", "scope", "name", "rse_id"),
    )


def _intentions(metadata: MetaData, prefix: str) -> Table:
    """Who asked for a rule or a DID to go away; it counts once that has really happened."""
    return table(
        f"{prefix}intentions",
        metadata,
        serial(metadata),
        Column("rule", short_text(), index=True),
        Column("scope", short_text(SCOPE), comment="with name, for an erased DID"),
        Column("name", short_text(RUCIO_NAME)),
        Column("account", short_text(), nullable=False),
        Column("action", short_text(), nullable=False),
        Column("at", Moment, nullable=False),
        index(f"{prefix}intentions_did", "scope", "name"),
    )


def _acting(metadata: MetaData, prefix: str) -> Table:
    """SQLite only: who acts in the present transaction. Holds one row inside it, none outside."""
    return table(
        f"{prefix}acting",
        metadata,
        Column("account", short_text()),
        Column("action", short_text()),
        Column("rule", short_text()),
    )


def _outcomes(metadata: MetaData, prefix: str) -> Table:
    """How many outbox rows of an RSE ended in which event, or for which reason in none."""
    return table(
        f"{prefix}outcomes",
        metadata,
        Column("rse_id", short_text(RSE), primary_key=True),
        Column("reason", short_text(), primary_key=True),
        Column("count", BigInteger, nullable=False),
    )


def _replicas(metadata: MetaData, prefix: str) -> Table:
    """What is proven of each replica; `rse` is the name that was last signed."""
    return table(
        f"{prefix}replicas",
        metadata,
        *product_key(),
        Column("rse_id", short_text(RSE), primary_key=True),
        Column("rse", short_text()),
        Column("state", short_text(), nullable=False),
        Column("trace_id", short_text()),
        Column("proven_at", Moment),
        Column("position", BigInteger, comment="the store's position this row was computed from"),
        # Few are bad, and auditors look for them every minute.
        Index(f"{prefix}replicas_bad", "state", postgresql_where=_BAD, sqlite_where=_BAD),
    )


def _products(metadata: MetaData, prefix: str) -> Table:
    """The status of each product, as the metadata plugin shows it."""
    return table(
        f"{prefix}products",
        metadata,
        *product_key(),
        Column("status", short_text(), nullable=False),
        Column("proven", Integer, nullable=False),
        Column("total", Integer, nullable=False),
        Column("trace_id", short_text()),
        Column("hash", short_text()),
        Column("hash_algorithm", short_text()),
        Column("signer", short_text()),
        Column("verified_at", Moment, comment="the youngest proof"),
        Column("attributes", long_text(), comment="a JSON object, names without the trace_ prefix"),
        Column("position", BigInteger, comment="the store's position this row was computed from"),
        index(f"{prefix}products_status", "status"),
    )


def _origins(metadata: MetaData, prefix: str) -> Table:
    """The producer's own word on a product. A row outlives its product: no trace is ever the origin of two."""
    return table(
        f"{prefix}origins",
        metadata,
        *product_key(),
        Column("trace_id", short_text(), nullable=False, unique=True),
        Column("trace", long_text(), nullable=False, comment="JSON: the trace as it was signed"),
        Column("at", Moment, nullable=False),
    )


def _rse_names(metadata: MetaData, prefix: str) -> Table:
    """Every name under which an RSE ever was signed: an RSE can be renamed, a signed name cannot."""
    return table(
        f"{prefix}rse_names",
        metadata,
        Column("name", short_text(), primary_key=True),
        Column("rse_id", short_text(RSE), primary_key=True),
    )


def _rse_guards(metadata: MetaData, prefix: str) -> Table:
    """How many files of an RSE were found lost without one found good between: too many, and nothing more is signed."""
    return table(
        f"{prefix}rse_guards",
        metadata,
        Column("rse_id", short_text(RSE), primary_key=True),
        Column("lost_in_a_row", Integer, nullable=False),
        Column("stopped_at", Moment, comment="NULL: signing goes on"),
    )


def _signed(metadata: MetaData, prefix: str) -> Table:
    """Size and checksums of each product as its origin's trace has them: what Rucio's catalogue is held against."""
    return table(
        f"{prefix}signed",
        metadata,
        *product_key(),
        Column("bytes", BigInteger, nullable=False),
        Column("adler32", short_text(), comment="NULL: not signed"),
        Column("md5", short_text(), comment="NULL: not signed"),
    )


def _alarms(metadata: MetaData, prefix: str) -> Table:
    """What somebody should look at, each kind and subject once: later reports of the same are counted."""
    return table(
        f"{prefix}alarms",
        metadata,
        Column("kind", short_text(), primary_key=True),
        Column("subject", short_text(), primary_key=True, comment="an RSE, a site"),
        Column("first_at", Moment, nullable=False),
        Column("last_at", Moment, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("told_at", Moment, comment="when Rucio's messages last said so"),
        Column("told", BigInteger, nullable=False, comment="how many of them have been told"),
        Column("detail", long_text(), comment="JSON: the latest of them"),
    )


def _followed(metadata: MetaData, prefix: str) -> Table:
    """How far the store's traces that speak of whole products are shown in Rucio: one row."""
    return table(
        f"{prefix}followed",
        metadata,
        Column("one", Integer, primary_key=True, autoincrement=False),
        Column("position", BigInteger, nullable=False),
    )


def _datasets(metadata: MetaData, prefix: str) -> Table:
    """When each dataset's files are counted again, and what its own traces amount to: `products` is made of both."""
    return table(
        f"{prefix}datasets",
        metadata,
        *product_key(),
        Column("due_at", Moment, nullable=False, comment="when it is counted next"),
        Column("not_before", Moment, nullable=False, comment="a change of a file makes it due no earlier"),
        Column("claimed_by", short_text()),
        Column("claimed_until", Moment),
        Column("status", short_text(), comment="of its own traces; NULL: there are none"),
        Column("trace_id", short_text(), comment="with what follows: the CREATE that stands"),
        Column("hash", short_text()),
        Column("hash_algorithm", short_text()),
        Column("signer", short_text()),
        Column("members", BigInteger),
        Column("bytes", BigInteger),
        Column("position", BigInteger, comment="the store's position the traces were read at"),
        Index(f"{prefix}datasets_due", "due_at"),
    )


def _installations(metadata: MetaData, prefix: str) -> Table:
    """When hooks of which version came: products older than the first row were never seen arriving."""
    return table(
        f"{prefix}installations",
        metadata,
        Column("version", Integer, nullable=False),
        Column("at", Moment, nullable=False),
    )
