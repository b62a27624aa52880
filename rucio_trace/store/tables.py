"""The store's tables.

The signed message is the truth; the columns beside it only help to find it. They are cut to what every
database can index, and held against the message again whenever a row is read. Names begin with `trace`
so that the tables can share a database with others.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

__all__ = ["INDEXED_CHARACTERS", "certificates", "digest_sets", "digests", "head", "indexable", "metadata", "traces"]

INDEXED_CHARACTERS: Final = 255
"""Longest text an index column holds: 255 characters of 4 bytes stay below PostgreSQL's 2,704 bytes an index entry."""


def indexable(text: str) -> str:
    """*text* as index columns hold it: cut, without the NUL that PostgreSQL refuses and the bytes of no encoding.

    No statement holds a lone surrogate, which is how a name on disk that is no UTF-8 is known: it finds nothing.
    """
    cut = text.replace("\0", "\ufffd")[:INDEXED_CHARACTERS]
    return cut.encode("utf-8", "replace").decode()


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; text of fixed width on SQLite, so that its order is the order of time."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(String(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        return None if value is None else value.astimezone(UTC)


def _text(length: int = INDEXED_CHARACTERS) -> String:
    # Code point order on both databases: a prefix is then a range, and an index serves it.
    return String(length).with_variant(String(length, collation="C"), "postgresql")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# The last position given out. Whoever adds traces locks this one row first and holds it until commit;
# that is what makes the order of positions the order of commits, without gaps.
head = Table(
    "trace_head",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint("one = 1", name="one_row"),
)

# Leaf and intermediate certificates, each once, by the SHA-256 of their DER.
certificates = Table(
    "trace_certificates",
    metadata,
    Column("fingerprint", LargeBinary(32), primary_key=True),
    Column("certificate", LargeBinary, nullable=False),
)

# What a statement says of its file's bytes: the copies of one product share one set. `id` is the
# position of the first trace that carried it.
digest_sets = Table(
    "trace_digest_sets",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", LargeBinary(32), nullable=False, unique=True),
)

# No foreign key: these are the most rows by far, written in one transaction with their set and never changed.
digests = Table(
    "trace_digests",
    metadata,
    Column("digest", LargeBinary(64), primary_key=True),
    Column("digest_set", BigInteger, primary_key=True, autoincrement=False),
    Column("of_content", Boolean, primary_key=True),
    sqlite_with_rowid=False,
)

traces = Table(
    "traces",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", _text(64), nullable=False),
    Column("registered_at", UtcTime, nullable=False),
    Column("event", _text(16), nullable=False),
    Column("time", UtcTime, nullable=False),  # of the event; of its registration when it names none
    Column("name", _text(), nullable=False),
    Column("did", _text()),
    Column("generation", _text(32)),
    Column("rse", _text()),
    Column("revokes", _text(64)),
    Column("digest_set", BigInteger, ForeignKey(digest_sets.c.id), nullable=False),
    Column("certificate", LargeBinary(32), ForeignKey(certificates.c.fingerprint), nullable=False),
    Column("chain", LargeBinary, nullable=False),  # the fingerprints of the intermediates, one after another
    Column("message", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("claimed", Text),  # what stood unsigned beside a message that is not of our format, as JSON
    # Two members of the Traceability Service may sign one text; our texts name their signer.
    UniqueConstraint("id", "certificate"),
    Index(None, "did", "generation", "position"),
    Index(None, "name", "position"),
    Index(None, "rse", "position"),
    Index(None, "event", "position"),
    Index(None, "digest_set", "position"),
    Index(None, "time"),
    Index(None, "revokes"),
)
