"""`rucio-trace upload`: what `rucio upload` does, with the producer's signed trace."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import settings_of
from rucio_trace.cli.display import Display, display
from rucio_trace.cli.inputs import input_option
from rucio_trace.cli.terminal import printable, say
from rucio_trace.errors import ConfigurationError
from rucio_trace.producer.ahead import Declarations

if TYPE_CHECKING:
    from rucio_trace.producer import Producer

__all__ = ["upload"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TIMEOUT_SECONDS = 360.0  # as in `rucio upload`
_SUMMARY = Path("rucio_upload.json")  # where `rucio upload` puts it


@click.command()
@click.argument("paths", metavar="[SCOPE:DATASET] PATH...", nargs=-1, required=True)
@click.option("--rse", "--rse-name", required=True, metavar="RSE", help="Where to, an RSE or an expression.")
@click.option("--scope", metavar="NAME", help="The scope of the files; else the account's own.")
@click.option("--dataset", metavar="SCOPE:NAME", help="The dataset they are attached to; made if it is missing.")
@click.option("--lfn", "--name", "lfn", metavar="NAME", help="The name in Rucio; for one file.")
@click.option("-r", "--recursive", is_flag=True, help="Make datasets and containers of folders.")
@click.option("--lifetime", type=int, metavar="SECONDS", help="Of the rule that keeps the files.")
@click.option("--expiration-date", metavar="DATE", help="When that rule ends, as 2026-12-31-20:00:00 (UTC).")
@click.option("--impl", metavar="NAME", help="The protocol implementation, as xrootd or gfal.NoRename.")
@click.option("--protocol", metavar="SCHEME", help="The protocol, as root or davs.")
@click.option("--pfn", metavar="URL", help="The exact place, on RSEs that are not deterministic.")
@click.option("--guid", metavar="GUID", help="The file's GUID.")
@click.option("--register-after-upload", is_flag=True, help="Register a file only once its bytes are there.")
@click.option("--transfer-timeout", type=float, metavar="SECONDS", help="How long one file may take.")
@click.option("--summary", is_flag=True, help=f"Write {_SUMMARY} about what was uploaded.")
@input_option
@click.option("--contents/--no-contents", default=None, help="Sign the digests of an archive's members too.")
@click.option("--key", type=_FILE, metavar="PEM", help="The private key; else producer.key.")
@click.option("--cert", type=_FILE, metavar="PEM", help="Its certificate, then intermediates; else the settings'.")
@click.option("--key-password-file", type=_FILE, metavar="FILE", help="Holds the password of the key.")
@click.option("--site", metavar="NAME", help="Who speaks; else producer.site, else the certificate's subject.")
@click.option("--progress/--no-progress", default=True, help="Show how far it is, on a terminal.")
@click.pass_context
def upload(ctx: click.Context, /, paths: tuple[str, ...], **options: Any) -> None:
    """Upload files to Rucio, each with a signed trace.

    Takes what `rucio upload` takes. Each file is read once for all its digests, its CREATE is signed and given to
    Rucio as `trace_origin`, then the bytes leave. Repeat a command that was interrupted: it continues.

    \b
    Example:
      rucio-trace upload --rse SITE-A_DISK --scope s2 product.SAFE.zip --input raw.dat:6437b3ac…
    """
    producer = _producer(ctx, options)
    files = [file for path in paths if ":" not in path for file in _files(Path(path), options["recursive"])]
    names = {file: options["lfn"] or file.name for file in files}
    with (
        display(sum(map(_size, files)), wanted=options["progress"]) as shown,
        Declarations(names, producer, shown.read) as declarations,
    ):
        count = _upload(paths, options, declarations, shown)
    say(f"{count} uploaded and traced" if count > 1 else "uploaded and traced")


def _upload(paths: tuple[str, ...], options: dict[str, Any], declarations: Declarations, shown: Display) -> int:
    """What takes Rucio's client, which takes its time to import."""
    from rucio.common.config import config_get_float
    from rucio.common.exception import RucioException

    from rucio_trace.cli import transfers
    from rucio_trace.producer.upload import TracingUploadClient

    if options["transfer_timeout"] is None:
        options["transfer_timeout"] = config_get_float("upload", "transfer_timeout", False, _TIMEOUT_SECONDS)
    items = _items(paths, options)
    try:
        uploader = TracingUploadClient(
            transfers.client(), declarations, logger=transfers.logger(), sending=shown.sending
        )
        return uploader.upload_traced(items, _SUMMARY if options["summary"] else None)
    except RucioException as error:
        raise transfers.RucioRefused(error) from error


def _producer(ctx: click.Context, options: dict[str, Any]) -> Producer:
    from rucio_trace.configured import load_signer
    from rucio_trace.producer import Producer

    settings = settings_of(ctx)
    ours = settings.producer
    key, certificate = options["key"] or ours.key, options["cert"] or ours.certificate
    if key is None or certificate is None:
        raise ConfigurationError(
            "the producer's key and certificate", expected="both", found="none", hint="--key and --cert, or [producer]"
        )
    signer = load_signer(key, certificate, options["key_password_file"] or ours.key_password_file)
    limits = None
    if ours.contents if options["contents"] is None else options["contents"]:
        from rucio_trace.archive import ArchiveLimits

        limits = ArchiveLimits(**asdict(settings.limits))
    return Producer(signer, options["site"] or ours.site or signer.subject, options["inputs"], limits)


def _items(paths: tuple[str, ...], options: dict[str, Any]) -> list[dict[str, Any]]:
    """What Rucio's client takes, by the rules of `rucio upload`: an argument with a colon is the dataset."""
    named = [path for path in paths if ":" in path]
    files = [path for path in paths if ":" not in path]
    if options["dataset"]:
        named.insert(0, options["dataset"])
    if len(named) > 1:
        raise click.UsageError(f"one dataset for all files, not {' and '.join(named)}")
    scope, _, name = named[0].partition(":") if named else ("", "", "")
    if named and not (scope and name):
        raise click.UsageError(f"{named[0]}: expected SCOPE:NAME")
    if not files:
        raise click.UsageError("no files are named")
    for file in files:
        if not Path(file).exists():
            raise click.UsageError(f"{printable(file)}: no such file")
        if options["recursive"] and not Path(file).is_dir():
            raise click.UsageError(f"{printable(file)}: expected a folder, with --recursive")
    if len(files) > 1 and (options["lfn"] or options["guid"]):
        raise click.UsageError("--lfn and --guid are for one file")
    if options["recursive"] and options["pfn"]:
        raise click.UsageError("--recursive and --pfn exclude each other")
    common = {
        "rse": options["rse"],
        "did_scope": options["scope"],
        "did_name": options["lfn"],
        "dataset_scope": scope,
        "dataset_name": name,
        "impl": None if options["pfn"] else options["impl"],
        "force_scheme": options["protocol"],
        "pfn": options["pfn"],
        "guid": options["guid"],
        "lifetime": _lifetime(options),
        "register_after_upload": options["register_after_upload"],
        "transfer_timeout": int(options["transfer_timeout"]),
        "recursive": options["recursive"],
    }
    return [{"path": path} | {key: value for key, value in common.items() if value} for path in files]


def _lifetime(options: dict[str, Any]) -> int | None:
    date = options["expiration_date"]
    if date is None:
        return options["lifetime"]  # type: ignore[no-any-return]
    if options["lifetime"] is not None:
        raise click.UsageError("--lifetime and --expiration-date exclude each other")
    try:
        end = datetime.strptime(date, "%Y-%m-%d-%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise click.UsageError(f"--expiration-date {date}: expected YEAR-MONTH-DAY-HOUR:MINUTE:SECOND") from None
    seconds = int((end - datetime.now(UTC)).total_seconds())
    if seconds <= 0:
        raise click.UsageError(f"--expiration-date {date} is in the past")
    return seconds


def _files(path: Path, recursive: bool) -> list[Path]:
    """The files that Rucio's client will take of *path*: of a folder without --recursive not those of its folders."""
    if not path.is_dir():
        return [] if recursive else [path]
    return [file for file in (path.rglob("*") if recursive else path.iterdir()) if file.is_file()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it says what is wrong
        return 0
