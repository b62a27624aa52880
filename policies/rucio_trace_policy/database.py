"""Rucio's own database and configuration, as its servers and daemons find them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from rucio_trace.errors import ConfigurationError

from . import ddl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, Engine

__all__ = ["NoDatabase", "advice", "clock", "open_database", "writing"]

PLUGIN = "rucio_trace_policy.metadata.TraceabilityDidMeta"
GUARDED_JSON = "rucio_trace_policy.metadata.GuardedJSONDidMeta"
RUCIO_JSON = "rucio.core.did_meta_plugins.json_meta.JSONDidMeta"


class NoDatabase(ConfigurationError):
    """This machine's rucio.cfg names no database, or there is no rucio.cfg."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "rucio.cfg: [database] default",
            expected="the database of a Rucio server",
            found=reason,
            hint="set RUCIO_HOME to a server's home, whose etc/rucio.cfg has a [database] section",
        )


def open_database() -> tuple[Engine, str | None]:
    """Rucio's engine and the schema of its tables (None: the connection's default), from its rucio.cfg.

    Raises:
        NoDatabase: there is none to open.
    """
    from rucio.common.config import config_get
    from rucio.common.exception import ConfigNotFound

    try:
        url = config_get("database", "default", raise_exception=False, default="", check_config_table=False)
    except (ConfigNotFound, RuntimeError) as error:
        raise NoDatabase("no rucio.cfg") from error
    if not url:
        raise NoDatabase("nothing")
    from rucio.db.sqla.session import DEFAULT_SCHEMA_NAME, get_engine

    return get_engine(), DEFAULT_SCHEMA_NAME


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A short transaction that writes to our tables; Rucio waits for no row that it does not touch."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "mysql":
            # Else the gaps between rows are locked too, where triggers insert the next ones.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        yield connection


def clock(connection: Connection) -> datetime:
    """The database's clock now: the one that every recorder and every trigger shares."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    moment: datetime = connection.execute(select(ddl.now(connection.dialect.name))).scalar_one()
    return moment.replace(tzinfo=UTC)


def advice() -> list[str]:
    """What rucio.cfg leaves unused of this package, and what in it would let others speak in a trace's name."""
    from rucio.common.config import config_get

    plugins = config_get("metadata", "plugins", raise_exception=False, default=RUCIO_JSON, check_config_table=False)
    return [*_policy_advice(), *plugin_advice(plugins.split(","))]


def _policy_advice() -> list[str]:
    found = []
    for option, package in _policy_packages().items():
        ours = "rucio_trace_policy" + option.replace("package-", ".vo.").removeprefix("package")
        if package in ("rucio_trace_policy", ours):
            continue
        caller = (
            f"unless {package} calls rucio_trace_policy.permission.tag_transaction" if package else "and none is set"
        )
        found.append(f"[policy] {option} is not {ours}, {caller}: traces cannot say who acted")
    return found


def _policy_packages() -> dict[str, str]:
    """The policy packages Rucio asks, by the options that name them: one, or one for each VO."""
    from rucio.common.config import config_get, config_get_bool, get_config

    options = ["package"]
    if config_get_bool("common", "multi_vo", raise_exception=False, default=False, check_config_table=False):
        section = get_config().options("policy") if get_config().has_section("policy") else []
        options = [option for option in section if option.startswith("package-")] or ["package-VO"]

    def of(option: str) -> str:
        told = os.environ.get("RUCIO_POLICY_" + option.replace("-", "_").upper())
        return told or config_get("policy", option, raise_exception=False, default="", check_config_table=False)

    return {option: of(option) for option in options}


def plugin_advice(plugins: list[str]) -> list[str]:
    """The same for the list in `[metadata] plugins`."""
    if any(plugin != plugin.strip() for plugin in plugins):
        return ["[metadata] plugins: Rucio keeps the spaces around a comma and then finds no such plugin"]
    if PLUGIN not in plugins:
        return [f"[metadata] plugins lacks {PLUGIN}: no trace_ keys are shown, and anybody can write such keys"]
    found = []
    if plugins[0] != PLUGIN:
        found.append(f"[metadata] plugins: {PLUGIN} must come first, or {plugins[0]} takes trace_ keys of anybody")
    if RUCIO_JSON in plugins:
        found.append(f"[metadata] plugins: with {RUCIO_JSON} older trace_ keys of anybody win; use {GUARDED_JSON}")
    others = [plugin for plugin in plugins[1:] if plugin not in (PLUGIN, GUARDED_JSON, RUCIO_JSON)]
    if others and plugins[-1] != PLUGIN:
        found.append(f"[metadata] plugins: name {PLUGIN} once more at the end, or trace_ keys in {others[-1]} win")
    return found
