"""Installing, checking and removing the hooks in Rucio's database.

`install` proves the hooks as Rucio's own role before it commits, so Rucio never meets a trigger that fails.
`check` is for programs that depend on the hooks: it returns nothing or says what is wrong.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from rucio_trace.errors import StorageError, Undecided

from . import ddl
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
_LOCKED_SQLSTATES = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_NOT_ALLOWED = "42501"  # insufficient_privilege
_SERVER_NEEDED = 13_00_00  # the first PostgreSQL with gen_random_uuid() built in


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

    def __init__(self, attempts: int, reason: str) -> None:
        super().__init__(
            f"no lock on Rucio's tables in {attempts} attempts of {LOCK_TIMEOUT_SECONDS} s: {reason}",
            hint="nothing was changed; try again in a quiet moment",
        )


class NotAllowed(StorageError):
    """Rucio's role may not do in the database what is needed."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"Rucio's role in its database: {reason}",
            hint="nothing was changed; let the database's owner run the SQL that --dry-run prints",
        )


def install(engine: Engine, rucio_schema: str | None = None, *, attempts: int = LOCK_ATTEMPTS) -> list[str]:
    """Put tables and triggers in place, prove them, and return the statements that were run.

    In one transaction: either all of it holds afterwards or nothing. Where everything is in place already it
    only proves it, which needs no right to create anything. Rows in the tables stay.

    Raises:
        HooksUnfit: hooks of a newer version are installed.
        HooksIneffective: the proof failed; nothing was installed.
        Busy: no lock on Rucio's tables could be had.
        NotAllowed: Rucio's role may not create what is missing.
    """

    def attempt(connection: Connection) -> list[str]:
        statements = _missing(connection, rucio_schema)
        _run(connection, rucio_schema, statements)
        if statements and (faults := find_faults(connection, rucio_schema)):
            raise HooksUnfit(faults, hint="this cannot be mended by itself; nothing was installed")
        _note_installation(connection)
        with connection.begin_nested() as savepoint:
            prove(connection, rucio_schema)
            savepoint.rollback()
        return statements

    return _with_locks(engine, attempt, attempts)


def plan_install(engine: Engine, rucio_schema: str | None = None) -> list[str]:
    """The statements that `install` would run now."""
    with engine.connect() as connection:
        return _missing(connection, rucio_schema)


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
        return inspect_hooks(connection, rucio_schema)


def check(engine: Engine, rucio_schema: str | None = None) -> None:
    """Return when every change of a replica is being recorded as this version of the program reads it.

    Raises:
        HooksUnfit: a table or trigger is missing, disabled, altered or of another version.
    """
    with engine.connect() as connection:
        faults = find_faults(connection, rucio_schema)
    if faults:
        raise HooksUnfit(faults)


def _missing(connection: Connection, rucio_schema: str | None) -> list[str]:
    """Statements that make all of it right; none when all is."""
    dialect, schema = connection.dialect.name, schema_of(connection, rucio_schema)
    _check_server(connection)
    faults = find_faults(connection, rucio_schema)
    newer = [fault for fault in faults if (fault.version or 0) > ddl.VERSION]
    if newer:
        raise HooksUnfit(newer, hint="upgrade this program")
    if not faults:
        return []
    statements = ddl.create_tables(dialect)
    if dialect == "postgresql":
        statements += ddl.postgresql_grants(str(connection.scalar(text("SELECT current_user"))))
    faulty = {fault.part for fault in faults}
    return statements + ddl.create_hooks(dialect, schema or "", only=faulty)


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
    if connection.scalar(select(installations.c.at).where(installations.c.version == ddl.VERSION).limit(1)) is None:
        connection.execute(insert(installations).values(version=ddl.VERSION, at=ddl.now(connection.dialect.name)))


def _check_server(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        version = int(connection.scalar(text("SHOW server_version_num")) or 0)
        if version < _SERVER_NEEDED:
            raise Undecided("PostgreSQL", expected="13 or later", found=f"{version // 10000}")


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
        except OperationalError as error:
            if not _is_lock_failure(error):
                raise
            if not remaining:
                raise Busy(attempts, str(error.orig)) from error
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _NOT_ALLOWED:
                raise
            raise NotAllowed(str(error.orig)) from error
        time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 spreads attempts, guards nothing
    raise ValueError("attempts must be at least 1")


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        else:
            # Python's driver opens no transaction by itself before a CREATE.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


def _is_lock_failure(error: OperationalError) -> bool:
    sqlstate = getattr(error.orig, "sqlstate", None)
    return sqlstate in _LOCKED_SQLSTATES or (sqlstate is None and "locked" in str(error.orig))
