"""The SQL of our hooks on MariaDB (MySQL is spoken alike); see `ddl`.

Row triggers run with the rights, the SQL mode and the character set of their making, so all three are set here. The
mode is the lenient one: a value that does not fit must never refuse Rucio's work. Who acts is read from variables of
the session, never from a table: at Rucio's isolation level whatever a trigger reads is locked until the commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from .tables import SCHEMA, tables
from .versions import DIDS_TRIGGER, LOCKS_TRIGGER, MARK, REPLICAS_TRIGGER

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Index, Table

__all__ = ["NOW", "NOW_SECONDS", "REHEARSAL", "TRIGGERS", "Trigger"]

_TABLES = ("replicas", "locks", "dids")  # of Rucio, with triggers of ours
REHEARSAL = f"{SCHEMA}_rehearsal_"  # what copies of Rucio's tables and of our triggers are called, while they last

NOW = "UTC_TIMESTAMP(6)"
NOW_SECONDS = "UTC_TIMESTAMP()"
# A trigger's NOW() is when its statement began, and SYSDATE() knows no UTC: so the one, and what has passed since.
_CLOCK = "TIMESTAMPADD(MICROSECOND, TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6)), UTC_TIMESTAMP(6))"
# A version 4 UUID from the server's cryptographic random numbers; UUID() holds the time and the host.
_UUID = (
    "LOWER(CONCAT(HEX(RANDOM_BYTES(4)), '-', HEX(RANDOM_BYTES(2)), '-4', RIGHT(HEX(RANDOM_BYTES(2)), 3), '-', "
    "ELT(1 + (ASCII(RANDOM_BYTES(1)) & 3), '8', '9', 'a', 'b'), RIGHT(HEX(RANDOM_BYTES(2)), 3), '-', "
    "HEX(RANDOM_BYTES(6))))"
)

# The mark is no comment: the command line client sends none.
_REPLICAS = """BEGIN
    DECLARE hooks VARCHAR(64) DEFAULT '{mark}';
    IF {condition} THEN
        INSERT INTO {schema}_outbox (event_id, rse_id, scope, name, old_state, new_state, bytes, adler32, md5,
                                     generation, account, action, rule, at)
        VALUES ({uuid},
                LOWER(HEX({row}.rse_id)), {row}.scope, {row}.name, {was}, {becomes},
                {row}.bytes, {row}.adler32, {row}.md5,
                (SELECT dids.created_at FROM dids WHERE dids.scope = {row}.scope AND dids.name = {row}.name),
                @{schema}_account, @{schema}_action, @{schema}_rule,
                {clock});
    END IF;
END"""

_LOCKS = """BEGIN
    DECLARE hooks VARCHAR(64) DEFAULT '{mark}';
    DECLARE of_scope, of_name TEXT CHARACTER SET utf8mb4;
    DECLARE created, expires DATETIME(6);
    SELECT rules.scope, rules.name, rules.created_at, rules.expires_at INTO of_scope, of_name, created, expires
    FROM (SELECT 1 AS one) AS always LEFT JOIN rules ON rules.id = OLD.rule_id;
    INSERT INTO {schema}_unlocked (rule, rse_id, scope, name, rule_scope, rule_name, rule_created_at, rule_expires_at,
                                   account, action, at)
    VALUES (LOWER(HEX(OLD.rule_id)), LOWER(HEX(OLD.rse_id)), OLD.scope, OLD.name, of_scope, of_name, created, expires,
            @{schema}_account, @{schema}_action,
            {clock});
END"""

_DIDS = """BEGIN
    DECLARE hooks VARCHAR(64) DEFAULT '{mark}';
    IF NEW.did_type = 'D'
       AND (NOT (OLD.is_open <=> NEW.is_open) OR NOT NEW.is_open AND NOT (OLD.length <=> NEW.length)) THEN
        INSERT INTO {schema}_outbox (event_id, scope, name, old_state, new_state, generation,
                                     account, action, rule, at)
        VALUES ({uuid}, NEW.scope, NEW.name,
                IF(OLD.is_open, 'open', 'closed'), IF(NEW.is_open, 'open', 'closed'),
                NEW.created_at, @{schema}_account, @{schema}_action, @{schema}_rule,
                {clock});
    END IF;
END"""


@dataclass(frozen=True)
class Trigger:
    """One trigger; `body` is what `information_schema.triggers` keeps."""

    name: str
    event: str
    table: str
    body: str

    def create(self, definer: str = "CURRENT_USER", *, replace: bool = False, prefix: str = "") -> str:
        """The statement that makes it; *prefix* stands before its name and before its table's."""
        verb = "CREATE OR REPLACE" if replace else "CREATE"
        return (
            f"{verb} DEFINER = {definer} TRIGGER {prefix}{self.name} AFTER {self.event} ON {prefix}{self.table}\n"
            f"FOR EACH ROW {self.body}"
        )


def _triggers() -> dict[str, Trigger]:
    common = {"mark": MARK, "schema": SCHEMA, "uuid": _UUID, "clock": _CLOCK}
    forms = (
        ("INSERT", "TRUE", "NEW", "NULL", "NEW.state"),
        ("UPDATE", "NOT (OLD.state <=> NEW.state)", "NEW", "OLD.state", "NEW.state"),
        ("DELETE", "TRUE", "OLD", "OLD.state", "NULL"),
    )
    triggers = [
        Trigger(
            f"{REPLICAS_TRIGGER}_{event.lower()}",
            event,
            "replicas",
            _REPLICAS.format(condition=condition, row=row, was=was, becomes=becomes, **common),
        )
        for event, condition, row, was, becomes in forms
    ]
    triggers.append(Trigger(LOCKS_TRIGGER, "DELETE", "locks", _LOCKS.format(**common)))
    triggers.append(Trigger(DIDS_TRIGGER, "UPDATE", "dids", _DIDS.format(**common)))
    return {trigger.name: trigger for trigger in triggers}


TRIGGERS = _triggers()


def create_tables() -> list[str]:
    """Statements that create what is missing of our tables; their keys within, for MySQL knows no other way to ask."""
    return [_with_keys(table) for table in tables("mysql").metadata.sorted_tables]


def create_indexes(only: Collection[str]) -> list[str]:
    """Statements that make indexes of these names on tables that stand already."""
    return [
        f"CREATE INDEX {index.name} ON {table.name} ({_columns(index)})"
        for table in tables("mysql").metadata.sorted_tables
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        if index.name in only
    ]


def _with_keys(table: Table) -> str:
    statement = str(CreateTable(table, if_not_exists=True).compile(dialect=mysql.dialect())).strip()  # type: ignore[no-untyped-call]
    body, _, options = statement.rpartition("\n)")
    keys = sorted(table.indexes, key=lambda index: str(index.name))
    return "".join([body, *(f",\n\tKEY {index.name} ({_columns(index)})" for index in keys), "\n)", options])


def _columns(index: Index) -> str:
    lengths = index.dialect_options["mysql"]["length"] or {}
    return ", ".join(f"{c.name}({lengths[c.name]})" if c.name in lengths else str(c.name) for c in index.columns)


def create_hooks(only: Collection[str] | None, definer: str, *, replace: bool) -> list[str]:
    """Statements that put the triggers (or *only* those named) in place, in the mode that refuses nothing.

    MariaDB can *replace* a trigger without a moment in which there is none.
    """
    statements = ["SET SESSION sql_mode = ''"]
    for name, trigger in TRIGGERS.items():
        if only is None or name in only:
            statements += [] if replace else [f"DROP TRIGGER IF EXISTS {name}"]
            statements.append(trigger.create(definer, replace=replace))
    return [*statements, "SET SESSION sql_mode = DEFAULT"]


def grants(role: str) -> list[str]:
    """What Rucio's role needs when somebody else makes our tables."""
    ours = [table.name for table in tables("mysql").metadata.sorted_tables]
    return [
        *(f"GRANT TRIGGER ON {table} TO {role}" for table in _TABLES),
        *(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}" for table in ours),
    ]


def rehearsal() -> list[str]:
    """Statements that make copies of Rucio's tables, empty and with our triggers, for nobody but us to write to."""
    statements = end_rehearsal()
    statements += [f"CREATE TABLE {REHEARSAL}{table} LIKE {table}" for table in _TABLES]
    return statements + [trigger.create(prefix=REHEARSAL) for trigger in TRIGGERS.values()]


def end_rehearsal() -> list[str]:
    return [f"DROP TABLE IF EXISTS {REHEARSAL}{table}" for table in _TABLES]


def drop_hooks() -> list[str]:
    return [f"DROP TRIGGER IF EXISTS {name}" for name in TRIGGERS]


def script(statements: Collection[str]) -> str:
    """*statements* as the command line client reads them: those with a semicolon within end otherwise."""
    text = (f"DELIMITER //\n{s}//\nDELIMITER ;\n" if ";" in s else f"{s};\n" for s in statements)
    return "".join(text)
