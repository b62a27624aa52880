"""No product is made from itself: a CREATE that would close a circle of inputs is refused.

A new CREATE can only close one if it has inputs and is itself an input of something known. That is asked
first and almost never so; only then is it looked what its inputs were made from.

What others must not see is not asked: nobody learns from a refusal what a private product was made from, or is refused
for what he was not told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from rucio_trace.store.read import KEYS_A_QUERY, batches
from rucio_trace.store.rows import input_digests
from rucio_trace.store.tables import digests, inputs, traces
from rucio_trace.trace import Event, parse

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection

    from rucio_trace.store.rows import Entry

__all__ = ["Ancestry"]

_MOST_ANCESTORS: Final = 1_000
"""The head's lock is held meanwhile. What lies deeper is caught by whoever reads the lineage."""


class Ancestry:
    """What the entries of one batch, and all that is stored, were made from."""

    def __init__(self, connection: Connection, entries: Collection[Entry], hidden: Collection[str] = ()) -> None:
        """The traces that *hidden* providers brought do not count."""
        self._connection = connection
        self._visible = traces.c.provider.is_(None) | traces.c.provider.not_in(hidden)
        self._made_from: dict[bytes, set[bytes]] = {}  # in this batch
        asked = {digest for entry in entries if entry.inputs for digest in entry.digests}
        self._used = self._inputs_among(asked)

    def closes_circle(self, entry: Entry) -> bool:
        """Whether *entry* would make a product its own ancestor; else it counts from now on."""
        if not entry.inputs:
            return False
        own = entry.digests
        if own & entry.inputs or (own & self._used and own & self._ancestors(entry.inputs)):
            return True
        self._used |= entry.inputs
        for digest in own:
            self._made_from.setdefault(digest, set()).update(entry.inputs)
        return False

    def _ancestors(self, digests_: Iterable[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        new = set(digests_)
        while new and len(found) < _MOST_ANCESTORS:
            found |= new
            above = {digest for own in new for digest in self._made_from.get(own, ())}
            for some in batches(new, KEYS_A_QUERY):
                above |= self._stored_inputs(some)
            new = above - found
        return found

    def _stored_inputs(self, of: Collection[bytes]) -> set[bytes]:
        sets = select(digests.c.digest_set).where(digests.c.digest.in_(of), digests.c.of_content.is_(False))
        query = select(traces.c.message).where(
            traces.c.event == str(Event.CREATE), traces.c.digest_set.in_(sets), self._visible
        )
        return {digest for (message,) in self._connection.execute(query) for digest in input_digests(parse(message))}

    def _inputs_among(self, asked: Iterable[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for some in batches(asked, KEYS_A_QUERY):
            found |= set(self._connection.scalars(select(inputs.c.digest).where(inputs.c.digest.in_(some)).distinct()))
        return found
