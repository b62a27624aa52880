"""Traces, their certificates and digests, and the head that orders them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _time() -> sa.String:
    return sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    _create_head()
    op.create_table(
        "trace_certificates",
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_trace_certificates"),
    )
    _create_digests()
    _create_traces()


def _create_head() -> None:
    head = op.create_table(
        "trace_head",
        sa.Column("one", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("one", name="pk_trace_head"),
        sa.CheckConstraint("one = 1", name="ck_trace_head_one_row"),
    )
    op.bulk_insert(head, [{"one": 1, "position": 0}])


def _create_digests() -> None:
    op.create_table(
        "trace_digest_sets",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trace_digest_sets"),
        sa.UniqueConstraint("fingerprint", name="uq_trace_digest_sets_fingerprint"),
    )
    op.create_table(
        "trace_digests",
        sa.Column("digest", sa.LargeBinary(64), nullable=False),
        sa.Column("digest_set", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("of_content", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("digest", "digest_set", "of_content", name="pk_trace_digests"),
        sqlite_with_rowid=False,
    )


def _create_traces() -> None:
    op.create_table(
        "traces",
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("id", _text(64), nullable=False),
        sa.Column("registered_at", _time(), nullable=False),
        sa.Column("event", _text(16), nullable=False),
        sa.Column("time", _time(), nullable=False),
        sa.Column("name", _text(255), nullable=False),
        sa.Column("did", _text(255)),
        sa.Column("generation", _text(32)),
        sa.Column("rse", _text(255)),
        sa.Column("revokes", _text(64)),
        sa.Column("digest_set", sa.BigInteger, nullable=False),
        sa.Column("certificate", sa.LargeBinary(32), nullable=False),
        sa.Column("chain", sa.LargeBinary, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("claimed", sa.Text),
        sa.PrimaryKeyConstraint("position", name="pk_traces"),
        sa.UniqueConstraint("id", "certificate", name="uq_traces_id_certificate"),
        sa.ForeignKeyConstraint(["digest_set"], ["trace_digest_sets.id"], name="fk_traces_digest_set"),
        sa.ForeignKeyConstraint(["certificate"], ["trace_certificates.fingerprint"], name="fk_traces_certificate"),
    )
    op.create_index("ix_traces_did_generation_position", "traces", ["did", "generation", "position"])
    op.create_index("ix_traces_name_position", "traces", ["name", "position"])
    op.create_index("ix_traces_rse_position", "traces", ["rse", "position"])
    op.create_index("ix_traces_event_position", "traces", ["event", "position"])
    op.create_index("ix_traces_digest_set_position", "traces", ["digest_set", "position"])
    op.create_index("ix_traces_time", "traces", ["time"])
    op.create_index("ix_traces_revokes", "traces", ["revokes"])


def downgrade() -> None:
    for table in ("traces", "trace_digests", "trace_digest_sets", "trace_certificates", "trace_head"):
        op.drop_table(table)
