"""Installing, checking and removing the hooks in Rucio's database.

`install` proves the hooks as Rucio's own role before it commits, so Rucio never meets a trigger that fails.
`check` is for programs that depend on the hooks: it returns nothing or says what is wrong.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError

from rucio_trace.errors import StorageError, TraceabilityError, Undecided

from . import ddl, ddl_mysql
from .inspection import Fault, Status, find_faults, inspect_hooks, schema_of
from .proof import prove
from .tables import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from sqlalchemy.engine import Connection, Engine

    T = TypeVar("T")

__all__ = [
    "Busy",
    "HooksUnfit",
    "NotAllowed",
    "OutboxNotEmpty",
    "Stranded",
    "check",
    "install",
    "plan_install",
    "plan_remove",
    "removal_sql",
    "remove",
    "status",
]

LOCK_TIMEOUT_SECONDS = 2  # Rucio's writers queue behind a waiting lock: better to give up and come again
NEXT_LOCK_MILLISECONDS = 200  # while a table of Rucio is locked already
LOCK_ATTEMPTS = 20
_PAUSE_SECONDS = (0.5, 2.0)
# By SQLSTATE on PostgreSQL, by number on MariaDB.
_LOCKED = ("55P03", "40P01", 1205, 1213)  # no lock in time, deadlock
# insufficient_privilege; denied: a database, a command, a column, a right, a trigger while there is a binary log
_NOT_ALLOWED = ("42501", 1044, 1142, 1143, 1227, 1419)
_SERVER_NEEDED = 13_00_00  # the first PostgreSQL with gen_random_uuid() built in
_MARIADB_NEEDED, _MYSQL_NEEDED = (10, 10), (8, 0)  # the first with RANDOM_BYTES(); with SKIP LOCKED


class HooksUnfit(Undecided):
    """Changes of replicas are not recorded, or not as this program understands them."""

    def __init__(self, faults: list[Fault], hint: str = "`rucio-trace hooks install` mends it") -> None:
        self.faults = faults
        super().__init__("hooks in Rucio's database", expected=f"version {ddl.VERSION}", hint=hint)

    def __str__(self) -> str:
        return f"{self.subject}: {'; '.join(str(fault) for fault in self.faults)} ({self.hint})"


class OutboxNotEmpty(Undecided):
    """Removing the tables would lose changes that no trace tells of yet."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        super().__init__(f"the outbox holds {waiting} changes without a trace", hint="let the recorder finish first")


class Busy(StorageError):
    """Somebody held Rucio's tables all the time."""

    def __init__(self, attempts: int, reason: str, left: str = "nothing was changed") -> None:
        super().__init__(
            f"no lock on Rucio's tables in {attempts} attempts of {LOCK_TIMEOUT_SECONDS} s: {reason}",
            hint=f"{left}; try again in a quiet moment",
        )


class NotAllowed(StorageError):
    """Rucio's role may not do in the database what is needed."""

    def __init__(self, reason: str, left: str = "nothing was changed") -> None:
        super().__init__(
            f"Rucio's role in its database: {reason}",
            hint=f"{left}; let the database's owner run the SQL that --dry-run prints",
        )


class Stranded(StorageError):
    """Triggers that fail are on Rucio's tables: its changes of replicas may fail too until they are gone."""

    def __init__(self, drops: list[str], reason: str) -> None:
        super().__init__(
            f"hooks that do not work could not be taken away: {reason}",
            hint=f"run this in Rucio's database at once: {'; '.join(drops)}",
        )


# What is left behind on MariaDB, where each statement that makes or drops something commits by itself.
_LEFT = {"mysql": "what was made so far does no harm"}


def install(engine: Engine, rucio_schema: str | None = None, *, attempts: int = LOCK_ATTEMPTS) -> list[str]:
    """Put tables and triggers in place, prove them, and return the statements that were run.

    In one transaction: either all of it holds afterwards or nothing. MariaDB knows no such transaction: there the
    triggers are rehearsed on copies of Rucio's tables before they are made, and taken away if they fail. Where
    everything is in place already it only proves it, which needs no right to create anything. Rows in the tables stay.

    Raises:
        HooksUnfit: hooks of a newer version are installed.
        HooksIneffective: the proof failed; nothing was installed.
        Busy: no lock on Rucio's tables could be had.
        NotAllowed: Rucio's role may not create what is missing.
    """

    made: list[str] = []

    def attempt(connection: Connection) -> list[str]:
        makings, triggers = _missing(connection, rucio_schema)
        if engine.dialect.name == "mysql" and triggers:
            _rehearse(connection, rucio_schema, makings)
            made.extend(triggers)
            _run(connection, rucio_schema, triggers)
        else:
            _run(connection, rucio_schema, makings + triggers)
        _complete(connection, rucio_schema)
        return makings + triggers

    try:
        return _with_locks(engine, attempt, attempts)
    except (Busy, NotAllowed):
        raise  # what was made was rehearsed, and works
    except BaseException as error:
        if made:
            _take_away(engine, made, error)
        raise


def _complete(connection: Connection, rucio_schema: str | None) -> None:
    """Accept what is in place now, and prove it."""
    if faults := find_faults(connection, rucio_schema):
        raise HooksUnfit(faults, hint="this cannot be mended by itself; nothing was installed")
    _note_installation(connection)
    _prove(connection, rucio_schema)


def _prove(connection: Connection, rucio_schema: str | None, *, prefix: str = "") -> None:
    with connection.begin_nested() as savepoint:
        prove(connection, rucio_schema, prefix=prefix)
        savepoint.rollback()


def _rehearse(connection: Connection, rucio_schema: str | None, makings: list[str]) -> None:
    """Try the triggers on copies: made once, they cannot be rolled back, and Rucio must not meet one that fails."""
    _run(connection, rucio_schema, makings)
    try:
        _run(connection, rucio_schema, ddl_mysql.rehearsal())
        _prove(connection, rucio_schema, prefix=ddl_mysql.REHEARSAL)
    finally:
        connection.rollback()
        _run(connection, rucio_schema, ddl_mysql.end_rehearsal())


def _take_away(engine: Engine, made: list[str], reason: BaseException) -> None:
    """Drop the triggers that the statements *made* made, and that failed on Rucio's own tables.

    Raises:
        Stranded: somebody holds those tables all the time.
    """
    names = [name for name in ddl_mysql.TRIGGERS if any(f" TRIGGER {name} " in statement for statement in made)]
    drops = [f"DROP TRIGGER IF EXISTS {name}" for name in names]
    try:
        _with_locks(engine, lambda connection: _run(connection, None, drops), LOCK_ATTEMPTS)
    except (SQLAlchemyError, TraceabilityError) as error:
        raise Stranded(drops, str(error)) from reason


def plan_install(engine: Engine, rucio_schema: str | None = None) -> list[str]:
    """The statements that `install` would run now; on MariaDB with the rights that Rucio's role needs for them."""
    with engine.connect() as connection:
        makings, triggers = _missing(connection, rucio_schema)
        if engine.dialect.name == "mysql" and triggers:
            makings = makings + ddl_mysql.grants(_mysql_role(connection))
        return makings + triggers


def remove(
    engine: Engine, rucio_schema: str | None = None, *, with_tables: bool = False, attempts: int = LOCK_ATTEMPTS
) -> list[str]:
    """Take the triggers away and, if asked, our tables; return the statements that were run.

    Raises:
        OutboxNotEmpty: tables are to go and changes still wait for the recorder.
        Busy: no lock on Rucio's tables could be had.
    """

    def attempt(connection: Connection) -> list[str]:
        statements = _removal(connection, rucio_schema, with_tables=with_tables)
        _run(connection, rucio_schema, ddl.drop_hooks(engine.dialect.name, schema_of(connection, rucio_schema) or ""))
        _removal(connection, rucio_schema, with_tables=with_tables)  # nobody writes any more: does still nothing wait?
        _run(connection, rucio_schema, statements)
        return statements

    return _with_locks(engine, attempt, attempts)


def plan_remove(engine: Engine, rucio_schema: str | None = None, *, with_tables: bool = False) -> list[str]:
    """The statements that `remove` would run now."""
    with engine.connect() as connection:
        return _removal(connection, rucio_schema, with_tables=with_tables)


def removal_sql(engine: Engine, rucio_schema: str | None = None) -> str:
    """SQL that takes everything of ours out of Rucio's database, to keep where Python is not needed."""
    with engine.connect() as connection:
        statements = ddl.drop_hooks(engine.dialect.name, schema_of(connection, rucio_schema) or "")
    statements += ddl.drop_tables(engine.dialect.name)
    return "".join(f"{statement};\n" for statement in statements)


def status(engine: Engine, rucio_schema: str | None = None) -> Status:
    """What is installed, what waits, and which `trace_` keys others wrote."""
    with engine.connect() as connection:
        found = inspect_hooks(connection, rucio_schema)
        return found if found.faults else replace(found, faults=tuple(_unproven(connection)))


def check(engine: Engine, rucio_schema: str | None = None) -> None:
    """Return when every change of a replica is being recorded as this version of the program reads it.

    Raises:
        HooksUnfit: a table or trigger is missing, disabled, altered or of another version, or `install` never
            came to its end: then nobody knows since when changes are recorded.
    """
    with engine.connect() as connection:
        faults = find_faults(connection, rucio_schema) or _unproven(connection)
    if faults:
        raise HooksUnfit(faults)


def _missing(connection: Connection, rucio_schema: str | None) -> tuple[list[str], list[str]]:
    """Statements that make all of it right, those for the triggers apart; none when all is."""
    dialect, schema = connection.dialect.name, schema_of(connection, rucio_schema)
    _check_server(connection)
    faults = find_faults(connection, rucio_schema)
    newer = [fault for fault in faults if (fault.version or 0) > ddl.VERSION]
    if newer:
        raise HooksUnfit(newer, hint="upgrade this program")
    if not faults:
        return [], []
    statements = ddl.create_tables(dialect)
    if dialect == "postgresql":
        statements += ddl.postgresql_grants(str(connection.scalar(text("SELECT current_user"))))
    faulty = {fault.part for fault in faults}
    if dialect == "mysql":
        statements += ddl_mysql.create_indexes(faulty)
        role, is_mariadb = _mysql_role(connection), bool(connection.dialect.is_mariadb)  # type: ignore[attr-defined]
        return statements, ddl.create_hooks(dialect, "", only=faulty, definer=role, replace=is_mariadb)
    return statements, ddl.create_hooks(dialect, schema or "", only=faulty)


def _mysql_role(connection: Connection) -> str:
    """Rucio's role as SQL names it: the triggers run with its rights, whoever makes them."""
    user, _, host = str(connection.scalar(text("SELECT CURRENT_USER()"))).rpartition("@")
    return "@".join("'" + part.replace("\\", "\\\\").replace("'", "''") + "'" for part in (user, host))


def _removal(connection: Connection, rucio_schema: str | None, *, with_tables: bool) -> list[str]:
    dialect = connection.dialect.name
    faulty = {fault.part for fault in find_faults(connection, rucio_schema)}
    outbox = tables(dialect).outbox
    if with_tables and outbox.fullname not in faulty:
        waiting = connection.scalar(select(func.count()).select_from(outbox)) or 0
        if waiting:
            raise OutboxNotEmpty(waiting)
    statements = ddl.drop_hooks(dialect, schema_of(connection, rucio_schema) or "")
    return statements + ddl.drop_tables(dialect) if with_tables else statements


def _note_installation(connection: Connection) -> None:
    """Remember when hooks of this version came, the first time they do."""
    installations = tables(connection.dialect.name).installations
    if not _is_noted(connection):
        # In MariaDB Rucio keeps whole seconds: what is created within this one must not look older than the hooks.
        mysql = connection.dialect.name == "mysql"
        now = text(ddl_mysql.NOW_SECONDS) if mysql else ddl.now(connection.dialect.name)
        connection.execute(insert(installations).values(version=ddl.VERSION, at=now))


def _is_noted(connection: Connection) -> bool:
    installations = tables(connection.dialect.name).installations
    noted = select(installations.c.at).where(installations.c.version == ddl.VERSION).limit(1)
    return connection.scalar(noted) is not None


def _unproven(connection: Connection) -> list[Fault]:
    part = tables(connection.dialect.name).installations.fullname
    return [] if _is_noted(connection) else [Fault(part, "the hooks were never proven")]


def _check_server(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        version = int(connection.scalar(text("SHOW server_version_num")) or 0)
        if version < _SERVER_NEEDED:
            raise Undecided("PostgreSQL", expected="13 or later", found=f"{version // 10000}")
    if connection.dialect.name == "mysql":
        _check_mysql(connection)


def _check_mysql(connection: Connection) -> None:
    is_mariadb = connection.dialect.is_mariadb  # type: ignore[attr-defined]
    needed = _MARIADB_NEEDED if is_mariadb else _MYSQL_NEEDED
    version = tuple(connection.dialect.server_version_info or ())  # type: ignore[attr-defined]
    if version[: len(needed)] < needed:
        shown = [".".join(map(str, part)) for part in (needed, version)]
        raise Undecided("MariaDB" if is_mariadb else "MySQL", expected=f"{shown[0]} or later", found=shown[1])
    logs, form = connection.execute(text("SELECT @@log_bin, @@binlog_format")).one()
    if logs and form == "STATEMENT":  # each replica of the database would invent event ids of its own
        raise Undecided("the database's binlog_format", expected="MIXED or ROW", found=form)


def _run(connection: Connection, rucio_schema: str | None, statements: list[str]) -> None:
    if connection.dialect.name == "postgresql":
        _lock_tables(connection, schema_of(connection, rucio_schema) or "", statements)
    for statement in statements:
        connection.exec_driver_sql(_driver_text(connection, statement))


def _lock_tables(connection: Connection, rucio_schema: str, statements: list[str]) -> None:
    """Lock those of Rucio's tables whose triggers *statements* change, before anything else is done.

    With one locked, we wait for the next much less than PostgreSQL's `deadlock_timeout`: a transaction of Rucio
    that came to hold the other one never waits for us long enough to be the one that is cancelled.
    """
    for trigger, table in ddl.TRIGGER_TABLES.items():
        name = f"{ddl.quote(rucio_schema)}.{table}"
        changes = any(statement.startswith(f"DROP TRIGGER IF EXISTS {trigger} ") for statement in statements)
        if changes and connection.scalar(select(func.to_regclass(name))) is not None:
            connection.exec_driver_sql(f"LOCK TABLE {_driver_text(connection, name)} IN ACCESS EXCLUSIVE MODE")
            connection.execute(text(f"SET LOCAL lock_timeout = '{NEXT_LOCK_MILLISECONDS}ms'"))


def _driver_text(connection: Connection, statement: str) -> str:
    """*statement* as the driver wants it without parameters: psycopg takes a lone % for a placeholder."""
    return statement.replace("%", "%%") if connection.dialect.name == "postgresql" else statement


def _with_locks(engine: Engine, action: Callable[[Connection], T], attempts: int) -> T:
    """Run *action* in one transaction that never waits long for a lock, again and again until it gets them all."""
    for remaining in reversed(range(attempts)):
        try:
            with _transaction(engine) as connection:
                return action(connection)
        except (OperationalError, ProgrammingError) as error:
            code, left = _code(error), _LEFT.get(engine.dialect.name, "nothing was changed")
            if code in _NOT_ALLOWED:
                raise NotAllowed(str(error.orig), left) from error
            if code not in _LOCKED:
                raise
            if not remaining:
                raise Busy(attempts, str(error.orig), left) from error
        time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 spreads attempts, guards nothing
    raise ValueError("attempts must be at least 1")


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        elif engine.dialect.name == "mysql":
            connection.detach()  # what is set of a session here is not for those who use the pool after us
            for kind in ("lock_wait_timeout", "innodb_lock_wait_timeout"):
                connection.exec_driver_sql(f"SET SESSION {kind} = {LOCK_TIMEOUT_SECONDS}")
        else:
            # Python's driver opens no transaction by itself before a CREATE.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


def _code(error: OperationalError | ProgrammingError) -> object:
    """The database's word for what went wrong: a number on MariaDB, else the SQLSTATE."""
    if "locked" in str(error.orig):  # SQLite's
        return _LOCKED[0]
    number = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return number if isinstance(number, int) else getattr(error.orig, "sqlstate", None)
