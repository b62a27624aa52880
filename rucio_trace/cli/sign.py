"""`rucio-trace sign`: a signed trace for each file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import settings_of
from rucio_trace.cli.files import for_each_file, progress_over
from rucio_trace.cli.inputs import input_option
from rucio_trace.cli.terminal import json_line, printable, say, utc_moment
from rucio_trace.configured import load_signer
from rucio_trace.digest import digest_file
from rucio_trace.envelope import Trace, to_json
from rucio_trace.envelope import sign as sign_statement
from rucio_trace.producer.declare import OwnInput
from rucio_trace.products import attributes_of
from rucio_trace.trace import (
    DEFAULT_VO,
    STRONG,
    Content,
    Event,
    Input,
    ProductKey,
    Statement,
    base_name,
    format_time,
    new_event_id,
    new_salt,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio_trace.archive import ArchiveDigests, ArchiveLimits
    from rucio_trace.envelope import Signer

__all__ = ["sign"]

# CORRUPT and LOST are findings on a replica: only a recorder makes them.
_EVENTS = [str(event) for event in Event if event not in (Event.CORRUPT, Event.LOST)]
_READ = (Event.CREATE, Event.COPY, Event.VERIFY)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be signed of every file."""

    signer: Signer
    event: Event
    algorithm: str
    site: str
    inputs: tuple[Input, ...]
    limits: ArchiveLimits | None
    product: ProductKey | None
    obsolescence: str | None
    replaced_by: str | None
    revokes: str | None


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--key", required=True, type=_FILE, metavar="PEM", help="The private key to sign with.")
@click.option("--cert", required=True, type=_FILE, metavar="PEM", help="Its certificate, then intermediates.")
@click.option("--key-password-file", type=_FILE, metavar="FILE", help="Holds the password of the key.")
@click.option("--event", type=click.Choice(_EVENTS), default="CREATE", show_default=True, help="What happened.")
@click.option("--algorithm", type=click.Choice(STRONG), default="BLAKE3", show_default=True, help="The digest to sign.")
@input_option
@click.option("--contents", is_flag=True, help="Sign the digests of an archive's members too.")
@click.option("--site", metavar="NAME", help="Who observed; else recorder.site, else the certificate's subject.")
@click.option("--did", metavar="SCOPE:NAME", help="The product in Rucio, with --generation; for one file.")
@click.option("--generation", metavar="TIME", help="When Rucio created the DID (created_at), RFC 3339.")
@click.option("--reason", metavar="TEXT", help="Why the product is OBSOLETE or the trace is revoked.")
@click.option("--replaced-by", metavar="NAME", help="The successor of an OBSOLETE product.")
@click.option("--revokes", metavar="ID", help="The trace that a REVOKE withdraws.")
@click.pass_context
def sign(ctx: click.Context, /, files: tuple[Path, ...], **options: Any) -> None:
    """Sign a trace for each file; prints them as one JSON array.

    Attributes that a Sentinel product's name and manifest tell are signed along.

    \b
    Example:
      rucio-trace sign product.SAFE.zip --key signer.key --cert signer.pem --contents > product.trace.json
    """
    order = _order(ctx, files, options)
    traces: list[Trace] = []
    with progress_over(files) as progress:

        def work(path: Path) -> None:
            traces.append(_sign(path, order, progress))
            say(f"signed: {order.event} of {printable(str(path))}")

        code = for_each_file(files, work)
    json_line([to_json(trace) for trace in traces])
    ctx.exit(code)


def _order(ctx: click.Context, files: tuple[Path, ...], options: dict[str, Any]) -> _Order:
    settings = settings_of(ctx)
    signer = load_signer(options["key"], options["cert"], options["key_password_file"])
    event = Event(options["event"])
    if options["did"] and len(files) > 1:
        raise click.UsageError("--did names one product: give one file")
    if (event is Event.REVOKE) != (options["revokes"] is not None):
        raise click.UsageError("REVOKE and --revokes ID go together")
    limits = None
    if options["contents"]:
        from rucio_trace.archive import ArchiveLimits

        limits = ArchiveLimits(**asdict(settings.limits))
    return _Order(
        signer=signer,
        event=event,
        algorithm=options["algorithm"],
        site=options["site"] or settings.recorder.site or signer.subject,
        inputs=options["inputs"],
        limits=limits,
        product=_product(settings.instance.name, settings.instance.vo, options["did"], options["generation"]),
        obsolescence=options["reason"],
        replaced_by=options["replaced_by"],
        revokes=options["revokes"],
    )


def _product(rucio: str, vo: str, did: str | None, generation: str | None) -> ProductKey | None:
    if did is None and generation is None:
        return None
    scope, colon, name = (did or "").partition(":")
    if not (scope and colon and name and generation):
        raise click.UsageError("a product in Rucio takes --did SCOPE:NAME and --generation TIME")
    if not rucio:
        raise click.UsageError("a product in Rucio takes the instance's name: set instance.name in the settings")
    try:
        moment = utc_moment(generation)
    except ValueError as error:
        raise click.UsageError(f"--generation: {error}") from None
    return ProductKey(rucio, vo or DEFAULT_VO, scope, name, format_time(moment))


def _sign(path: Path, order: _Order, progress: Callable[[int], object]) -> Trace:
    found = _digest(path, order, progress)
    if any(given.hash == found.whole.hashes[order.algorithm] for given in order.inputs):
        raise OwnInput(path.name, found.whole.hashes[order.algorithm])
    name = base_name(order.product.name) if order.product else path.absolute().name
    attributes = attributes_of(name, found.manifest)
    contents = None
    if found.members is not None:
        contents = tuple(Content(m.path, m.hashes[order.algorithm]) for m in found.members)
    now = format_time(datetime.now(UTC))
    read = order.event in _READ and order.product is None
    statement = Statement(
        contents=contents,
        hash=found.whole.hashes[order.algorithm],
        inputs=order.inputs or None,
        name=name,
        size=found.whole.size,
        event=order.event,
        event_id=new_event_id(),
        hash_algorithm=order.algorithm,
        site=order.site,
        signer=order.signer.fingerprint,
        time=now,
        observed=now if read else None,
        method="read" if read else None,
        attributes=attributes or None,
        obsolescence=order.obsolescence,
        replaced_by=order.replaced_by,
        revokes=order.revokes,
        salt=new_salt(),
        **(order.product.fields() if order.product else {}),
    )
    return sign_statement(statement, order.signer)


def _digest(path: Path, order: _Order, progress: Callable[[int], object]) -> ArchiveDigests:
    from rucio_trace.archive import ArchiveDigests, digest_archive

    if order.limits is None:
        return ArchiveDigests(digest_file(path, [order.algorithm], progress=progress), None)
    return digest_archive(path, [order.algorithm], limits=order.limits, progress=progress)
