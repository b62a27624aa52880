"""`rucio-trace token`: who may register traces with the service, and read what is private."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rucio_trace.cli import settings_of
from rucio_trace.cli.terminal import json_line, printable, say, show_table

if TYPE_CHECKING:
    from rucio_trace.service.tokens import TokenFile

__all__ = ["token"]

_FILE = click.option(
    "--tokens",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file instead of the one in the settings.",
)
_ROLES = ("register", "read", "audit")


@click.group(short_help="Make and end tokens for the trace service.")
def token() -> None:
    """Make and end tokens for the trace service, which follows the file: no restart is needed.

    \b
    Example:
      rucio-trace token create recorder-of-site-a --provider SITE-A --role register
    """


@token.command()
@click.argument("name")
@click.option("--provider", required=True, metavar="NAME", help="Whose traces it brings, and reads where private.")
@click.option("--role", "roles", type=click.Choice(_ROLES), multiple=True, required=True, help="What it allows.")
@_FILE
@click.pass_context
def create(ctx: click.Context, /, name: str, provider: str, roles: tuple[str, ...], file: Path | None) -> None:
    """Print a new token. It is shown this once: the file holds only its hash.

    Roles: register traces for the provider; read its traces where they are private; audit, read everybody's.

    \b
    Example:
      rucio-trace token create recorder-of-site-a --provider SITE-A --role register > site-a.token
    """
    from rucio_trace.service.access import Role

    click.echo(_tokens(ctx, file).create(name, provider, [Role(role) for role in roles], datetime.now(UTC)))


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per token.")
@_FILE
@click.pass_context
def list_(ctx: click.Context, /, as_json: bool, file: Path | None) -> None:
    """Show who has tokens, and for what.

    \b
    Example:
      rucio-trace token list
    """
    columns = ("name", "provider", "roles", "created", "until")
    rows = [
        (each.name, each.provider, ", ".join(sorted(each.roles)), each.created.isoformat(), _iso(each.until))
        for each in _tokens(ctx, file).entries()
    ]
    if as_json:
        for row in rows:
            json_line(dict(zip(columns, row, strict=True)))
    elif rows:
        show_table(columns, rows)


@token.command()
@click.argument("name")
@click.option("--grace", type=click.IntRange(0), default=0, metavar="SECONDS", help="How long the old one still works.")
@_FILE
@click.pass_context
def rotate(ctx: click.Context, /, name: str, grace: int, file: Path | None) -> None:
    """Print another token for NAME, in the place of the one it has.

    \b
    Example:
      rucio-trace token rotate recorder-of-site-a --grace 3600 > site-a.token
    """
    click.echo(_tokens(ctx, file).rotate(name, timedelta(seconds=grace), datetime.now(UTC)))


@token.command()
@click.argument("name")
@_FILE
@click.pass_context
def revoke(ctx: click.Context, /, name: str, file: Path | None) -> None:
    """End the tokens of NAME, now.

    \b
    Example:
      rucio-trace token revoke recorder-of-site-a
    """
    _tokens(ctx, file).revoke(name)
    say(f"{printable(name)}: revoked")


def _tokens(ctx: click.Context, file: Path | None) -> TokenFile:
    from rucio_trace.service.serving import at_home
    from rucio_trace.service.tokens import TokenFile

    settings = settings_of(ctx)
    path = at_home(replace(settings, service=replace(settings.service, tokens=file or settings.service.tokens)))
    assert path.service.tokens is not None
    return TokenFile(path.service.tokens)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
