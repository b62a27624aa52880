"""Words: runs of letters and digits, in lower case, in the names of files and the values of attributes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MAX_WORDS", "words_in", "words_of"]

MAX_WORDS: Final = 1_000
"""Words of one trace that are found; a product has some ten, and attributes can hold a book."""

_WORD: Final = re.compile(r"[^\W_]{1,64}")
"""Longer runs are cut into several: MariaDB indexes no word of more than 84 characters."""


def words_in(given: str) -> set[str]:
    """The words of a text."""
    return set(_WORD.findall(given.lower()))


def words_of(name: str, attributes: Mapping[str, Any] | None) -> frozenset[str]:
    """The words by which a trace is found; if there are too many, those of the name before those of attributes."""
    own, more = words_in(name), set[str]()
    for value in _values(attributes or {}):
        more |= words_in(value)
    return frozenset([*sorted(own), *sorted(more - own)][:MAX_WORDS])


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _values(each)
    elif value is not None:
        yield str(value)
