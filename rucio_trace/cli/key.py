"""`rucio-trace key`: keys to sign with, and the requests that get them certified."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from rucio_trace.cli.terminal import json_line, printable, say
from rucio_trace.configured import read_file, read_secret
from rucio_trace.keys import describe, generate_key, request_certificate

__all__ = ["key"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PASSWORD = click.option("--password-file", type=_FILE, metavar="FILE", help="Holds the key's password.")


@click.group()
def key() -> None:
    """Make a signing key, request a certificate for it, show what one has.

    \b
    Example:
      rucio-trace key new signer.key
    """


@key.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_PASSWORD
def new(file: Path, password_file: Path | None) -> None:
    """Write a new P-256 key to FILE, readable by its owner alone; a file that exists is left as it is.

    \b
    Example:
      rucio-trace key new signer.key
    """
    pem = generate_key(read_secret(password_file))
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{printable(str(file))} exists already; keys are never overwritten") from None
    with os.fdopen(descriptor, "wb") as out:
        out.write(pem)
    say(f"new key in {printable(str(file))}; next: rucio-trace key request {printable(str(file))} --name ...")


@key.command()
@click.argument("file", type=_FILE)
@click.option("--name", required=True, metavar="TEXT", help="The signer's common name.")
@click.option("--uri", metavar="URI", help="The signer's address in the federation file, as URI:... there.")
@_PASSWORD
def request(file: Path, name: str, uri: str | None, password_file: Path | None) -> None:
    """Print a certificate signing request for the key in FILE; an authority makes a certificate of it.

    \b
    Example:
      rucio-trace key request signer.key --name "recorder of site A" --uri https://a.example.org/recorder > signer.csr
    """
    click.echo(request_certificate(read_file(file), name, uri, read_secret(password_file)), nl=False)


@key.command()
@click.argument("certificate", type=_FILE)
@click.option("--key", "key_file", type=_FILE, metavar="PEM", help="Also tell whether this is its key.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_PASSWORD
@click.pass_context
def show(
    ctx: click.Context, /, certificate: Path, key_file: Path | None, as_json: bool, password_file: Path | None
) -> None:
    """Describe a signer's CERTIFICATE, and what would keep verifiers from accepting it.

    Ends with 0 if nothing would, else with 3.

    \b
    Example:
      rucio-trace key show signer.pem --key signer.key
    """
    key_pem = read_file(key_file) if key_file else None
    found = describe(read_file(certificate), datetime.now(UTC), key_pem, read_secret(password_file))
    rows = {
        "subject": found.subject,
        "issuer": found.issuer,
        "uris": list(found.uris),
        "fingerprint": found.fingerprint,
        "algorithm": found.algorithm,
        "not_before": found.not_before.isoformat(),
        "not_after": found.not_after.isoformat(),
        "intermediates": list(found.intermediates),
        "problems": list(found.problems),
    }
    if as_json:
        json_line(rows)
    else:
        for label, value in rows.items():
            text = ", ".join(value) if isinstance(value, list) else value or ""
            if text:
                click.echo(f"{label.replace('_', ' '):<14}{printable(text)}")
    ctx.exit(3 if found.problems else 0)
