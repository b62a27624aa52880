"""Whose token brought a trace."""

import sqlalchemy as sa
from alembic import op

from rucio_trace.store.migrations.steps import add_column
from rucio_trace.store.types import indexed_text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_column("traces", sa.Column("provider", indexed_text(64)))


def downgrade() -> None:
    op.drop_column("traces", "provider")
