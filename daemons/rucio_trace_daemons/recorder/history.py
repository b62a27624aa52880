"""What the traces of a product tell a recorder: the origin, what is proven where, what came before what. Pure.

A `History` starts from what the store holds and is told of each trace that is signed now, so that within one batch a
copy already finds the creation that was signed a moment before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace.joining import same_file
from rucio_trace.trace import STRONG, Event, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from rucio_trace.envelope import Trace
    from rucio_trace.store import BatchLine
    from rucio_trace.trace import Statement
    from rucio_trace_daemons.recorder.resolve import Known, Transfer
    from rucio_trace_daemons.recorder.rows import Row

__all__ = ["History", "arrival_event", "measurable", "transfer_of"]

_ARRIVALS = (Event.CREATE, Event.COPY)
_PROOFS = (Event.CREATE, Event.COPY, Event.VERIFY)
_OF_REPLICAS = (*_PROOFS, Event.CORRUPT, Event.LOST, Event.DELETE)
# States of a replica that was available once; of the others it cannot be told.
_WAS_AVAILABLE = "ATBD"


@dataclass(frozen=True, slots=True)
class Seen:
    """The last trace of one replica."""

    trace_id: str
    event: Event


class History:
    """The past of one product."""

    def __init__(
        self,
        origin: Statement | None,
        traces: Sequence[Trace],
        rse_id_of: Callable[[str], str],
        lines: Sequence[BatchLine] = (),
        *,
        revoked: bool = False,
    ) -> None:
        """`declared`: the origin is what was said of the file before it was in Rucio; no replica created it.

        `lines` are what batches say of its replicas. `revoked`: the product had an origin and it was withdrawn. Nobody
        may adopt another in its place.
        """
        self.revoked = revoked
        self.declared = origin is not None and origin.product is None
        self.origin = measurable(origin, traces)
        self._last: dict[str, Seen] = {}
        self._arrivals: list[tuple[datetime, str]] = []
        for trace in traces:
            if trace.statement.rse is not None:
                self._take(trace, rse_id_of(trace.statement.rse))
        for line in lines:  # a replica of which only batches tell is traced too
            if line.stands:
                self._last.setdefault(rse_id_of(line.rse or ""), Seen(line.batch.id, Event.VERIFY))

    def note(self, trace: Trace, rse_id: str) -> None:
        """Take in a trace that was signed just now."""
        self._take(trace, rse_id)
        s = trace.statement
        if self.origin is None and s.event in _PROOFS and s.method in ("read", "storage"):
            self.origin = s

    def _take(self, trace: Trace, rse_id: str) -> None:
        event = trace.statement.event
        if event in _OF_REPLICAS:
            self._last[rse_id] = Seen(trace.id, event)
        if event in _ARRIVALS and trace.statement.time:
            self._arrivals.append((parse_time(trace.statement.time), rse_id))

    def traced(self, rse_id: str) -> bool:
        """Whether there is a trace of this replica since it last came to be."""
        return self.last_trace(rse_id) is not None

    def last_trace(self, rse_id: str) -> str | None:
        """The id of the last trace of this replica, None for one that is deleted or was never traced."""
        seen = self._last.get(rse_id)
        return seen.trace_id if seen is not None and seen.event is not Event.DELETE else None

    def proof(self, rse_id: str) -> str | None:
        """The id of the trace that proves this replica at present."""
        seen = self._last.get(rse_id)
        return seen.trace_id if seen is not None and seen.event in _PROOFS else None

    def arrived_before(self, moment: datetime) -> bool:
        return any(time < moment for time, _ in self._arrivals)


def measurable(origin: Statement | None, traces: Sequence[Trace]) -> Statement | None:
    """The statement whose digests a replica is held against: a CDSE trace does not sign which one it gives."""
    if origin is None or origin.hash_algorithm is not None:
        return origin
    own = (t.statement for t in traces if t.statement.product is not None)
    return next((s for s in own if s.hash_algorithm in STRONG and same_file(s, origin)), None)


def arrival_event(
    row: Row, history: History, pending: Sequence[Row], known: Sequence[Known], transfer: Transfer | None
) -> Event:
    """CREATE for the first replica that nobody transferred, else COPY, by Rucio's order (docs/format.md, section 1).

    `pending`: all outbox rows of the product that are still there; `known`: its replicas in Rucio's table.
    """
    if history.declared or transfer is not None or history.arrived_before(row.at) or history.traced(row.rse_id):
        return Event.COPY
    if any(p.id < row.id and p.rse_id != row.rse_id and _available(p) for p in pending):
        return Event.COPY
    later = {p.rse_id for p in pending if p.id > row.id}
    earlier = (k for k in known if k.rse_id != row.rse_id and k.rse_id not in later and k.state in _WAS_AVAILABLE)
    if any(not _traced_later(history, k.rse_id, row) for k in earlier):
        return Event.COPY
    return Event.CREATE


def _available(row: Row) -> bool:
    return row.generation is not None and "A" in (row.old_state, row.new_state)


def _traced_later(history: History, rse_id: str, row: Row) -> bool:
    """A replica whose arrival is traced with a later time came after this one."""
    times = [time for time, of in history._arrivals if of == rse_id]
    return bool(times) and min(times) >= row.at


def transfer_of(row: Row, transfers: Sequence[Transfer], skew: timedelta) -> Transfer | None:
    """The request that brought the replica: of this generation, not younger than the change; a finished one first.

    `skew`: by how much the clocks of Rucio's hosts and of its database may differ.
    """
    of_row = [
        t
        for t in transfers
        if t.rse_id == row.rse_id
        and t.created_at is not None
        and row.generation - skew <= t.created_at <= row.at + skew
    ]
    return max(of_row, key=lambda t: (t.state == "D", t.created_at), default=None)  # type: ignore[arg-type,return-value]
