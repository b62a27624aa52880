"""`rucio-trace history`: the life of a product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of
from rucio_trace.cli.terminal import json_line, printable, say, show_table
from rucio_trace.cli.traces import STYLES, as_object, line_as_object, note_on, place_of, remarks, short_time
from rucio_trace.configured import open_store
from rucio_trace.dataset import is_dataset
from rucio_trace.envelope import to_json
from rucio_trace.status import product_status
from rucio_trace.trace import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rucio_trace.store import BatchLine, Stored
    from rucio_trace.trace import ProductKey

__all__ = ["history"]


@click.command()
@click.argument("did", metavar="SCOPE:NAME")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per trace.")
@click.option("--traces", "as_traces", is_flag=True, help="Print the traces themselves, for `verify --trace`.")
@click.pass_context
def history(ctx: click.Context, /, did: str, as_json: bool, as_traces: bool) -> None:
    """Show everything that happened to a product, oldest first.

    Of the batches that verified it, the last one of each site and replica.

    A name that was deleted and given again stands for several products: each generation has its own table.

    \b
    Example:
      rucio-trace history s2:S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.zip
    """
    scope, colon, name = did.partition(":")
    if not (scope and colon and name):
        raise click.UsageError(f"{printable(did)}: expected SCOPE:NAME")
    with open_store(settings_of(ctx), migrate=False) as store:
        keys = {key for stored in store.by_did(scope, name) if (key := stored.trace.statement.product) is not None}
        products, lines = store.product(keys), store.proven(keys)
    found = list({stored.position: stored for of in products.values() for stored in of}.values())
    if as_traces:
        json_line([to_json(stored.trace) for stored in found])
    elif as_json:
        for stored in _in_time(found):
            json_line(as_object(stored))
        for line in (line for of in lines.values() for line in of):
            json_line(line_as_object(line))
    else:
        for key in sorted(products, key=lambda key: (key.rucio, key.vo, key.generation)):
            _show(key, products[key], lines.get(key, ()))
    if not found:
        say(f"{printable(did)}: no traces in the store")
        ctx.exit(EXIT_UNDECIDED)


def _in_time(traces: Iterable[Stored]) -> list[Stored]:
    return sorted(traces, key=lambda stored: (stored.trace.statement.time or "", stored.position))


def _show(key: ProductKey, traces: Sequence[Stored], lines: Sequence[BatchLine]) -> None:
    status = product_status(traces, str, lines)
    vo = "" if key.vo == "def" else f", VO {key.vo}"
    click.echo(f"{printable(key.did)} of {printable(key.rucio)}{printable(vo)}")
    created, good = f"created {parse_time(key.generation):%Y-%m-%d %H:%M:%S} UTC", f"{status.trace_replicas} good"
    if is_dataset(stored.trace for stored in traces):
        good = "a dataset" if status.origin is None else f"a dataset of {status.origin.trace.statement.members} files"
    click.echo(f"{created}, {status.status}, {good}")
    if status.origin is not None:
        origin = status.origin.trace.statement
        click.echo(f"{origin.hash_algorithm or 'digest'} {origin.hash}, {origin.size} bytes")
    rows: list[tuple[str | None, ...]] = []
    for stored in _in_time(traces):
        s = stored.trace.statement
        rows.append((short_time(s.time), s.event, s.rse, s.site, s.method, remarks(s) or note_on(stored.trace)))
    for line in lines:
        s = line.batch.trace.statement
        rows.append((short_time(line.line.time), s.event, s.rse, s.site, s.method, place_of(line)))
    rows.sort(key=lambda row: row[0] or "")
    show_table(("time", "event", "RSE", "seen by", "method", ""), rows, styles=STYLES)
