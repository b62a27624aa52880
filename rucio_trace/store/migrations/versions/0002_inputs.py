"""What products were made from, found by the inputs' digests."""

import json

import sqlalchemy as sa
from alembic import op

from rucio_trace.store.migrations.steps import create_table, hold_registrations
from rucio_trace.store.types import binary

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 1_000
_DIGEST_LENGTHS = frozenset({8, 32, 64, 128})


def upgrade() -> None:
    create_table(
        "trace_inputs",
        sa.Column("digest", binary(64), nullable=False),
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("digest", "position", name="pk_trace_inputs"),
        sqlite_with_rowid=False,
    )
    hold_registrations()
    connection = op.get_bind()
    inputs = sa.table("trace_inputs", sa.column("digest", sa.LargeBinary), sa.column("position"))
    traces = sa.table("traces", sa.column("position"), sa.column("event"), sa.column("message"))
    creates = sa.select(traces.c.position, traces.c.message).where(traces.c.event == "CREATE")
    last = 0
    while rows := connection.execute(
        creates.where(traces.c.position > last).order_by(traces.c.position).limit(_ROWS_AT_ONCE)
    ).all():
        found = [{"digest": digest, "position": row.position} for row in rows for digest in _digests(row.message)]
        if found:
            connection.execute(inputs.insert(), found)
        last = rows[-1].position


def _digests(message: str) -> set[bytes]:
    """What the message names as inputs; of one that was altered, nothing: whoever reads the row refuses it."""
    try:
        given = json.loads(message).get("inputs") or []
        named = {item["hash"] for item in given}
        return {bytes.fromhex(digest) for digest in named if len(digest) in _DIGEST_LENGTHS}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return set()


def downgrade() -> None:
    op.drop_table("trace_inputs")
