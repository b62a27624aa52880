"""`rucio-trace store`: prepare, look at and copy the trace store."""

from __future__ import annotations

import click

from rucio_trace.cli import settings_of
from rucio_trace.cli.terminal import json_line, printable, say
from rucio_trace.configured import open_store

__all__ = ["store"]


@click.group(short_help="Prepare and inspect the trace store.")
def store() -> None:
    """Prepare and inspect the trace store that the settings name.

    \b
    Example:
      rucio-trace store migrate
    """


@store.command()
@click.pass_context
def migrate(ctx: click.Context) -> None:
    """Make the store's tables, or bring them up to date.

    \b
    Example:
      rucio-trace store migrate
    """
    with open_store(settings_of(ctx), migrate=True) as opened:
        say(f"{printable(opened.shown)}: ready")


@store.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say where the store is and how many traces it holds.

    \b
    Example:
      rucio-trace store status --json
    """
    with open_store(settings_of(ctx), migrate=False) as opened:
        traces = opened.position()
        if as_json:
            json_line({"store": opened.shown, "traces": traces})
        else:
            click.echo(f"{printable(opened.shown)}: {traces} traces")


@store.command()
@click.argument("target", metavar="URL")
@click.option("--from", "source", metavar="URL", help="Copy this store instead of the one that the settings name.")
@click.pass_context
def copy(ctx: click.Context, target: str, source: str | None) -> None:
    """Copy the whole store to an empty one at URL: to back it up, restore it, or move it to PostgreSQL.

    Positions and times of registration are kept. The store may be in use meanwhile; what is registered later
    is not copied. A password comes from ~/.pgpass.

    \b
    Example:
      rucio-trace store copy postgresql://traces@db.example.org/traces
    """
    from rucio_trace.store import Store

    opened = Store.open(source, migrate=False) if source is not None else open_store(settings_of(ctx), migrate=False)
    with opened, Store.open(target) as empty:
        traces = opened.copy_to(empty)
        say(f"{printable(empty.shown)}: {traces} traces copied from {printable(opened.shown)}")
