"""The SQL of our hooks: tables and triggers, as text to run, to print and to compare with what is installed.

What the triggers may do is bounded by one thought: when a trigger fails, Rucio fails.
They read the row at hand and `dids.created_at`, insert one row of ours that no constraint can refuse, and call
nothing outside the database. docs/format.md, section 9, has the measured reasons for their form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from . import ddl_mysql
from .tables import SCHEMA, tables
from .versions import DIDS_TRIGGER, LOCKS_TRIGGER, MARK, REPLICAS_TRIGGER, VERSION, version_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.elements import TextClause

__all__ = [
    "DIDS_TRIGGER",
    "LOCKS_TRIGGER",
    "POSTGRESQL_FUNCTIONS",
    "REPLICAS_TRIGGER",
    "SEARCH_PATH",
    "TRIGGER_TABLES",
    "VERSION",
    "create_hooks",
    "create_tables",
    "drop_hooks",
    "drop_tables",
    "now",
    "postgresql_bodies",
    "postgresql_functions",
    "postgresql_grants",
    "quote",
    "script",
    "sqlite_triggers",
    "version_of",
]

SEARCH_PATH = "pg_catalog, pg_temp"


def create_tables(dialect_name: str) -> list[str]:
    """Statements that create what is missing of our tables; harmless to repeat."""
    if dialect_name == "mysql":
        return ddl_mysql.create_tables()
    ours = tables(dialect_name)
    dialect: Dialect = postgresql.dialect() if dialect_name == "postgresql" else sqlite.dialect()  # type: ignore[no-untyped-call]
    statements = [f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"] if dialect_name == "postgresql" else []
    for table in ours.metadata.sorted_tables:
        statements.append(str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)).strip())
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements += [str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect)) for index in indexes]
    return statements


def drop_tables(dialect_name: str) -> list[str]:
    """Statements that take our tables away, with all that is in them."""
    if dialect_name == "postgresql":
        return [f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"]
    drops = [f"DROP TABLE IF EXISTS {table.name}" for table in reversed(tables(dialect_name).metadata.sorted_tables)]
    return ddl_mysql.end_rehearsal() + drops if dialect_name == "mysql" else drops


# PostgreSQL ---------------------------------------------------------------------------------------------------------

# The state is compared as text: it is an enumeration today, and Rucio's own migrations turn it into other types.
_POSTGRESQL_REPLICAS = """
-- {mark}
DECLARE
    replica record;
    was text;
    becomes text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.state IS NOT DISTINCT FROM OLD.state THEN
            RETURN NULL;
        END IF;
        replica := NEW;
        was := OLD.state::text;
        becomes := NEW.state::text;
    ELSIF TG_OP = 'INSERT' THEN
        replica := NEW;
        becomes := NEW.state::text;
    ELSE
        replica := OLD;
        was := OLD.state::text;
    END IF;
    INSERT INTO {schema}.outbox (event_id, rse_id, scope, name, old_state, new_state, bytes, adler32, md5,
                                 generation, account, action, rule, at)
    VALUES (gen_random_uuid()::text, replace(replica.rse_id::text, '-', ''), replica.scope, replica.name, was, becomes,
            replica.bytes, replica.adler32, replica.md5,
            (SELECT dids.created_at FROM {dids} WHERE dids.scope = replica.scope AND dids.name = replica.name LIMIT 1),
            nullif(current_setting('traceability.account', true), ''),
            nullif(current_setting('traceability.action', true), ''),
            nullif(current_setting('traceability.rule', true), ''),
            clock_timestamp() AT TIME ZONE 'UTC');
    RETURN NULL;
END
"""

_POSTGRESQL_LOCKS = """
-- {mark}
BEGIN
    INSERT INTO {schema}.unlocked (rule, rse_id, scope, name, rule_scope, rule_name, rule_created_at, rule_expires_at,
                                   account, action, at)
    SELECT replace(OLD.rule_id::text, '-', ''), replace(OLD.rse_id::text, '-', ''), OLD.scope, OLD.name,
           rules.scope, rules.name, rules.created_at, rules.expires_at,
           nullif(current_setting('traceability.account', true), ''),
           nullif(current_setting('traceability.action', true), ''),
           clock_timestamp() AT TIME ZONE 'UTC'
    FROM (SELECT 1) AS always LEFT JOIN {rules} ON rules.id = OLD.rule_id;
    RETURN NULL;
END
"""

# `dids` is updated all the time (accessed_at, availability, …): what is most often so is asked first, once. To a closed
# dataset Rucio adds nothing, but files can be detached from it, which changes `length`.
_POSTGRESQL_DIDS = """
-- {mark}
BEGIN
    IF NEW.is_open IS NOT DISTINCT FROM OLD.is_open
       AND (NEW.is_open IS NOT FALSE OR NEW.length IS NOT DISTINCT FROM OLD.length) THEN
        RETURN NULL;
    END IF;
    IF NEW.did_type::text <> 'D' THEN
        RETURN NULL;
    END IF;
    INSERT INTO {schema}.outbox (event_id, scope, name, old_state, new_state, generation, account, action, rule, at)
    VALUES (gen_random_uuid()::text, NEW.scope, NEW.name,
            CASE WHEN OLD.is_open THEN 'open' ELSE 'closed' END, CASE WHEN NEW.is_open THEN 'open' ELSE 'closed' END,
            NEW.created_at,
            nullif(current_setting('traceability.account', true), ''),
            nullif(current_setting('traceability.action', true), ''),
            nullif(current_setting('traceability.rule', true), ''),
            clock_timestamp() AT TIME ZONE 'UTC');
    RETURN NULL;
END
"""

TRIGGER_TABLES = {REPLICAS_TRIGGER: "replicas", LOCKS_TRIGGER: "locks", DIDS_TRIGGER: "dids"}
POSTGRESQL_FUNCTIONS = {
    REPLICAS_TRIGGER: "record_replica",
    LOCKS_TRIGGER: "record_unlock",
    DIDS_TRIGGER: "record_dataset",
}
POSTGRESQL_EVENTS = {REPLICAS_TRIGGER: "INSERT OR UPDATE OR DELETE", LOCKS_TRIGGER: "DELETE", DIDS_TRIGGER: "UPDATE"}


def quote(name: str) -> str:
    """*name* as an SQL identifier, taken literally."""
    return '"' + name.replace('"', '""') + '"'


def postgresql_bodies(rucio_schema: str) -> dict[str, str]:
    """The source of each trigger's function, exactly as `pg_proc.prosrc` keeps it."""
    names = {
        "mark": MARK,
        "schema": SCHEMA,
        "dids": f"{quote(rucio_schema)}.dids",
        "rules": f"{quote(rucio_schema)}.rules",
    }
    return {
        REPLICAS_TRIGGER: _POSTGRESQL_REPLICAS.format(**names),
        LOCKS_TRIGGER: _POSTGRESQL_LOCKS.format(**names),
        DIDS_TRIGGER: _POSTGRESQL_DIDS.format(**names),
    }


def postgresql_functions(rucio_schema: str) -> list[str]:
    """Statements that create or replace the functions; they run with their owner's rights and a fixed search path."""
    return [
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.{POSTGRESQL_FUNCTIONS[trigger]}() RETURNS trigger LANGUAGE plpgsql\n"
        f"SECURITY DEFINER SET search_path = {SEARCH_PATH} AS $traceability${body}$traceability$"
        for trigger, body in postgresql_bodies(rucio_schema).items()
    ]


def postgresql_grants(role: str) -> list[str]:
    """What Rucio's role needs when somebody else owns our schema."""
    return [
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {quote(role)}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} TO {quote(role)}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {quote(role)}",
    ]


def _postgresql_triggers(rucio_schema: str, only: Collection[str] | None) -> list[str]:
    statements = []
    for trigger, table in TRIGGER_TABLES.items():
        if only is not None and trigger not in only:
            continue
        on = f"{quote(rucio_schema)}.{table}"
        statements.append(f"DROP TRIGGER IF EXISTS {trigger} ON {on}")
        statements.append(
            f"CREATE TRIGGER {trigger} AFTER {POSTGRESQL_EVENTS[trigger]} ON {on}\n"
            f"FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.{POSTGRESQL_FUNCTIONS[trigger]}()"
        )
    return statements


# SQLite -------------------------------------------------------------------------------------------------------------

# A version 4 UUID from SQLite's own random numbers; printf() takes a third of the time of gluing hex(randomblob()).
_SQLITE_UUID = (
    "printf('%08x-%04x-4%03x-%x%03x-%012x', random() & 0xffffffff, random() & 0xffff, random() & 0xfff, "
    "8 + (random() & 3), random() & 0xfff, random() & 0xffffffffffff)"
)
# Six digits: SQLAlchemy reads the fraction as microseconds.
_SQLITE_NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"

_SQLITE_REPLICAS = """CREATE TRIGGER {trigger} AFTER {event} ON replicas {condition}
BEGIN -- {mark}
    INSERT INTO {schema}_outbox (event_id, rse_id, scope, name, old_state, new_state, bytes, adler32, md5,
                                 generation, account, action, rule, at)
    SELECT {uuid}, {row}.rse_id, {row}.scope, {row}.name, {was}, {becomes}, {row}.bytes, {row}.adler32, {row}.md5,
           (SELECT created_at FROM dids WHERE scope = {row}.scope AND name = {row}.name),
           acting.account, acting.action, acting.rule, {now}
    FROM (SELECT 1) LEFT JOIN (SELECT account, action, rule FROM {schema}_acting LIMIT 1) AS acting;
END"""

_SQLITE_LOCKS = """CREATE TRIGGER {trigger} AFTER DELETE ON locks
BEGIN -- {mark}
    INSERT INTO {schema}_unlocked (rule, rse_id, scope, name, rule_scope, rule_name, rule_created_at, rule_expires_at,
                                   account, action, at)
    SELECT OLD.rule_id, OLD.rse_id, OLD.scope, OLD.name, rules.scope, rules.name, rules.created_at, rules.expires_at,
           (SELECT account FROM {schema}_acting), (SELECT action FROM {schema}_acting), {now}
    FROM (SELECT 1) LEFT JOIN rules ON rules.id = OLD.rule_id;
END"""

_SQLITE_DIDS = """CREATE TRIGGER {trigger} AFTER UPDATE OF is_open, length ON dids
WHEN NEW.did_type = 'D' AND (OLD.is_open IS NOT NEW.is_open OR NEW.is_open = 0 AND OLD.length IS NOT NEW.length)
BEGIN -- {mark}
    INSERT INTO {schema}_outbox (event_id, scope, name, old_state, new_state, generation, account, action, rule, at)
    SELECT {uuid}, NEW.scope, NEW.name,
           CASE WHEN OLD.is_open THEN 'open' ELSE 'closed' END, CASE WHEN NEW.is_open THEN 'open' ELSE 'closed' END,
           NEW.created_at, acting.account, acting.action, acting.rule, {now}
    FROM (SELECT 1) LEFT JOIN (SELECT account, action, rule FROM {schema}_acting LIMIT 1) AS acting;
END"""


def sqlite_triggers() -> dict[str, str]:
    """Each trigger's whole statement by its name, exactly as `sqlite_master.sql` keeps it."""
    common = {"mark": MARK, "schema": SCHEMA, "uuid": _SQLITE_UUID, "now": _SQLITE_NOW}
    forms = (
        ("insert", "INSERT", "", "NEW", "NULL", "NEW.state"),
        ("update", "UPDATE OF state", "WHEN OLD.state IS NOT NEW.state", "NEW", "OLD.state", "NEW.state"),
        ("delete", "DELETE", "", "OLD", "OLD.state", "NULL"),
    )
    triggers = {}
    for suffix, event, condition, row, was, becomes in forms:
        name = f"{REPLICAS_TRIGGER}_{suffix}"
        triggers[name] = _SQLITE_REPLICAS.format(
            trigger=name, event=event, condition=condition, row=row, was=was, becomes=becomes, **common
        )
    triggers[LOCKS_TRIGGER] = _SQLITE_LOCKS.format(trigger=LOCKS_TRIGGER, **common)
    triggers[DIDS_TRIGGER] = _SQLITE_DIDS.format(trigger=DIDS_TRIGGER, **common)
    return triggers


# All ----------------------------------------------------------------------------------------------------------------


def create_hooks(
    dialect_name: str,
    rucio_schema: str,
    only: Collection[str] | None = None,
    *,
    definer: str = "CURRENT_USER",
    replace: bool = False,
) -> list[str]:
    """Statements that put the triggers (or *only* those named) in place; our tables must stand already.

    A sound trigger is left alone: dropping one locks out Rucio's readers, replacing its function locks nobody.
    `definer` (with whose rights it runs) and `replace` are of MariaDB alone.
    """
    if dialect_name == "postgresql":
        return postgresql_functions(rucio_schema) + _postgresql_triggers(rucio_schema, only)
    if dialect_name == "mysql":
        return ddl_mysql.create_hooks(only, definer, replace=replace)
    statements = []
    for name, statement in sqlite_triggers().items():
        if only is not None and name not in only:
            continue
        statements += [f"DROP TRIGGER IF EXISTS {name}", statement]
    return statements


def drop_hooks(dialect_name: str, rucio_schema: str) -> list[str]:
    """Statements after which Rucio runs as it did before us; they need nothing of ours to be installed."""
    if dialect_name == "postgresql":
        statements = []
        for trigger, table in TRIGGER_TABLES.items():
            statements.append(f"DROP TRIGGER IF EXISTS {trigger} ON {quote(rucio_schema)}.{table}")
            statements.append(f"DROP FUNCTION IF EXISTS {SCHEMA}.{POSTGRESQL_FUNCTIONS[trigger]}()")
        return statements
    if dialect_name == "mysql":
        return ddl_mysql.drop_hooks()
    return [f"DROP TRIGGER IF EXISTS {name}" for name in sqlite_triggers()]


_NOW = {
    "postgresql": "clock_timestamp() AT TIME ZONE 'UTC'",
    "sqlite": _SQLITE_NOW,
    "mysql": ddl_mysql.NOW,
}


def now(dialect_name: str) -> TextClause:
    """The database's own clock at this statement, UTC, as our tables keep times."""
    return text(_NOW[dialect_name])


def script(dialect_name: str, statements: Collection[str]) -> str:
    """*statements* as the database's own command line client reads them."""
    if dialect_name == "mysql":
        return ddl_mysql.script(statements)
    return "".join(f"{statement};\n" for statement in statements)
