"""Traces as the Copernicus Traceability Service knows them: its events, its algorithms, its JSON. Pure.

Ours are traces of that service already (`envelope`); what it has no words for is left out, and why is told.
"""

from typing import Any

from rucio_trace.envelope import Trace, to_json
from rucio_trace.matching import COPERNICUS_ALGORITHMS
from rucio_trace.statement import Event

__all__ = ["EVENTS", "for_service", "unfit"]

EVENTS = frozenset({Event.CREATE, Event.COPY, Event.DELETE, Event.OBSOLETE})


def unfit(trace: Trace) -> str | None:
    """Why the service would not understand *trace*; None if it does."""
    s = trace.statement
    if s.event not in EVENTS:
        return f"it knows no {s.event}"
    algorithm = s.hash_algorithm or trace.claimed_hash_algorithm
    if algorithm not in COPERNICUS_ALGORITHMS:
        return f"it knows no digests of {algorithm}" if algorithm else "the digest's algorithm is not told"
    return None


def for_service(trace: Trace) -> dict[str, Any]:
    """The trace as the service takes and gives it; our `signature.chain`, an addition, stays."""
    return to_json(trace)
