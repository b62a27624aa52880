"""`rucio-trace outbox`: the changes in Rucio that have no trace yet."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli.terminal import json_line, printable, say, show_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rucio_trace_daemons.recorder.mending import Choice, Line
    from sqlalchemy import Row

__all__ = ["outbox"]


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which rows are meant."""
    for option in (
        click.argument("events", nargs=-1, metavar="[EVENT_ID…]"),
        click.option("--rse", metavar="NAME", help="Only rows of this RSE; `datasets`: of datasets."),
        click.option("--did", metavar="SCOPE:NAME", help="Only rows of this DID."),
        click.option("--failed", is_flag=True, help="Only rows that could not be handled."),
    ):
        command = option(command)
    return command


def _choice(events: tuple[str, ...], rse: str | None, did: str | None, failed: bool) -> Choice:
    from rucio_trace_daemons.recorder.mending import Choice

    scope, colon, name = (did or "").partition(":")
    if did is not None and not (scope and colon and name):
        raise click.BadParameter(f"{printable(did)}: expected SCOPE:NAME", param_hint="--did")
    return Choice(events, rse, scope or None, name or None, failed)


@click.group()
def outbox() -> None:
    """Look at the changes in Rucio that wait for their trace, and mend what is stuck.

    The database is the one in the rucio.cfg that RUCIO_HOME points to: run this where Rucio's server runs.

    \b
    Example:
      rucio-trace outbox status
    """


@outbox.command()
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def status(as_json: bool) -> None:
    """Count what waits, by RSE, and how all changes so far have ended.

    due: a recorder may take it. held: one has it. waiting: tried, and tried again later. stopped: only `retry` or
    `skip` moves it.

    \b
    Example:
      rucio-trace outbox status --json
    """
    engine = _engine()
    from rucio_trace_daemons.recorder.mending import summarise

    found = summarise(engine)
    if as_json:
        lines = [
            {**asdict(line), **{name: _iso(getattr(line, name)) for name in ("oldest", "oldest_moving")}}
            for line in found.lines
        ]
        json_line({"rses": lines, "outcomes": found.outcomes})
        return
    columns = ("RSE", "due", "held", "waiting", "stopped", "oldest", "lost in a row")
    if found.lines:
        show_table(columns, [_cells(line) for line in found.lines])
    else:
        say("nothing waits")
    if found.outcomes:
        show_table(("ended as", "changes"), sorted(found.outcomes.items()))
    for line in found.lines:
        if line.signing_stopped:
            say(f"note: too many losses in a row, nothing is signed for {printable(line.rse)}; `retry --rse` resumes")


@outbox.command("list")
@_choosing
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_(events: tuple[str, ...], rse: str | None, did: str | None, failed: bool, limit: int, as_json: bool) -> None:
    """Show waiting changes, the oldest first, with the reason why each still waits.

    \b
    Example:
      rucio-trace outbox list --rse XRD-A --failed
    """
    engine = _engine()
    from rucio_trace_daemons.recorder.mending import chosen

    found = chosen(engine, _choice(events, rse, did, failed), limit)
    if as_json:
        for name, row in found:
            json_line(_object(name, row))
        return
    columns = ("event id", "change", "product", "RSE", "attempts", "next attempt", "why")
    if found:
        show_table(columns, [_row_cells(name, row) for name, row in found])
    if len(found) == limit:
        say(f"these are the first {limit}; --limit shows more")


@outbox.command()
@_choosing
@click.option("--all", "everything", is_flag=True, help="Every row, where nothing else is given.")
@click.option(
    "--discard-signature",
    is_flag=True,
    help="Sign anew what was signed but refused by the store, for instance for its certificate.",
)
def retry(
    events: tuple[str, ...], rse: str | None, did: str | None, failed: bool, everything: bool, discard_signature: bool
) -> None:
    """Make waiting changes due now, and sign again for an RSE where too much seemed lost.

    \b
    Example:
      rucio-trace outbox retry --rse XRD-A
    """
    if not (events or rse or did or failed or everything):
        raise click.UsageError("say which: EVENT_ID, --rse, --did, --failed or --all")
    engine = _engine()
    from rucio_trace_daemons.recorder import mending

    count = mending.retry(engine, _choice(events, rse, did, failed), discard_signature=discard_signature)
    say(f"{count} changes are due now")


@outbox.command()
@_choosing
@click.option("--reason", required=True, help="Why these changes shall have no trace; goes to the log.")
def skip(events: tuple[str, ...], rse: str | None, did: str | None, failed: bool, reason: str) -> None:
    """Give up waiting changes: they leave no trace and are counted as skipped.

    \b
    Example:
      rucio-trace outbox skip --did test:file --reason "RSE was decommissioned"
    """
    if not (events or rse or did):
        raise click.UsageError("say which: EVENT_ID, --rse or --did")
    if not reason.strip():
        raise click.BadParameter("expected a reason", param_hint="--reason")
    engine = _engine()
    from rucio_trace_daemons.recorder import mending

    count = mending.skip(engine, _choice(events, rse, did, failed), reason)
    say(f"{count} changes skipped: {printable(reason)}")


def _engine() -> Any:
    """Rucio's database; opened before Rucio's modules are imported, which fails where there is none."""
    from rucio_trace_policy.database import open_database

    engine, _schema = open_database()
    return engine


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _shown(moment: datetime | None) -> str:
    if moment is None:
        return "now"
    return "never" if moment.year == 9999 else f"{moment:%Y-%m-%d %H:%M:%S}"


def _cells(line: Line) -> tuple[object, ...]:
    oldest = f"{line.oldest:%Y-%m-%d %H:%M:%S}" if line.oldest else None
    return line.rse, line.due, line.held, line.waiting, line.stopped, oldest, line.lost_in_a_row or None


def _row_cells(rse: str, row: Row[Any]) -> tuple[object, ...]:
    change = f"{row.old_state or '-'}>{row.new_state or '-'}"
    product = f"{row.scope}:{row.name}"
    return row.event_id, change, product, rse, row.attempts, _shown(row.not_before), row.last_error


def _object(rse: str, row: Row[Any]) -> dict[str, Any]:
    return {
        "event_id": row.event_id,
        "rse": rse,
        "scope": row.scope,
        "name": row.name,
        "old_state": row.old_state,
        "new_state": row.new_state,
        "at": _iso(row.at),
        "attempts": row.attempts,
        "not_before": _iso(row.not_before),
        "held_until": _iso(row.claimed_until),
        "signed": row.message is not None,
        "error": row.last_error,
    }
