"""The index of words (`rucio_trace.words`).

It knows words by names of files: that of the first trace with these words serves all later ones, so that copies cost
nothing. It may find a little too much, as other columns do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import ARRAY, Text, bindparam, column, select, table, text
from sqlalchemy.dialects.mysql import match

from rucio_trace.store.bulk import insert_values
from rucio_trace.store.read import KEYS_A_QUERY, among, batches
from rucio_trace.store.tables import texts, traces
from rucio_trace.store.types import stored_word

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement, Connection

__all__ = ["insert_texts", "matching"]

_first: Final = traces.alias("first")
_words: Final = table("trace_words", column("rowid"))


def insert_texts(connection: Connection, new: Mapping[int, tuple[str, Collection[str]]]) -> None:
    """Add the words of *new* traces, by position and name, where no earlier trace of that name has them."""
    known: dict[str, list[set[str]]] = {}
    there = select(traces.c.name, texts.c.words).join(texts, texts.c.position == traces.c.position)
    for some in batches({name for name, _ in new.values()}, KEYS_A_QUERY):
        for name, words in connection.execute(there.where(among(traces.c.name, some))):
            known.setdefault(name, []).append(set(words))
    rows = []
    for position, (name, words) in sorted(new.items()):
        of_name = known.setdefault(name, [])
        if words and not any(others.issuperset(words) for others in of_name):
            of_name.append(set(words))
            rows.append((position, sorted(words)))
    if rows:
        insert_values(connection, texts, rows)


def matching(words: Collection[str], dialect: str) -> ColumnElement[bool]:
    """Traces of files with names under which all *words* were met."""
    wanted = sorted(stored_word(word, dialect) for word in words)
    named = select(_first.c.name).join(texts, texts.c.position == _first.c.position)
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
