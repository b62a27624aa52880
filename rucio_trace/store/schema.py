"""Which version the tables are of, and how they get to the newest.

Alembic is imported only when there is something to do: most processes find the store ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import column, inspect, select, table

from rucio_trace.store.errors import NewerStore, UnpreparedStore

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rucio_trace.store.database import Database

__all__ = ["NEWEST", "VERSION_TABLE", "check_schema", "migrate"]

VERSION_TABLE: Final = "trace_store_version"

OLDER: Final[frozenset[str]] = frozenset()
NEWEST: Final = "0001"

_MIGRATION_LOCK: Final = 0x72756369_74726163  # "rucitrac": any number that nobody else in the database uses


def migrate(database: Database) -> None:
    """Bring the tables to the newest version; safe to call from many processes at once.

    Raises:
        NewerStore: a newer program has been here.
        StoreUnavailable: the database refuses or does not answer; nothing was changed.
    """
    database.create_file()
    with database.reading() as connection:
        if _is_newest(connection, database):
            return
    with database.writing() as connection:
        if database.is_postgresql:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        if not _is_newest(connection, database):
            _upgrade(connection)


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
