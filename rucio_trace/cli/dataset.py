"""`rucio-trace dataset`: the list of files whose digest a dataset's trace signs."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of
from rucio_trace.cli.terminal import printable, say
from rucio_trace.configured import open_store
from rucio_trace.dataset import line
from rucio_trace.status import product_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from rucio_trace.statement import Statement
    from rucio_trace.store import TraceStore

__all__ = ["dataset"]

DIDS_AT_ONCE = 500


@click.command()
@click.argument("dids", type=click.File(encoding="utf-8"), default="-", metavar="[FILE]")
@click.pass_context
def dataset(ctx: click.Context, /, dids: TextIO) -> None:
    """Print the list of the files whose DIDs are in FILE, one a line (default: standard input).

    Each line has what is signed of the newest product of that name. The BLAKE3 of the whole is the `hash` that the
    trace of a dataset of these files signs: `b3sum` prints it, `rucio-trace history` shows it.

    \b
    Example:
      rucio-trace dataset june.txt | b3sum
    """
    wanted = sorted({tuple(text.encode() for text in did.strip().split(":", 1)) for did in dids if did.strip()})
    unknown = 0
    with open_store(settings_of(ctx), migrate=False) as store:
        for did, origin in _origins(store, (b":".join(parts).decode() for parts in wanted)):
            if origin is None:
                say(f"{printable(did)}: no origin in the store")
                unknown += 1
            else:
                click.echo(line(did, origin), nl=False)
    if unknown:
        ctx.exit(EXIT_UNDECIDED)


def _origins(store: TraceStore, dids: Iterable[str]) -> Iterator[tuple[str, Statement | None]]:
    """What is signed of the newest generation of each of *dids*."""
    remaining = iter(dids)
    while some := list(islice(remaining, DIDS_AT_ONCE)):
        keys = store.newest(some)
        histories = store.product([key for key in keys.values() if key is not None])
        for did in some:
            key = keys[did]
            origin = product_status(histories[key], str).origin if key is not None else None
            yield did, origin.trace.statement if origin else None
