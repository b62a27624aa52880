"""The system query options of OData, read and bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rucio_trace.service.odata.filtering import ALL, COLUMNS, Filter, parse_filter
from rucio_trace.service.problems import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Options", "parse_options"]

MAX_TOP: Final = 1_000
MAX_SKIP: Final = 100_000
DEFAULT_TOP: Final = 100


@dataclass(frozen=True, slots=True)
class Options:
    """`order` are fields, each with whether it descends; `select` None is everything; `top` None was not given."""

    filter: Filter
    order: tuple[tuple[str, bool], ...]
    top: int | None
    skip: int
    count: bool
    select: tuple[str, ...] | None


def parse_options(given: Iterable[tuple[str, str]]) -> Options:
    """The options of a query; what does not begin with `$` is not ours.

    Raises:
        BadRequest: one is unknown, given twice, or out of bounds.
    """
    options: dict[str, str] = {}
    for name, text in given:
        if name in options:
            raise BadRequest(name, expected="it once", found="twice")
        if name.startswith("$"):
            options[name] = text
    if unknown := options.keys() - _KNOWN:
        raise BadRequest(min(unknown), expected=", ".join(sorted(_KNOWN)), found="an option that is not supported")
    if (form := options.get("$format", "json").partition(";")[0]) not in ("json", "application/json"):
        raise BadRequest("$format", expected="json", found=form)
    return Options(
        filter=parse_filter(options["$filter"]) if "$filter" in options else ALL,
        order=tuple(_order(part) for part in options["$orderby"].split(",")) if "$orderby" in options else (),
        top=_number("$top", options["$top"], MAX_TOP) if "$top" in options else None,
        skip=_number("$skip", options.get("$skip", "0"), MAX_SKIP),
        count=_boolean("$count", options.get("$count", "false")),
        select=_selected(options.get("$select", "*")),
    )


_KNOWN: Final = frozenset({"$filter", "$orderby", "$top", "$skip", "$count", "$select", "$format"})


def _number(name: str, text: str, most: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not 0 <= number <= most:
        raise BadRequest(name, expected=f"a number from 0 to {most}", found=text)
    return number


def _boolean(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise BadRequest(name, expected="true or false", found=text)
    return text == "true"


def _order(text: str) -> tuple[str, bool]:
    field, *direction = text.split() or [""]
    if field not in COLUMNS or direction not in ([], ["asc"], ["desc"]):
        raise BadRequest("$orderby", expected=f"one of {', '.join(COLUMNS)}, perhaps with asc or desc", found=text)
    return field, direction == ["desc"]


def _selected(text: str) -> tuple[str, ...] | None:
    fields = tuple(dict.fromkeys(field.strip() for field in text.split(",")))
    return None if "*" in fields else fields
