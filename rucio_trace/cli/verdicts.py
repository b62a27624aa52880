"""How a verdict is told: a line and its reasons for people, an object for machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rucio_trace.cli.terminal import json_line, printable
from rucio_trace.faults import Fault, FileFault, Remark
from rucio_trace.trace import format_time
from rucio_trace.verify import Judgement, Verdict

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from rucio_trace.trace import ProductKey

__all__ = ["COLOURS", "NoTraces", "Outcome", "Unreadable", "show_json", "show_text"]

COLOURS = {
    Verdict.GENUINE: "green",
    Verdict.OBSOLETE: "yellow",
    Verdict.UNKNOWN: "yellow",
    Verdict.UNDECIDED: "yellow",
}
_SHOWN_FAULTS = 20  # a store may hold thousands of refused traces of a name; --json has them all


class NoTraces(FileFault):
    """There is nothing to judge by: neither traces nor a store were given."""

    wording = "nothing to judge by: {expected}"


class Unreadable(FileFault):
    """The file itself, or what it was to be judged by, could not be read."""

    wording = "{what}: expected {expected}, found {found}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file; without a judgement where none could be reached."""

    file: Path
    verdict: Verdict
    faults: tuple[Fault, ...]
    time: datetime
    judgement: Judgement | None = None


def show_json(outcome: Outcome) -> None:
    judgement = outcome.judgement
    json_line(
        {
            "file": str(outcome.file),
            "verdict": outcome.verdict,
            "product": _product(judgement.product) if judgement and judgement.product else None,
            "faults": [fault.as_dict() for fault in outcome.faults],
            "time": format_time(judgement.time if judgement else outcome.time),
            "time_source": judgement.time_source if judgement else "now",
            "subject": judgement.subject if judgement else None,
            "signer": judgement.signer if judgement else None,
            "member": judgement.member if judgement else None,
            "trace": judgement.origin.id if judgement and judgement.origin else None,
        }
    )


def _product(key: ProductKey) -> dict[str, Any]:
    return {"rucio": key.rucio, "vo": key.vo, "did": key.did, "generation": key.generation}


def show_text(outcome: Outcome) -> None:
    verdict = click.style(outcome.verdict, fg=COLOURS.get(outcome.verdict, "red"), bold=True)
    click.echo(f"{printable(str(outcome.file))}: {verdict}")
    for line in _reasons(outcome):
        click.echo(f"  {printable(line, limit=None)}")


def _reasons(outcome: Outcome) -> list[str]:
    lines = []
    judgement = outcome.judgement
    if outcome.verdict is Verdict.UNKNOWN and not outcome.faults:
        lines.append("no trace speaks of it")
    if judgement is not None:
        if judgement.product is not None:
            key = judgement.product
            lines.append(f"product: {key.did} of {key.rucio}, generation {key.generation}")
        if judgement.member is not None:
            lines.append(f"is {judgement.member} in that product")
        if judgement.subject is not None:
            lines.append(f"signed by: {judgement.subject}")
            lines.append(f"judged at: {format_time(judgement.time)} ({judgement.time_source})")
    # What concerns the file comes first, then the traces that did not count.
    ordered = sorted(
        outcome.faults, key=lambda fault: (not isinstance(fault, FileFault), not isinstance(fault, Remark))
    )
    lines += [str(fault) for fault in ordered[:_SHOWN_FAULTS]]
    if len(ordered) > _SHOWN_FAULTS:
        lines.append(f"and {len(ordered) - _SHOWN_FAULTS} more, see --json")
    return lines
