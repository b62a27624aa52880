"""Whose token brought a trace, members and words by which traces are found, and how many there are."""

import sqlalchemy as sa
from alembic import op

from rucio_trace.store.migrations.steps import add_column, create_index, create_table, hold_registrations
from rucio_trace.store.partitions import convert
from rucio_trace.store.types import Words, indexed_text, long_text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    hold_registrations()
    add_column("traces", sa.Column("provider", indexed_text(64)))
    _create_contents()
    _create_texts()
    hold_registrations()  # again: on MariaDB the steps before have let go
    _leave_words_for_later()
    _create_counts()
    if op.get_bind().dialect.name == "postgresql":
        convert(op.get_bind())


def downgrade() -> None:
    """The members of what was registered since are found no more until the store is upgraded again."""
    op.drop_table("trace_counts")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE trace_words")
    for table in ("trace_texts", "trace_unindexed", "trace_contents"):
        op.drop_table(table)
    op.drop_column("traces", "provider")


_counts = sa.table("trace_counts", *map(sa.column, ("event", "rse", "provider", "traces", "first", "last")))
_traces = sa.table("traces", *map(sa.column, ("position", "name", "message", "event", "rse")))
_unindexed = sa.table("trace_unindexed", *map(sa.column, ("position", "prefixes")))


def _create_texts() -> None:
    create_table(
        "trace_texts",
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("words", Words(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_trace_texts"),
    )
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
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("prefixes", long_text(), nullable=False),
        sa.Column("words", long_text()),
        sa.PrimaryKeyConstraint("position", name="pk_trace_unindexed"),
    )


def _leave_words_for_later() -> None:
    """The words of what is there: of the first trace of each name, and of all with attributes."""
    connection = op.get_bind()
    connection.execute(sa.delete(_unindexed))
    first = sa.select(sa.func.min(_traces.c.position)).group_by(_traces.c.name)
    with_attributes = _traces.c.message.like('%"attributes"%')
    wanted = sa.select(_traces.c.position, sa.literal(""))
    wanted = wanted.where(_traces.c.position.in_(first) | with_attributes)
    connection.execute(_unindexed.insert().from_select(["position", "prefixes"], wanted))
