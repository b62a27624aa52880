"""What the store's columns are made of on each database; tables and migrations share it, so it never changes meaning.

Text is compared code point by code point everywhere, and times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, DateTime, LargeBinary, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

__all__ = ["OPTIONS", "UtcTime", "Words", "binary", "indexed_text", "long_binary", "long_text", "stored_word"]

OPTIONS: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
"""What every table is made with; other databases than MariaDB do not look at it."""


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; text of fixed width on SQLite, so that its order is the order of time."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        if dialect.name == "mysql":
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(String(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        if dialect.name == "mysql":
            return utc.replace(tzinfo=None)
        return utc if dialect.name == "postgresql" else utc.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "mysql" else value.astimezone(UTC)


def stored_word(word: str, dialect: str) -> str:
    """*word* as *dialect* holds it: MariaDB's index leaves out short and common words, and none begins like this."""
    return f"xx{word}" if dialect == "mysql" else word


class Words(TypeDecorator[list[str]]):
    """Words of letters and digits, for an index of words."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(ARRAY(Text()))
        return dialect.type_descriptor(mysql.MEDIUMTEXT() if dialect.name == "mysql" else Text())

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return " ".join(stored_word(word, dialect.name) for word in value)

    def process_result_value(self, value: Any, dialect: Dialect) -> list[str] | None:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        return [word.removeprefix(stored_word("", dialect.name)) for word in value.split()]


def indexed_text(length: int) -> String:
    """Text whose prefixes are ranges that an index serves."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def long_text() -> Text:
    """Text of up to 4 GiB."""
    return Text().with_variant(mysql.LONGTEXT(), "mysql")


def binary(length: int) -> LargeBinary:
    """Bytes that an index can hold."""
    return LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql")


def long_binary() -> LargeBinary:
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
