"""`rucio-trace who`: who caused each copy and each deletion."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of
from rucio_trace.cli.accounts import account_names
from rucio_trace.cli.product import believed, keys_of, of_generation
from rucio_trace.cli.terminal import json_line, printable, say, show_table
from rucio_trace.cli.traces import STYLES, short_time
from rucio_trace.configured import load_trust, open_store, read_accounts_key
from rucio_trace.status import left_after, product_status
from rucio_trace.trace import Cause, Event, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rucio_trace.cli.product import Believed
    from rucio_trace.config import Settings
    from rucio_trace.status import Left
    from rucio_trace.store import BatchLine, Stored
    from rucio_trace.trace import ProductKey

__all__ = ["who"]

_EVENTS = (Event.CREATE, Event.COPY, Event.DELETE, Event.LOST, Event.CORRUPT)
_STYLES = {**STYLES, "last copy": "bold red"}


@dataclass(frozen=True, slots=True)
class _Life:
    """One product: what came and went, the oldest first, and what is to be known of it."""

    key: ProductKey
    headline: str
    events: Sequence[Stored]
    left: Mapping[int, Left]
    found: Believed

    @property
    def accounts(self) -> set[str]:
        return {cause.account for s in self.events if (cause := s.trace.statement.cause) and cause.account}


@click.command()
@click.argument("did", metavar="SCOPE:NAME")
@click.option("--generation", metavar="TIME", help="Only the product that Rucio created at this time.")
@click.option(
    "--accounts-key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The site's secret for pseudonyms; else recorder.accounts_key.",
)
@click.option("--account", "accounts", multiple=True, metavar="NAME", help="An account a pseudonym may stand for.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per copy or deletion.")
@click.pass_context
def who(
    ctx: click.Context,
    /,
    did: str,
    generation: str | None,
    accounts_key: Path | None,
    accounts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Tell who caused each copy and each deletion of a product, and which copies broke or were lost.

    The newest product of the name comes first, then those that bore it before. With the site's key, pseudonyms are held
    against Rucio's accounts. "last copy" is said where the traces know of no other that can be good. Traces that are
    not accepted are shown as such and count for nothing.

    \b
    Example:
      rucio-trace who s2:S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.zip --account alice
    """
    settings = settings_of(ctx)
    trust = load_trust(settings.trust)
    if trust is None:
        say("note: nobody is trusted in the settings: that the store took a trace is all that is known of its signer")
    with open_store(settings, migrate=False) as store:
        keys = of_generation(keys_of(store, did), generation)
        products, proven = store.product(keys), store.proven(keys)
    believe = partial(believed, trust=trust, own_store=store.own, allow_stale_crl=settings.trust.allow_stale_crl)
    lives = [_life(key, products[key], proven.get(key, ()), believe) for key in keys]
    names = account_names(set().union(*(life.accounts for life in lives)), _key(settings, accounts_key), accounts)
    for life in lives:
        if as_json:
            for stored in life.events:
                json_line(_as_object(life, stored, names))
        else:
            click.echo(life.headline)
            columns = ("time", "event", "RSE", "account", "left", "how")
            show_table(columns, [_row(life, stored, names) for stored in life.events], styles=_STYLES)
    if not lives:
        say(f"{printable(did)}: no traces in the store")
        ctx.exit(EXIT_UNDECIDED)


def _key(settings: Settings, file: Path | None) -> bytes | None:
    """The site's key for pseudonyms, if it is at hand: who reads traces need not be who signs them."""
    configured = settings.recorder.accounts_key
    if file is None and configured is not None and os.access(configured, os.R_OK):
        file = configured
    return None if file is None else read_accounts_key(file)


def _life(
    key: ProductKey,
    history: Sequence[Stored],
    lines: Sequence[BatchLine],
    believe: Callable[[Sequence[Stored]], Believed],
) -> _Life:
    found = believe(history)
    refused = believe([line.batch for line in lines]).refusals
    counting = [line for line in lines if line.batch.position not in refused]
    status = product_status(found.counting, str, counting)
    vo = "" if key.vo == "def" else f", VO {key.vo}"
    headline = (
        f"{printable(key.did)} of {printable(key.rucio)}{printable(vo)}\n"
        f"created {parse_time(key.generation):%Y-%m-%d %H:%M:%S} UTC, {status.status}, {status.trace_replicas} good"
    )
    events = [s for s in history if s.trace.statement.event in _EVENTS]
    events.sort(key=lambda stored: (stored.trace.statement.time or "", stored.position))
    return _Life(key, headline, events, left_after(found.counting, str, counting), found)


def _shown(account: str | None, names: Mapping[str, str]) -> str | None:
    return names.get(account, account) if account else None


def _row(life: _Life, stored: Stored, names: Mapping[str, str]) -> tuple[object, ...]:
    s, cause = stored.trace.statement, stored.trace.statement.cause or Cause()
    account, left = _shown(cause.account, names), _left(life.left.get(stored.position))
    return short_time(s.time), s.event, s.rse, account, left, ", ".join([*_how(cause), *_notes(life, stored)])


def _how(cause: Cause) -> Iterator[str]:
    if cause.action:
        yield f"through {cause.action}"
    if cause.rule:
        yield f"rule {cause.rule}"
    if cause.activity:
        yield cause.activity
    if cause.tool:
        yield cause.tool
    if cause.request:
        yield f"request {cause.request}"


def _left(left: Left | None) -> str:
    if left is None:
        return ""
    if left.last:
        return "last copy"
    return f"{left.proven}, {left.waiting} not read" if left.waiting else f"{left.proven}"


def _notes(life: _Life, stored: Stored) -> list[str]:
    s, words = stored.trace.statement, []
    if stored.position in life.found.refusals:
        words.append(f"unverified: {life.found.refusals[stored.position]}")
    if (revoke := life.found.withdrawn.get(stored.position)) is not None:
        words.append(f"withdrawn by {revoke.id}")
    if s.source is not None and s.source.rse:
        words.append(f"from {s.source.rse}")
    if s.replaces:
        words.append(f"replaces {s.replaces}")
    if s.unobserved:
        words.append("never observed")
    return words


def _as_object(life: _Life, stored: Stored, names: Mapping[str, str]) -> dict[str, Any]:
    """`account` is the name if it is known, else as it was signed; `last_copy` is null where it cannot be said."""
    s, cause, position = stored.trace.statement, stored.trace.statement.cause or Cause(), stored.position
    left, revoke = life.left.get(position), life.found.withdrawn.get(position)
    return {
        "rucio": life.key.rucio,
        "vo": life.key.vo,
        "did": life.key.did,
        "generation": life.key.generation,
        "id": stored.id,
        "time": s.time,
        "event": str(s.event),
        "rse": s.rse,
        "site": s.site,
        **asdict(cause),
        "account": _shown(cause.account, names),
        "signed_account": cause.account,
        "source": asdict(s.source) if s.source else None,
        "replaces": s.replaces,
        "proven_left": left.proven if left else None,
        "unread_left": left.waiting if left else None,
        "last_copy": left.last if left else None,
        "unverified": life.found.refusals.get(position),
        "withdrawn_by": revoke.id if revoke else None,
    }
