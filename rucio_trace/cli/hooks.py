"""`rucio-trace hooks`: the triggers in Rucio's database that record every change of a replica."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rucio_trace.cli.terminal import json_line, printable, say

if TYPE_CHECKING:
    from rucio_trace_policy.inspection import Status

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Print the SQL instead of running it.")


@click.group()
def hooks() -> None:
    """Install, check and remove the hooks in Rucio's database.

    The database is the one in the rucio.cfg that RUCIO_HOME points to: run this where Rucio's server runs.

    \b
    Example:
      RUCIO_HOME=/opt/rucio rucio-trace hooks install
    """


@hooks.command()
@_DRY_RUN
def install(dry_run: bool) -> None:
    """Put the hooks in place and prove that they work; prints SQL that takes them away again.

    It waits at most 2 s for a lock and tries again: Rucio keeps running. On PostgreSQL and SQLite all of it happens in
    one transaction; MariaDB has none for this, so the triggers are rehearsed on copies of Rucio's tables first.

    \b
    Example:
      rucio-trace hooks install > remove-hooks.sql
    """
    from rucio_trace_policy import hooks as database_hooks
    from rucio_trace_policy.database import open_database
    from rucio_trace_policy.ddl import script

    engine, schema = open_database()
    if dry_run:
        click.echo(script(engine.dialect.name, database_hooks.plan_install(engine, schema)), nl=False)
        return
    changed = database_hooks.install(engine, schema)
    say("hooks installed and proven" if changed else "hooks were in place already; proven again")
    say("this removes them, with psql, sqlite3 or mariadb alone:")
    click.echo(database_hooks.removal_sql(engine, schema), nl=False)
    _warn(database_hooks.status(engine, schema))


@hooks.command()
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def status(as_json: bool) -> None:
    """Tell whether every change is recorded, what waits, and who else writes trace_ keys.

    Ends with 0 when the hooks are in place, else with 3.

    \b
    Example:
      rucio-trace hooks status
    """
    from rucio_trace_policy import hooks as database_hooks
    from rucio_trace_policy.database import advice, open_database

    engine, schema = open_database()
    found = database_hooks.status(engine, schema)
    if as_json:
        json_line({**asdict(found), "oldest": found.oldest and found.oldest.isoformat(), "advice": advice()})
    else:
        for line in _lines(found):
            click.echo(printable(line, limit=None))
        _warn(found)
    if found.faults:
        raise database_hooks.HooksUnfit(list(found.faults))


@hooks.command()
@click.option("--tables", is_flag=True, help="Remove our tables too; refused while changes wait for the recorder.")
@_DRY_RUN
def remove(tables: bool, dry_run: bool) -> None:
    """Take the triggers out of Rucio's database; the tables, with what waits in them, stay unless asked for.

    \b
    Example:
      rucio-trace hooks remove --dry-run
    """
    from rucio_trace_policy import hooks as database_hooks
    from rucio_trace_policy.database import open_database
    from rucio_trace_policy.ddl import script

    engine, schema = open_database()
    if dry_run:
        click.echo(
            script(engine.dialect.name, database_hooks.plan_remove(engine, schema, with_tables=tables)), nl=False
        )
        return
    database_hooks.remove(engine, schema, with_tables=tables)
    say("hooks and tables removed" if tables else "hooks removed; the tables are still there")


def _lines(found: Status) -> list[str]:
    lines = ["hooks   in place"] if found.in_place else [f"hooks   {fault}" for fault in found.faults]
    if found.waiting is not None:
        since = f", the oldest since {found.oldest:%Y-%m-%d %H:%M:%S} UTC" if found.oldest else ""
        lines.append(f"outbox  {found.waiting} changes wait{since}")
    return lines


def _warn(found: Status) -> None:
    """Say what else an operator should know: configuration and keys that are no evidence."""
    from rucio_trace_policy.database import advice

    for line in advice():
        say(f"note: {printable(line, limit=None)}")
    for key in found.forged_keys:
        say(f"note: not from a trace, somebody wrote it: {printable(f'{key.scope}:{key.name} {key.key}')}")
