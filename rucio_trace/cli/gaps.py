"""`rucio-trace gaps`: where Rucio's catalogue and our traces do not fit together."""

from __future__ import annotations

import itertools
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli import EXIT_UNDECIDED, settings_of
from rucio_trace.cli.terminal import json_line, printable, say, show_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rucio_trace_daemons.gaps.find import Gap, Search
    from rucio_trace_daemons.rses import Rse, Rses
    from sqlalchemy import Engine

__all__ = ["gaps"]


@click.command()
@click.option("--rses", "expression", metavar="EXPR", help="Only RSEs of this RSE expression.")
@click.option("--fix", is_flag=True, help="Queue for the recorder what it can mend, and drop the status of dead DIDs.")
@click.option("--limit", type=click.IntRange(0, 100_000), default=50, show_default=True, help="Show at most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each gap, and one for the counts.")
@click.pass_context
def gaps(ctx: click.Context, expression: str | None, fix: bool, limit: int, as_json: bool) -> None:
    """Find replicas without a trace, traces without a replica, checksums that differ, and status of dead DIDs.

    untraced: available, without a trace, and nothing waits in the outbox. vanished: traced, and no longer in Rucio.
    differs: size or checksums in Rucio's catalogue are not those that were signed. dead: Rucio has no such DID any
    more. pending: changes that wait for the recorder. incomparable: traced, but nothing is known of what was signed.

    The database is the one in the rucio.cfg that RUCIO_HOME points to. Ends with 3 while something is left to do by
    hand, or is not queued.

    \b
    Example:
      rucio-trace gaps --rses 'tier=1' --fix
    """
    from rucio_trace_policy.database import open_database

    engine, schema = open_database()  # before Rucio's modules are imported, which fails where there is no database
    from rucio_trace_daemons.gaps.find import Search
    from rucio_trace_daemons.methods import Method
    from rucio_trace_daemons.rses import Rses, every_id, matching
    from rucio_trace_policy import hooks

    hooks.check(engine, schema)
    rses = Rses(engine)
    chosen = rses.get(matching(expression, f"--rses {expression}") if expression is not None else every_id(engine))
    looked_at = {i: rse for i, rse in chosen.items() if rse.method not in (Method.EXCLUDED, Method.UNKNOWN)}
    if fix:
        _refresh(ctx, engine)
    search = Search(engine, looked_at, everywhere=expression is None)
    search.count()
    left = total = 0
    shown: list[Gap] = []
    for gap, mended in _mended(engine, search, rses) if fix else ((gap, False) for gap in search.gaps()):
        total, left = total + 1, left + (not mended)
        if as_json:
            json_line(_object(gap, looked_at, mended))
        elif len(shown) < limit:
            shown.append(gap)
    excluded = sorted(rse.name for i, rse in chosen.items() if i not in looked_at)
    if as_json:
        counts = {looked_at[i].name: asdict(line) for i, line in search.lines.items()}
        json_line({"rses": counts, "dead": search.dead, "excluded": excluded})
    else:
        _show(search, looked_at, shown, excluded)
    if fix:
        say(f"{total - left} of {total} gaps are queued or removed")
    if left:
        raise click.exceptions.Exit(EXIT_UNDECIDED)


def _refresh(ctx: click.Context, engine: Engine) -> None:
    """Let the store say what was signed of products that an earlier version has finished."""
    from rucio_trace_daemons.gaps.refresh import is_needed, refresh

    from rucio_trace.configured import open_store
    from rucio_trace.watched import Trusted

    if not is_needed(engine):
        return
    settings = settings_of(ctx)
    store = open_store(settings, migrate=False)
    try:
        count = refresh(engine, store, Trusted(settings.trust)(), settings.instance.name)
    finally:
        store.close()
    say(f"what was signed of {count} products, which an earlier version has finished, is known now")


def _mended(engine: Engine, search: Search, rses: Rses) -> Iterator[tuple[Gap, bool]]:
    """Each gap, and whether it is queued or removed now."""
    from rucio_trace_daemons.gaps.mend import MEND_ROWS, mend

    gaps = search.gaps()
    while some := list(itertools.islice(gaps, MEND_ROWS)):
        left = set(mend(engine, some, rses))
        yield from ((gap, gap not in left) for gap in some)


def _object(gap: Gap, rses: Mapping[str, Rse], mended: bool) -> dict[str, Any]:
    return {
        "gap": str(gap.kind),
        "rse": rses[gap.rse_id].name if gap.rse_id else None,
        "scope": gap.scope,
        "name": gap.name,
        "generation": gap.generation.isoformat(),
        "detail": gap.detail or None,
        "mended": mended,
    }


def _show(search: Search, rses: Mapping[str, Rse], shown: list[Gap], excluded: list[str]) -> None:
    from rucio_trace_daemons.gaps.find import Line

    if shown:
        rows = [
            (gap.kind, f"{gap.scope}:{gap.name}", rses[gap.rse_id].name if gap.rse_id else None, gap.detail)
            for gap in shown
        ]
        show_table(("gap", "product", "RSE", "what"), rows)
    counted = ((rses[rse_id], line) for rse_id, line in search.lines.items() if line != Line())
    lines = sorted((rse.name, str(rse.method), *asdict(line).values()) for rse, line in counted)
    show_table(("RSE", "method", *(field.name for field in fields(Line))), lines)
    if search.dead:
        say(f"{search.dead} products are gone from Rucio and still have a status")
    if excluded:
        say("not looked at (volatile, or an unknown trace_method): " + ", ".join(printable(name) for name in excluded))
