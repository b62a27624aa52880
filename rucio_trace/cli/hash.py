"""`rucio-trace hash`: digests of files, and of what is in archives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import settings_of
from rucio_trace.cli.files import explain, for_each_file, progress_over
from rucio_trace.cli.terminal import json_line, printable
from rucio_trace.digest import ALGORITHMS, digest_file
from rucio_trace.errors import TraceabilityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rucio_trace.archive import Member
    from rucio_trace.config import Limits
    from rucio_trace.digest import Digests

    Found = tuple[Digests, Iterable[Member] | None]

__all__ = ["hash"]


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-a",
    "--algorithm",
    "algorithms",
    multiple=True,
    default=["BLAKE3"],
    show_default=True,
    type=click.Choice(ALGORITHMS, case_sensitive=False),
    metavar="|".join(ALGORITHMS),
    help="Which digest; give it several times for several, all in one reading.",
)
@click.option("--contents", is_flag=True, help="Also the members of zip and tar archives, in the same reading.")
@click.option("--product", is_flag=True, help="The product digest instead: equal for a folder, its zip and its tar.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per file.")
@click.pass_context
def hash(ctx: click.Context, /, files: tuple[Path, ...], algorithms: tuple[str, ...], **options: bool) -> None:  # noqa: A001
    """Print the digests of files, or the product digest of folders and archives.

    With one algorithm each line is a digest and a file; with several the algorithm stands before them.
    Members of an archive are indented below it.

    \b
    Example:
      rucio-trace hash --algorithm BLAKE3 --algorithm ADLER32 --contents product.SAFE.zip
    """
    wanted = tuple(dict.fromkeys(algorithms))
    if options["product"] and (wanted != ("BLAKE3",) or options["contents"]):
        raise click.UsageError("--product is BLAKE3 over all members: it goes with neither --algorithm nor --contents")
    limits = settings_of(ctx).limits if options["contents"] or options["product"] else None
    with progress_over(files) as progress:

        def work(path: Path) -> None:
            try:
                if limits is not None and options["product"]:
                    _show_product(path, limits, progress, as_json=options["as_json"])
                    return
                found = _digest(path, wanted, limits, progress)
            except (TraceabilityError, OSError) as error:
                if options["as_json"]:
                    json_line({"file": str(path), "error": explain(path, error)})
                raise
            (_show_json if options["as_json"] else _show_lines)(path, *found)

        ctx.exit(for_each_file(files, work))


def _digest(path: Path, algorithms: tuple[str, ...], limits: Limits | None, progress: Callable[[int], object]) -> Found:
    if limits is None:
        return digest_file(path, algorithms, progress=progress), None
    from dataclasses import asdict

    from rucio_trace.archive import ArchiveLimits, digest_archive

    found = digest_archive(path, algorithms, limits=ArchiveLimits(**asdict(limits)), progress=progress)
    return found.whole, found.members


def _show_product(path: Path, limits: Limits, progress: Callable[[int], object], *, as_json: bool) -> None:
    from dataclasses import asdict

    from rucio_trace.archive import ArchiveLimits
    from rucio_trace.folder import digest_content
    from rucio_trace.product_digest import product_digest

    members = digest_content(path, ["BLAKE3"], limits=ArchiveLimits(**asdict(limits)), progress=progress)
    digest = product_digest((member.path, member.hashes["BLAKE3"]) for member in members)
    if as_json:
        json_line({"file": str(path), "product_digest": digest, "members": len(members)})
    else:
        _show_hashes("", str(path), {"BLAKE3": digest})


def _show_json(path: Path, whole: Digests, members: Iterable[Member] | None) -> None:
    value: dict[str, Any] = {"file": str(path), "size": whole.size, "hashes": dict(whole.hashes)}
    if members is not None:
        value["contents"] = [{"path": m.path, "size": m.size, "hashes": dict(m.hashes)} for m in members]
    json_line(value)


def _show_lines(path: Path, whole: Digests, members: Iterable[Member] | None) -> None:
    _show_hashes("", str(path), whole.hashes)
    for member in members or ():
        _show_hashes("  ", member.path, member.hashes)


def _show_hashes(indent: str, name: str, hashes: Mapping[str, str]) -> None:
    for algorithm, digest in hashes.items():
        label = f"{algorithm:<8}" if len(hashes) > 1 else ""
        click.echo(f"{indent}{label}{digest}  {printable(name)}")
