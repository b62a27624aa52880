"""`rucio-trace store`: prepare, look at and copy the trace store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of, spool_folder
from rucio_trace.cli.terminal import json_line, printable, say
from rucio_trace.configured import open_database, open_service, open_store
from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from rucio_trace.client import Spool

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
    with open_database(settings_of(ctx), migrate=True) as opened:
        opened.prepare()
        while opened.index():
            pass  # of a large store that was upgraded this takes a while; it can be used meanwhile
        say(f"{printable(opened.shown)}: ready")


@store.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say where the store is and how many traces it holds; of a trace service also what waits here for it.

    \b
    Example:
      rucio-trace store status --json
    """
    spool = _spool(ctx)
    if spool is not None and not as_json:  # also while the service is away
        click.echo(f"{printable(str(spool.folder))}: {spool.count()} traces wait, {len(spool.refused())} files refused")
    with open_store(settings_of(ctx), migrate=False) as opened:
        traces = opened.position()
        if as_json:
            waiting = {} if spool is None else {"waiting": spool.count(), "refused": [*map(str, spool.refused())]}
            json_line({"store": opened.shown, "traces": traces, **waiting})
        else:
            click.echo(f"{printable(opened.shown)}: {traces} traces")


@store.command()
@click.pass_context
def deliver(ctx: click.Context) -> None:
    """Hand to the trace service what waits on this machine since it was away.

    Every command that registers does so by itself, before anything else.

    \b
    Example:
      rucio-trace store deliver
    """
    if _spool(ctx) is None:
        raise ConfigurationError("store", expected="a trace service", found="a database, for which nothing ever waits")
    with open_service(settings_of(ctx), spool_folder()) as opened:
        left = opened.client.deliver()
    say(f"{left} traces wait still: the service cannot judge them now" if left else "nothing waits")
    ctx.exit(EXIT_UNDECIDED if left else 0)


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

    opened = Store.open(source, migrate=False) if source is not None else open_database(settings_of(ctx), migrate=False)
    with opened, Store.open(target) as empty:
        traces = opened.copy_to(empty)
        say(f"{printable(empty.shown)}: {traces} traces copied from {printable(opened.shown)}")


def _spool(ctx: click.Context) -> Spool | None:
    """What waits for the service that the settings name, if they name one."""
    from rucio_trace.client import Spool
    from rucio_trace.client.asking import check_url

    service = settings_of(ctx).store.service
    return Spool(spool_folder(), check_url(service, secret=False)) if service else None
