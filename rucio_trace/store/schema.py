"""Which version the tables are of, and how they get to the newest.

Alembic is imported only when there is something to do: most processes find the store ready.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import column, inspect, select, table

from rucio_trace.store import index, older, partitions
from rucio_trace.store.database import WAIT_SECONDS
from rucio_trace.store.errors import NewerStore, StoreUnavailable, UnpreparedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from rucio_trace.store.database import Database

__all__ = ["NEWEST", "VERSION_TABLE", "check_schema", "migrate"]

VERSION_TABLE: Final = "trace_store_version"

OLDER: Final = frozenset({"0001", "0002", "0003", "0004"})
NEWEST: Final = "0005"

_LOCK_SECONDS: Final = 2
_ATTEMPTS: Final = 60  # four minutes in all: longer only a backup or a forgotten session holds a table
_LOCK_NOT_AVAILABLE: Final = "55P03"

_MIGRATION_LOCK: Final = 0x72756369_74726163  # "rucitrac": any number that nobody else in the database uses


def migrate(database: Database) -> None:
    """Bring the tables to the newest version; safe to call from many processes at once, and again after a kill.

    Raises:
        NewerStore: a newer program has been here.
        StoreUnavailable: the database refuses or does not answer; nothing was changed, or (on MariaDB) some steps
            are done already when it is called again.
    """
    database.create_file()
    with database.reading() as connection:
        newest = _is_newest(connection, database)
    if database.kind == "postgresql":
        _migrate_postgresql(database, newest=newest)
        return
    if not newest:
        with database.writing() as connection, _alone(connection, database):
            if not _is_newest(connection, database):
                _upgrade(connection)
    while older.step(database) or index.index(database):
        pass  # here no service does it; now, or the next time if this was cut off


def _migrate_postgresql(database: Database, *, newest: bool) -> None:
    if newest:
        _ensure_partitions(database)
        return
    for step in (partitions.add_bound, partitions.validate_bound, _upgrade):
        _when_free(database, step)
    _ensure_partitions(database)


def _ensure_partitions(database: Database) -> None:
    """Make room ahead; who may not do that is only told so when no room is left."""
    with database.reading() as connection:
        if partitions.suffice(connection):
            return
        left = partitions.room(connection)
    try:
        with database.writing() as connection, _alone(connection, database):
            partitions.ensure(connection)
    except StoreUnavailable:
        if left <= 0:
            raise


def _when_free(database: Database, step: Callable[[Connection], None]) -> None:
    """Do *step* in a transaction of its own, which waits a moment at most for tables that others use.

    Whoever wants a table waits behind a migration that waits for it, so it comes again rather than wait on.
    """
    for patience in range(_ATTEMPTS, -1, -1):
        try:
            with database.writing() as connection, _alone(connection, database):
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
                if not _is_newest(connection, database):
                    step(connection)
        except StoreUnavailable as error:
            if patience == 0 or getattr(getattr(error.__cause__, "orig", None), "sqlstate", "") != _LOCK_NOT_AVAILABLE:
                raise
            time.sleep(_LOCK_SECONDS)
        else:
            return


@contextmanager
def _alone(connection: Connection, database: Database) -> Iterator[None]:
    """Nobody else migrates meanwhile."""
    if database.kind == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")  # another's migration may take its time
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    if database.kind != "mysql":
        yield
        return
    # Held by the connection and not by the transaction, so what was done must be seen before it is given back.
    name = "CONCAT('rucio-trace ', MD5(DATABASE()))"
    if connection.exec_driver_sql(f"SELECT GET_LOCK({name}, {WAIT_SECONDS})").scalar() != 1:
        raise StoreUnavailable(database.shown, "another process migrates it")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    finally:
        connection.exec_driver_sql(f"DO RELEASE_LOCK({name})")


def check_schema(database: Database) -> None:
    """Accept a store whose tables are of the newest version, and no other.

    Raises:
        UnpreparedStore: `migrate` has work to do.
        NewerStore: a newer program has been here.
    """
    with database.reading() as connection:
        if not _is_newest(connection, database):
            raise UnpreparedStore(database.shown, NEWEST, _version(connection))


def _is_newest(connection: Connection, database: Database) -> bool:
    found = _version(connection)
    if found is not None and found != NEWEST and found not in OLDER:
        raise NewerStore(database.shown, NEWEST, found)
    return found == NEWEST


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version = connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))
    return None if version is None else str(version)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "rucio_trace.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
