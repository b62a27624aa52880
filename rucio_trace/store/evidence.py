"""Everything the store knows about a file, for `verify.judge`.

Judging a part of the evidence could mislead (a missing REVOKE makes a withdrawn trace count), so each
product that could be meant is given with its whole history, or nothing is given at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from rucio_trace.store.errors import TooMuchEvidence
from rucio_trace.store.read import KEYS_A_QUERY, Reader, batches, bearing, named, of_dids
from rucio_trace.store.tables import traces
from rucio_trace.trace import HEX_DIGITS, STRONG

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement, Connection

    from rucio_trace.store.records import Stored

__all__ = ["MAX_TRACES", "collect"]

MAX_TRACES: Final = 100_000
"""About ten seconds of parsing: a product with ten replicas, each verified daily, reaches it after 27 years."""


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
    strong = [digest for digest in strong if len(digest) in {HEX_DIGITS[algorithm] for algorithm in STRONG}]
    found = _Collection(connection, reader)
    found.add(bearing([*strong, product_digest] if product_digest else strong, of_content=None))
    found.add(of_dids([did]) if did is not None else named(names))
    found.add_histories()
    found.add_strangers()
    found.add_withdrawals()
    return found.in_order()


class _Collection:
    """Traces found so far, by position."""

    def __init__(self, connection: Connection, reader: Reader) -> None:
        self._connection, self._reader = connection, reader
        self._found: dict[int, Stored] = {}

    def add(self, condition: ColumnElement[bool]) -> list[Stored]:
        """Take what fulfils *condition*; the answer is what was not there yet."""
        if self._count(condition) > MAX_TRACES:
            raise TooMuchEvidence(MAX_TRACES)
        new = [s for s in self._reader.read(self._connection, condition) if s.position not in self._found]
        self._found.update((stored.position, stored) for stored in new)
        if len(self._found) > MAX_TRACES:
            raise TooMuchEvidence(MAX_TRACES)
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
        if len(self._found) > MAX_TRACES:
            raise TooMuchEvidence(MAX_TRACES)

    def add_withdrawals(self) -> None:
        """Each REVOKE of a trace met, wherever it stands, then the REVOKE of that one, and so on."""
        unasked = list(self._found.values())
        while unasked:
            ids, unasked = {stored.id for stored in unasked}, []
            for some in batches(ids, KEYS_A_QUERY):
                unasked += self.add(traces.c.revokes.in_(some))

    def in_order(self) -> list[Stored]:
        return [self._found[position] for position in sorted(self._found)]

    def _count(self, condition: ColumnElement[bool]) -> int:
        """How many rows there are, counted no further than is needed to say "too many"."""
        some = select(traces.c.position).where(condition).limit(MAX_TRACES + 1).subquery()
        return int(self._connection.scalar(select(func.count()).select_from(some)) or 0)
