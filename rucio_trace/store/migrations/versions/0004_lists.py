"""The lists of batches, and where the line of each replica is."""

import sqlalchemy as sa
from alembic import op

from rucio_trace.store.migrations.steps import create_table
from rucio_trace.store.types import binary, long_binary

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_table(
        "trace_list_pieces",
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("entries", long_binary(), nullable=False),
        sa.Column("path", long_binary(), nullable=False),
        sa.PrimaryKeyConstraint("position", "number", name="pk_trace_list_pieces"),
    )
    create_table(
        "trace_lines",
        sa.Column("product", binary(32), nullable=False),
        sa.Column("series", binary(8), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("product", "series", name="pk_trace_lines"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("trace_lines")
    op.drop_table("trace_list_pieces")
