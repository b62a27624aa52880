"""Which words traces hold, in the names of their files and the values of their attributes.

A word is a run of letters and digits, in lower case. The index knows words by names of files: that of the first trace
with these words serves all later ones, so that copies cost nothing. It may find a little too much, as other columns do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, Text, bindparam, column, select, table, text
from sqlalchemy.dialects.mysql import match

from rucio_trace.store.bulk import insert_rows
from rucio_trace.store.read import KEYS_A_QUERY, batches
from rucio_trace.store.tables import indexable, texts, traces
from rucio_trace.store.types import stored_word

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy import ColumnElement, Connection

    from rucio_trace.trace import Statement

__all__ = ["insert_texts", "matching", "words_in", "words_of"]

MAX_WORDS: Final = 1_000
"""Words of one trace that are found; a product has some ten, and attributes can hold a book."""

_WORD: Final = re.compile(r"[^\W_]{1,64}")
"""Longer runs are cut into several: MariaDB indexes no word of more than 84 characters."""

_words: Final = table("trace_words", column("rowid"))


def words_in(given: str) -> set[str]:
    """The words of a text."""
    return set(_WORD.findall(given.lower()))


def words_of(name: str, attributes: Mapping[str, Any] | None) -> set[str]:
    """The words by which a trace is found."""
    found = words_in(name)
    for value in _values(attributes or {}):
        found |= words_in(value)
    return set(sorted(found)[:MAX_WORDS])


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _values(each)
    elif value is not None:
        yield str(value)


def insert_texts(connection: Connection, new: Mapping[int, Statement]) -> None:
    """Add the words of *new* traces, by their positions, where no earlier trace of that name has them."""
    found = {position: (indexable(s.name), words_of(s.name, s.attributes)) for position, s in sorted(new.items())}
    known: dict[str, list[set[str]]] = {}
    for some in batches({name for name, _ in found.values()}, KEYS_A_QUERY):
        for name, words in connection.execute(select(texts.c.name, texts.c.words).where(texts.c.name.in_(some))):
            known.setdefault(name, []).append(set(words))
    rows = []
    for position, (name, words) in found.items():
        of_name = known.setdefault(name, [])
        if words and not any(words <= others for others in of_name):
            of_name.append(words)
            rows.append({"position": position, "name": name, "words": sorted(words)})
    if rows:
        insert_rows(connection, texts, rows)


def matching(words: Collection[str], dialect: str) -> ColumnElement[bool]:
    """Traces of files with names under which all *words* were met."""
    wanted = sorted(stored_word(word, dialect) for word in words)
    named = select(texts.c.name)
    if dialect == "postgresql":
        named = named.where(texts.c.words.bool_op("@>")(bindparam(None, wanted, ARRAY(Text), unique=True)))
    elif dialect == "mysql":
        every = " ".join(f"+{word}" for word in wanted)
        named = named.where(match(texts.c.words, against=every).in_boolean_mode())
    else:
        every = " ".join(f'"{word}"' for word in wanted)
        found = select(_words.c.rowid).where(text("trace_words MATCH :every").bindparams(every=every))
        named = named.where(texts.c.position.in_(found))
    return traces.c.name.in_(named)
