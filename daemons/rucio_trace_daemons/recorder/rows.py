"""Outbox rows as values, and what becomes of each in one batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rucio_trace_daemons.recorder.decide import Change, Reason

if TYPE_CHECKING:
    from datetime import datetime

    from rucio_trace.envelope import Trace

__all__ = ["AUDIT", "QUEUED_BY_GAPS", "Fate", "Row", "Settled", "Signed", "Waiting"]

# The action of a row that no trigger wrote: a search for gaps asks for a look, or reports a deletion nobody saw.
QUEUED_BY_GAPS = "gaps"
# The action of what our auditor does in Rucio's database: no action of Rucio's own is called so.
AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Row:
    """One change of a replica or a dataset, as the hooks wrote it; what is of a dataset has no `rse_id`."""

    id: int
    event_id: str
    rse_id: str
    scope: str
    name: str
    old_state: str | None
    new_state: str | None
    bytes: int | None
    adler32: str | None
    md5: str | None
    generation: datetime
    account: str | None
    action: str | None
    rule: str | None
    at: datetime
    attempts: int
    not_before: datetime | None
    missing_since: datetime | None
    last_error: str | None
    message: str | None

    @property
    def change(self) -> Change:
        signed, queued = self.message is not None, self.action == QUEUED_BY_GAPS
        return Change(self.old_state, self.new_state, self.at, signed, self.action == AUDIT, queued)


@dataclass(frozen=True, slots=True)
class Settled:
    """No trace; the reason is counted."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Signed:
    """A trace, signed now or before; `fresh` ones still have to be kept in their row."""

    trace: Trace
    fresh: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not now: because of `error`, or (`unchanged`) because nothing was tried.

    `stopped`: no time mends it, only an operator; it is counted under that word.
    """

    until: datetime
    error: str | None = None
    missing_since: datetime | None = None
    unchanged: bool = False
    stopped: str | None = None


Fate = Settled | Signed | Waiting


@dataclass(slots=True)
class Replica:
    """All claimed rows of one replica of a product, in id order, with the fates found so far."""

    rse_id: str
    rows: list[Row] = field(default_factory=list)
    fates: dict[str, Fate] = field(default_factory=dict)  # by event_id

    def finished(self) -> dict[str, Fate]:
        """The rows that may go now: a superseded row only together with whatever it gave way to."""
        free: dict[str, Fate] = {}
        held = False
        for row in reversed(self.rows):
            fate = self.fates.get(row.event_id)
            if isinstance(fate, Signed):
                held = False
                free[row.event_id] = fate
            elif isinstance(fate, Settled):
                if fate.reason is not Reason.SUPERSEDED or not held:
                    free[row.event_id] = fate
            else:
                held = True
        return free
