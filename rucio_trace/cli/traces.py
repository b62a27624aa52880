"""How stored traces are told: rows of a table for people, objects for machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rucio_trace.joining import linked
from rucio_trace.trace import Event, Statement, format_time

if TYPE_CHECKING:
    from rucio_trace.envelope import Trace
    from rucio_trace.store import BatchLine, Stored

__all__ = ["STYLES", "as_object", "line_as_object", "note_on", "place_of", "remarks", "short_time"]

STYLES = {
    "CREATE": "green",
    "COPY": "green",
    "VERIFY": "green",
    "CORRUPT": "bold red",
    "LOST": "red",
    "DELETE": "yellow",
    "OBSOLETE": "yellow",
    "REVOKE": "magenta",
}


def as_object(stored: Stored) -> dict[str, Any]:
    """A stored trace for `--json`: where it stands, and what was signed, as it was signed.

    `not_signed` is there only where something stood beside the signed text that it does not cover.
    """
    found = {
        "id": stored.id,
        "position": stored.position,
        "registered_at": format_time(stored.registered_at),
        "statement": json.loads(stored.trace.message),
    }
    return found | {"not_signed": stored.trace.not_signed} if stored.trace.not_signed else found


def line_as_object(line: BatchLine) -> dict[str, Any]:
    """A line of a batch for `--json`: its batch as `as_object` gives it, the line, and whether the batch stands."""
    return as_object(line.batch) | {"line": asdict(line.line), "index": line.index, "stands": line.stands}


def place_of(line: BatchLine) -> str:
    """Where a line stands, counted from 1."""
    batch = line.batch.trace.statement.batch
    assert batch is not None
    place = f"line {line.index + 1:,} of {batch.count:,} in {line.batch.id}"
    return place if line.stands else f"{place}, withdrawn"


def note_on(trace: Trace) -> str:
    """What nobody signed of a trace that was taken in from elsewhere."""
    return f"not signed: {', '.join(trace.not_signed)}" if trace.not_signed else ""


def short_time(time: str | None) -> str:
    """A statement's time to the second: RFC 3339, UTC."""
    return f"{time[:19]}Z" if time else ""


def remarks(statement: Statement) -> str:
    """What is peculiar to this trace, in a few words."""
    words = []
    if statement.event is Event.CORRUPT and statement.found is not None:
        words.append(f"found {_digest(statement.found.hashes)}, {statement.found.size} bytes")
    if cause := statement.cause:
        parts = (("by", cause.account), ("through", cause.action), ("rule", cause.rule), ("request", cause.request))
        words += [f"{label} {value}" for label, value in parts if value]
    if statement.source is not None and statement.source.rse:
        words.append(f"from {statement.source.rse}")
    if before := linked(statement):
        words.append(f"was {before} outside Rucio")
    if statement.replaces:
        words.append(f"replaces {statement.replaces}")
    if statement.adopted:
        words.append("adopted")
    if statement.unobserved:
        words.append("never observed")
    if statement.revokes:
        words.append(f"withdraws {statement.revokes}")
    if statement.obsolescence:
        words.append(statement.obsolescence)
    if statement.replaced_by:
        words.append(f"use {statement.replaced_by}")
    return ", ".join(words)


def _digest(hashes: Any) -> str:
    algorithm, digest = next(iter(hashes.items()), ("no digest", ""))
    return f"{algorithm} {digest[:16]}"
