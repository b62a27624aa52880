"""A private PostgreSQL cluster on a Unix socket; databases are clones of a template, or set back, which is faster."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from .errors import SandboxError
from .processes import Server, first_user, give, program, wrapper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["DURABLE", "PostgresCluster"]

_PACKAGE = "postgresql"
# Data that is thrown away needs no protection from a power cut.
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_min_messages": "error",
}

DURABLE = {
    "listen_addresses": "",
    "max_connections": "50",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "wal_compression": "lz4",
    "timezone": "UTC",
    "log_min_messages": "error",
}
"""As an operator runs it, who wants to find again what was acknowledged."""

_OTHER_SCHEMAS = """SELECT nspname FROM pg_namespace
WHERE nspname NOT IN ('public', 'kept', 'information_schema') AND nspname NOT LIKE 'pg\\_%'"""


class PostgresCluster:
    """A running cluster; its superuser is `postgres`, and everybody who can reach the socket is trusted."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self._numbers = itertools.count(1)
        self._kept: dict[str, set[str]] = {}

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path, settings: Mapping[str, str] = _SETTINGS) -> Iterator[PostgresCluster]:
        """Create a cluster in *folder* (a short path) and run it, as nobody's root."""
        user = first_user("postgres", "nobody")
        folder.mkdir(parents=True)
        give(folder, user)
        _initdb(folder / "data", user)
        argv = [_binary("postgres"), "-D", str(folder / "data"), "-k", str(folder)]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        log = folder / "log"
        # SIGQUIT stops at once and still removes the socket.
        with Server("PostgreSQL", argv, log=log, user=user, stop_signal=signal.SIGQUIT) as server:
            cluster = cls(folder, server)
            server.wait_until_ready(cluster._answers)
            yield cluster

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """SQLAlchemy's URL of *database*."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), dbname=database, user="postgres", autocommit=True)

    def create(self, template: str = "template1", prefix: str = "clone") -> str:
        """Create a database as a copy of *template*, to which nobody may be connected; returns its name."""
        name = f"{prefix}_{os.getpid()}_{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
            )
        return name

    def drop(self, name: str) -> None:
        """Drop a database, throwing out whoever is still connected."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def keep(self, name: str) -> None:
        """Remember what is in the tables of *name*, to come back to it by `reset`."""
        with self.connect(name) as connection:
            self._kept[name] = _tables(connection)
            connection.execute("CREATE SCHEMA kept")
            for table in _filled(connection, self._kept[name]):
                connection.execute(sql.SQL("CREATE TABLE kept.{0} AS TABLE public.{0}").format(table))

    def reset(self, name: str) -> None:
        """Give tables of *name* back their rows that were kept; drop newer tables and schemas, and who is connected."""
        with self.connect(name) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("SET session_replication_role = replica")  # no trigger, no foreign key
            for (schema,) in connection.execute(_OTHER_SCHEMAS).fetchall():
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
            for table in _tables(connection) - self._kept[name]:
                connection.execute(sql.SQL("DROP TABLE public.{} CASCADE").format(sql.Identifier(table)))
            for table in _filled(connection, self._kept[name]):
                connection.execute(sql.SQL("DELETE FROM public.{}").format(table))
            for table in map(sql.Identifier, _tables(connection, "kept")):
                connection.execute(sql.SQL("INSERT INTO public.{0} TABLE kept.{0}").format(table))

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


def _tables(connection: psycopg.Connection, schema: str = "public") -> set[str]:
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema])
    return {row[0] for row in rows}


def _filled(connection: psycopg.Connection, tables: Iterable[str]) -> list[sql.Identifier]:
    """Those of *tables* that hold a row."""
    each = [sql.SQL("(SELECT {} FROM public.{} LIMIT 1)").format(table, sql.Identifier(table)) for table in tables]
    return [sql.Identifier(row[0]) for row in connection.execute(sql.SQL(" UNION ALL ").join(each))]


def _initdb(data: Path, user: str | None) -> None:
    argv = [_binary("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
    made = subprocess.run([*wrapper(user), *argv], check=False, capture_output=True, text=True, cwd=data.parent)
    if made.returncode:
        raise SandboxError(f"initdb: {made.stderr.strip() or made.stdout.strip()}")


def _binary(name: str) -> str:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return program(name, _PACKAGE, *versions)
