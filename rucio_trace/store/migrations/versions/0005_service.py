"""Whose token brought a trace; members of archives by a part of their digest; the words of traces, and how many."""

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from rucio_trace.store.migrations.steps import add_column, create_index, create_table, hold_registrations
from rucio_trace.store.partitions import convert
from rucio_trace.store.texts import words_of
from rucio_trace.store.types import Words, indexed_text, long_binary

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 1_000


def upgrade() -> None:
    hold_registrations()
    add_column("traces", sa.Column("provider", indexed_text(64)))
    _create_contents()
    if op.get_bind().dialect.name == "postgresql":
        convert(op.get_bind())
    _create_texts()
    _create_counts()


def _create_contents() -> None:
    """What was registered before keeps its members' digests in `trace_digests`, where they are found too."""
    create_table(
        "trace_contents",
        sa.Column("prefix", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("digest_set", sa.BigInteger, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("prefix", "digest_set", name="pk_trace_contents"),
        sqlite_with_rowid=False,
    )
    create_table(
        "trace_unindexed",
        sa.Column("digest_set", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("prefixes", long_binary(), nullable=False),
        sa.PrimaryKeyConstraint("digest_set", name="pk_trace_unindexed"),
    )


def downgrade() -> None:
    op.drop_table("trace_counts")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE trace_words")
    op.drop_table("trace_texts")
    for table in ("trace_unindexed", "trace_contents"):
        op.drop_table(table)
    op.drop_column("traces", "provider")


_texts = sa.table("trace_texts", sa.column("position"), sa.column("name"), sa.column("words", Words))
_counts = sa.table("trace_counts", *map(sa.column, ("event", "rse", "provider", "traces", "first", "last")))
_traces = sa.table("traces", *map(sa.column, ("position", "name", "message", "event", "rse")))


def _create_texts() -> None:
    create_table(
        "trace_texts",
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("name", indexed_text(255), nullable=False),
        sa.Column("words", Words(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_trace_texts"),
    )
    create_index("ix_trace_texts_name", "trace_texts", ["name"])
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.create_index("ix_trace_texts_words", "trace_texts", ["words"], postgresql_using="gin")
    elif connection.dialect.name == "mysql":
        create_index("ix_trace_texts_words", "trace_texts", ["words"], mysql_prefix="FULLTEXT")
    else:
        op.execute("CREATE VIRTUAL TABLE trace_words USING fts5(words, content='')")
        op.execute(
            "CREATE TRIGGER trace_words_filled AFTER INSERT ON trace_texts BEGIN"
            " INSERT INTO trace_words (rowid, words) VALUES (new.position, new.words); END"
        )
    connection.execute(sa.delete(_texts))  # of an attempt that was cut off
    for rows in _pages(connection):
        _add_texts(connection, rows)


def _pages(connection: sa.Connection) -> Iterator[list[Any]]:
    page = sa.select(_traces).order_by(_traces.c.position).limit(_ROWS_AT_ONCE)
    last = 0
    while rows := list(connection.execute(page.where(_traces.c.position > last))):
        yield rows
        last = rows[-1].position


def _add_texts(connection: sa.Connection, rows: list[Any]) -> None:
    """Add the words of each trace, where no earlier one of its name has them."""
    known: dict[str, list[set[str]]] = {}
    query = sa.select(_texts.c.name, _texts.c.words).where(_texts.c.name.in_({row.name for row in rows}))
    for name, words in connection.execute(query):
        known.setdefault(name, []).append(set(words))
    new = []
    for row in rows:
        words = _words_of(row.message)
        if words and not any(words <= others for others in known.setdefault(row.name, [])):
            known[row.name].append(words)
            new.append({"position": row.position, "name": row.name, "words": sorted(words)})
    if new:
        connection.execute(_texts.insert(), new)


def _words_of(message: str) -> set[str]:
    """None of a message that was altered: whoever reads the row refuses it."""
    try:
        statement = json.loads(message)
        return words_of(statement["name"], statement.get("attributes") if "schema" in statement else None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return set()


def _create_counts() -> None:
    create_table(
        "trace_counts",
        sa.Column("event", indexed_text(16), nullable=False),
        sa.Column("rse", indexed_text(255), nullable=False),
        sa.Column("provider", indexed_text(64), nullable=False),
        sa.Column("traces", sa.BigInteger, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("event", "rse", "provider", name="pk_trace_counts"),
    )
    connection = op.get_bind()
    connection.execute(sa.delete(_counts))
    rse, position = sa.func.coalesce(_traces.c.rse, ""), _traces.c.position
    found = sa.select(
        _traces.c.event, rse, sa.literal(""), sa.func.count(), sa.func.min(position), sa.func.max(position)
    ).group_by(_traces.c.event, rse)
    connection.execute(_counts.insert().from_select([column.name for column in _counts.c], found))
