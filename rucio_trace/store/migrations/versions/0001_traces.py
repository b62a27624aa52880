"""Traces, their certificates and digests, and the head that orders them."""

import sqlalchemy as sa
from alembic import op

from rucio_trace.store.migrations.steps import create_index, create_table
from rucio_trace.store.types import UtcTime, binary, indexed_text, long_binary, long_text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_head()
    create_table(
        "trace_certificates",
        sa.Column("fingerprint", binary(32), nullable=False),
        sa.Column("certificate", long_binary(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_trace_certificates"),
    )
    _create_digests()
    _create_traces()


def _create_head() -> None:
    create_table(
        "trace_head",
        sa.Column("one", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("one", name="pk_trace_head"),
        sa.CheckConstraint("one = 1", name="ck_trace_head_one_row"),
    )
    head = sa.table("trace_head", sa.column("one"), sa.column("position"))
    connection = op.get_bind()
    if connection.scalar(sa.select(head.c.position)) is None:
        connection.execute(head.insert(), {"one": 1, "position": 0})


def _create_digests() -> None:
    create_table(
        "trace_digest_sets",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("fingerprint", binary(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trace_digest_sets"),
        sa.UniqueConstraint("fingerprint", name="uq_trace_digest_sets_fingerprint"),
    )
    create_table(
        "trace_digests",
        sa.Column("digest", binary(64), nullable=False),
        sa.Column("digest_set", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("of_content", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("digest", "digest_set", "of_content", name="pk_trace_digests"),
        sqlite_with_rowid=False,
    )


def _create_traces() -> None:
    create_table(
        "traces",
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("id", indexed_text(64), nullable=False),
        sa.Column("registered_at", UtcTime, nullable=False),
        sa.Column("event", indexed_text(16), nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("name", indexed_text(255), nullable=False),
        sa.Column("did", indexed_text(255)),
        sa.Column("generation", indexed_text(32)),
        sa.Column("rse", indexed_text(255)),
        sa.Column("revokes", indexed_text(64)),
        sa.Column("digest_set", sa.BigInteger, nullable=False),
        sa.Column("certificate", binary(32), nullable=False),
        sa.Column("chain", long_binary(), nullable=False),
        sa.Column("message", long_text(), nullable=False),
        sa.Column("signature", long_binary(), nullable=False),
        sa.Column("claimed", long_text()),
        sa.PrimaryKeyConstraint("position", name="pk_traces"),
        sa.UniqueConstraint("id", "certificate", name="uq_traces_id_certificate"),
        sa.ForeignKeyConstraint(["digest_set"], ["trace_digest_sets.id"], name="fk_traces_digest_set"),
        sa.ForeignKeyConstraint(["certificate"], ["trace_certificates.fingerprint"], name="fk_traces_certificate"),
    )
    create_index("ix_traces_did_generation_position", "traces", ["did", "generation", "position"])
    create_index("ix_traces_name_position", "traces", ["name", "position"])
    create_index("ix_traces_rse_position", "traces", ["rse", "position"])
    create_index("ix_traces_event_position", "traces", ["event", "position"])
    create_index("ix_traces_digest_set_position", "traces", ["digest_set", "position"])
    create_index("ix_traces_time", "traces", ["time"])
    create_index("ix_traces_revokes", "traces", ["revokes"])


def downgrade() -> None:
    for table in ("traces", "trace_digests", "trace_digest_sets", "trace_certificates", "trace_head"):
        op.drop_table(table)
