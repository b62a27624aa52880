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
    _create_counts()
    _leave_older_for_later()
    if op.get_bind().dialect.name == "postgresql":
        convert(op.get_bind())


def downgrade() -> None:
    """The members of what was registered since are found no more, also when the store is upgraded again."""
    op.drop_table("trace_counts")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE trace_words")
    for table in ("trace_older", "trace_texts", "trace_unindexed", "trace_contents"):
        op.drop_table(table)
    op.drop_column("traces", "provider")


_head = sa.table("trace_head", sa.column("position"))
_older = sa.table("trace_older", sa.column("next"), sa.column("end"))


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
        sa.Column("words", long_text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_trace_unindexed"),
    )


def _leave_older_for_later() -> None:
    """What is there is counted and indexed by words afterwards, page by page: see `store.older`."""
    create_table(
        "trace_older",
        sa.Column("next", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("end", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("next", name="pk_trace_older"),
    )
    hold_registrations()  # again: on MariaDB the steps before have let go
    connection = op.get_bind()
    connection.execute(sa.delete(_older))
    there = sa.select(sa.literal(1), _head.c.position).where(_head.c.position > 0)
    connection.execute(_older.insert().from_select(["next", "end"], there))
