"""How `/api/v2` writes what the store knows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rucio_trace.envelope import to_json
from rucio_trace.statement import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rucio_trace.statement import ProductKey
    from rucio_trace.store.records import BatchLine, Registration, Stored

__all__ = ["answer", "known", "line", "product", "record", "records"]


def record(stored: Stored) -> dict[str, Any]:
    """A trace as the service knows it."""
    return {
        "id": stored.id,
        "position": stored.position,
        "registered_at": format_time(stored.registered_at),
        "trace": to_json(stored.trace),
    }


def records(found: Iterable[Stored]) -> list[dict[str, Any]]:
    return [record(stored) for stored in found]


def product(key: ProductKey) -> dict[str, str]:
    return {"rucio": key.rucio, "vo": key.vo, "did": key.did, "generation": key.generation}


def line(found: BatchLine) -> dict[str, Any]:
    """A line of a batch's list."""
    told = {"batch": record(found.batch), "line": asdict(found.line), "index": found.index}
    return told | {"position": found.position, "stands": found.stands}


def known(key: ProductKey, traces: Iterable[Stored], lines: Iterable[BatchLine]) -> dict[str, Any]:
    """What is known of one product."""
    return {"product": product(key), "traces": records(traces), "lines": [line(found) for found in lines]}


def answer(registration: Registration) -> dict[str, Any]:
    """What became of one item."""
    return {
        "id": registration.id or None,
        "outcome": str(registration.outcome),
        "position": registration.position,
        "reason": registration.reason,
        "faults": [fault.as_dict() for fault in registration.faults],
    }
