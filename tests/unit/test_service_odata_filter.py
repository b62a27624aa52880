"""`$filter`: whatever is sent, there is a filter or a refusal; and its condition never loses what it holds for."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from samples import product, signer, statement, stored

from rucio_trace.envelope import sign
from rucio_trace.service.odata.entities import entity
from rucio_trace.service.odata.filtering import parse_filter
from rucio_trace.service.problems import BadRequest
from rucio_trace.statement import Event
from rucio_trace.store.tables import traces

_WORDS = """( ) , / : = - ' eq ne and or not in any all null true name hash size date 'a' '' 1 -1.5e3 1e999 2023-04-20
2023-04-20T00:00:00Z contains startswith duration'P' 11111111-1111-4111-8111-111111111111 geography'x' x.y mod add
99999999999999999999 ü"""
WORDS = st.sampled_from([*_WORDS.split(), " ", "\0", "\ud800"])


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=14).map(" ".join), st.lists(WORDS).map("".join)))
@settings(max_examples=400)
def test_whatever_is_sent_there_is_a_filter_or_a_refusal(text: str) -> None:
    try:
        made = parse_filter(text)
    except BadRequest:
        return
    assert made.holds({}) in (True, False)
    str(made.condition)


NAMES = st.sampled_from(["a", "ab", "b", "ba", "a%", "_b"])
MADE = st.builds(
    lambda name, event, size, attributes: sign(
        replace(statement(event, product(name=name)), size=size, attributes=attributes), signer()
    ),
    NAMES,
    st.sampled_from([Event.CREATE, Event.COPY, Event.VERIFY]),
    st.integers(0, 3),
    st.sampled_from([None, {"mode": "IW"}, {"mode": 2}]),
)
FIELDS = st.sampled_from(["name", "size", "eventType", "mode", "id", "hash"])
VALUES = st.sampled_from(["'a1'", "'ab1'", "1", "2", "'COPY'", "'IW'", "null", "true"])
COMPARISONS = st.one_of(
    st.builds("{} {} {}".format, FIELDS, st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]), VALUES),
    st.builds("{}({},'{}')".format, st.sampled_from(["startswith", "endswith", "contains"]), FIELDS, NAMES),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds("({}) {} ({})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=5,
)


@given(st.lists(MADE, min_size=1, max_size=4), FILTERS)
@settings(max_examples=150, deadline=None)
def test_the_condition_loses_nothing_and_an_exact_one_finds_no_more(made: list[Any], text: str) -> None:
    wanted = parse_filter(text)
    for one in made:
        found = stored(one, 1)
        holds = wanted.holds(entity(found))
        met = _met(wanted.condition, found)
        assert met or not holds, text
        assert met == holds or not wanted.exact, text


def _met(condition: Any, found: Any) -> bool:
    """Whether a row of *found* fulfils the condition."""
    from sqlalchemy import select
    from sqlalchemy.dialects import sqlite

    s = found.trace.statement
    query = select(traces.c.position).where(condition)
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
    named = compiled.construct_params()
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE traces (position, id, name, event, time, digest_set)")
        connection.execute("CREATE TABLE trace_digests (digest, digest_set, of_content)")
        connection.execute("INSERT INTO trace_digests VALUES (?, 1, 0)", (bytes.fromhex(s.hash),))
        row = (1, found.id, s.name, str(s.event), s.time, 1)
        connection.execute("INSERT INTO traces VALUES (?, ?, ?, ?, ?, ?)", row)
        values = [named[name] for name in compiled.positiontup or ()]
        return bool(connection.execute(str(compiled), values).fetchall())
