"""The lists of batches: kept as they were signed, and found by the products of their lines.

A list is kept in pieces. Each is a run of the Merkle tree (`merkle`) with the path from its root to the signed one, so
that a line is held against what was signed without reading the others: the index only says where to look. Of the lines
of one site on one replica it knows the last registered, which is the one that counts (docs/format.md, 12.7).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, exists, select, tuple_

from rucio_trace.batch import LineProof, check_list, needs_list, product_of, read_line
from rucio_trace.errors import Malformed, Refuted
from rucio_trace.history import standing
from rucio_trace.merkle import HASH_BYTES, climb, hash_leaf, path_of, paths_of, root_of
from rucio_trace.status import speaker
from rucio_trace.store.bulk import insert_rows
from rucio_trace.store.errors import CorruptRow
from rucio_trace.store.read import KEYS_A_QUERY, among, batches
from rucio_trace.store.records import BatchLine, youngest
from rucio_trace.store.tables import lines, list_pieces, traces

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from rucio_trace.store.read import Reader
    from rucio_trace.store.records import Stored
    from rucio_trace.trace import ProductKey, Statement

__all__ = ["SignedList", "insert_lists", "line_proof", "proven", "read_list", "to_list"]

LINES_A_PIECE: Final = 32
"""A power of two: of 10,000 lines each piece is 9 KB with a path of 9 hashes, and is checked in 40 µs."""

_SERIES_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class SignedList:
    """A list made ready for its rows; it agrees with its statement."""

    pieces: Sequence[Mapping[str, Any]]
    series: bytes
    """The replicas of one RSE as one site sees them: a later line of a series takes the place of an earlier one."""
    products: Sequence[bytes]
    """The product of each line."""


def to_list(statement: Statement, data: bytes) -> SignedList:
    """Everything the rows of a list need.

    Raises:
        Refuted, Malformed: *data* is not the list that *statement* speaks of.
    """
    found = check_list(statement, data)
    runs = list(batches(data.split(b"\n")[:-1], LINES_A_PIECE))
    paths = paths_of([_root(run) for run in runs])
    return SignedList(
        [
            {"number": number, "entries": b"".join(line + b"\n" for line in run), "path": b"".join(path)}
            for number, (run, path) in enumerate(zip(runs, paths, strict=True))
        ],
        hashlib.sha256(json.dumps([statement.rse, statement.site]).encode()).digest()[:_SERIES_BYTES],
        [_print(product_of(statement, line)) for line in found],
    )


def _root(entries: Iterable[bytes]) -> bytes:
    return root_of([hash_leaf(entry) for entry in entries])


def _print(key: ProductKey) -> bytes:
    """What a product is known by in the index: names are long, and cut elsewhere."""
    return hashlib.sha256("\0".join((key.rucio, key.vo, key.did, key.generation)).encode()).digest()


def insert_lists(connection: Connection, new: Mapping[int, SignedList], private: str | None) -> None:
    """Add lists, by the positions of their traces, in the order of positions; their lines replace older ones.

    Those of a *private* provider, which others do not see, take the place of its own alone.
    """
    for position, given in sorted(new.items()):
        series = given.series
        if private is not None:
            series = hashlib.sha256(series + private.encode()).digest()[:_SERIES_BYTES]
        insert_rows(connection, list_pieces, [{"position": position, **piece} for piece in given.pieces])
        for some in batches(given.products, KEYS_A_QUERY):
            connection.execute(delete(lines).where(among(lines.c.product, some), lines.c.series == series))
        rows = [
            {"product": product, "series": series, "position": position, "line": number}
            for number, product in enumerate(given.products)
        ]
        insert_rows(connection, lines, rows)


def read_list(connection: Connection, batch: Stored) -> bytes:
    """The list that *batch* speaks of.

    Raises:
        CorruptRow: it is not what was signed.
    """
    query = select(list_pieces.c.entries).where(list_pieces.c.position == batch.position).order_by(list_pieces.c.number)
    data = b"".join(connection.scalars(query))
    try:
        check_list(batch.trace.statement, data)
    except (Refuted, Malformed) as error:
        raise CorruptRow(batch.position, error.subject, error.expected, error.found) from error
    return data


def proven(connection: Connection, reader: Reader, keys: Collection[ProductKey]) -> dict[ProductKey, list[BatchLine]]:
    """The last line of each site on each replica of *keys*, in the order of positions; no key for those without any.

    Raises:
        CorruptRow: a line is not one that was signed, or not of the product it is filed under.
    """
    by_print = {_print(key): key for key in keys}
    query = select(lines).order_by(lines.c.position)
    if reader.hidden:
        of_batch = traces.c.position == lines.c.position
        hidden = exists(select(traces.c.position).where(of_batch, traces.c.provider.in_(reader.hidden)))
        query = query.where(~hidden)
    rows = [
        row
        for some in batches(by_print, KEYS_A_QUERY)
        for row in connection.execute(query.where(among(lines.c.product, some)))
    ]
    if not rows:
        return {}
    spoken = _batches(connection, reader, {row.position for row in rows})
    pieces = _pieces(connection, spoken, {(row.position, row.line // LINES_A_PIECE) for row in rows})
    found: dict[ProductKey, list[BatchLine]] = {}
    for row in rows:
        key, batch = by_print[row.product], spoken[row.position]
        entries = pieces[row.position, row.line // LINES_A_PIECE].entries[row.line % LINES_A_PIECE :]
        line = read_line(entries[0]) if entries else None
        if line is None or product_of(batch.stored.trace.statement, line) != key:
            raise CorruptRow(row.position, "table trace_lines", f"a line of {key.did}", line.did if line else "none")
        found.setdefault(key, []).append(BatchLine(batch.stored, line, row.line, batch.last, batch.stands))
    return found


@dataclass(frozen=True, slots=True)
class _Batch:
    stored: Stored
    last: int
    stands: bool


def _batches(connection: Connection, reader: Reader, positions: Collection[int]) -> dict[int, _Batch]:
    """The batches at *positions*, and whether they stand."""
    found = {
        stored.position: stored
        for some in batches(positions, KEYS_A_QUERY)
        for stored in reader.read(connection, traces.c.position.in_(some))
        if needs_list(stored.trace.statement)
    }
    for missing in sorted(set(positions) - found.keys()):
        raise CorruptRow(missing, "table trace_lines", "a stored batch", "none")
    revokes = _revokes(connection, reader, found.values())
    kept, _ = standing((stored.trace for stored in (*found.values(), *(revoke for revoke, _ in revokes))), speaker)
    kept_ids = {id(trace) for trace in kept}
    last = {stored.id: stored.position for stored in found.values()}
    for revoke, id_ in revokes:
        last[id_] = max(last[id_], revoke.position)
    return {
        position: _Batch(stored, last[stored.id], id(stored.trace) in kept_ids) for position, stored in found.items()
    }


def _revokes(connection: Connection, reader: Reader, of: Collection[Stored]) -> list[tuple[Stored, str]]:
    """Each REVOKE of one of these batches, and of such a REVOKE, and so on, with the id of the batch."""
    batch_of = {stored.id: stored.id for stored in of}
    found: list[tuple[Stored, str]] = []
    unasked = list(batch_of)
    while unasked:
        new = [
            stored
            for some in batches(unasked, KEYS_A_QUERY)
            for stored in reader.read(connection, traces.c.revokes.in_(some))
            if stored.id not in batch_of
        ]
        for stored in new:
            batch_of[stored.id] = batch_of[stored.trace.statement.revokes or ""]
            found.append((stored, batch_of[stored.id]))
        unasked = [stored.id for stored in new]
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    entries: Sequence[bytes]
    path: tuple[bytes, ...]


def _pieces(
    connection: Connection, of: Mapping[int, _Batch], wanted: Collection[tuple[int, int]]
) -> dict[tuple[int, int], _Piece]:
    """The pieces *wanted*, by position and number, each held against the root that its batch signed."""
    found: dict[tuple[int, int], _Piece] = {}
    place = tuple_(list_pieces.c.position, list_pieces.c.number)
    for some in batches(wanted, KEYS_A_QUERY):
        for row in connection.execute(select(list_pieces).where(place.in_(some))):
            found[row.position, row.number] = _checked(row, of[row.position].stored.trace.statement)
    for position, number in set(wanted) - found.keys():
        raise CorruptRow(position, "table trace_list_pieces", f"piece {number}", "none")
    return found


def _checked(row: Row[Any], statement: Statement) -> _Piece:
    assert statement.batch is not None
    entries = row.entries.split(b"\n")[:-1]
    path = tuple(row.path[start : start + HASH_BYTES] for start in range(0, len(row.path), HASH_BYTES))
    pieces = -(-statement.batch.count // LINES_A_PIECE)
    try:
        found = climb(_root(entries), row.number, pieces, path).hex()
    except Refuted as error:
        raise CorruptRow(row.position, f"list, piece {row.number}", error.expected, error.found) from error
    if found != statement.batch.root:
        raise CorruptRow(row.position, f"list, piece {row.number}", statement.batch.root, found)
    return _Piece(entries, path)


def line_proof(connection: Connection, reader: Reader, key: ProductKey, rse: str | None) -> LineProof | None:
    """The proof of the youngest line of a product, on the RSE of this signed name if one is given."""
    newest = youngest(proven(connection, reader, [key]).get(key, ()), rse)
    if newest is None:
        return None
    place = (newest.batch.position, newest.index // LINES_A_PIECE)
    batch = _Batch(newest.batch, newest.position, newest.stands)
    piece = _pieces(connection, {batch.stored.position: batch}, [place])[place]
    inside = path_of([hash_leaf(entry) for entry in piece.entries], newest.index % LINES_A_PIECE)
    return LineProof(newest.batch.trace, newest.line, newest.index, (*inside, *piece.path))
