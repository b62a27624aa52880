"""Queues untraced replicas as fast as they are proven, so that the outbox stays short however large the archive is."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from rucio_trace_daemons.gaps.find import Gap, Kind, Search
from rucio_trace_daemons.gaps.mend import MEND_ROWS, mend
from rucio_trace_daemons.recorder.mending import Backlog, backlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from rucio_trace_daemons.rses import Rses

__all__ = ["Feed"]

# Rows that could not be handled, for each row that may be ready: then something is wrong that more of them won't mend.
WAITING_SHARE = 10


class Feed:
    """Feeds the outbox with what *search* finds; at most *ahead* rows of these RSEs are ready at a time."""

    def __init__(self, engine: Engine, search: Search, rses: Rses, ahead: int) -> None:
        self._engine, self._search, self._rses, self._ahead = engine, search, rses, ahead
        self._gaps: Iterator[Gap] = (gap for gap in search.of_catalogue() if gap.kind is Kind.UNTRACED)
        self.ended = False
        self.unspeakable = 0  # tape of which no transfer tells anything

    def fill(self) -> Backlog:
        """Queue what there is room for; returns what is in the outbox then."""
        here = backlog(self._engine, self._search.rses.keys())
        while not self.ended and here.ready < self._ahead and not self.choked(here):
            some = list(itertools.islice(self._gaps, min(MEND_ROWS, self._ahead - here.ready)))
            left = mend(self._engine, some, self._rses)
            self.unspeakable += len(left)
            self.ended = not some
            here = Backlog(here.ready + len(some) - len(left), here.waiting)
        return here

    def choked(self, here: Backlog) -> bool:
        """Whether so much failed that nothing is added: a storage that is away must not fill the outbox."""
        return here.waiting >= self._ahead * WAITING_SHARE
