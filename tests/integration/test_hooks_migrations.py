"""Rucio's own schema migrations with our hooks in the database (SQLite has none: Rucio cannot migrate there).

As upstream runs them: in a schema of Rucio's own, which its alembic.ini names; in the default schema they fail without
us too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rucio_trace_policy import hooks
from rucio_trace_policy.proof import prove
from rucio_trace_sandbox.home import RucioHome
from sqlalchemy import create_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

SCHEMA = "dev"
_BOOTSTRAP = """
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
build_database(); create_base_vo(); create_root_account()
"""
_MIGRATE = """
import sys
from alembic import command
from alembic.config import Config
from rucio.common.config import config_get
step, revision = sys.argv[1].split()
getattr(command, step)(Config(config_get("alembic", "cfg")), revision)
"""


@pytest.fixture
def home(folder: Path, postgres_database: str) -> RucioHome:
    """A server's home whose Rucio, with our hooks in it, has a PostgreSQL schema of its own."""
    home = RucioHome.server(folder / "server", postgres_database, {"database": {"schema": SCHEMA}})
    ini = folder / "server" / "etc" / "alembic.ini"
    ini.write_text(ini.read_text().replace("[loggers]", f"version_table_schema = {SCHEMA}\n[loggers]"))
    home.run_python(_BOOTSTRAP)
    return home


@pytest.fixture
def engine(home: RucioHome, postgres_database: str) -> Iterator[Engine]:
    engine = create_engine(postgres_database)
    hooks.install(engine, SCHEMA)
    engine.dispose()
    yield engine
    engine.dispose()


def test_migrations_run_down_to_base_and_up_again_and_leave_the_hooks_in_place(home: RucioHome, engine: Engine) -> None:
    home.run_python(_MIGRATE, "downgrade base", timeout=280)
    hooks.check(engine, SCHEMA)
    home.run_python(_MIGRATE, "upgrade head", timeout=280)
    hooks.check(engine, SCHEMA)
    with engine.begin() as connection:
        prove(connection, SCHEMA)
        connection.rollback()
