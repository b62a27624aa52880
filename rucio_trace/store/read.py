"""Finding traces: conditions on rows in, parsed traces out.

Index columns are cut to what databases can index, so a condition may find a little too much: whoever
asks compares the statements with what was asked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import islice
from struct import unpack
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Boolean, ColumnElement, bindparam, false, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

from rucio_trace.joining import linked
from rucio_trace.store.errors import CorruptRow, TooMuchEvidence
from rucio_trace.store.histories import anybody, assemble
from rucio_trace.store.rows import split_chain, to_stored
from rucio_trace.store.tables import certificates, contents, digests, indexable, traces
from rucio_trace.trace import HEX_DIGITS, STRONG, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from sqlalchemy import Column, Connection, Row, Select

    from rucio_trace.store.histories import MayJoin
    from rucio_trace.store.records import Stored
    from rucio_trace.trace import ProductKey


__all__ = [
    "KEYS_A_QUERY",
    "MAX_WHOLE",
    "WHOLE_CHARACTERS",
    "Lookup",
    "Reader",
    "among",
    "batches",
    "bearing",
    "named",
    "of_dids",
    "prefixes",
    "with_prefix",
]

KEYS_A_QUERY: Final = 500
"""Values in one IN: planning time grows with them, and SQLite takes 32,766."""

PAGE_CHARACTERS: Final = 32 * 1024**2
"""Of messages in one page: 8,000 usual traces, but four of the largest, of which 1,000 would be 8 GB."""

MAX_WHOLE: Final = 100_000
WHOLE_CHARACTERS: Final = 4 * PAGE_CHARACTERS
"""Of answers that have no pages, which clients of ours take up to 256 MiB of."""

_LOOKS: Final = 16
"""So many that end by WHOLE_CHARACTERS cost as much as MAX_WHOLE traces: enough to find one among 10,000 in halves."""

_STRONG_DIGITS: Final = min(HEX_DIGITS[algorithm] for algorithm in STRONG)

_CACHED_CERTIFICATES: Final = 4_096  # of about 1 KB

_CACHED_ROWS: Final = 4_096
_CACHED_CHARACTERS: Final = 8_192  # of a message: together some 40 MB at most, of usual products 25 MB

T = TypeVar("T")


@dataclass(slots=True)
class _Kept:
    certificates: dict[bytes, bytes] = field(default_factory=dict)
    parsed: dict[int, tuple[Row[Any], Stored]] = field(default_factory=dict)


class Reader:
    """Turns rows into traces.

    It keeps the certificates it has met, which never change, and some traces with their rows: one that is read again as
    it was is not parsed again, which is half the work of a verdict.
    """

    def __init__(self, hidden: Collection[str] = (), kept: _Kept | None = None) -> None:
        """The traces that *hidden* providers brought do not exist for it."""
        self.hidden, self._kept = frozenset(hidden), kept or _Kept()

    def without_providers(self, hidden: Collection[str]) -> Reader:
        return Reader(hidden, self._kept)

    def bounded(self) -> Reader:
        """One for a single question, whose answer is whole or none.

        It reads MAX_WHOLE traces and WHOLE_CHARACTERS of messages in all. Of more it raises TooMuchEvidence, and never
        holds them.
        """
        return _Bounded(self.hidden, self._kept)

    def visible(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        """*condition*, of what exists for this reader; whoever does not use `read` must ask by it."""
        if not self.hidden:
            return condition
        return condition & (traces.c.provider.is_(None) | traces.c.provider.not_in(self.hidden))

    def read(
        self, connection: Connection, condition: ColumnElement[bool], *, limit: int | None = None, newest: bool = False
    ) -> list[Stored]:
        """The traces that fulfil *condition*, in the order of their positions, or the newest first.

        Raises:
            CorruptRow: one of them was altered in the database.
        """
        order = traces.c.position.desc() if newest else traces.c.position
        return self._read(connection, select(traces).where(self.visible(condition)).order_by(order).limit(limit))

    def page(
        self,
        connection: Connection,
        condition: ColumnElement[bool],
        *,
        limit: int,
        newest: bool = False,
        most: int | None = None,
    ) -> tuple[list[Stored], bool]:
        """The same, at most *limit* and about *most* characters of messages, by default PAGE_CHARACTERS.

        And whether there may be more: at least one is read of any length.
        """
        most = most or PAGE_CHARACTERS
        order = traces.c.position.desc() if newest else traces.c.position
        size = func.char_length(traces.c.message)
        before = (func.sum(size).over(order_by=order) - size).label("before")
        some = select(traces, before).where(self.visible(condition)).order_by(order).limit(limit).subquery()
        query = select(*(some.c[column.key] for column in traces.c)).where(some.c.before < most)
        query = query.order_by(some.c.position.desc() if newest else some.c.position)
        found = self._read(connection, query)
        return found, len(found) == limit or sum(len(s.trace.message) for s in found) >= most

    def _read(self, connection: Connection, query: Select[Any]) -> list[Stored]:
        try:
            rows = connection.execute(query).all()
        except (TypeError, ValueError, AttributeError) as error:  # a column of a type its reader cannot take
            raise CorruptRow("unknown", "a column", "as written by the store", str(error)) from error
        certificate = self._load_certificates(connection, rows).__getitem__
        return [self._stored(row, certificate) for row in rows]

    def _stored(self, row: Row[Any], certificate: Callable[[bytes], bytes]) -> Stored:
        parsed = self._kept.parsed
        known = parsed.get(row.position)
        if known is not None and known[0] == row:
            return known[1]
        stored = to_stored(row, certificate)
        if len(row.message) <= _CACHED_CHARACTERS:
            if len(parsed) >= _CACHED_ROWS:
                parsed.clear()
            parsed[row.position] = row, stored
        return stored

    def histories(
        self, connection: Connection, keys: Collection[ProductKey], may_join: MayJoin = anybody
    ) -> dict[ProductKey, list[Stored]]:
        """The traces of each of *keys* and those that joined it, in the order of their positions.

        There is no key for a product without any. *may_join* says whether a signer may speak in a product's scope.
        """
        own = self.own(connection, keys)
        strangers = self.strangers(connection, [stored for of in own.values() for stored in of])
        return assemble(own, strangers, may_join)

    def own(self, connection: Connection, keys: Collection[ProductKey]) -> dict[ProductKey, list[Stored]]:
        """The traces of each of *keys*, in the order of their positions; there is no key for a product without any."""
        found: dict[ProductKey, list[Stored]] = {}
        for some in batches(keys, KEYS_A_QUERY):
            condition = of_dids({key.did for key in some})
            condition &= traces.c.generation.in_({key.generation for key in some})
            wanted = set(some)
            for stored in self.read(connection, condition):
                key = stored.trace.statement.product
                if key in wanted and key is not None:
                    found.setdefault(key, []).append(stored)
        return found

    def strangers(self, connection: Connection, own: Iterable[Stored]) -> list[Stored]:
        """The traces of files in no Rucio that any of *own* names as its source, and the others of those files."""
        links = {id_: stored for stored in own if (id_ := linked(stored.trace.statement)) is not None}
        found: dict[int, Stored] = {}
        for some in batches(links, KEYS_A_QUERY):
            condition = among(traces.c.id, some) & traces.c.did.is_(None)
            found |= {stored.position: stored for stored in self.read(connection, condition)}
        spoken = [*(stored.trace.statement for stored in found.values())]
        digests = {digest for s in spoken for digest in (s.hash, *s.digests.values()) if len(digest) >= _STRONG_DIGITS}
        for some in batches(digests, KEYS_A_QUERY):
            condition = bearing(some, of_content=False) & traces.c.did.is_(None)
            found |= {stored.position: stored for stored in self.read(connection, condition)}
        return [found[position] for position in sorted(found)]

    def created_outside(self, connection: Connection, names: Collection[str]) -> list[Stored]:
        """The CREATE traces of files in no Rucio with one of these base names."""
        found: list[Stored] = []
        for some in batches({indexable(name) for name in names}, KEYS_A_QUERY):
            condition = traces.c.name.in_(some) & traces.c.did.is_(None) & (traces.c.event == str(Event.CREATE))
            found += self.read(connection, condition)
        return found

    def _load_certificates(self, connection: Connection, rows: Iterable[Row[Any]]) -> dict[bytes, bytes]:
        """DER by fingerprint, at least of all that *rows* need and that the store has."""
        wanted: set[bytes] = set()
        for row in rows:
            if isinstance(row.certificate, bytes) and isinstance(row.chain, bytes):
                wanted.update((row.certificate, *split_chain(row.chain)))
        known = self._kept.certificates
        if len(known) > _CACHED_CERTIFICATES:
            self._kept.certificates = known = {}  # another thread may still be reading from the old one
        missing = wanted - known.keys()
        for some in batches(missing, KEYS_A_QUERY):
            query = select(certificates).where(among(certificates.c.fingerprint, some))
            for fingerprint, certificate in connection.execute(query):
                if hashlib.sha256(certificate).digest() != fingerprint:
                    found = hashlib.sha256(certificate).hexdigest()
                    raise CorruptRow("unknown", "certificate", fingerprint.hex(), found)
                known[fingerprint] = certificate
        return known


class _Bounded(Reader):
    def __init__(self, hidden: Collection[str], kept: _Kept) -> None:
        super().__init__(hidden, kept)
        self._traces, self._characters = MAX_WHOLE, WHOLE_CHARACTERS

    def read(
        self, connection: Connection, condition: ColumnElement[bool], *, limit: int | None = None, newest: bool = False
    ) -> list[Stored]:
        most = min(limit or self._traces, self._traces)
        found, _ = self.page(connection, condition, limit=most, newest=newest, most=self._characters)
        self._traces -= len(found)
        self._characters -= sum(len(stored.trace.message) for stored in found)
        if self._traces <= 0:
            raise TooMuchEvidence(MAX_WHOLE, read=MAX_WHOLE)
        if self._characters <= 0:
            raise TooMuchEvidence(WHOLE_CHARACTERS, "characters of signed texts", read=MAX_WHOLE // _LOOKS)
        return found


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """*values* in lists of *size*, the last one shorter."""
    remaining = iter(values)
    while some := list(islice(remaining, size)):
        yield some


class Lookup:
    """A question by keys that is asked again and again: to make it anew takes longer than to answer it. See `among`."""

    def __init__(self, key: Column[Any], *columns: Column[Any]) -> None:
        """Rows are of *key* and *columns*."""
        query = select(key, *columns)
        self._one = query.where(key == bindparam("keys"))
        self._listed = query.where(key.in_(bindparam("keys", expanding=True)))
        self._array = query.where(key == func.any(bindparam("keys", type_=ARRAY(key.type))))

    def rows(self, connection: Connection, keys: Iterable[Any]) -> Iterator[Row[Any]]:
        several = self._array if connection.dialect.name == "postgresql" else self._listed
        for some in batches(keys, KEYS_A_QUERY):
            query, asked = (self._one, some[0]) if len(some) == 1 else (several, some)
            yield from connection.execute(query, {"keys": asked})


def among(column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """*column* has one of *values*: one array on PostgreSQL, where each value of a list costs more than its row.

    A single value is no array: PostgreSQL reckons with ten values where it does not know them, and would never keep a
    plan for one.
    """
    wanted = list(values)
    return column == wanted[0] if len(wanted) == 1 else _Among(column, wanted)


class _Among(ColumnElement[bool]):
    inherit_cache = True
    type = Boolean()
    _traverse_internals = [  # noqa: RUF012 - as SQLAlchemy wants it
        ("listed", InternalTraversal.dp_clauseelement),
        ("array", InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, column: ColumnElement[Any], wanted: list[Any]) -> None:
        self.listed = column.in_(wanted)
        self.array = column == func.any(bindparam(None, wanted, type_=ARRAY(column.type), unique=True))

    def self_group(self, against: object = None) -> ColumnElement[bool]:
        return self  # else it is compared with 1 on SQLite and MariaDB, where no index serves that


@compiles(_Among)
def _as_list(element: _Among, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.listed, **options))


@compiles(_Among, "postgresql")
def _as_array(element: _Among, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.array, **options))


def named(names: Collection[str]) -> ColumnElement[bool]:
    """Traces of files with one of these base names."""
    return among(traces.c.name, [indexable(name) for name in names])


def of_dids(dids: Collection[str]) -> ColumnElement[bool]:
    """Traces of the products of these DIDs, in any Rucio."""
    return among(traces.c.did, [indexable(did) for did in dids])


def with_prefix(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """Texts that begin with *prefix*, as a range that an index serves on both databases."""
    low = indexable(prefix)
    return (column >= low) & (column < low + "\U0010ffff")


def bearing(hexadecimal: Collection[str], *, of_content: bool | None) -> ColumnElement[bool]:
    """Traces whose statement holds one of these digests, of any algorithm.

    `of_content` says whether of a member of the archive (True), of the file itself (False), or of either. Members are
    found by a part of their digest: whoever asks for them compares.
    """
    try:
        wanted = [bytes.fromhex(digest) for digest in hexadecimal]
    except ValueError:
        return false()  # what is no hexadecimal text is nobody's digest
    condition: ColumnElement[bool] = among(digests.c.digest, wanted)
    if of_content is not None:
        condition &= digests.c.of_content == of_content
    sets = select(digests.c.digest_set).where(condition)
    if of_content is False:
        return traces.c.digest_set.in_(sets)
    members = select(contents.c.digest_set).where(among(contents.c.prefix, prefixes(wanted)))
    return traces.c.digest_set.in_(sets.union_all(members))


def prefixes(digests: Collection[bytes]) -> tuple[int, ...]:
    """By what `contents` knows members' digests; 64 bits, so that strangers are met by design alone."""
    return unpack(f">{len(digests)}q", b"".join([digest[:8].ljust(8, b"\0") for digest in digests]))
