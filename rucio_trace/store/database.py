"""The edge: which database, how its connections behave, and what its failures are called here.

SQLite connections are opened per use: the file may be moved, replaced or unmounted between two of
them. Those of PostgreSQL and MariaDB are pooled, tested before use and never cross a fork. Any thread may
use a `Database`; each `reading` and `writing` has a connection of its own.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from rucio_trace.store.errors import BadStoreUrl, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine

__all__ = ["Database"]

WAIT_SECONDS: Final = 30
"""How long a writer waits for another's lock: writers hold it for one batch, well below a second."""

CONNECT_SECONDS: Final = 10

_OFTEN: Final = 5  # times; PostgreSQL looks at as many sets of values before it makes one plan for all

_BEGIN = "rucio_trace_begin"


class Database:
    """One database and its connections; knows nothing of traces."""

    def __init__(self, url: str, password: str | None = None) -> None:
        """Connects to nothing yet.

        Raises:
            BadStoreUrl: no file of SQLite and no database of PostgreSQL or MariaDB, or its driver is not installed.
        """
        self._engine = _open_engine(url, password)
        self._driver_error: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        self._process = os.getpid()

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def kind(self) -> str:
        """`sqlite`, `postgresql` or `mysql` (of which MariaDB is one)."""
        return self._engine.dialect.name

    @contextmanager
    def reading(self, *, prepared: bool = False) -> Iterator[Connection]:
        """A connection in a transaction that only reads.

        What is asked again and again by keys alone should be *prepared*: PostgreSQL then keeps one plan for all values,
        where planning takes longer than the answer. A plan that must fit the values is made anew each time.
        """
        with self._failures_named(), self._connect() as connection:
            self._prepare(connection, prepared)
            if prepared and self.kind == "postgresql":
                # Else a plan that was kept while there were few rows could go on reading all of them.
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            yield connection
            if self.kind == "postgresql":
                connection.commit()  # at a rollback the driver forgets what is prepared

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """As `reading`, but all its queries see the database as it was at the first one."""
        with self.reading() as connection:
            if self.kind != "sqlite":
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self, *settings: str) -> Iterator[Connection]:
        """A connection in a transaction that commits at the end, or leaves no mark.

        *settings* of PostgreSQL, such as "enable_seqscan = off", are for this transaction alone; a plan is kept under
        those it was made with.
        """
        with self._failures_named(), self._connect() as connection:
            self._prepare(connection, True)
            connection.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
            with connection.begin():
                if self.kind == "postgresql":
                    given = (f"lock_timeout = '{WAIT_SECONDS}s'", *settings)
                    connection.exec_driver_sql("; ".join(f"SET LOCAL {setting}" for setting in given))
                yield connection

    def create_file(self) -> None:
        """Make an SQLite store's file, in write-ahead mode, where there is none; nothing for the others."""
        if self.kind != "sqlite":
            return
        try:
            connection = _connect_sqlite(Path(str(self._engine.url.database)), "rwc")
            try:
                _to_write_ahead(connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreUnavailable(self.shown, str(error)) from error

    def close(self) -> None:
        self._engine.dispose()

    def _connect(self) -> Connection:
        if self._process != os.getpid():
            self._engine.dispose(close=False)  # the connections are the parent's: forget them, close none
            self._process = os.getpid()
        return self._engine.connect()

    def _prepare(self, connection: Connection, prepared: bool) -> None:
        """Whether the driver is to prepare what the connection is asked often from now on."""
        if self.kind == "postgresql":
            driver: Any = connection.connection.driver_connection
            driver.prepare_threshold = _OFTEN if prepared else None

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreUnavailable(self.shown, str(error.orig).strip() or type(error.orig).__name__) from error
        except self._driver_error as error:  # from COPY and the like, which do without SQLAlchemy
            raise StoreUnavailable(self.shown, str(error).strip() or type(error).__name__) from error
        except PoolTimeoutError as error:
            raise StoreUnavailable(self.shown, "no free connection") from error


def _to_write_ahead(connection: sqlite3.Connection) -> None:
    """Change the mode, as long as others are at it: SQLite does not wait by itself where two change it at once."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _open_engine(url: str, password: str | None) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadStoreUrl(url.rpartition("@")[2], "is no URL of a database") from error
    shown = parsed.render_as_string(hide_password=True)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _open_sqlite(parsed)
        if parsed.get_backend_name() == "postgresql":
            return _open_postgresql(parsed, password)
        if parsed.get_backend_name() in ("mysql", "mariadb"):
            return _open_mysql(parsed, password)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        extra = "postgresql" if parsed.get_backend_name() == "postgresql" else "mysql"
        raise BadStoreUrl(shown, f"its driver is not installed: pip install rucio-trace[{extra}]") from error
    raise BadStoreUrl(shown, f"{parsed.get_backend_name()} is not supported")


def _open_postgresql(url: URL, password: str | None) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if password is not None:
        url = url.set(password=password)
    patience = {"connect_timeout": CONNECT_SECONDS, "keepalives_idle": WAIT_SECONDS, "tcp_user_timeout": 30_000}
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",  # under the head's lock every statement must see what was committed last
        pool_pre_ping=True,
        pool_timeout=WAIT_SECONDS,
        connect_args={key: value for key, value in patience.items() if key not in url.query},
    )
    event.listen(engine, "connect", _settle_postgresql)
    return engine


def _settle_postgresql(connection: Any, _record: object) -> None:
    """Nearly all questions are for a few rows: to compile one, or to start workers, takes longer than its answer.

    By PostgreSQL's defaults 500 digests took 31 ms instead of 22, and indexing members a quarter of both cores.
    """
    connection.execute("SET jit = off; SET max_parallel_workers_per_gather = 0")
    connection.commit()


def _open_mysql(url: URL, password: str | None) -> Engine:
    """One name for both servers and for their driver, so that what is compiled for one is for the other."""
    driver = url.drivername.partition("+")[2] or "pymysql"
    url = url.set(drivername=f"mysql+{driver}")
    if password is not None:
        url = url.set(password=password)
    if not url.database:
        raise BadStoreUrl(url.render_as_string(hide_password=True), "names no database")
    patience = {"connect_timeout": CONNECT_SECONDS, "read_timeout": 4 * WAIT_SECONDS, "write_timeout": WAIT_SECONDS}
    given = {
        "charset": "utf8mb4",
        # Strict: what does not fit is refused and never cut.
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {WAIT_SECONDS}, lock_wait_timeout = {WAIT_SECONDS}, "
        "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
        **patience,
    }
    return create_engine(
        url,
        isolation_level="READ COMMITTED",  # as above; and no gap between rows is ever locked
        pool_pre_ping=True,
        pool_timeout=WAIT_SECONDS,
        connect_args={key: value for key, value in given.items() if key not in url.query},
    )


def _open_sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise BadStoreUrl(url.render_as_string(), "a store must outlive its process")
    if url.query:
        raise BadStoreUrl(url.render_as_string(), "options after '?' are not supported")
    path = Path(str(url.database)).absolute()

    def connect() -> sqlite3.Connection:
        return _connect_sqlite(path, "rw")

    engine = create_engine(url.set(database=str(path)), creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _connect_sqlite(path: Path, mode: str) -> sqlite3.Connection:
    """Mode "rw" never creates: a store that is gone must be an error, not a new and empty store."""
    if mode == "rw" and not path.exists():
        raise sqlite3.OperationalError(f"no file {path}; `rucio-trace store migrate` makes a new store")
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=WAIT_SECONDS,
        isolation_level=None,  # transactions are begun by `_begin_sqlite`
        check_same_thread=False,
    )
    connection.execute("PRAGMA synchronous = FULL")  # a row leaves the outbox once its trace is durable
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))
