"""The kinds of columns and tables that ours are made of, on each of Rucio's databases."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Integer, MetaData, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine


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
Serial: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")


# MariaDB indexes no text without a bound, and at most 3,072 bytes of all: four a character. What can be signed has a
# name of up to 500 characters; what triggers write is bounded by Rucio's own keys there, of one byte a character.
SCOPE, NAME, RSE, WORD, RUCIO_NAME = 60, 500, 200, 255, 3_072


def short_text(length: int = WORD) -> TypeEngine[str]:
    """Text; on MariaDB of at most *length* characters."""
    return Text().with_variant(mysql.VARCHAR(length), "mysql")


def long_text() -> TypeEngine[str]:
    return Text().with_variant(mysql.LONGTEXT(), "mysql")


def index(name: str, *columns: str) -> Index:
    """On MariaDB of as much of a name as can be signed."""
    return Index(name, *columns, mysql_length={"name": NAME} if "name" in columns else None)


def table(name: str, metadata: MetaData, *parts: Any) -> Table:
    """A table whose text MariaDB compares byte by byte, whatever the database's default."""
    options = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
    return Table(name, metadata, *parts, **options)


def serial(metadata: MetaData) -> Column[int]:
    """The column that orders what triggers write.

    Not a primary key on PostgreSQL: after a sequence is set back by mistake a unique index would refuse Rucio's work.
    (InnoDB sets none back below what is there, and its clusters want a primary key.)
    """
    if metadata.schema is None:
        return Column("id", Serial, primary_key=True)
    return Column("id", Serial, Identity(), nullable=False, index=True)


def product_key() -> tuple[Column[str], Column[str], Column[datetime]]:
    return (
        Column("scope", short_text(SCOPE), primary_key=True),
        Column("name", short_text(NAME), primary_key=True),
        Column("generation", Moment, primary_key=True, comment="dids.created_at"),
    )
