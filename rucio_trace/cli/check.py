"""`rucio-trace check`: products held against their own manifests."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of
from rucio_trace.cli.files import explain, progress_over
from rucio_trace.cli.terminal import json_line, printable, say, show_table
from rucio_trace.errors import TraceabilityError
from rucio_trace.faults import Remark, Uncertain

if TYPE_CHECKING:
    from rucio_trace.faults import Fault
    from rucio_trace.products.checking import Checked

__all__ = ["check"]

EXIT_FAULTY = 1
_STYLES = {"whole": "green", "faulty": "red", "unknown": "yellow"}


@click.command()
@click.argument("products", metavar="PRODUCT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per product.")
@click.pass_context
def check(ctx: click.Context, /, products: tuple[Path, ...], as_json: bool) -> None:
    """Check products against the manifests in them.

    A PRODUCT is a Sentinel product as folder, zip or tar, with a manifest.safe or xfdumanifest.xml. It is
    whole if every file the manifest lists is there with its size and checksum, and no other. Whether the
    manifest itself is genuine only a trace tells: see verify. Ends with 0 if all products are whole, 1 if
    any is not, else 3 if it could not be found out of any.

    \b
    Example:
      rucio-trace check S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.zip
    """
    from rucio_trace.archive import ArchiveLimits
    from rucio_trace.products.reading import check_path

    limits = ArchiveLimits(**asdict(settings_of(ctx).limits))
    states: set[str] = set()
    with progress_over(products) as progress:
        for path in products:
            try:
                checked = check_path(path, limits=limits, progress=progress)
            except (TraceabilityError, OSError) as error:
                states.add("unknown")
                say(f"rucio-trace: {explain(path, error)}")
                if as_json:
                    json_line({"product": str(path), "state": "unknown", "error": explain(path, error)})
                continue
            state = _state(checked.faults)
            states.add(state)
            (_show_json if as_json else _show_text)(path, state, checked)
    ctx.exit(EXIT_FAULTY if "faulty" in states else EXIT_UNDECIDED if "unknown" in states else 0)


def _state(found: tuple[Fault, ...]) -> str:
    if any(not isinstance(fault, Remark | Uncertain) for fault in found):
        return "faulty"
    return "unknown" if any(isinstance(fault, Uncertain) for fault in found) else "whole"


def _show_json(path: Path, state: str, checked: Checked) -> None:
    value: dict[str, Any] = {"product": str(path), "state": state, "files": checked.listed}
    value["faults"] = [_as_dict(fault) for fault in checked.faults if not isinstance(fault, Remark)]
    value["remarks"] = [_as_dict(fault) for fault in checked.faults if isinstance(fault, Remark)]
    json_line(value)


def _as_dict(fault: Fault) -> dict[str, str | None]:
    value = fault.as_dict()
    del value["trace"]
    return value


def _show_text(path: Path, state: str, checked: Checked) -> None:
    shown = click.style(state, fg=_STYLES[state], bold=True)
    click.echo(f"{printable(str(path))}: {shown}, {checked.listed} files listed")
    if checked.faults:
        rows = [(_label(fault), fault.what, fault.expected, fault.found) for fault in checked.faults]
        show_table(("fault", "file", "expected", "found"), rows)


def _label(fault: Fault) -> str:
    return "(remark)" if isinstance(fault, Remark) else fault.kind
