"""The plots of a report, as SVG to be put into a page; the same report gives the same bytes.

Nothing in them comes from elsewhere, and names of RSEs are drawn as they are, whatever they hold.
"""

from __future__ import annotations

import io
import re
from datetime import timedelta
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from rich.filesize import decimal

from rucio_trace_daemons.auditor.forecast import DAY, DAYS
from rucio_trace_daemons.auditor.reporting import AGE_CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from rucio_trace_daemons.auditor.progress import Progress
    from rucio_trace_daemons.auditor.reporting import Report

__all__ = ["ages", "daily", "rounds"]

_WIDTH, _BAR, _REST = 8.0, 0.34, 1.15  # inches: of a plot, of a bar with its gap, of axes and legend
_INK, _GRID = "#22303c", "#d9dfe4"
# From fresh to old; told apart in grey and by the colour-blind.
_AGES = ("#0b4f6c", "#2a7f9e", "#63abc4", "#a5d0dd", "#f2c879", "#e08e45")
_NEVER, _BAD, _OTHERS = "#b9bfc5", "#9b1d20", "#b9bfc5"
_RSES = ("#0b4f6c", "#e08e45", "#63abc4", "#7a5195", "#a3b18a", "#bc5090")
_GOOD, _UNREAD, _TO_READ = "#2a7f9e", "#f2c879", "#e9edf0"

_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "rucio-trace",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
}


def ages(report: Report) -> str:
    """How old the last proofs are: for each RSE the shares of its replicas by age."""
    lines = [line for line in report.rses if line.replicas]
    labels = [*(_age_label(number) for number in range(len(AGE_CLASSES) + 1)), "never", "corrupt or lost"]
    counts = [(*line.ages, line.never_proven, line.bad) for line in lines]
    shares = [[count / sum(row) for count in row] for row in counts]
    with mpl.rc_context(_STYLE):
        axes = _bars([line.rse for line in lines])
        _stack(axes, shares, labels, (*_AGES, _NEVER, _BAD), dark=(0, 1, len(labels) - 1))
        for place, line in enumerate(lines):
            axes.text(1.01, place, f"{line.replicas:,}", va="center", ha="left")
        return _svg(axes, "ages", "Age of the last proof", "Shares of replicas by the age of their last proof, by RSE.")


def _age_label(number: int) -> str:
    bounds = [_unit(days) for days in AGE_CLASSES]
    return f"up to {bounds[number]}" if number < len(bounds) else f"over {bounds[-1]}"


def _unit(days: int) -> str:
    return "1 year" if days == 365 else "1 day" if days == 1 else f"{days} days"


def daily(report: Report) -> str:
    """The bytes read on each of the last 30 days, by RSE; those read least are one colour together."""
    most = sorted(report.rses, key=lambda line: (-sum(line.daily_bytes), line.rse))
    named, others = most[: len(_RSES)], most[len(_RSES) :]
    series = [(line.rse, line.daily_bytes) for line in named if sum(line.daily_bytes)]
    if any(sum(line.daily_bytes) for line in others):
        series.append((f"{len(others)} others", tuple(map(sum, zip(*(x.daily_bytes for x in others), strict=True)))))
    days = [report.at - DAY * (DAYS - 1 - day) for day in range(DAYS)]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
        axes = figure.add_subplot()
        below = [0] * DAYS
        for (name, values), colour in zip(series, (*_RSES, _OTHERS), strict=False):
            axes.bar(range(DAYS), values, bottom=below, width=0.8, color=colour, label=name)
            below = [low + value for low, value in zip(below, values, strict=True)]
        axes.set_xticks(range(DAYS - 1, -1, -7), [f"{days[day]:%d %b}" for day in range(DAYS - 1, -1, -7)])
        axes.set_xlim(-0.6, DAYS - 0.4)
        axes.yaxis.set_major_formatter(lambda value, _place: decimal(round(value)))
        axes.set_ylim(0, max(below) * 1.08 or 1)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        if series:
            _legend(axes)
        return _svg(axes, "daily", "Bytes read a day", "Bytes read in each of the last 30 times 24 hours, by RSE.")


def rounds(report: Report) -> str:
    """How far the last rounds have come, and when those under way will end."""
    lines = [line for line in report.rounds if line.replicas]
    labels = ["good", "bad", "could not be read", "to be read"]
    counts = [(t.good, t.bad, t.unread, max(line.replicas - t.done, 0)) for line in lines for t in [line.tally]]
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    with mpl.rc_context(_STYLE):
        axes = _bars([f"{line.rse}  {line.campaign.id}/{line.round}" for line in lines])
        _stack(axes, shares, labels, (_GOOD, _BAD, _UNREAD, _TO_READ), dark=(0, 1))
        for place, line in enumerate(lines):
            axes.text(1.01, place, _end(line), va="center", ha="left")
        title = "Progress of rounds"
        return _svg(axes, "rounds", title, "Shares of a round's replicas by outcome, by RSE, campaign and round.")


def _end(line: Progress) -> str:
    if line.campaign.stopped_at is not None:
        return "stopped"
    if line.ended_at is not None:
        return f"ended {line.ended_at:%d %b %H:%M}"
    if line.breaker_opened_at is not None:
        return "breaker open"
    end = line.expected_end
    return f"ends {end:%d %b %H:%M}" if end and end - line.at < timedelta(days=300) else "end not foreseen"


def _bars(names: Sequence[str]) -> Axes:
    """Axes for a horizontal bar of length 1 for each name, the first on top."""
    figure = Figure(figsize=(_WIDTH, _REST + _BAR * max(len(names), 1)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:.0%}")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    return axes


def _stack(
    axes: Axes, shares: Sequence[Sequence[float]], labels: Sequence[str], colours: Sequence[str], dark: Sequence[int]
) -> None:
    """Draw the parts of each bar that are there; *dark*: which colours want white writing."""
    left = [0.0] * len(shares)
    for part, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        widths = [row[part] for row in shares]
        if not any(widths):
            continue
        axes.barh(range(len(shares)), widths, left=left, height=0.72, color=colour, label=label)
        for place, width in enumerate(widths):
            if width >= 0.07:  # narrower, and the number would not fit
                ink = "white" if part in dark else _INK
                axes.text(left[place] + width / 2, place, f"{width:.0%}", va="center", ha="center", color=ink)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    if any(left):
        _legend(axes)


def _legend(axes: Axes) -> None:
    count = len(axes.get_legend_handles_labels()[1])
    axes.figure.legend(
        loc="outside upper left", ncols=min(count, 4), frameon=False, handlelength=1.0, columnspacing=1.4
    )


def _svg(axes: Axes, name: str, title: str, description: str) -> str:
    """The figure as an element of a page, named for those who do not see it; *name* makes its ids unique there."""
    text = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(axes.figure).print_svg(text, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    opening, _, rest = svg.partition(">")
    opening = re.sub(r' (width|height|xmlns(:\w+)?|version)="[^"]*"', "", opening)
    named = f'role="img" aria-labelledby="{name}-title {name}-description"'
    heads = (
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-description">{escape(description)}</desc>'
    )
    return f"{opening} {named}>{heads}{rest}"
