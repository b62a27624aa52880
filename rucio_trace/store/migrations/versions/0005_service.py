"""Whose token brought a trace; members of archives by a part of their digest, indexed after the registration."""

import sqlalchemy as sa
from alembic import op

from rucio_trace.store.migrations.steps import add_column, create_table, hold_registrations
from rucio_trace.store.partitions import convert
from rucio_trace.store.types import indexed_text, long_binary

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    hold_registrations()
    add_column("traces", sa.Column("provider", indexed_text(64)))
    _create_contents()
    if op.get_bind().dialect.name == "postgresql":
        convert(op.get_bind())


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
    for table in ("trace_unindexed", "trace_contents"):
        op.drop_table(table)
    op.drop_column("traces", "provider")
