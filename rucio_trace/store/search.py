"""What `Store.search` looks for, and how a status is searched although no table holds one.

A status is recomputed from signed traces, never believed from a column. To search by one, the
traces that could lead to it are taken page by page, newest first, and their products judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, exists, or_, select, true

from rucio_trace.status import Status, product_status
from rucio_trace.store.lists import proven
from rucio_trace.store.read import bearing, with_prefix
from rucio_trace.store.tables import indexable, traces

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from rucio_trace.store.read import Reader
    from rucio_trace.store.records import Stored
    from rucio_trace.trace import Event, ProductKey

__all__ = ["Filters", "search"]

_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is looked for; all that is not None must hold. Times are those of the events, `until` excluded."""

    name_prefix: str | None = None
    """Of the file's base name, or of `scope:name` if it holds a colon."""
    digest: str | None = None
    """Of the file or of a member of an archive, by any algorithm."""
    status: Status | None = None
    event: Event | None = None
    rse: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def condition(self) -> ColumnElement[bool]:
        parts: list[ColumnElement[bool]] = [true()]
        if self.name_prefix:
            column = traces.c.did if ":" in self.name_prefix else traces.c.name
            parts.append(with_prefix(column, self.name_prefix))
        if self.digest is not None:
            parts.append(bearing([self.digest], of_content=None))
        if self.event is not None:
            parts.append(traces.c.event == str(self.event))
        if self.rse is not None:
            parts.append(traces.c.rse == indexable(self.rse))
        if self.since is not None:
            parts.append(traces.c.time >= self.since)
        if self.until is not None:
            parts.append(traces.c.time < self.until)
        return and_(*parts)


def search(connection: Connection, reader: Reader, filters: Filters, limit: int) -> list[Stored]:
    """The newest *limit* traces that fulfil *filters*, newest first."""
    condition = filters.condition()
    if filters.status is None:
        return reader.read(connection, condition, limit=limit, newest=True)
    condition &= _could_lead_to(filters.status)
    found: list[Stored] = []
    statuses: dict[ProductKey, Status] = {}
    page = reader.read(connection, condition, limit=_PAGE, newest=True)
    while page and len(found) < limit:
        _judge(connection, reader, page, statuses)
        found += [stored for stored in page if _status(stored, statuses) is filters.status]
        older = condition & (traces.c.position < page[-1].position)
        page = reader.read(connection, older, limit=_PAGE, newest=True)
    return found[:limit]


def _status(stored: Stored, statuses: dict[ProductKey, Status]) -> Status | None:
    key = stored.trace.statement.product
    return None if key is None else statuses[key]


def _judge(connection: Connection, reader: Reader, page: list[Stored], statuses: dict[ProductKey, Status]) -> None:
    keys = {key for stored in page if (key := stored.trace.statement.product) is not None} - statuses.keys()
    lines = proven(connection, reader, keys)
    for key, history in reader.histories(connection, keys).items():
        statuses[key] = product_status(history, str, lines.get(key, ())).status


def _could_lead_to(status: Status) -> ColumnElement[bool]:
    """A condition that every trace of a product of this status fulfils; it spares judging the others."""
    others = traces.alias("others")
    same = (others.c.did == traces.c.did) & (others.c.generation == traces.c.generation)
    may_have_joined = others.c.did.is_(None) & (others.c.name == traces.c.name)
    needed: list[ColumnElement[bool]] = []
    if status in (Status.TAMPERED, Status.DEGRADED):
        needed = [others.c.event.in_(["CORRUPT", "LOST"]), others.c.digest_set != traces.c.digest_set]
    elif status is Status.DISPUTED:
        needed = [others.c.digest_set != traces.c.digest_set]
    elif status is Status.OBSOLETE:
        needed = [others.c.event == "OBSOLETE"]
    elif status is Status.REVOKED:
        needed = [others.c.event == "REVOKE"]
    in_rucio = traces.c.did.is_not(None)
    if not needed:
        return in_rucio
    within = exists(select(others.c.position).where(same, or_(*needed)))
    return in_rucio & (within | exists(select(others.c.position).where(may_have_joined)))
