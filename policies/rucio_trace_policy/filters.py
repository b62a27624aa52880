"""`list_dids` filters on trace keys, as SQL conditions.

Rucio's own filter engine is not used: it makes a number of an all-digit digest. Here text stays text, `*` is the
wildcard, and only what is a number or a time by nature is compared as one.
"""

from __future__ import annotations

import operator
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rucio.common.exception import DIDFilterSyntaxError, InvalidMetadata
from sqlalchemy import Double, Text, and_, case, cast, func, literal, or_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy.sql import ColumnElement

__all__ = ["condition", "numeric_text", "split_key"]

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_:-]{1,100}")


def split_key(key: str) -> tuple[str, str]:
    """`trace_x.gte` as (`trace_x`, `gte`); the operator is empty for equality."""
    name, _, suffix = key.partition(".")
    if suffix not in OPERATORS:
        raise DIDFilterSyntaxError(f"{key}: operator should be one of {', '.join(filter(None, OPERATORS))}")
    return name, suffix


def condition(groups: Iterable[Mapping[str, Any]], columns: Callable[[str], Any]) -> ColumnElement[bool]:
    """The condition of Rucio's filter *groups*: any group, all of its criteria; *columns* finds a key's expression."""
    alternatives = []
    for group in groups:
        criteria = []
        for key, value in group.items():
            name, suffix = split_key(key)
            criteria.append(_criterion(columns(name), name, suffix, value))
        alternatives.append(and_(literal(True), *criteria))
    return or_(*alternatives) if alternatives else literal(True)


def _criterion(column: Any, name: str, suffix: str, value: Any) -> ColumnElement[bool]:
    if value is None:
        raise InvalidMetadata(f"{name}: a filter needs a value")
    compare = OPERATORS[suffix]
    if name == "trace_verified_at":
        return compare(column, _moment(name, value))
    value = str(value)
    if suffix in ("", "ne"):
        if "*" not in value:
            return compare(column, value)
        matches = column.like(_pattern(value), escape="\\")
        return matches if suffix == "" else ~matches
    if "*" in value:
        raise DIDFilterSyntaxError(f"{name}: a wildcard can only be used with equality")
    if _NUMBER.fullmatch(value):
        return compare(numeric_text(column), float(value))
    return compare(column, value)


def _pattern(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def numeric_text(column: Any) -> Any:
    """*column* as a number where its text is one, else NULL, on every database."""
    return case((column.regexp_match(r"^-?[0-9]+(\.[0-9]+)?$"), cast(column, Double)), else_=None)


def _moment(name: str, value: Any) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise InvalidMetadata(f"{name}: expected an ISO 8601 time, found {value!r}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def attribute(attributes: Any, name: str, dialect_name: str) -> Any:
    """The expression for one attribute of the JSON text in *attributes*, as text."""
    if not _ATTRIBUTE_NAME.fullmatch(name):
        raise InvalidMetadata(f"trace_{name}: not a name of an attribute")
    if dialect_name == "postgresql":
        from sqlalchemy.dialects.postgresql import JSONB

        return cast(attributes, JSONB)[name].astext
    if dialect_name == "mysql":
        return func.json_value(attributes, f'$."{name}"', type_=Text)
    return cast(func.json_extract(attributes, f'$."{name}"'), Text)
