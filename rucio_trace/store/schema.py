"""Which version the tables are of, and how they get to the newest.

Alembic is imported only when there is something to do: most processes find the store ready.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import column, inspect, select, table

from rucio_trace.store import partitions
from rucio_trace.store.database import WAIT_SECONDS
from rucio_trace.store.errors import NewerStore, StoreUnavailable, UnpreparedStore
from rucio_trace.store.index import catch_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from rucio_trace.store.database import Database

__all__ = ["NEWEST", "VERSION_TABLE", "check_schema", "migrate"]

VERSION_TABLE: Final = "trace_store_version"

OLDER: Final = frozenset({"0001", "0002", "0003", "0004"})
NEWEST: Final = "0005"

_MIGRATION_LOCK: Final = 0x72756369_74726163  # "rucitrac": any number that nobody else in the database uses


def migrate(database: Database) -> None:
    """Bring the tables to the newest version; safe to call from many processes at once, and again after a kill.

    Raises:
        NewerStore: a newer program has been here.
        StoreUnavailable: the database refuses or does not answer; nothing was changed, or (on MariaDB) some steps
            are done already when it is called again.
    """
    database.create_file()
    later = database.kind == "postgresql"  # there a service indexes what registrations leave
    with database.reading() as connection:
        newest = _is_newest(connection, database)
        ready = newest and (not later or partitions.suffice(connection))
    if not ready:
        if later and not newest:
            partitions.prepare(database)
        with database.writing() as connection, _alone(connection, database):
            if not _is_newest(connection, database):
                _upgrade(connection)
            if later:
                partitions.ensure(connection)
    if not (newest and later):
        catch_up(database)  # with what a migration left for later, now or when it was cut off


@contextmanager
def _alone(connection: Connection, database: Database) -> Iterator[None]:
    """Nobody else migrates meanwhile."""
    if database.kind == "postgresql":
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
