"""How `/api/v2` writes what the store knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rucio_trace.envelope import to_json
from rucio_trace.statement import format_time

if TYPE_CHECKING:
    from rucio_trace.store.records import Registration, Stored

__all__ = ["answer", "record"]


def record(stored: Stored) -> dict[str, Any]:
    """A trace as the service knows it."""
    return {
        "id": stored.id,
        "position": stored.position,
        "registered_at": format_time(stored.registered_at),
        "trace": to_json(stored.trace),
    }


def answer(registration: Registration) -> dict[str, Any]:
    """What became of one item."""
    return {
        "id": registration.id or None,
        "outcome": str(registration.outcome),
        "position": registration.position,
        "reason": registration.reason,
        "faults": [fault.as_dict() for fault in registration.faults],
    }
