"""`$filter`: from a text that anybody may send to a condition of the database, and to a test of what was read.

The text is bounded before it is parsed: in length, in tokens and in depth. Nothing of it but bound values reaches the
database. A filter is compiled twice: to a condition that holds for every trace that is wanted, as narrow as an index
can serve, and to a test of the whole entity, which decides.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from odata_query import ast
from odata_query.exceptions import ODataException
from odata_query.grammar import ODataLexer, ODataParser
from sqlalchemy import and_, false, or_, true

from rucio_trace.service.odata.entities import FIELDS
from rucio_trace.service.problems import BadRequest
from rucio_trace.store.read import bearing, with_prefix
from rucio_trace.store.tables import INDEXED_CHARACTERS, indexable, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import ColumnElement

__all__ = ["ALL", "COLUMNS", "Filter", "parse_filter"]

MAX_CHARACTERS: Final = 4_096
MAX_TOKENS: Final = 500
MAX_DEPTH: Final = 20

COLUMNS: Final = {"id": traces.c.id, "date": traces.c.time, "name": traces.c.name, "eventType": traces.c.event}
"""The fields that stand in a column as they are, but for names that are cut."""

_COMPARED: Final[Mapping[type, tuple[str, Callable[[Any, Any], bool]]]] = {
    ast.Eq: ("eq", operator.eq),
    ast.NotEq: ("ne", operator.ne),
    ast.Lt: ("lt", operator.lt),
    ast.LtE: ("le", operator.le),
    ast.Gt: ("gt", operator.gt),
    ast.GtE: ("ge", operator.ge),
}
_MIRRORED: Final = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
_OPERATORS: Final = dict(_COMPARED.values())
_FUNCTIONS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "startswith": str.startswith,
    "endswith": str.endswith,
    "contains": operator.contains,
}

_Value = str | int | float | bool | datetime | None


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted: `condition` holds for all of it, and `holds` decides.

    With `exact` the condition alone decides.
    """

    condition: ColumnElement[bool]
    exact: bool
    holds: Callable[[Mapping[str, Any]], bool]


ALL: Final = Filter(true(), True, lambda _entity: True)


def parse_filter(text: str) -> Filter:
    """The filter that *text* is.

    Raises:
        BadRequest: it is none, or not one that can be answered.
    """
    _check_bounds(text)
    try:
        tokens = list(ODataLexer().tokenize(text))
        if len(tokens) > MAX_TOKENS:
            raise _Unusable(f"at most {MAX_TOKENS} words and signs", str(len(tokens)))
        parsed = ODataParser().parse(iter(tokens))
    except ODataException as error:
        raise _Unusable("an expression of OData", str(error)) from None
    if parsed is None:
        raise _Unusable("an expression of OData", text)
    return _compiled(parsed)


class _Unusable(BadRequest):
    def __init__(self, expected: str, found: str) -> None:
        super().__init__("$filter", expected=expected, found=found)


def _check_bounds(text: str) -> None:
    """So that neither the parser nor what walks its tree meets what it could not bear."""
    if len(text) > MAX_CHARACTERS:
        raise _Unusable(f"at most {MAX_CHARACTERS} characters", str(len(text)))
    depth = 0
    for sign in re.sub(r"'[^']*'", "", text):
        depth += (sign == "(") - (sign == ")")
        if depth > MAX_DEPTH:
            raise _Unusable(f"at most {MAX_DEPTH} parentheses within each other", "more")


def _compiled(node: Any) -> Filter:
    if isinstance(node, ast.BoolOp):
        left, right = _compiled(node.left), _compiled(node.right)
        return _both(left, right) if isinstance(node.op, ast.And) else _either(left, right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _not(_compiled(node.operand))
    if isinstance(node, ast.Compare):
        return _comparison(node)
    if isinstance(node, ast.Call):
        return _call(node)
    raise _Unusable("comparisons, and, or, not, startswith, endswith, contains", type(node).__name__)


def _both(left: Filter, right: Filter) -> Filter:
    return Filter(
        and_(left.condition, right.condition),
        left.exact and right.exact,
        lambda entity: left.holds(entity) and right.holds(entity),
    )


def _either(left: Filter, right: Filter) -> Filter:
    return Filter(
        or_(left.condition, right.condition),
        left.exact and right.exact,
        lambda entity: left.holds(entity) or right.holds(entity),
    )


def _not(inner: Filter) -> Filter:
    condition = ~inner.condition if inner.exact else true()
    return Filter(condition, inner.exact, lambda entity: not inner.holds(entity))


def _comparison(node: ast.Compare) -> Filter:
    if type(node.comparator) not in _COMPARED:
        raise _Unusable("eq, ne, lt, le, gt, ge", type(node.comparator).__name__)
    name, left, right = _COMPARED[type(node.comparator)][0], node.left, node.right
    if isinstance(right, ast.Identifier):
        name, left, right = _MIRRORED.get(name, name), right, left
    field, value = _field(left), _literal(right)
    compare = _OPERATORS[name]

    def holds(entity: Mapping[str, Any]) -> bool:
        return _compare(compare, name, _read(entity.get(field), value), value)

    condition, exact = _condition(field, name, value)
    return Filter(condition, exact, holds)


def _condition(field: str, name: str, value: _Value) -> tuple[ColumnElement[bool], bool]:
    """What the database can tell of a comparison, and whether that is all."""
    if field == "hash" and name == "eq" and isinstance(value, str):
        return bearing([value], of_content=False), False
    column = COLUMNS.get(field)
    if column is None:
        return true(), False
    if isinstance(value, datetime) != (field == "date") or not isinstance(value, str | datetime):
        return (false() if name == "eq" else true()), False
    bound = indexable(value) if isinstance(value, str) else value
    condition: ColumnElement[bool] = _OPERATORS[name](column, bound)  # type: ignore[assignment]
    if isinstance(value, str) and (bound != value or len(value) >= INDEXED_CHARACTERS):
        return (condition if name == "eq" else true()), False
    return condition, True


def _call(node: ast.Call) -> Filter:
    function = _FUNCTIONS.get(node.func.name.lower())
    if function is None or len(node.args) != 2:
        raise _Unusable("startswith, endswith, contains", f"{node.func.name} of {len(node.args)}")
    field, value = _field(node.args[0]), _literal(node.args[1])
    if not isinstance(value, str):
        raise _Unusable(f"{node.func.name}(field, 'text')", f"{value!r}")

    def holds(entity: Mapping[str, Any]) -> bool:
        found = entity.get(field)
        return isinstance(found, str) and function(found, value)

    starts = node.func.name.lower() == "startswith" and field in ("name", "id") and value
    if not starts:
        return Filter(true(), False, holds)
    short = indexable(value) == value and len(value) < INDEXED_CHARACTERS
    return Filter(with_prefix(COLUMNS[field], value), short, holds)


def _field(node: Any) -> str:
    if not isinstance(node, ast.Identifier) or node.namespace:
        raise _Unusable("the name of a field", type(node).__name__)
    if FIELDS.get(node.name, "").startswith("Collection"):
        raise _Unusable("a field with one value", node.name)
    return node.name


def _literal(node: Any) -> _Value:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    if isinstance(node, ast.Null):
        return None
    if isinstance(node, ast.String):
        return str(node.val)
    if isinstance(node, ast.GUID):
        return str(node.val).lower()
    if isinstance(node, ast.Boolean):
        return str(node.val).lower() == "true"
    if isinstance(node, ast.Integer | ast.Float | ast.DateTime | ast.Date) and len(node.val) < 64:
        try:
            return _parsed(node)
        except (ValueError, OverflowError):  # in UTC, a time may lie outside the calendar
            raise _Unusable("a number or a time", node.val) from None
    raise _Unusable("a text in quotes, a number, a time, true, false or null", type(node).__name__)


def _parsed(node: ast.Integer | ast.Float | ast.DateTime | ast.Date) -> _Value:
    if isinstance(node, ast.Integer):
        return int(node.val)
    return float(node.val) if isinstance(node, ast.Float) else _moment(node.val)


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _read(found: Any, like: _Value) -> Any:
    """A field's value as something that can be compared with *like*, if it can be."""
    if isinstance(like, datetime) and isinstance(found, str):
        try:
            return _moment(found)
        except (ValueError, OverflowError):
            return found
    return found


def _compare(compare: Callable[[Any, Any], bool], name: str, found: Any, value: _Value) -> bool:
    """Nothing is less or greater than null, and a text is no number: only `ne` holds between them."""
    if found is None or value is None or _kind(found) != _kind(value):
        same = found is None and value is None
        return same if name in ("eq", "le", "ge") else not same if name == "ne" else False
    return bool(compare(found, value))


def _kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
