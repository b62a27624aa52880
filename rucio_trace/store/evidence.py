"""Everything the store knows about files, for `verify.judge`.

Judging a part of the evidence could mislead (a missing REVOKE makes a withdrawn trace count), so each
product that could be meant is given with its whole history, or nothing is given at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from rucio_trace.store.errors import TooMuchEvidence
from rucio_trace.store.read import KEYS_A_QUERY, MAX_WHOLE, Reader, among, batches, bearing, named, of_dids
from rucio_trace.store.tables import traces
from rucio_trace.trace import HEX_DIGITS, STRONG

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement, Connection

    from rucio_trace.store.records import Stored

__all__ = ["MAX_TRACES", "collect", "collect_many"]

MAX_TRACES: Final = MAX_WHOLE
"""About ten seconds of parsing: a product with ten replicas, each verified daily, reaches it after 27 years."""

_STRONG_DIGITS: Final = frozenset(HEX_DIGITS[algorithm] for algorithm in STRONG)


def collect(
    connection: Connection,
    reader: Reader,
    hashes: Mapping[str, str],
    names: Collection[str],
    did: str | None,
    product_digest: str | None = None,
) -> list[Stored]:
    """The traces of every product with one of these digests or names, and all that withdraws any of them.

    With *did* the name is not asked: the caller says which product is meant. Weak digests match nobody.

    Raises:
        TooMuchEvidence: more than MAX_TRACES traces.
    """
    strong = [digest for algorithm, digest in hashes.items() if algorithm in STRONG]
    digests = [*strong, product_digest] if product_digest else strong
    return collect_many(connection, reader, digests, () if did is not None else names, () if did is None else [did])


def collect_many(
    connection: Connection,
    reader: Reader,
    digests: Collection[str],
    names: Collection[str],
    dids: Collection[str],
    most: int | None = None,
) -> list[Stored]:
    """The same for many files at once, in few queries; each trace is read once. Digests are strong ones.

    Raises:
        TooMuchEvidence: more than *most* traces, or than MAX_TRACES.
    """
    found = _Collection(connection, reader, MAX_TRACES if most is None else min(most, MAX_TRACES))
    for some in batches((digest for digest in digests if len(digest) in _STRONG_DIGITS), KEYS_A_QUERY):
        found.add(bearing(some, of_content=None))
    for some in batches(names, KEYS_A_QUERY):
        found.add(named(some))
    for some in batches(dids, KEYS_A_QUERY):
        found.add(of_dids(some))
    found.add_histories()
    found.add_strangers()
    found.add_withdrawals()
    return found.in_order()


class _Collection:
    """Traces found so far, by position."""

    def __init__(self, connection: Connection, reader: Reader, most: int) -> None:
        self._connection, self._reader, self._most = connection, reader, most
        self._found: dict[int, Stored] = {}

    def add(self, condition: ColumnElement[bool]) -> list[Stored]:
        """Take what fulfils *condition*; the answer is what was not there yet. Rows are read once, when wanted."""
        query = select(traces.c.position).where(self._reader.visible(condition)).limit(self._most + 1)
        missing = set(self._connection.scalars(query)) - self._found.keys()
        if len(self._found) + len(missing) > self._most:
            raise TooMuchEvidence(self._most, read=len(self._found))
        new = [
            stored
            for some in batches(missing, KEYS_A_QUERY)
            # Not an array: a plan for any array would ask every partition for all of them.
            for stored in self._reader.read(self._connection, traces.c.position.in_(some))
        ]
        self._found.update((stored.position, stored) for stored in new)
        return new

    def add_histories(self) -> None:
        """The whole history of every product met: its OBSOLETE need not bear the file's digest."""
        dids = {s.trace.statement.did for s in self._found.values() if s.trace.statement.did is not None}
        for some in batches(sorted(dids), KEYS_A_QUERY):
            self.add(of_dids(some))

    def add_strangers(self) -> None:
        """What was said, outside Rucio, of the files that became the products met: it may have another name."""
        new = self._reader.strangers(self._connection, self._found.values())
        self._found.update((stored.position, stored) for stored in new)
        if len(self._found) > self._most:
            raise TooMuchEvidence(self._most, read=len(self._found))

    def add_withdrawals(self) -> None:
        """Each REVOKE of a trace met, wherever it stands, then the REVOKE of that one, and so on."""
        unasked = list(self._found.values())
        while unasked:
            ids, unasked = {stored.id for stored in unasked}, []
            for some in batches(ids, KEYS_A_QUERY):
                unasked += self.add(among(traces.c.revokes, some))

    def in_order(self) -> list[Stored]:
        return [self._found[position] for position in sorted(self._found)]
