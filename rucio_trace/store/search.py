"""What `Store.find` looks for, and how what no index knows is searched: a status, a site, an attribute.

An index leads to candidates, newest first, and each is held against its signed text: a status is recomputed from signed
traces, never believed from a column. Indexed are names, DIDs, RSEs, events, times, digests and words (`texts`). Of what
else must be looked at, one page looks at no more than `MAX_LOOKED_AT` traces, and says where to go on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import and_, exists, func, or_, select, true

from rucio_trace.product_digest import digest_of_contents
from rucio_trace.status import Status, product_status
from rucio_trace.store.errors import TooManyTraces
from rucio_trace.store.histories import anybody
from rucio_trace.store.lists import proven
from rucio_trace.store.read import PAGE_CHARACTERS, among, batches, bearing, named, of_dids, with_prefix
from rucio_trace.store.tables import indexable, traces
from rucio_trace.store.texts import matching
from rucio_trace.words import words_in, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from rucio_trace.store.histories import MayJoin
    from rucio_trace.store.read import Reader
    from rucio_trace.store.records import Stored
    from rucio_trace.trace import Event, ProductKey, Statement

__all__ = ["MAX_LOOKED_AT", "Filters", "Kind", "Page", "bears", "condition_of", "search", "select_where"]

MAX_LOOKED_AT: Final = 10_000
"""Traces read for one page: about a second."""

MAX_COUNTED: Final = 100_000

_ROWS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is looked for; all that is not None must hold. Times are those of the events, `until` excluded."""

    name: str | None = None
    """The file's base name."""
    name_prefix: str | None = None
    """Of the file's base name, or of `scope:name` if it holds a colon."""
    did: str | None = None
    product: ProductKey | None = None
    text: str | None = None
    """Words, all of which the file's name or the values of the trace's attributes hold."""
    digest: str | None = None
    """Of the file or of a member of an archive, by any algorithm."""
    content: str | None = None
    """Of a member of an archive."""
    status: Status | None = None
    event: Event | None = None
    rse: str | None = None
    site: str | None = None
    attributes: Collection[str] | None = None
    """`KEY:VALUE` of signed attributes, spelled as in JSON but for the quotes of a text; of a list any element may be
    it. Both may hold colons: any division may be the one."""
    since: datetime | None = None
    until: datetime | None = None
    may_join: MayJoin = anybody
    """Whose words on a file in no Rucio count for the status of a product."""

    @property
    def must_look(self) -> bool:
        """Whether traces must be read that may turn out not to be wanted; others are exceptions, such as long names."""
        return any(wanted is not None for wanted in (self.status, self.site, self.attributes, self.text))

    def condition(self, dialect: str) -> ColumnElement[bool]:
        """What an index can tell."""
        parts: list[ColumnElement[bool]] = [true()]
        if self.name is not None:
            parts.append(named([self.name]))
        if self.name_prefix:
            column = traces.c.did if ":" in self.name_prefix else traces.c.name
            parts.append(with_prefix(column, self.name_prefix))
        if self.did is not None:
            parts.append(of_dids([self.did]))
        if self.product is not None:
            parts.append(of_dids([self.product.did]) & (traces.c.generation == self.product.generation))
        if words := words_in(self.text or ""):
            parts.append(matching(words, dialect))
        if self.digest is not None:
            parts.append(bearing([self.digest], of_content=None))
        if self.content is not None:
            parts.append(bearing([self.content], of_content=True))
        if self.event is not None:
            parts.append(traces.c.event == str(self.event))
        if self.rse is not None:
            parts.append(traces.c.rse == indexable(self.rse))
        if self.since is not None:
            parts.append(traces.c.time >= self.since)
        if self.until is not None:
            parts.append(traces.c.time < self.until)
        if self.status is not None:
            parts.append(_could_lead_to(self.status))
        return and_(*parts)

    def hold(self, s: Statement) -> bool:
        """Whether *s*, which fulfils the condition, is what was asked for; its product's status is another question."""
        words, attributes = words_in(self.text or ""), s.attributes or {}
        return (
            self.name in (None, s.name)
            and ((s.did or "") if ":" in (start := self.name_prefix or "") else s.name).startswith(start)
            and self.did in (None, s.did)
            and self.product in (None, s.product)
            and self.rse in (None, s.rse)
            and self.content in (None, *_members(s, self.content))
            and self.digest in (None, s.hash, *s.digests.values(), *_members(s, self.digest))
            and self.site in (None, s.site)
            and (not words or words <= words_of(s.name, attributes))
            and (not self.attributes or _spelled(attributes).issuperset(self.attributes))
        )


def _members(s: Statement, wanted: str | None) -> set[str | None]:
    """The digests of the archive's members, and that of all together, if any is *wanted*."""
    return set() if wanted is None else {digest_of_contents(s), *(content.hash for content in s.contents or ())}


def _spelled(attributes: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    for key, value in attributes.items():
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        found.update(f"{key}:{each if isinstance(each, str) else json.dumps(each)}" for each in values)
    return found


Kind = Literal["ids", "names", "dids", "digests", "contents"]
"""What traces can be asked for many at once."""


def condition_of(kind: Kind, values: Collection[str]) -> ColumnElement[bool]:
    """An index finds them; it may find a little too much, see `bears`."""
    if kind == "ids":
        return among(traces.c.id, [indexable(value) for value in values])
    if kind == "names":
        return named(values)
    if kind == "dids":
        return of_dids(values)
    return bearing(values, of_content=kind == "contents")


def bears(kind: Kind, values: Collection[str], stored: Stored) -> bool:
    """Whether it has one of *values*."""
    s = stored.trace.statement
    own: dict[Kind, set[str | None]] = {"ids": {stored.id}, "names": {s.name}, "dids": {s.did}}
    own |= {"digests": {s.hash, *s.digests.values()}, "contents": {content.hash for content in s.contents or ()}}
    return not own[kind].isdisjoint(values)


@dataclass(frozen=True, slots=True)
class Page:
    """Traces, newest first, and the position below which the search goes on; None at its end.

    A page may hold less than was asked for, or nothing, and yet not be the last.
    """

    traces: list[Stored]
    next: int | None


def search(connection: Connection, reader: Reader, filters: Filters, limit: int, before: int | None = None) -> Page:
    """The newest *limit* traces below the position *before* that fulfil *filters*."""
    condition = filters.condition(connection.dialect.name)
    rows = _ROWS_AT_ONCE if filters.must_look else limit
    statuses: dict[ProductKey, Status] = {}
    found: list[Stored] = []
    for _ in range(0, MAX_LOOKED_AT, rows):
        older = condition if before is None else condition & (traces.c.position < before)
        page, more = reader.page(connection, older, limit=rows, newest=True)
        wanted = [stored for stored in page if filters.hold(stored.trace.statement)]
        if filters.status is not None:
            _judge(connection, reader, wanted, statuses, filters.may_join)
            wanted = [stored for stored in wanted if _status(stored, statuses) is filters.status]
        found += wanted[: limit - len(found)]
        if found and (len(found) == limit or sum(len(s.trace.message) for s in found) >= PAGE_CHARACTERS):
            return Page(found, found[-1].position)
        if not more:
            return Page(found, None)
        before = page[-1].position
    return Page(found, before)


def select_where(
    connection: Connection,
    reader: Reader,
    condition: ColumnElement[bool],
    order: Sequence[tuple[ColumnElement[Any], bool]],
    wanted: Callable[[Stored], bool] | None,
    *,
    skip: int,
    limit: int,
    count: bool,
) -> tuple[list[Stored], int | None]:
    """See `Store.select`."""
    ordered = [column.desc() if descending else column for column, descending in order]
    if "position" not in {column.key for column, _ in order}:
        ordered.append(traces.c.position.desc())
    query = select(traces.c.position).where(reader.visible(condition)).order_by(*ordered)
    if wanted is None:
        total = _count(connection, reader, condition) if count else None
        places = list(connection.scalars(query.offset(skip).limit(limit)))
        return _read_in_order(connection, reader, places), total
    places = list(connection.scalars(query.limit(MAX_LOOKED_AT + 1)))
    found: list[Stored] = []
    for some in batches(places[:MAX_LOOKED_AT], _ROWS_AT_ONCE):
        found += filter(wanted, _read_in_order(connection, reader, some))
        if len(found) >= skip + limit and not count:
            return found[skip : skip + limit], None
    if len(places) > MAX_LOOKED_AT:
        raise TooManyTraces(MAX_LOOKED_AT)
    return found[skip : skip + limit], len(found) if count else None


def _count(connection: Connection, reader: Reader, condition: ColumnElement[bool]) -> int:
    some = select(traces.c.position).where(reader.visible(condition)).limit(MAX_COUNTED + 1).subquery()
    total = int(connection.scalar(select(func.count()).select_from(some)) or 0)
    if total > MAX_COUNTED:
        raise TooManyTraces(MAX_COUNTED)
    return total


def _read_in_order(connection: Connection, reader: Reader, places: Sequence[int]) -> list[Stored]:
    page, more = (
        reader.page(connection, traces.c.position.in_(places), limit=len(places) + 1) if places else ([], False)
    )
    if more:
        raise TooManyTraces(len(page) - 1)  # of their length
    found = {stored.position: stored for stored in page}
    return [found[position] for position in places]


def _status(stored: Stored, statuses: dict[ProductKey, Status]) -> Status | None:
    key = stored.trace.statement.product
    return None if key is None else statuses[key]


def _judge(
    connection: Connection,
    reader: Reader,
    page: list[Stored],
    statuses: dict[ProductKey, Status],
    may_join: MayJoin,
) -> None:
    keys = {key for stored in page if (key := stored.trace.statement.product) is not None} - statuses.keys()
    lines = proven(connection, reader, keys)
    for key, history in reader.histories(connection, keys, may_join).items():
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
