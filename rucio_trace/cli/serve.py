"""`rucio-trace serve`: the trace service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import settings_of
from rucio_trace.cli.terminal import printable, say
from rucio_trace.cli.verify import trust_options, trust_settings
from rucio_trace.configured import load_trust

if TYPE_CHECKING:
    from rucio_trace.config import Settings

__all__ = ["serve"]


@click.command()
@click.option("--store", metavar="URL", help="Keep traces there: sqlite:////path, postgresql://user@host/name.")
@trust_options
@click.option("--tokens", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="See `token`.")
@click.option("--address", metavar="NAME", help="Listen there; 0.0.0.0 is everywhere.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 is any that is free.  [default: 8085]")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes on the port.  [default: 1]")
@click.pass_context
def serve(ctx: click.Context, /, **options: Any) -> None:
    """Answer over HTTP: take traces in, find them, judge files by them.

    Options stand before the settings. Without either, traces are kept in a file of the user's, everybody on this
    machine may read, and nobody may register: the first lines printed say what is missing. SIGTERM ends it.

    \b
    Example:
      rucio-trace serve --store postgresql://traces@db.example.org/traces --federation federation.toml
    """
    from rucio_trace.service.serving import at_home, run
    from rucio_trace.service.tokens import Tokens

    settings = at_home(_settings(settings_of(ctx), options))
    assert settings.service.tokens is not None
    missing = []
    if load_trust(settings.trust) is None:
        missing.append("nobody is trusted, so nothing can be registered: add --federation FILE, or --anchors PEM")
    tokens = Tokens(settings.service.tokens)
    if unknown := sorted(set(settings.service.private) - tokens.providers):
        missing.append(f"no token is of {', '.join(unknown)}, whose traces [service] private hides: is it spelled so?")
    if not len(tokens):
        file = f" --tokens {settings.service.tokens}" if options["tokens"] else ""
        command = f"rucio-trace token create NAME --provider PROVIDER --role register{file}"
        missing.append(f"no tokens, so nobody may register: {command}")

    def listening(address: str) -> None:
        say(f"traces in {printable(_shown(settings.store.url))}")
        for line in missing:
            say(printable(line, limit=None))
        click.echo(f"listening on {address}, documentation on {address}/docs")

    run(settings, listening)


def _settings(settings: Settings, options: dict[str, Any]) -> Settings:
    store, service = settings.store, settings.service
    if options["store"]:
        store = replace(store, url=options["store"], service="")
    given = {key: options[key] for key in ("address", "port", "workers", "tokens") if options[key] is not None}
    trust = trust_settings(settings.trust, options)
    trust = replace(trust, allow_stale_crl=trust.allow_stale_crl or options["allow_stale_crl"])
    return replace(settings, store=store, service=replace(service, **given), trust=trust)


def _shown(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)
