"""`--input NAME:HASH`, for the commands that sign what a product was made from."""

from __future__ import annotations

import click

from rucio_trace.cli.terminal import printable
from rucio_trace.trace import Input

__all__ = ["input_option"]


def _inputs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Input, ...]:
    """Each `NAME:HASH`; the name may hold colons."""
    inputs = []
    for value in values:
        name, _, digest = value.rpartition(":")
        if not name or not digest:
            raise click.BadParameter(f"{printable(value)}: expected NAME:HASH", ctx, param)
        inputs.append(Input(name, digest.lower()))
    return tuple(inputs)


input_option = click.option(
    "--input", "inputs", multiple=True, callback=_inputs, metavar="NAME:HASH", help="A product this was made from."
)
