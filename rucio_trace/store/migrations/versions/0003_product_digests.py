"""Products are found by their product digests too (docs/format.md, section 10, which never changes)."""

import hashlib
import json
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from rucio_trace.product_digest import Undefined, product_digest
from rucio_trace.store.migrations.steps import hold_registrations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 1_000
_DIGEST_LENGTHS = frozenset({8, 32, 64, 128})

_traces = sa.table("traces", sa.column("position"), sa.column("message"))
_sets = sa.table("trace_digest_sets", sa.column("id"), sa.column("fingerprint"))
_digests = sa.table(
    "trace_digests", sa.column("digest", sa.LargeBinary), sa.column("digest_set"), sa.column("of_content", sa.Boolean)
)


def upgrade() -> None:
    hold_registrations()
    connection = op.get_bind()
    for id_, product, others in _sets_of_archives(connection):
        connection.execute(_digests.insert(), {"digest": product, "digest_set": id_, "of_content": True})
        _set_fingerprint(connection, id_, {*others, (product, True)})


def downgrade() -> None:
    connection = op.get_bind()
    for id_, product, others in _sets_of_archives(connection):
        row = (_digests.c.digest == product) & (_digests.c.digest_set == id_) & _digests.c.of_content
        connection.execute(sa.delete(_digests).where(row))
        _set_fingerprint(connection, id_, others)


_Marked = set[tuple[bytes, bool]]


def _sets_of_archives(connection: sa.Connection) -> Iterator[tuple[int, bytes, _Marked]]:
    """Each set whose archive has a product digest: its id, that digest, and the others that it holds."""
    # A set's id is the position of the first trace that carried it.
    first = sa.select(_sets.c.id, _traces.c.message).join_from(_sets, _traces, _traces.c.position == _sets.c.id)
    archives = first.where(_traces.c.message.like('%"contents"%')).order_by(_sets.c.id).limit(_ROWS_AT_ONCE)
    last = 0
    while rows := connection.execute(archives.where(_sets.c.id > last)).all():
        for row in rows:
            if found := _digests_of(row.message):
                yield row.id, *found
        last = rows[-1].id


def _digests_of(message: str) -> tuple[bytes, _Marked] | None:
    """The product digest that the message's contents give, and all that it names itself.

    None where there is none; of a message that was altered nothing is told: whoever reads the row refuses it.
    """
    try:
        statement = json.loads(message)
        contents = [(item["path"], item["hash"]) for item in statement.get("contents") or ()]
        if statement.get("hash_algorithm", "BLAKE3") != "BLAKE3" or any(len(digest) != 64 for _, digest in contents):
            return None
        own = {statement["hash"], *(statement.get("hashes") or {}).values()}
        named = {(bytes.fromhex(digest), False) for digest in own if len(digest) in _DIGEST_LENGTHS}
        return bytes.fromhex(product_digest(contents)), named | {(bytes.fromhex(d), True) for _, d in contents}
    except (Undefined, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _set_fingerprint(connection: sa.Connection, id_: int, held: _Marked) -> None:
    fingerprint = hashlib.sha256(b"".join(sorted(bytes([len(d), of]) + d for d, of in held))).digest()
    connection.execute(sa.update(_sets).where(_sets.c.id == id_).values(fingerprint=fingerprint))
