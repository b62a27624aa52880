"""`rucio-trace lineage`: what a product was made from, and what was made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of
from rucio_trace.cli.finding import digests_of
from rucio_trace.cli.terminal import json_line, printable, say
from rucio_trace.configured import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.tree import Tree

    from rucio_trace.lineage import Lineage, Product

__all__ = ["lineage"]

_BLAMED = 5  # ancestors in trouble that a line names; --json names all


@click.command()
@click.argument("what", metavar="SCOPE:NAME|FILE|DIGEST")
@click.option("--up/--down", default=True, help="What it was made from (the default), or what was made from it.")
@click.option("--depth", type=click.IntRange(1), metavar="N", help="Look at most so many steps far.")
@click.option("--json", "form", flag_value="json", help="Print one JSON object.")
@click.option("--dot", "form", flag_value="dot", help="Print a graph for Graphviz.")
@click.pass_context
def lineage(ctx: click.Context, /, what: str, up: bool, depth: int | None, form: str | None) -> None:
    """Show what a product was made from, as the CREATE traces in the store say.

    Products are known by their digests. One that is obsolete, revoked, disputed or tampered with is named on
    everything made from it; of an unknown one no trace speaks.

    \b
    Example:
      rucio-trace lineage s2:S2A_MSIL2A_20230420T100021_N0509_R122_T33UVP_20230420T150054.SAFE.zip --depth 3
    """
    with open_store(settings_of(ctx), migrate=False) as store:
        answers = (store.lineage(digests, up=up, depth=depth) for digests in digests_of(what, store) if digests)
        found = next((answer for answer in answers if answer is not None), None)
    if found is None:
        say(f"{printable(what)}: no trace in the store says how it was made")
        ctx.exit(EXIT_UNDECIDED)
    if form == "json":
        json_line(found.as_object(up=up))
    elif form == "dot":
        click.echo(_as_dot(found))
    else:
        _show(found, up=up)
    if not found.complete:
        say(f"there is more than {len(found.products)} products: --depth or another start shows a smaller part whole")


def _label(product: Product) -> str:
    name = product.did or product.name or product.key
    return printable(name if product.known else f"{name} (unknown, {product.key[:16]})")


def _blame(found: Lineage, key: str) -> str:
    """Which ancestors are in trouble, in a few words."""
    blamed = [found.products[each] for each in found.because_of.get(key, ())]
    words = [f"{printable(p.did or p.name)} is {p.trouble}" for p in blamed[:_BLAMED]]
    if len(blamed) > _BLAMED:
        words.append(f"and {len(blamed) - _BLAMED} more")
    return ", ".join(words)


def _show(found: Lineage, *, up: bool) -> None:
    from rich.console import Console
    from rich.tree import Tree

    below: Mapping[str, tuple[str, ...]] = found.inputs if up else found.outputs()
    root = Tree("")
    shown: set[str] = set()
    todo: list[tuple[str, Tree]] = [(found.start, root)]
    while todo:
        key, above = todo.pop()
        more = below.get(key, ())
        branch = above.add(_line(found, key, again=key in shown and bool(more)))
        if key not in shown:
            shown.add(key)
            todo += [(each, branch) for each in reversed(more)]
    # As wide as any line is: a terminal wraps by itself, and a name cut off may be another product's.
    console = Console(width=1 << 20, soft_wrap=True)
    for tree in root.children:
        console.print(tree)


def _line(found: Lineage, key: str, *, again: bool) -> Any:
    from rich.text import Text

    product = found.products[key]
    line = Text(_label(product), style="" if product.known else "dim")
    if product.trouble is not None:
        line.append(f"  {product.trouble}", style="bold red")
    if blame := _blame(found, key):
        line.append(f"  made from: {blame}", style="red")
    if again:
        line.append("  (as above)", style="dim")
    elif product.beyond:
        line.append("  …", style="dim")
    return line


def _as_dot(found: Lineage) -> str:
    """Arrows lead from an input to what was made from it."""
    lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box];"]
    for key, product in found.products.items():
        label = [_label(product), *([product.trouble] if product.trouble else [])]
        if blame := _blame(found, key):
            label.append(f"made from: {blame}")
        colour = ", color=red" if product.trouble or blame else ""
        style = "" if product.known else ", style=dashed"
        lines.append(f'  "{key}" [label="{_quoted(label)}"{colour}{style}];')
    for key, given in found.inputs.items():
        lines += [f'  "{each}" -> "{key}";' for each in given]
    return "\n".join([*lines, "}"])


def _quoted(parts: list[str]) -> str:
    return "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in parts)
