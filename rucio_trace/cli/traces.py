"""How stored traces are told: rows of a table for people, objects for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rucio_trace.trace import Event, Statement, format_time

if TYPE_CHECKING:
    from rucio_trace.store import Stored

__all__ = ["STYLES", "as_object", "remarks", "short_time"]

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
    """A stored trace for `--json`: where it stands, and what was signed, as it was signed."""
    return {
        "id": stored.id,
        "position": stored.position,
        "registered_at": format_time(stored.registered_at),
        "statement": json.loads(stored.trace.message),
    }


def short_time(statement: Statement) -> str:
    """The time to the second: RFC 3339, UTC."""
    return f"{statement.time[:19]}Z" if statement.time else ""


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
