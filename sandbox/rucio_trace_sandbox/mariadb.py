"""A private MariaDB server on a Unix socket; databases are set back, which is faster than to make them."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pymysql

from .errors import SandboxError
from .processes import Server, first_user, give, program, wrapper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

__all__ = ["RUCIO_CHARSET", "MariaDbServer"]

_PACKAGE = "mariadb-server"
_FOLDERS = (Path("/usr/sbin"), Path("/usr/bin"))
# Rucio's longest key, 2,048 characters, fits into an index only where a character is one byte.
RUCIO_CHARSET = ("latin1", "latin1_bin")
# Data that is thrown away needs no protection from a power cut. With a binary log, as every server that has replicas:
# making triggers then takes another right.
_SETTINGS = {
    "skip-networking": None,
    "innodb-file-per-table": "0",
    "log-bin": "binlog",
    "max-binlog-size": "16M",
    "sync-binlog": "0",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "nosync",
    "innodb-doublewrite": "0",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "32M",
    "max-connections": "300",
    "log-bin-trust-function-creators": "0",
    "default-time-zone": "+05:30",  # nobody may take its local time for UTC
}
_IN_SCHEMA = "SELECT {} FROM information_schema.{} WHERE {}_schema = '{}'"


class MariaDbServer:
    """A running server; its superuser is `root`, without a password for everybody who can reach the socket."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self._numbers = itertools.count(1)
        self._kept: dict[str, set[str]] = {}

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path, **settings: str) -> Iterator[MariaDbServer]:
        """Make a server's files in *folder* (a short path) and run it, as nobody's root."""
        user = first_user("mysql", "nobody")
        folder.mkdir(parents=True)
        (folder / "tmp").mkdir()  # of its own: a server that starts removes the temporary tables it finds there
        give(folder, user)
        _install(folder, user)
        argv = [program("mariadbd", _PACKAGE, *_FOLDERS), "--no-defaults", f"--datadir={folder / 'data'}"]
        argv += [f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}", f"--tmpdir={folder / 'tmp'}"]
        argv += [f"--{k}" if v is None else f"--{k}={v}" for k, v in {**_SETTINGS, **settings}.items()]
        with Server("MariaDB", argv, log=folder / "log", user=user) as server:
            running = cls(folder, server)
            server.wait_until_ready(running._answers)
            yield running

    def url(self, database: str, user: str = "root") -> str:
        """SQLAlchemy's URL of *database*, for the driver and by the name that Rucio expects."""
        return f"mysql+pymysql://{user}@/{database}?unix_socket={self.folder / 'socket'}"

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        return pymysql.connect(
            unix_socket=str(self.folder / "socket"),
            user="root",
            database=database,
            charset="utf8mb4",
            autocommit=True,
            ssl_disabled=True,
        )

    def run(self, *statements: str, database: str | None = None) -> Sequence[tuple[Any, ...]]:
        """Run *statements* and return the rows of the last."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    def create(self, prefix: str = "db", charset: str = "utf8mb4", collation: str = "utf8mb4_general_ci") -> str:
        """Create an empty database; returns its name."""
        name = f"{prefix}_{os.getpid()}_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} CHARACTER SET {charset} COLLATE {collation}")
        return name

    def drop(self, name: str) -> None:
        self.run(f"DROP DATABASE IF EXISTS {name}")

    def keep(self, name: str) -> None:
        """Remember the tables of *name* and what is in them, to come back to it by `reset`."""
        self._kept[name] = self._tables(name)
        copies = (f"CREATE TABLE {name}_kept.`{t}` AS SELECT * FROM {name}.`{t}`" for t in self._filled(name))  # noqa: S608
        self.run(f"CREATE DATABASE {name}_kept", *copies)

    def reset(self, name: str) -> None:
        """Give *name* back the rows that were kept; drop its triggers and all newer tables."""
        triggers = self.run(_IN_SCHEMA.format("trigger_name", "triggers", "trigger", name))
        self.run(
            "SET SESSION foreign_key_checks = 0",
            *(f"DROP TRIGGER {row[0]}" for row in triggers),
            *(f"DROP TABLE `{table}`" for table in self._tables(name) - self._kept[name]),
            *(f"DELETE FROM `{table}`" for table in self._filled(name)),  # noqa: S608
            *(f"INSERT INTO `{t}` SELECT * FROM {name}_kept.`{t}`" for t in self._tables(f"{name}_kept")),  # noqa: S608
            database=name,
        )

    def _filled(self, name: str) -> list[str]:
        """Those of the kept tables that hold a row."""
        each = (f"(SELECT '{table}' FROM `{table}` LIMIT 1)" for table in self._kept[name])  # noqa: S608
        return [row[0] for row in self.run(" UNION ALL ".join(each), database=name)]

    def _tables(self, name: str) -> set[str]:
        return {row[0] for row in self.run(_IN_SCHEMA.format("table_name", "tables", "table", name))}

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True


def _install(folder: Path, user: str | None) -> None:
    argv = [program("mariadb-install-db", _PACKAGE, *_FOLDERS), "--no-defaults", f"--datadir={folder / 'data'}"]
    argv += [f"--tmpdir={folder / 'tmp'}"]
    argv += ["--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=32M"]
    made = subprocess.run([*wrapper(user), *argv], check=False, capture_output=True, text=True, cwd=folder)
    if made.returncode:
        raise SandboxError(f"mariadb-install-db: {made.stderr.strip() or made.stdout.strip()}")
