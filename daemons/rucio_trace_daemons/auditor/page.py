"""A report as one page: no script, and nothing that is fetched from elsewhere."""

from __future__ import annotations

from datetime import timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.filesize import decimal

from rucio_trace_daemons.auditor import plots

if TYPE_CHECKING:
    from datetime import datetime

    from rucio_trace_daemons.auditor.reporting import Report

__all__ = ["render"]


def render(report: Report) -> str:
    """The report as HTML; the same report gives the same text."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"size": lambda size: decimal(round(size)), "day": _day, "minute": _minute, "span": _span}
    template = page.from_string(files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8"))
    drawn = [(plot.__name__, Markup(plot(report))) for plot in _plots(report)]  # noqa: S704 - escaped in `plots`
    return template.render(report=report, plots=dict(drawn), total=_total(report), look=_to_look_at(report))


def _plots(report: Report) -> list[Any]:
    """Those that show anything."""
    found: list[Any] = []
    if any(line.replicas for line in report.rses):
        found.append(plots.ages)
    if any(sum(line.daily_bytes) for line in report.rses):
        found.append(plots.daily)
    if any(line.replicas for line in report.rounds):
        found.append(plots.rounds)
    return found


def _to_look_at(report: Report) -> list[tuple[str, str]]:
    """What keeps rounds from going on, by RSE."""
    found = {}
    for line in report.rounds:
        if line.breaker_opened_at is not None:
            reason = line.breaker_reason or "no reason was noted"
            found[line.rse, f"nothing is read since {_minute(line.breaker_opened_at)}: {reason}"] = None
        if line.tally.error is not None:
            found[line.rse, f"{line.tally.waiting:,} replicas wait: {line.tally.error}"] = None
    return list(found)


def _total(report: Report) -> dict[str, float]:
    """Sums over all RSEs."""
    names = ("replicas", "bytes", "proven", "never_proven", "overdue", "overdue_bytes", "corrupt", "lost")
    sums = {name: sum(getattr(line, name) for line in report.rses) for name in (*names, "bytes_per_day_30")}
    return sums | {"proven_share": sums["proven"] / sums["replicas"] if sums["replicas"] else 0.0}


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "–"


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else "–"


def _span(duration: timedelta) -> str:
    days = duration / timedelta(days=1)
    return f"{days:g} days" if days != 1 else "1 day"
