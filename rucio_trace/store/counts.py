"""How many traces there are of each event, RSE and provider: counted as they come, so that nobody has to scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, case, delete, insert, select, update

from rucio_trace.store.tables import counts, head, traces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import BindParameter, Column, Connection

    from rucio_trace.store.read import Reader

__all__ = ["Statistics", "add_counts", "move_count", "read_counts"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a store holds. `rses` are names as they were signed; `position` is the last one given out, 0 if none was."""

    traces: int
    events: Mapping[str, int]
    rses: Mapping[str, int]
    position: int
    first_registered: datetime | None
    last_registered: datetime | None


def add_counts(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Count *rows* of the table of traces, in the order of positions; the caller holds the head's lock."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        key = (row["event"], row["rse"] or "", row["provider"] or "")
        found.setdefault(key, []).append(row["position"])
    for (event, rse, provider), positions in sorted(found.items()):
        of = {"of_event": event, "of_rse": rse, "of_provider": provider}
        more = {"more": len(positions), "from": positions[0], "to": positions[-1]}
        if not connection.execute(_ADD, of | more).rowcount:
            first = {"traces": len(positions), "first": positions[0], "last": positions[-1]}
            connection.execute(insert(counts).values(event=event, rse=rse, provider=provider, **first))


def _given(name: str, of: Column[Any]) -> BindParameter[Any]:
    return bindparam(name, type_=of.type)


_FROM, _TO = _given("from", counts.c.first), _given("to", counts.c.last)
_ADD = (
    update(counts)
    .where(counts.c.event == _given("of_event", counts.c.event))
    .where(counts.c.rse == _given("of_rse", counts.c.rse))
    .where(counts.c.provider == _given("of_provider", counts.c.provider))
    .values(
        traces=counts.c.traces + _given("more", counts.c.traces),
        first=case((counts.c.first > _FROM, _FROM), else_=counts.c.first),
        last=case((counts.c.last < _TO, _TO), else_=counts.c.last),
    )
)


def move_count(connection: Connection, of: tuple[str, str | None, str | None], provider: str | None, at: int) -> None:
    """Count the trace *of* this event, RSE and provider, which is *at* this position, as another provider's."""
    event, rse, before = of
    place = (counts.c.event == event) & (counts.c.rse == (rse or "")) & (counts.c.provider == (before or ""))
    connection.execute(update(counts).where(place).values(traces=counts.c.traces - 1))
    connection.execute(delete(counts).where(place, counts.c.traces == 0))
    place = (counts.c.event == event) & (counts.c.rse == (rse or ""))
    known = place & (counts.c.provider == (provider or ""))
    row = connection.execute(select(counts.c.first, counts.c.last).where(known)).one_or_none()
    if row is None:
        first = {"event": event, "rse": rse or "", "provider": provider or "", "traces": 1, "first": at, "last": at}
        connection.execute(insert(counts).values(**first))
    else:
        new = {"traces": counts.c.traces + 1, "first": min(row.first, at), "last": max(row.last, at)}
        connection.execute(update(counts).where(known).values(new))


def read_counts(connection: Connection, reader: Reader) -> Statistics:
    """What *reader* may see."""
    events: dict[str, int] = {}
    rses: dict[str, int] = {}
    seen = [row for row in connection.execute(select(counts)) if row.provider not in reader.hidden]
    for row in seen:
        events[row.event] = events.get(row.event, 0) + row.traces
        if row.rse:
            rses[row.rse] = rses.get(row.rse, 0) + row.traces
    first, last = min((row.first for row in seen), default=0), max((row.last for row in seen), default=0)
    times = select(traces.c.position, traces.c.registered_at).where(traces.c.position.in_([first, last]))
    registered = {row.position: row.registered_at for row in connection.execute(times)}
    total = sum(events.values())
    position = int(connection.scalar(select(head.c.position)) or 0)
    return Statistics(total, events, rses, position, registered.get(first), registered.get(last))
