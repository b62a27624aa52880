"""Rucio's server code in this process, on a database that is cloned in milliseconds.

Rucio keeps one engine per process in a module's global. `attach` points that
global at another database; its caches are off (see `home`), so nothing of the
previous database is left. What Rucio decides while it is imported (schema name,
policy package, metadata plugins) is either loaded again here (policy, plugins)
or needs a fresh process (`RucioHome.run_python`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, text

from .storage import SCOPE, VO, Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from .home import RucioHome

__all__ = ["EmbeddedRucio", "attach", "bootstrap", "clone_sqlite", "detach", "sqlite_url"]


class EmbeddedRucio(Storage):
    """A Rucio whose core functions, called in this process, work on its database."""

    def __init__(self, home: RucioHome, url: str, folder: Path, scope: str = SCOPE) -> None:
        from rucio.common.types import InternalAccount, InternalScope

        self.home, self.url, self.folder = home, url, folder
        self.vo = VO
        self.root = InternalAccount("root", vo=VO)
        self.scope = InternalScope(scope, vo=VO)
        self.engine = attach(home)

    @property
    def backend(self) -> str:
        """`sqlite`, `postgresql` or `mysql`."""
        return self.engine.dialect.name

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction on Rucio's database, to pass as `session=` to its core functions."""
        from rucio.db.sqla.constants import DatabaseOperationType
        from rucio.db.sqla.session import db_session

        with db_session(DatabaseOperationType.WRITE) as session:
            yield session

    def configure(self, **sections: Mapping[str, object]) -> None:
        """Merge *sections* into rucio.cfg and have this process follow, policy package and metadata plugins too."""
        self.home.configure(sections)
        self.engine = attach(self.home)


def attach(home: RucioHome) -> Engine:
    """Make *home* the Rucio of this process."""
    from rucio.common import config

    detach()
    os.environ["RUCIO_HOME"] = str(home.folder)
    config.clean_cached_config()
    from rucio.db.sqla import session

    _reload_what_imports_decided(home)
    engine: Engine = session.get_engine()
    # What was compiled for one database is right for every one of its kind; it is a third of a short test's time.
    first = _first.setdefault(engine.dialect.name, engine)
    engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
    return engine


def detach() -> None:
    """Close every connection to the present database."""
    from rucio.db.sqla import session

    if session._ENGINE is not None:
        session._ENGINE.dispose()
    session._ENGINE = session._MAKER = None


_loaded: dict[str, Any] = {}
_first: dict[str, Engine] = {}


def _reload_what_imports_decided(home: RucioHome) -> None:
    for module, section, option in (
        ("rucio.core.permission", "policy", "package"),
        ("rucio.common.schema", "policy", "package"),
        ("rucio.core.did_meta_plugins", "metadata", "plugins"),
    ):
        wanted = home.sections.get(section, {}).get(option)
        if module in sys.modules and _loaded.get(module) != wanted:
            importlib.reload(sys.modules[module])
        _loaded[module] = wanted


def bootstrap(home: RucioHome, scope: str = SCOPE) -> None:
    """Build Rucio's tables, base VO, root account and a scope in the empty database of *home*; stay attached."""
    engine = attach(home)
    from rucio.common.types import InternalAccount, InternalScope
    from rucio.core.scope import add_scope
    from rucio.db.sqla.constants import DatabaseOperationType
    from rucio.db.sqla.session import db_session
    from rucio.db.sqla.util import build_database, create_base_vo, create_root_account

    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            # Kept in the file: readers and the one writer then do not wait for each other.
            connection.execute(text("PRAGMA journal_mode = WAL"))
    with contextlib.redirect_stdout(None):
        build_database()
        create_base_vo()
        create_root_account()
    with db_session(DatabaseOperationType.WRITE) as session:
        add_scope(InternalScope(scope, vo=VO), InternalAccount("root", vo=VO), session=session)


def sqlite_url(path: Path) -> str:
    """SQLAlchemy's URL of a SQLite file; a writer waits up to a minute for another one."""
    return f"sqlite:///{path}?timeout=60"


def clone_sqlite(template: Path, copy: Path) -> None:
    """Copy a SQLite database that nobody writes to."""
    engine = create_engine(sqlite_url(template))
    with engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    engine.dispose()
    shutil.copyfile(template, copy)
