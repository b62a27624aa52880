"""`rucio-trace demo`: a whole federation on this machine, its story told as it happens."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["demo"]


@click.command()
@click.option(
    "--product",
    type=click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True),
    metavar="FILE",
    help="Take this file instead of one that looks like Sentinel-2's.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Put everything in this empty or new folder.  [default: a new one in the temporary folder]",
)
@click.option(
    "--megabytes", type=click.FloatRange(0.01, 10_000), default=50, show_default=True, help="Size of the product."
)
def demo(product: Path | None, folder: Path | None, megabytes: float) -> None:
    """Run a whole federation on this machine: Rucio, XRootD, recorders, and two products' lives.

    Everything is real but the federation itself; every outcome that is told was checked. Ends with 0
    if all of it held. Afterwards nothing runs any more, and the folder it names holds all that was made.

    \b
    Example:
      rucio-trace demo --folder /tmp/my-federation
    """
    from rucio_trace_sandbox.demo.run import play

    play(folder, product, megabytes)
