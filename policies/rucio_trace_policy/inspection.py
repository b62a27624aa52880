"""What is installed in Rucio's database, held against what should be: reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, inspect, select, text

from rucio_trace.errors import Undecided

from . import ddl, ddl_mysql
from .tables import DIALECTS, SCHEMA, tables

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection

__all__ = ["Fault", "ForgedKey", "Status", "find_faults", "inspect_hooks", "schema_of"]

_ROW, _INSERT, _DELETE, _UPDATE = 1, 4, 8, 16  # bits of pg_trigger.tgtype
_TRIGGER_TYPES = {
    ddl.REPLICAS_TRIGGER: _ROW | _INSERT | _UPDATE | _DELETE,
    ddl.LOCKS_TRIGGER: _ROW | _DELETE,
    ddl.DIDS_TRIGGER: _ROW | _UPDATE,
}
_FIRING = ("O", "A")  # pg_trigger.tgenabled: in ordinary sessions, always
_FORGED_LIMIT = 100  # enough to act on; a report is no export


@dataclass(frozen=True)
class Fault:
    """One part of the hooks that is not as it should be."""

    part: str
    problem: str
    version: int | None = None

    def __str__(self) -> str:
        return f"{self.part}: {self.problem}"


@dataclass(frozen=True)
class ForgedKey:
    """A `trace_` key that somebody put into Rucio's own JSON metadata: not evidence, whatever it says."""

    scope: str
    name: str
    key: str


@dataclass(frozen=True)
class Status:
    """The state of the hooks at one moment."""

    faults: tuple[Fault, ...]
    waiting: int | None
    oldest: datetime | None
    forged_keys: tuple[ForgedKey, ...]

    @property
    def in_place(self) -> bool:
        return not self.faults


def schema_of(connection: Connection, rucio_schema: str | None) -> str | None:
    """The schema Rucio's tables are in: the configured one, else PostgreSQL's default for this role.

    None on SQLite and on MariaDB, where all that is asked is of the connection's own database.

    Raises:
        Undecided: on MariaDB, Rucio's tables are in another database than the one its URL names.
    """
    if connection.dialect.name not in DIALECTS:
        raise ValueError(f"Rucio's database should be one of {', '.join(DIALECTS)}, found {connection.dialect.name}")
    if connection.dialect.name == "sqlite":
        return None
    if connection.dialect.name == "mysql":
        database = connection.scalar(text("SELECT DATABASE()"))
        if rucio_schema not in (None, "", database):
            raise Undecided("rucio.cfg: [database] schema", expected=str(database), found=str(rucio_schema))
        return None
    return rucio_schema or connection.scalar(select(func.current_schema()))


def inspect_hooks(connection: Connection, rucio_schema: str | None) -> Status:
    """Everything `rucio-trace hooks status` tells."""
    faults = find_faults(connection, rucio_schema)
    outbox = tables(connection.dialect.name).outbox
    waiting = oldest = None
    if not any(fault.part == outbox.fullname for fault in faults):
        waiting, oldest = connection.execute(select(func.count(), func.min(outbox.c.at)).select_from(outbox)).one()
    return Status(tuple(faults), waiting, oldest, tuple(_forged_keys(connection, rucio_schema)))


def find_faults(connection: Connection, rucio_schema: str | None) -> list[Fault]:
    """All faults of tables and triggers; none means that every change of a replica is recorded."""
    if connection.dialect.name == "sqlite":
        return _sqlite_faults(connection) + _table_faults(connection)
    schema = schema_of(connection, rucio_schema)
    if connection.dialect.name == "mysql":
        return _mysql_faults(connection) + _table_faults(connection)
    assert schema is not None
    return _postgresql_faults(connection, schema) + _table_faults(connection)


def _table_faults(connection: Connection) -> list[Fault]:
    inspector, ours = inspect(connection), tables(connection.dialect.name)
    of = {"schema": ours.metadata.schema, "filter_names": [table.name for table in ours.metadata.sorted_tables]}
    indexes = {index["name"] for of_table in inspector.get_multi_indexes(**of).values() for index in of_table}
    columns = {name: {column["name"] for column in c} for (_, name), c in inspector.get_multi_columns(**of).items()}
    faults = []
    for table in ours.metadata.sorted_tables:
        if table.name not in columns:
            faults.append(Fault(table.fullname, "missing"))
            continue
        absent = [column.name for column in table.columns if column.name not in columns[table.name]]
        if absent:
            faults.append(Fault(table.fullname, f"lacks {', '.join(absent)}"))
        names = sorted(str(index.name) for index in table.indexes)
        faults += [Fault(name, "missing") for name in names if name not in indexes]
    return faults


def _sqlite_faults(connection: Connection) -> list[Fault]:
    found = dict(connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).tuples().all())
    faults = []
    for name, expected in ddl.sqlite_triggers().items():
        if name not in found:
            faults.append(Fault(name, "missing"))
        elif found[name] != expected:
            faults.append(_differing(name, found[name]))
    return faults


_POSTGRESQL_TRIGGERS = text("""
SELECT t.tgname, t.tgenabled, t.tgtype, t.tgqual IS NOT NULL OR array_length(t.tgattr::int2[], 1) > 0 AS conditional,
       pn.nspname || '.' || p.proname AS function, p.prosrc, p.prosecdef, p.proconfig
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace pn ON pn.oid = p.pronamespace
WHERE n.nspname = :schema AND c.relname = ANY(:tables) AND t.tgname = ANY(:names)
""")


def _postgresql_faults(connection: Connection, schema: str) -> list[Fault]:
    bodies = ddl.postgresql_bodies(schema)
    rows = connection.execute(
        _POSTGRESQL_TRIGGERS, {"schema": schema, "tables": list(ddl.TRIGGER_TABLES.values()), "names": list(bodies)}
    ).all()
    found = {row.tgname: row for row in rows}
    faults = []
    for name, body in bodies.items():
        row = found.get(name)
        if row is None:
            faults.append(Fault(name, "missing"))
            continue
        enabled = row.tgenabled.decode() if isinstance(row.tgenabled, bytes) else row.tgenabled
        if enabled not in _FIRING:
            faults.append(Fault(name, "disabled"))
        if row.prosrc != body:
            faults.append(_differing(name, row.prosrc))
        elif (
            row.tgtype != _TRIGGER_TYPES[name]
            or row.conditional
            or row.function != f"{SCHEMA}.{ddl.POSTGRESQL_FUNCTIONS[name]}"
            or not row.prosecdef
            or row.proconfig != [f"search_path={ddl.SEARCH_PATH}"]
        ):
            faults.append(Fault(name, f"altered, though it says version {ddl.VERSION}", ddl.VERSION))
    return faults


_MYSQL_TRIGGERS = text("""
SELECT trigger_name, event_manipulation, action_timing, event_object_table, action_statement, sql_mode
FROM information_schema.triggers WHERE trigger_schema = DATABASE()
""")


def _mysql_faults(connection: Connection) -> list[Fault]:
    """Only triggers of tables on which the role has the right TRIGGER are shown; without it none of them would work."""
    found = {row[0]: row for row in connection.execute(_MYSQL_TRIGGERS)}
    faults = []
    for name, trigger in ddl_mysql.TRIGGERS.items():
        row = found.get(name)
        if row is None:
            faults.append(Fault(name, "missing"))
        elif row[4].split() != trigger.body.split():
            faults.append(_differing(name, row[4]))
        elif tuple(row[1:4]) != (trigger.event, "AFTER", trigger.table) or row[5]:
            faults.append(Fault(name, f"altered, though it says version {ddl.VERSION}", ddl.VERSION))
    return faults


def _differing(name: str, source: str) -> Fault:
    version = ddl.version_of(source)
    if version == ddl.VERSION:
        return Fault(name, f"altered, though it says version {version}", version)
    return Fault(name, f"of version {version}, this program needs {ddl.VERSION}", version)


_FORGED = {
    "postgresql": "SELECT m.scope, m.name, k.key FROM {table} m, jsonb_object_keys(m.meta) AS k(key) "
    "WHERE jsonb_typeof(m.meta) = 'object' AND lower(k.key) LIKE 'trace\\_%' LIMIT {limit}",
    "sqlite": "SELECT m.scope, m.name, k.key FROM {table} m, json_each(m.meta) AS k "
    "WHERE json_valid(m.meta) AND lower(k.key) LIKE 'trace\\_%' ESCAPE '\\' LIMIT {limit}",
    "mysql": "SELECT m.scope, m.name, k.name FROM {table} m, "
    "JSON_TABLE(JSON_KEYS(m.meta), '$[*]' COLUMNS (name VARCHAR(255) PATH '$')) AS k "
    "WHERE LOWER(k.name) LIKE 'trace!_%' ESCAPE '!' LIMIT {limit}",
}


def _forged_keys(connection: Connection, rucio_schema: str | None) -> list[ForgedKey]:
    schema = schema_of(connection, rucio_schema)
    if not inspect(connection).has_table("did_meta", schema=schema):
        return []
    table = f"{ddl.quote(schema)}.did_meta" if schema else "did_meta"
    query = _FORGED[connection.dialect.name].format(table=table, limit=_FORGED_LIMIT)
    return [ForgedKey(*row) for row in connection.execute(text(query)).tuples()]
