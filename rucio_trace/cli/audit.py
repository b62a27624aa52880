"""`rucio-trace audit`: campaigns that read every replica anew, and what they found."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli.quantities import seconds, share, shown_age, shown_size, size
from rucio_trace.cli.terminal import json_line, printable, say, show_table

if TYPE_CHECKING:
    from datetime import datetime

    from rucio_trace_daemons.auditor.progress import Progress
    from rucio_trace_daemons.auditor.reporting import Coverage, Report
    from sqlalchemy import Engine

__all__ = ["audit"]

# In one of Rucio's transactions.
_DECLARED_AT_ONCE = 100


@click.group()
def audit() -> None:
    """Have every replica of some RSEs read anew, again and again, and see how that goes.

    The reading is done by `rucio-trace-auditor`. The database is the one in the rucio.cfg that RUCIO_HOME points to:
    run this where Rucio's server runs.

    \b
    Example:
      rucio-trace audit status
    """


@audit.command()
@click.option("--rses", required=True, metavar="EXPR", help="An RSE expression, followed while the campaign runs.")
@click.option(
    "--sample",
    callback=share,
    metavar="SHARE",
    default="1",
    show_default=True,
    help="What share of an RSE a round reads.",
)
@click.option(
    "--bytes", "most_bytes", callback=size, metavar="SIZE", help="How much of an RSE a round reads at most, as 2TB."
)
@click.option(
    "--every",
    callback=seconds,
    metavar="DURATION",
    default="1d",
    show_default=True,
    help="From one round's begin to the next's.",
)
def start(rses: str, sample: float, most_bytes: int | None, every: int) -> None:
    """Begin a campaign and print its number.

    A round takes what was proven longest ago, or never; one that lasts longer than --every is finished before the next.

    \b
    Example:
      rucio-trace audit start --rses 'site=A' --sample 5% --bytes 20TB --every 1d
    """
    engine = _engine()
    from rucio_trace_daemons.auditor import campaigns

    begun = campaigns.start(engine, rses, sample=sample, most_bytes=most_bytes, every_seconds=every)
    for rse, reason in begun.others.items():
        say(f"note: {printable(rse.name)} is left out: {reason}")
    say(f"campaign {begun.number} audits {printable(', '.join(rse.name for rse in begun.read), limit=None)}")
    say(f"`rucio-trace-auditor` reads for it; `rucio-trace audit status {begun.number}` shows how far it is")
    click.echo(begun.number)


@audit.command()
@click.argument("number", type=int, metavar="N")
def stop(number: int) -> None:
    """End campaign N: nothing more is read for it, what has been read is still signed.

    \b
    Example:
      rucio-trace audit stop 3
    """
    engine = _engine()
    from rucio_trace_daemons.auditor import campaigns

    done = campaigns.stop(engine, number)
    assert done.campaign.stopped_at is not None
    when = f" already at {_minute(done.campaign.stopped_at)}" if done.already else ""
    say(f"campaign {number} was stopped{when}: {done.unread} replicas of its rounds will not be read")
    if done.read:
        say(f"{done.read} replicas were read and found good; the auditor still signs them")


@audit.command()
@click.argument("number", type=int, required=False, metavar="[N]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per campaign and RSE.")
def status(number: int | None, as_json: bool) -> None:
    """Show the last round on each RSE of campaign N, or of all campaigns that run; 3/7 is round 7 of campaign 3.

    The end of a round is foretold from how it went so far, pauses and quiet hours included.

    \b
    Example:
      rucio-trace audit status --json
    """
    engine = _engine()
    from rucio_trace_daemons.auditor.progress import progress

    found = progress(engine, number)
    if as_json:
        for line in found:
            json_line(_round_object(line))
        return
    if not found:
        say("no round and no RSE to audit" if number else "no campaign runs; `audit start` begins one")
        return
    columns = (
        *("RSE", "round", "replicas", "bytes", "good/bad/unread", "waiting", "oldest proof"),
        *("replicas/s", "bytes/s", "ends"),
    )
    show_table(columns, [_round_cells(line) for line in found])
    for line in found:
        if line.tally.error:
            say(f"{printable(line.rse)}: {line.tally.waiting} wait: {printable(line.tally.error)}")
    for rse, opened_at, reason in {(x.rse, x.breaker_opened_at, x.breaker_reason) for x in found}:
        if opened_at:
            why = printable(reason or "no reason was noted")
            say(f"{printable(rse)}: nothing is read since {_minute(opened_at)}: {why}; `audit reset` resumes")


@audit.command()
@click.argument("number", type=int, required=False, metavar="[N]")
@click.option("--rses", metavar="EXPR", help="Only of the RSEs of this RSE expression.")
@click.option(
    "--overdue", callback=seconds, metavar="DURATION", default="30d", show_default=True, help="How old a proof may be."
)
@click.option("--replicas", is_flag=True, help="List every replica instead, by RSE, the oldest proof first.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON; with --replicas one for each.")
@click.option(
    "--html",
    type=click.File("w", encoding="utf-8", lazy=True, atomic=True),
    metavar="FILE",
    help="Write a page with plots, which needs no other file.",
)
def report(number: int | None, rses: str | None, overdue: int, replicas: bool, as_json: bool, html: Any) -> None:
    """Tell how well replicas are proven, what is overdue, how much is read a day and when all will have been read.

    Of campaign N, or of all RSEs that can be audited. A replica is overdue if its last proof, or without one its
    arrival in Rucio, is older than --overdue. With --replicas all is one transaction of the database: write it to a
    file, not to a pager.

    \b
    Example:
      rucio-trace audit report --overdue 90d --html audit.html
    """
    if html is not None and (as_json or replicas):
        raise click.UsageError("--html goes with neither --json nor --replicas")
    engine, age = _engine(), timedelta(seconds=overdue)
    from rucio_trace_daemons.auditor import reporting

    if replicas:
        _list_replicas(engine, number, rses, age, as_json)
        return
    made = reporting.report(engine, age, number, rses)
    if html is not None:
        from rucio_trace_daemons.auditor.page import render

        html.write(render(made))
        say(f"the report is in {printable(html.name)}")
    elif as_json:
        json_line(_report_object(made))
    else:
        _show_report(made)


@audit.command()
@click.argument("rse", metavar="RSE")
@click.option("--reason", required=True, help="Why reading may go on; goes to the log.")
def reset(rse: str, reason: str) -> None:
    """Let an RSE be audited again whose breaker is open: too much seemed bad there.

    Look at the storage first: what is bad there after all will be declared bad in Rucio where auditors may declare.

    \b
    Example:
      rucio-trace audit reset XRD-A --reason "the disk server is mounted again"
    """
    if not reason.strip():
        raise click.BadParameter("expected a reason", param_hint="--reason")
    engine = _engine()
    from rucio_trace_daemons.auditor import campaigns

    breaker = campaigns.reset(engine, rse, reason)
    if breaker is None:
        say(f"the breaker of {printable(rse)} is not open")
        return
    why = printable(breaker.reason or "no reason was noted")
    say(f"{printable(rse)} is audited again; the breaker opened at {_minute(breaker.opened_at)}: {why}")


@audit.command()
@click.argument("dids", nargs=-1, metavar="[SCOPE:NAME…]")
@click.option("--rses", metavar="EXPR", help="Only replicas on the RSEs of this RSE expression.")
@click.option("--last-copy", is_flag=True, help="Also where no good copy is left: Rucio gives these files up.")
@click.option("--account", default="root", show_default=True, help="The Rucio account that declares.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def declare(dids: tuple[str, ...], rses: str | None, last_copy: bool, account: str, yes: bool) -> None:
    """Declare bad in Rucio what a CORRUPT or LOST trace condemns, and let Rucio replace it from a good copy.

    This is what the auditor does by itself with `auditor.declare`; here nothing asks the breaker, and with --last-copy
    not even whether a good copy is left. Such files have to be named one by one.

    \b
    Example:
      rucio-trace audit declare --rses XRD-A
    """
    if not dids and (last_copy or rses is None):
        raise click.UsageError("say which: SCOPE:NAME…" + ("" if last_copy else ", or --rses"))
    engine = _engine()
    from rucio_trace_daemons.auditor.declare import condemned
    from rucio_trace_daemons.auditor.declare import declare as declare_bad
    from rucio_trace_daemons.rses import Rses, matching

    found = list(condemned(engine, matching(rses, "--rses") if rses is not None else None))
    meant = [one for one in found if (one.saved or last_copy) and (not dids or one.did in dids)]
    held = [one for one in found if not (one.saved or last_copy) and (not dids or one.did in dids)]
    for one in held:
        say(f"note: {printable(one.did)} has no good copy left, so Rucio would give it up: --last-copy, if you must")
    if not meant:
        say("nothing to declare")
        return
    names = {rse_id: rse.label for rse_id, rse in Rses(engine).get({one.rse_id for one in meant}).items()}
    columns = ("replica", "RSE", "state", "good copy left", "trace")
    cells = [
        (one.did, names.get(one.rse_id, one.rse_id), one.state, "yes" if one.saved else "NO", one.trace_id)
        for one in meant
    ]
    show_table(columns, cells)
    if not yes:
        click.confirm(f"declare {len(meant)} replicas bad in Rucio, as {account}?", abort=True, err=True)
    done = 0
    for rse_id in names:
        of_rse = [one for one in meant if one.rse_id == rse_id]
        for begin in range(0, len(of_rse), _DECLARED_AT_ONCE):
            done += declare_bad(of_rse[begin : begin + _DECLARED_AT_ONCE], account)
    say(f"{done} replicas are declared bad; Rucio's necromancer takes it from here")
    if done < len(meant):
        say(f"{len(meant) - done} were left out: something about them has changed meanwhile")


def _engine() -> Engine:
    """Rucio's database with our tables; opened before Rucio's modules are imported, which fails where there is none."""
    from rucio_trace_policy.database import open_database

    engine, schema = open_database()
    from rucio_trace_policy import hooks

    hooks.check(engine, schema)
    return engine


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment is not None else None


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _round_cells(line: Progress) -> tuple[object, ...]:
    tally = line.tally
    oldest = shown_age(line.oldest_proof, line.at)
    if line.round is None:
        return line.rse, f"{line.campaign.id}/-", *[None] * 4, oldest
    return (
        *(line.rse, f"{line.campaign.id}/{line.round}", f"{tally.done}/{line.replicas}"),
        f"{tally.bytes_done / line.bytes if line.bytes else 1:.0%} of {shown_size(line.bytes)}",
        *(f"{tally.good}/{tally.bad}/{tally.unread}", tally.waiting or None, oldest),
        *(f"{line.replicas_per_second:.3g}", shown_size(line.bytes_per_second), _end(line)),
    )


def _end(line: Progress) -> str:
    """What is to be said of a round's end."""
    if line.campaign.stopped_at is not None:
        return "stopped"
    if line.ended_at is not None:
        assert line.next_round is not None
        return f"ended; next {max(line.next_round, line.at):%d %b %H:%M}"
    if line.breaker_opened_at is not None:
        return "breaker open"
    return f"{line.expected_end:%d %b %H:%M}" if line.expected_end else "?"


def _round_object(line: Progress) -> dict[str, Any]:
    opened_at = line.breaker_opened_at
    return {
        "campaign": line.campaign.id,
        "rses": line.campaign.rses,
        "rse": line.rse,
        "round": line.round,
        "started_at": _iso(line.started_at),
        "ended_at": _iso(line.ended_at),
        "stopped_at": _iso(line.campaign.stopped_at),
        "replicas": line.replicas,
        "bytes": line.bytes,
        "done": line.tally.done,
        **asdict(line.tally),
        "replicas_per_second": line.replicas_per_second,
        "bytes_per_second": line.bytes_per_second,
        "oldest_proof": _iso(line.oldest_proof),
        "expected_end": _iso(line.expected_end),
        "next_round": _iso(line.next_round),
        "breaker": {"opened_at": _iso(opened_at), "reason": line.breaker_reason} if opened_at else None,
    }


def _report_object(made: Report) -> dict[str, Any]:
    from rucio_trace_daemons.auditor.reporting import AGE_CLASSES

    return {
        "at": _iso(made.at),
        "about": made.subject,
        "overdue_seconds": round(made.overdue.total_seconds()),
        "age_classes_days": AGE_CLASSES,
        "rses": [
            asdict(line) | {"oldest_proof": _iso(line.oldest_proof), "all_read_by": _iso(line.all_read_by)}
            for line in made.rses
        ],
        "rounds": [_round_object(line) for line in made.rounds],
    }


def _show_report(made: Report) -> None:
    columns = (
        *("RSE", "replicas", "bytes", "proven", "never", "oldest", "median", "overdue", "bad"),
        *("a day (7 d)", "a day (30 d)", "all read by"),
    )
    if made.rses:
        show_table(columns, [_coverage_cells(line, made.at) for line in made.rses])
    else:
        say("there is no RSE that can be audited")


def _coverage_cells(line: Coverage, now: datetime) -> tuple[object, ...]:
    overdue = f"{line.overdue} ({shown_size(line.overdue_bytes)})" if line.overdue else None
    bad = [f"{count} {state}" for count, state in ((line.corrupt, "corrupt"), (line.lost, "lost")) if count]
    median = None if line.median_age_days is None else f"{line.median_age_days} d"
    return (
        *(line.rse, line.replicas, shown_size(line.bytes), line.proven, line.never_proven or None),
        *(shown_age(line.oldest_proof, now), median, overdue, ", ".join(bad)),
        *(shown_size(line.bytes_per_day_7), shown_size(line.bytes_per_day_30)),
        f"{line.all_read_by:%Y-%m-%d}" if line.all_read_by else "?",
    )


def _list_replicas(engine: Engine, number: int | None, rses: str | None, overdue: timedelta, as_json: bool) -> None:
    from rucio_trace_daemons.auditor.copies import each_copy
    from rucio_trace_daemons.auditor.reporting import reported
    from rucio_trace_policy.database import clock

    with engine.connect() as connection:
        since = clock(connection) - overdue
    names = {rse.id: rse.name for rse in reported(engine, number, rses)[1]}
    # Of fixed width but for the name at the end: ten million lines cannot be laid out as one table.
    layout = f"{{:{max(map(len, names.values()), default=0)}}}  {{:8}}  {{:16}}  {{:7}}  {{}}"
    if not as_json:
        click.echo(layout.format("RSE", "state", "last proven good", "", "replica"))
    for copy in each_copy(engine, list(names), since):
        rse, did = names[copy.rse_id], f"{copy.scope}:{copy.name}"
        if as_json:
            found = {"rse": rse, "did": did, "bytes": copy.bytes, "state": copy.state}
            json_line(found | {"proven_at": _iso(copy.proven_at), "overdue": copy.overdue})
        else:
            when = _minute(copy.proven_at) if copy.proven_at else "never"
            click.echo(layout.format(printable(rse), copy.state, when, "overdue" * copy.overdue, printable(did)))
