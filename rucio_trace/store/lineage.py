"""Where `rucio_trace.lineage` looks: the CREATEs of a store, at one moment.

The index only helps to find them: who was made from what is read from the signed messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Integer, cast, func, or_, select

from rucio_trace.history import history_of
from rucio_trace.lineage import TROUBLES, strong_digests
from rucio_trace.status import Status, product_status, speaker
from rucio_trace.store.errors import CorruptRow
from rucio_trace.store.lists import proven
from rucio_trace.store.read import KEYS_A_QUERY, Reader, batches, bearing, of_dids
from rucio_trace.store.tables import indexable, inputs, traces
from rucio_trace.trace import HEX_DIGITS, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sqlalchemy import ColumnElement, Connection

    from rucio_trace.store.records import Stored
    from rucio_trace.trace import ProductKey

    _Condition = Callable[[Collection[str]], ColumnElement[bool]]

__all__ = ["StoredRecords"]

_DIGEST_LENGTHS = frozenset(HEX_DIGITS.values())
_BAD_NEWS = [str(event) for event in (Event.CORRUPT, Event.LOST, Event.OBSOLETE, Event.REVOKE)]

# Events are few and traces many: SQLite, which keeps no statistics, must not begin with the index of events.
_EVENT = func.coalesce(traces.c.event, "")


class StoredRecords:
    """See `lineage.Records`; answers as long as its connection lives."""

    def __init__(self, connection: Connection, reader: Reader) -> None:
        self._connection, self._reader = connection, reader
        self._known: dict[int, Stored] = {}

    def creating(self, digests: Collection[str], most: int) -> list[Stored]:
        wanted = set(digests)
        found = self._of_each(digests, lambda some: bearing(some, of_content=False), most)
        return [s for s in found if not wanted.isdisjoint(strong_digests(s.trace.statement))]

    def using(self, digests: Collection[str], most: int) -> list[Stored]:
        def named_by(some: Collection[str]) -> ColumnElement[bool]:
            of_inputs = inputs.c.digest.in_([bytes.fromhex(digest) for digest in some])
            return traces.c.position.in_(select(inputs.c.position).where(of_inputs))

        wanted = set(digests)
        found = self._of_each(digests, named_by, most)
        for stored in found:
            named = {given.hash for given in stored.trace.statement.inputs or ()}
            if wanted.isdisjoint(named):
                raise CorruptRow(stored.position, "table trace_inputs", ", ".join(sorted(named)) or "none", "another")
        return found

    def troubles(self, creates: Collection[Stored]) -> dict[int, Status]:
        """Only products of which anything bad, or anything contradictory, is known are judged: they are few."""
        of_product: dict[ProductKey, list[Stored]] = {}
        for stored in creates:
            if (key := stored.trace.statement.product) is not None:
                of_product.setdefault(key, []).append(stored)
        warnings = self._warnings_outside(creates)
        warned = {digest for stored in warnings for digest in strong_digests(stored.trace.statement)}
        suspects = self._suspects(of_product) | {
            key
            for key, of in of_product.items()
            if any(not warned.isdisjoint(strong_digests(stored.trace.statement)) for stored in of)
        }
        found: dict[int, Status] = {}
        lines = proven(self._connection, self._reader, suspects)
        for key, history in self._reader.histories(self._connection, suspects).items():
            if (status := product_status(history, str, lines.get(key, ())).status) in TROUBLES:
                found |= {stored.position: status for stored in of_product[key]}
        return found | _outside(creates, warnings)

    def _of_each(
        self, digests: Iterable[str], condition: Callable[[Collection[str]], ColumnElement[bool]], most: int
    ) -> list[Stored]:
        """The CREATEs for which *condition* holds; positions are asked first, as most traces are met again."""
        found: set[int] = set()
        usable = (digest for digest in digests if len(digest) in _DIGEST_LENGTHS)
        for some in batches(usable, KEYS_A_QUERY):
            creates = self._reader.visible(condition(some) & (str(Event.CREATE) == _EVENT))
            found.update(self._connection.scalars(select(traces.c.position).where(creates).limit(most + 1)))
            if len(found) > most:
                break
        for new in batches(found - self._known.keys(), KEYS_A_QUERY):
            for stored in self._reader.read(self._connection, traces.c.position.in_(new)):
                self._known[stored.position] = stored
        return [self._known[position] for position in sorted(found)]

    def _warnings_outside(self, creates: Iterable[Stored]) -> list[Stored]:
        """What was said against files in no Rucio with the bytes of *creates*; some may have joined a product."""
        found: dict[int, Stored] = {}
        digests = {digest for stored in creates for digest in strong_digests(stored.trace.statement)}
        for some in batches(digests, KEYS_A_QUERY):
            condition = bearing(some, of_content=False) & traces.c.did.is_(None) & _EVENT.in_(_BAD_NEWS)
            found |= {stored.position: stored for stored in self._reader.read(self._connection, condition)}
        return list(found.values())

    def _suspects(self, keys: Collection[ProductKey]) -> set[ProductKey]:
        """Those of *keys* with bad news, or with statements of different bytes."""
        bad = func.max(cast(traces.c.event.in_(_BAD_NEWS), Integer)) == 1
        differing = func.min(traces.c.digest_set) != func.max(traces.c.digest_set)
        by_row: dict[tuple[str | None, str | None], list[ProductKey]] = {}
        for key in keys:
            by_row.setdefault((indexable(key.did), key.generation), []).append(key)
        found: set[ProductKey] = set()
        for some in batches({key.did for key in keys}, KEYS_A_QUERY):
            query = select(traces.c.did, traces.c.generation).where(self._reader.visible(of_dids(some)))
            query = query.group_by(traces.c.did, traces.c.generation).having(or_(bad, differing))
            for did, generation in self._connection.execute(query):
                found.update(by_row.get((did, generation), ()))
        return found


def _outside(creates: Iterable[Stored], warnings: Iterable[Stored]) -> dict[int, Status]:
    """What is wrong with files in no Rucio, by the positions of their CREATEs."""
    of_file: dict[tuple[str, int, str], list[Stored]] = {}
    for stored in (*creates, *warnings):
        s = stored.trace.statement
        if s.product is None:
            of_file.setdefault((s.name, s.size, s.hash), []).append(stored)
    found: dict[int, Status] = {}
    for traces_ in of_file.values():
        if all(stored.trace.statement.event is Event.CREATE for stored in traces_):
            continue
        history = history_of((stored.trace for stored in traces_), speaker)
        if history.origin is None and history.withdrawn_origins:
            found |= {stored.position: Status.REVOKED for stored in traces_}
        elif history.obsolete:
            found |= {stored.position: Status.OBSOLETE for stored in traces_}
    return found
