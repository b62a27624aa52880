"""`rucio-trace search`: find traces in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import settings_of
from rucio_trace.cli.terminal import json_line, say, show_table, utc_moment
from rucio_trace.cli.traces import STYLES, as_object, note_on, short_time
from rucio_trace.configured import open_store
from rucio_trace.status import Status
from rucio_trace.trace import Event

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["search"]


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else utc_moment(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command()
@click.argument("prefix", required=False, metavar="[PREFIX]")
@click.option("--digest", metavar="HEX", help="A file's or a member's digest, of any algorithm.")
@click.option("--status", type=click.Choice([str(s) for s in Status]), help="The product's status now.")
@click.option("--event", type=click.Choice([str(e) for e in Event]), help="What happened.")
@click.option("--rse", metavar="NAME", help="Where it happened.")
@click.option("--since", callback=_moment, metavar="TIME", help="Not before this time (UTC).")
@click.option("--until", callback=_moment, metavar="TIME", help="Before this time (UTC).")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per trace.")
@click.pass_context
def search(ctx: click.Context, /, prefix: str | None, as_json: bool, limit: int, **options: Any) -> None:
    """Find traces that fulfil everything given, newest first.

    PREFIX is how the file's name begins, or SCOPE:NAME if it holds a colon.

    \b
    Example:
      rucio-trace search S2A_MSIL1C_ --event CORRUPT --since 2026-05-01
    """
    event = Event(options["event"]) if options["event"] else None
    status = Status(options["status"]) if options["status"] else None
    digest = options["digest"].lower() if options["digest"] else None
    with open_store(settings_of(ctx), migrate=False) as store:
        found = store.search(
            name_prefix=prefix,
            digest=digest,
            status=status,
            event=event,
            rse=options["rse"],
            since=options["since"],
            until=options["until"],
            limit=limit,
        )
    if as_json:
        for stored in found:
            json_line(as_object(stored))
    elif found:
        rows = [
            (short_time(s.time), s.event, s.did or s.name, s.rse, x.id, note_on(x.trace))
            for x in found
            for s in [x.trace.statement]
        ]
        show_table(("time", "event", "product", "RSE", "trace", ""), rows, styles=STYLES)
    if len(found) == limit:
        say(f"these are the newest {limit}; --limit shows more")
    elif not found:
        say("no trace in the store fulfils that")
