"""What the store hands out: plain values, no database behind them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from rucio_trace.batch import Line
    from rucio_trace.envelope import Trace
    from rucio_trace.faults import Fault

__all__ = ["BatchLine", "Item", "Outcome", "Registration", "Stored", "youngest"]


class Outcome(StrEnum):
    """What became of one trace handed in for registration."""

    STORED = "stored"  # new, and durable now
    KNOWN = "known"  # the same id with the same message was there already: as good as stored
    CONFLICT = "conflict"  # the id is taken by another message; nothing was changed
    REFUSED = "refused"  # the trace itself is at fault: it will never be taken
    UNDECIDED = "undecided"  # it could not be judged now (a stale CRL, a newer format): try again later


@dataclass(frozen=True, slots=True)
class Item:
    """A trace to register; of a batch with its *list*, of a file in no Rucio perhaps with the *scope* it is to join."""

    trace: Trace
    list: bytes | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """The answer to one registered trace, in the order they were handed in.

    `id` is the trace's event id, or the id derived from its text when it has none; it is empty only
    for a trace refused because it has no signed text. `position` is None unless the trace is in the store.
    `faults` are what a trace was refused for, as far as it is the trace's. `kept_in` is the file on this machine in
    which it waits, undecided, while a trace service is away.
    """

    id: str
    position: int | None
    outcome: Outcome
    reason: str | None = None
    faults: tuple[Fault, ...] = ()
    kept_in: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A trace as the store knows it.

    `position` grows in commit order: whoever has seen N never meets a new trace at or below N.
    `registered_at` is the database's clock, UTC.
    """

    id: str
    trace: Trace
    position: int
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A line of a stored batch: one replica, verified. `index` counts from 0.

    It counts if its batch `stands`; `position` is that of the youngest trace that says so, the batch or a REVOKE.
    """

    batch: Stored
    line: Line
    index: int
    position: int
    stands: bool

    @property
    def rse(self) -> str | None:
        """The name under which the batch's RSE was signed."""
        return self.batch.trace.statement.rse


def youngest(lines: Iterable[BatchLine], rse: str | None) -> BatchLine | None:
    """Of *lines* that stand the youngest, on the RSE of this signed name if one is given."""
    known = [line for line in lines if line.stands and rse in (None, line.rse)]
    return max(known, key=lambda found: (found.line.time, found.position), default=None)
