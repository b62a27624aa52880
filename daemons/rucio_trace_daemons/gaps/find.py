"""Gaps: four ways in which Rucio's catalogue and our traces do not fit together.

untraced   an available replica of which there is no trace, and nothing in the outbox that will become one
vanished   a trace of a replica that Rucio no longer has, and nothing in the outbox that says so
differs    size or checksums in Rucio's catalogue are not those that the origin's trace signs
dead       the status of a product whose DID Rucio no longer has
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from rucio_trace_daemons.gaps import queries
from rucio_trace_daemons.recorder.prove import checksums

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Engine, Row

    from rucio_trace_daemons.rses import Rse

__all__ = ["Gap", "Kind", "Line", "Search"]

# Enough to make the statement's own cost small; a page of them takes some 20 MB.
PAGE_ROWS = 10_000


class Kind(StrEnum):
    """What does not fit."""

    UNTRACED = "untraced"
    VANISHED = "vanished"
    DIFFERS = "differs"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Gap:
    """One of them; `scope` as Rucio keeps it. `rse_id` is None for a product as a whole."""

    kind: Kind
    rse_id: str | None
    scope: str
    name: str
    generation: datetime
    bytes: int | None = None
    adler32: str | None = None
    md5: str | None = None
    detail: str = ""


@dataclass(slots=True)
class Line:
    """What was counted on one RSE. `pending`: changes of available replicas wait in the outbox."""

    replicas: int = 0
    pending: int = 0
    untraced: int = 0
    vanished: int = 0
    differs: int = 0
    incomparable: int = 0  # traced, and nothing is known of what its origin signed


@dataclass(slots=True)
class Search:
    """Looks at the available replicas on *rses* (by id), and *everywhere* also at products that are on none."""

    engine: Engine
    rses: Mapping[str, Rse]
    everywhere: bool = False
    lines: dict[str, Line] = field(default_factory=dict)
    dead: int = 0

    def __post_init__(self) -> None:
        self.lines = {rse_id: Line() for rse_id in self.rses}

    def count(self) -> tuple[int, int]:
        """Count replicas of every sort but gaps into `lines`; returns how many are untraced, and their bytes."""
        if not self.rses:
            return 0, 0
        with self.engine.connect() as connection:
            rows = connection.execute(queries.counts(connection, self.rses)).all()
        for row in rows:
            line = self.lines[row.rse_id]
            line.replicas, line.pending, line.incomparable = row.replicas, row.pending, row.incomparable
        return sum(row.untraced for row in rows), sum(int(row.bytes) for row in rows)

    def gaps(self) -> Iterator[Gap]:
        """All of them; they are counted into `lines` and `dead` as they are taken."""
        yield from self.of_catalogue()
        yield from self._vanished()
        if self.everywhere:
            yield from self._dead()

    def of_catalogue(self) -> Iterator[Gap]:
        """Those that Rucio's own replicas show: untraced and differing ones, in the order of their DIDs."""
        for row in self._pages(queries.available, 3):
            if row.traced is None:
                self.lines[row.rse_id].untraced += 1
                yield _gap(Kind.UNTRACED, row)
            elif detail := _difference(row):
                self.lines[row.rse_id].differs += 1
                yield _gap(Kind.DIFFERS, row, detail)

    def _vanished(self) -> Iterator[Gap]:
        for row in self._pages(queries.vanished, 4):
            self.lines[row.rse_id].vanished += 1
            yield Gap(Kind.VANISHED, row.rse_id, row.scope, row.name, row.generation, detail=f"was {row.state}")

    def _dead(self) -> Iterator[Gap]:
        for row in self._pages(queries.dead, 3):
            self.dead += 1
            yield Gap(Kind.DEAD, None, row.scope, row.name, row.generation, detail=f"shows {row.status}")

    def _pages(self, query: queries.Query, keys: int) -> Iterator[Row[Any]]:
        """The gaps of *query*, whose first *keys* columns are the key, page by page; nothing is open between two."""
        last: Any = None
        while self.rses:
            with self.engine.connect() as connection:
                if connection.dialect.name == "postgresql":
                    # A page looks up some thousand rows by their keys. The planner, which expects each of them on
                    # another page of the disk, would rather read all of every table for every page.
                    for method in ("hashjoin", "mergejoin", "seqscan"):
                        connection.execute(text(f"SET LOCAL enable_{method} = off"))
                    connection.execute(text("SET LOCAL jit = off"))
                rows = connection.execute(query(connection, self.rses, last, PAGE_ROWS)).all()
            yield from (row for row in rows if row.gap)
            if not rows or rows[-1].number < PAGE_ROWS:
                return
            last = rows[-1][:keys]


def _gap(kind: Kind, row: Row[Any], detail: str = "") -> Gap:
    values = (row.rse_id, row.scope, row.name, row.generation, row.bytes, row.adler32, row.md5)
    return Gap(kind, *values, detail=detail)


def _difference(row: Row[Any]) -> str:
    """Where Rucio's two tables say something else than the origin's trace; empty if nowhere."""
    signed = checksums(row.signed_adler32, row.signed_md5)
    found = []
    for where, size, adler32, md5 in (
        ("replica", row.bytes, row.adler32, row.md5),
        ("DID", row.did_bytes, row.did_adler32, row.did_md5),
    ):
        if size is not None and size != row.signed_bytes:
            found.append(f"{where}: {size} bytes, signed {row.signed_bytes}")
        for algorithm, value in checksums(adler32, md5).items():
            if value != signed.get(algorithm, value):
                found.append(f"{where}: {algorithm} {value}, signed {signed[algorithm]}")
    return "; ".join(found)
