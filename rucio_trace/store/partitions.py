"""On PostgreSQL `traces` is partitioned by position, so that what is old stays as it is and what is new stays small.

Registration writes to the newest partition alone, and vacuum, reindex and a move to slower disks are done a partition
at a time. A lookup asks each partition's index; at 128 Mi traces a partition, five years of the Copernicus programme
(1.3 billion traces) are nine. That an id is registered once is seen to under the head's lock: PostgreSQL keeps a
constraint over all partitions on their key alone.

Not smaller: with 41 partitions a lookup took 9 ms longer, most of it planning (1 ms where the plan is kept), and a
thousand registrations 140 ms longer, for each id is looked for in each partition, at some 4 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["TRACES_A_PARTITION", "add_bound", "analyze", "convert", "ensure", "room", "suffice", "validate_bound"]

TRACES_A_PARTITION: Final = 2**27

_FIRST: Final = "traces_0"
_BOUND: Final = "ck_traces_0_bound"


def add_bound(connection: Connection) -> None:
    """First of three steps to partitions: the table will hold no position from some way on. Nothing is read."""
    if _kind(connection) == "r" and _bound(connection) is None:
        _add_bound(connection, "NOT VALID")


def validate_bound(connection: Connection) -> None:
    """Second step: what is there is held against the bound, while others read and register. It takes long."""
    if _kind(connection) == "r":
        connection.exec_driver_sql(f"ALTER TABLE traces VALIDATE CONSTRAINT {_BOUND}")


def convert(connection: Connection) -> None:
    """Third step: the table becomes the first partition of a new one of its name; nothing is read or moved."""
    if _kind(connection) == "p":
        return
    run = connection.exec_driver_sql
    run("LOCK TABLE traces IN ACCESS EXCLUSIVE MODE")
    if (bound := _bound(connection)) is None:  # a store that is only being made
        bound = _add_bound(connection)
    run("ALTER TABLE traces DROP CONSTRAINT fk_traces_digest_set, DROP CONSTRAINT fk_traces_certificate")
    indices = run(
        "SELECT relname, pg_get_indexdef(oid) FROM pg_class JOIN pg_index ON indexrelid = oid "
        "WHERE indrelid = 'traces'::regclass"
    ).all()
    run(f"ALTER TABLE traces RENAME TO {_FIRST}")
    quote = connection.dialect.identifier_preparer.quote
    for name, _ in indices:
        new = name.replace("traces", _FIRST) if "traces" in name else f"{name}_0"
        run(f"ALTER INDEX {quote(name)} RENAME TO {quote(new)}")
    run(f"CREATE TABLE traces (LIKE {_FIRST} INCLUDING DEFAULTS) PARTITION BY RANGE (position)")
    run("ALTER TABLE traces ADD CONSTRAINT pk_traces PRIMARY KEY (position)")
    for _, definition in indices:
        if " UNIQUE " not in definition:
            run(definition)
    run(f"ALTER TABLE traces ATTACH PARTITION {_FIRST} FOR VALUES FROM (MINVALUE) TO ({bound})")
    run(f"ALTER TABLE {_FIRST} DROP CONSTRAINT {_BOUND}")
    _pack_with_lz4(connection, _FIRST)
    _grant_as_before(connection)


def ensure(connection: Connection) -> None:
    """Make the partitions that the next 128 Mi traces need; readers and writers are not held up."""
    while not suffice(connection):
        end = _end(connection)
        name = f"traces_{end}"  # by its first position, so that the width may change
        run = connection.exec_driver_sql
        run(f"CREATE TABLE {name} (LIKE {_FIRST} INCLUDING DEFAULTS INCLUDING INDEXES)")
        _pack_with_lz4(connection, name)
        run(f"ALTER TABLE traces ATTACH PARTITION {name} FOR VALUES FROM ({end}) TO ({end + TRACES_A_PARTITION})")


def _pack_with_lz4(connection: Connection, table: str) -> None:
    """Of rows beyond 2 KB PostgreSQL packs the message: by LZ4 that takes half the time and is a fifth smaller."""
    has = "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
    if connection.exec_driver_sql(has).scalar():  # since 14, where the server was built with it
        connection.exec_driver_sql(f"ALTER TABLE {table} ALTER message SET COMPRESSION lz4")


def suffice(connection: Connection) -> bool:
    """Whether `ensure` has nothing to do."""
    return room(connection) >= TRACES_A_PARTITION


def room(connection: Connection) -> int:
    """How many positions there are partitions for."""
    head = connection.exec_driver_sql("SELECT position FROM trace_head").scalar_one()
    return int(_end(connection) - 1 - head)


def _kind(connection: Connection) -> str | None:
    """`r` for an ordinary table, `p` for a partitioned one."""
    found = connection.exec_driver_sql("SELECT relkind FROM pg_class WHERE oid = to_regclass('traces')").scalar()
    return None if found is None else str(found)


def _add_bound(connection: Connection, validity: str = "") -> int:
    """Let the table hold no position from here on: far enough that registrations do not meet it meanwhile."""
    head = connection.exec_driver_sql("SELECT position FROM trace_head").scalar_one()
    bound = int(head // TRACES_A_PARTITION + 2) * TRACES_A_PARTITION
    connection.exec_driver_sql(f"ALTER TABLE traces ADD CONSTRAINT {_BOUND} CHECK (position < {bound}) {validity}")
    return bound


def _bound(connection: Connection) -> int | None:
    found = connection.exec_driver_sql(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s AND conrelid = 'traces'::regclass",
        (_BOUND,),
    ).scalar()
    return None if found is None else int("".join(c for c in found if c.isdigit()))


def _end(connection: Connection) -> int:
    """The first position that no partition is there for."""
    bounds = "SELECT pg_get_expr(relpartbound, c.oid) FROM pg_class c JOIN pg_inherits ON inhrelid = c.oid"
    found = connection.exec_driver_sql(f"{bounds} WHERE inhparent = to_regclass('traces')").scalars()
    ends = ["".join(c for c in bound.partition(" TO ")[2] if c.isdigit()) for bound in found]
    return max(int(end) for end in ends if end)  # one that somebody made for the rest has none


def _grant_as_before(connection: Connection) -> None:
    """Roles that only read, or only register, go on doing so, with what is new in this version."""
    rights = connection.exec_driver_sql(
        "SELECT grantee, privilege_type FROM information_schema.role_table_grants "
        "WHERE table_name = %s AND table_schema = current_schema() AND grantee <> grantor",
        (_FIRST,),
    )
    for grantee, right in rights.all():
        role = "PUBLIC" if grantee == "PUBLIC" else connection.dialect.identifier_preparer.quote(grantee)
        connection.exec_driver_sql(f"GRANT {right} ON traces TO {role}")
        if right in ("SELECT", "INSERT"):
            connection.exec_driver_sql(f"GRANT {right} ON {_NEW_TABLES} TO {role}")
        if right == "INSERT":
            connection.exec_driver_sql(f"GRANT UPDATE ON trace_counts TO {role}")


_NEW_TABLES: Final = "trace_contents, trace_counts, trace_older, trace_texts, trace_unindexed"


def analyze(connection: Connection) -> None:
    """Let the planner know the table as a whole, once a day: autovacuum looks at partitions only."""
    done = "SELECT last_analyze > now() - interval '1 day' FROM pg_stat_user_tables WHERE relid = to_regclass('traces')"
    if not connection.exec_driver_sql(done).scalar():
        connection.exec_driver_sql("ANALYZE traces")
