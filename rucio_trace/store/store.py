"""The trace store: registers signed traces, each once, and finds them again.

It keeps what was signed, verbatim, and answers from nothing else. It does not judge files: it gives
`verify.judge` the evidence. One `Store` may be used by many threads; a process that forks may go on using it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import select, true

from rucio_trace.batch import needs_list
from rucio_trace.lineage import explore
from rucio_trace.store import evidence, index, lists, older, partitions, read, schema
from rucio_trace.store.clock import Clock, clock
from rucio_trace.store.copy import copy
from rucio_trace.store.counts import Statistics, read_counts
from rucio_trace.store.database import Database
from rucio_trace.store.histories import anybody
from rucio_trace.store.lineage import StoredRecords
from rucio_trace.store.protocol import TraceStore
from rucio_trace.store.records import Item
from rucio_trace.store.register import Terms, add, judge
from rucio_trace.store.search import Filters, Kind, Page, bears, condition_of, search, select_where
from rucio_trace.store.tables import head, traces
from rucio_trace.trace import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement

    from rucio_trace.batch import LineProof
    from rucio_trace.envelope import Trace
    from rucio_trace.identity import Trust
    from rucio_trace.lineage import Lineage
    from rucio_trace.status import Status
    from rucio_trace.store.histories import MayJoin
    from rucio_trace.store.records import BatchLine, Registration, Stored
    from rucio_trace.store.register import Judged
    from rucio_trace.trace import ProductKey
    from rucio_trace.verify import Evidence

__all__ = ["Store"]


class Store(TraceStore):
    """An open store; a context manager. Every method may raise StorageError, and works again once the cause is gone."""

    def __init__(self, database: Database, reader: read.Reader | None = None) -> None:
        self._database, self._clock = database, Clock(database)
        self._reader = reader or read.Reader()

    @classmethod
    def open(cls, url: str, *, password: str | None = None, migrate: bool = True) -> Self:
        """Open the store at *url*: `sqlite:////path`, `postgresql://user@host/name` or `mysql://user@host/name`.

        A missing SQLite file is created and old tables are brought up to date, unless *migrate* is False: then
        anything but a store that is ready is an error. Many processes may open, and so migrate, at once.

        Raises:
            BadStoreUrl: not such a URL.
            UnpreparedStore, NewerStore: tables of another version.
            StoreUnavailable: the database does not answer, or refuses.
        """
        database = Database(url, password)
        if migrate:
            schema.migrate(database)
        else:
            schema.check_schema(database)
        return cls(database)

    def without_providers(self, hidden: Collection[str]) -> Store:
        """This store as somebody sees it for whom the traces of these providers do not exist."""
        return Store(self._database, self._reader.without_providers(hidden)) if hidden else self

    def close(self) -> None:
        """Close idle connections; an open one closes when its call ends."""
        self._database.close()

    @property
    def shown(self) -> str:
        """Where this store is, without a password."""
        return self._database.shown

    def register(
        self,
        unverified_traces: Sequence[Trace],
        *,
        trust: Trust | None,
        allow_stale_crl: bool = False,
        scopes: Mapping[str, str] | None = None,
        lists: Mapping[str, bytes] | None = None,
    ) -> list[Registration]:
        """Store traces, all in one transaction; one answer each, in their order.

        A trace whose id is there already with the same message is known: repeating is safe, also after its
        certificate has expired. With another message it is a conflict, and what is there stays.
        With *trust*, every new trace must be accepted by `check_trace` at the database's time; without,
        its signature must fit its certificate, whoever that is. *scopes* names, by id, those traces of files in no
        Rucio that are to join a product, with the product's scope: there their signers need their right. *lists*
        holds, by id, the lists of batches: such a trace is only taken together with its list, which is kept as it is.
        """
        scopes, lists = scopes or {}, lists or {}
        items = [Item(trace, lists.get(trace.id), scopes.get(trace.id)) for trace in unverified_traces]
        return self.add(self.judge(items, trust, allow_stale_crl=allow_stale_crl))

    def judge(self, items: Iterable[Item], trust: Trust | None, *, allow_stale_crl: bool = False) -> list[Judged]:
        """What `register` does before it writes: all that takes long. *items* are taken one by one."""
        return judge(items, trust, self._clock.now(), allow_stale_crl=allow_stale_crl)

    def add(
        self,
        judged: Sequence[Judged],
        *,
        provider: str | None = None,
        private: Collection[str] = (),
        defer_index: bool = False,
    ) -> list[Registration]:
        """Store what `judge` found, a moment ago, to be acceptable; answers as those of `register`.

        *provider* is whose traces these are, for `without_providers`. Those of *private* providers are hidden from
        others: what such a one brought first becomes another's where that one is not private and brings it too. With
        *defer_index* members of archives and words are found only once somebody has called `index`.
        """
        return add(self._database, judged, Terms(provider, private, defer_index))

    @property
    def indexes_later(self) -> bool:
        """Whether to leave members and words to `index` is worth it: with many writers and a large index."""
        return self._database.kind == "postgresql"

    def prepare(self) -> None:
        """What a large store wants now and then: room for traces to come, and a planner that knows it. Else cheap."""
        schema.migrate(self._database)
        if self._database.kind == "postgresql":
            with self._database.writing() as connection:
                partitions.analyze(connection)

    def index(self) -> bool:
        """Let some traces be found by what `add`, or a migration, left for later; whether there may be more.

        Several processes may do it at once.
        """
        return index.index(self._database) or older.step(self._database)

    def index_lag(self) -> timedelta:
        """For how long the oldest trace has been waiting for `index`; none if no trace is."""
        with self._database.reading() as connection:
            oldest = index.oldest_unindexed(connection)
            return clock(connection) - oldest if oldest is not None else timedelta()

    def copy_to(self, target: Store) -> int:
        """Fill an empty store with everything that is in this one, positions and times kept; returns the last position.

        Raises:
            StoreNotEmpty: *target* holds traces already.
        """
        return copy(self._database, target._database)

    def check(self) -> None:
        """Raises StorageError unless the store answers and its tables are of this program's version."""
        schema.check_schema(self._database)

    def providers(self, positions: Collection[int]) -> dict[int, str]:
        """Who brought the traces at these positions; no key where nobody is known to."""
        query = select(traces.c.position, traces.c.provider).where(traces.c.provider.is_not(None))
        found: dict[int, str] = {}
        with self._database.reading() as connection:
            for some in read.batches(positions, read.KEYS_A_QUERY):
                found.update(tuple(row) for row in connection.execute(query.where(traces.c.position.in_(some))))
        return found

    def position(self) -> int:
        """The last position given out, 0 in an empty store."""
        with self._database.reading() as connection:
            return int(connection.scalar(select(head.c.position)) or 0)

    def since(self, position: int, limit: int = 1_000) -> list[Stored]:
        """The *limit* traces that follow *position*: what a reader asks to miss none."""
        with self._database.reading() as connection:
            return self._reader.read(connection, traces.c.position > position, limit=limit)

    def of_products_since(self, position: int, limit: int = 1_000) -> list[Stored]:
        """Those of the traces that follow *position* by which others can change the status of a product in Rucio.

        They speak of a whole product: its declared CREATE, OBSOLETE and REVOKE, and OBSOLETE and REVOKE of files in no
        Rucio, which may have joined one; or withdraw a batch, which has an RSE. Two indexes serve this: traces of
        replicas are not looked at.
        """
        with self._database.snapshot() as connection:
            found = [
                stored
                for condition in _of_products()
                for stored in self._reader.read(connection, (traces.c.position > position) & condition, limit=limit)
            ]
        return sorted(found, key=lambda stored: stored.position)[:limit]

    def product(self, keys: Collection[ProductKey], may_join: MayJoin = anybody) -> dict[ProductKey, list[Stored]]:
        """The history of each product, in the order of positions; an empty one for a product without traces.

        What was said of a file before it was in Rucio is part of it where it joined the product (docs/format.md, 1.9).
        A store has asked for a right when it took such a trace, `outside` or in some scope: *may_join* asks for the
        right in the product's.
        """
        with self._database.reading() as connection:
            found = self._reader.histories(connection, keys, may_join)
        return {key: found.get(key, []) for key in keys}

    def proven(self, keys: Collection[ProductKey]) -> dict[ProductKey, list[BatchLine]]:
        """The lines of batches on these products, in the order of positions; no key where there are none.

        Of each replica it is the last line that each site registered; it may be withdrawn. Cheap, however many lines
        the batches have: each is read alone and held against the signed root.
        """
        with self._database.reading() as connection:
            return lists.proven(connection, self._reader.bounded(), keys)

    def line_proof(self, key: ProductKey, rse: str | None = None) -> LineProof | None:
        """What proves the youngest line that stands to others, on the RSE of this signed name if one is given."""
        with self._database.reading() as connection:
            return lists.line_proof(connection, self._reader, key, rse)

    def list_of(self, trace_id: str) -> bytes | None:
        """The list of a batch, as it was signed; None if there is no such batch."""
        found = [stored for stored in self.by_id(trace_id) if needs_list(stored.trace.statement)]
        with self._database.reading() as connection:
            return lists.read_list(connection, found[0]) if found else None

    def created_outside(self, names: Collection[str]) -> dict[str, list[Stored]]:
        """The CREATE traces of files in no Rucio with these base names, by name, the oldest first."""
        with self._database.reading() as connection:
            found = self._reader.created_outside(connection, names)
        return {name: [s for s in found if s.trace.statement.name == name] for name in names} if found else {}

    def by_ids(self, trace_ids: Collection[str]) -> dict[str, Stored]:
        """The traces with these ids, those there are; of several with one id the first."""
        found: dict[str, Stored] = {}
        for some in read.batches(trace_ids, read.KEYS_A_QUERY):
            for stored in self._find("ids", some):
                found.setdefault(stored.id, stored)
        return found

    def whole_did(self, scope: str, name: str) -> list[Stored]:
        """As `by_did`. Raises TooMuchEvidence: there are more than one answer should hold."""
        did = f"{scope}:{name}"
        with self._database.reading() as connection:
            found = self._reader.bounded().read(connection, read.of_dids([did]))
        return [stored for stored in found if stored.trace.statement.did == did]

    def search(
        self,
        *,
        name_prefix: str | None = None,
        digest: str | None = None,
        status: Status | None = None,
        event: Event | None = None,
        rse: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[Stored]:
        """The newest traces that fulfil everything given, newest first: all pages of `find`, up to *limit*."""
        filters = Filters(
            name_prefix=name_prefix, digest=digest, status=status, event=event, rse=rse, since=since, until=until
        )
        page = self.find(filters, limit)
        found = page.traces
        while len(found) < limit and page.next is not None:
            page = self.find(filters, limit - len(found), page.next)
            found += page.traces
        return found

    def find(self, filters: Filters, limit: int, before: int | None = None) -> Page:
        """The newest *limit* traces that fulfil *filters*, of those below the position *before*.

        What is registered meanwhile moves nothing: it stands above. See `Page` for how to go on.
        """
        with self._database.reading() as connection:
            return search(connection, self._reader, filters, limit, before)

    def select(
        self,
        condition: ColumnElement[bool],
        order: Sequence[tuple[ColumnElement[Any], bool]] = (),
        wanted: Callable[[Stored], bool] | None = None,
        *,
        skip: int = 0,
        limit: int = 100,
        count: bool = False,
    ) -> tuple[list[Stored], int | None]:
        """Traces for which a *condition* on rows and then *wanted* hold; with *count* also how many there are.

        *order* are columns, each with whether it descends; by default, and where they tie, the newest come first.

        Raises:
            TooManyTraces: *wanted* would have to be asked of more than `MAX_LOOKED_AT`, or there are too many to count.
        """
        with self._database.snapshot() as connection:
            return select_where(connection, self._reader, condition, order, wanted, skip=skip, limit=limit, count=count)

    def page(self, kind: Kind, values: Collection[str], after: int = 0, limit: int = 1_000) -> Page:
        """The first *limit* traces above the position *after* with one of these ids, names and so on, oldest first.

        `Page.next` is what to ask for `after`. Names are base names, digests those of files, contents of their members.
        """
        with self._database.reading() as connection:
            condition = condition_of(kind, values) & (traces.c.position > after)
            found, more = self._reader.page(connection, condition, limit=limit)
        return Page([s for s in found if bears(kind, values, s)], found[-1].position if more else None)

    def histories(self, keys: Collection[ProductKey]) -> tuple[dict[ProductKey, list[Stored]], list[Stored]]:
        """The own traces of each of *keys* that has any, and of files in no Rucio those that may have joined them.

        Raises:
            TooMuchEvidence: ask for fewer products.
        """
        with self._database.snapshot() as connection:
            reader = self._reader.bounded()
            own = reader.own(connection, keys)
            return own, reader.strangers(connection, [stored for of in own.values() for stored in of])

    def changes(self, after: int, limit: int = 1_000, *, products: bool = False) -> tuple[list[Stored], int]:
        """What `since` or, with *products*, `of_products_since` gives, and the position to go on from.

        That lies behind all that was looked at, also where nothing was found.
        """
        seen = self.position()
        conditions = _of_products() if products else (true(),)
        with self._database.snapshot() as connection:
            pages = [
                self._reader.page(connection, (traces.c.position > after) & condition, limit=limit)
                for condition in conditions
            ]
        found = sorted((stored for page, _ in pages for stored in page), key=lambda stored: stored.position)
        if any(more for _, more in pages):  # beyond the first of these ends there may be some that were not read
            end = min(page[-1].position for page, more in pages if more)
            found = [stored for stored in found if stored.position <= end]
        elif len(found) <= limit:
            return found, max(after, seen, *(stored.position for stored in found[-1:]))
        found = found[:limit]
        return found, found[-1].position

    def statistics(self) -> Statistics:
        """How many traces there are, by event and by RSE; counted when they came, so that it costs nothing."""
        with self._database.snapshot() as connection:
            return read_counts(connection, self._reader)

    def candidates(
        self,
        hashes: Mapping[str, str],
        base_name: str | Collection[str],
        did: str | None = None,
        *,
        product_digest: str | None = None,
    ) -> list[Evidence]:
        """All that is known of the products a file or folder could be, for `verify.judge`.

        `hashes` are the file's digests by algorithm; `base_name` may be several, of a product that has another
        name where it is packed. With *did* the name is not asked.

        Raises:
            TooMuchEvidence: more than could be judged; a part of it could mislead.
        """
        from rucio_trace.verify import Evidence

        names = [base_name] if isinstance(base_name, str) else base_name
        found = self.evidence(hashes, names, did, product_digest=product_digest)
        return [Evidence(trace=stored.trace, registered_at=stored.registered_at) for stored in found]

    def evidence(
        self,
        hashes: Mapping[str, str],
        names: Collection[str],
        did: str | None = None,
        *,
        product_digest: str | None = None,
    ) -> list[Stored]:
        """The same traces as the store knows them."""
        with self._database.reading() as connection:
            return evidence.collect(connection, self._reader.bounded(), hashes, names, did, product_digest)

    def candidates_of_many(
        self, digests: Collection[str], names: Collection[str], dids: Collection[str], most: int | None = None
    ) -> list[Evidence]:
        """All that is known of the products that bear one of these strong digests or base names, or are of these DIDs.

        Raises:
            TooMuchEvidence: more than *most* traces, or than could be judged at once: ask for fewer.
        """
        from rucio_trace.verify import Evidence

        with self._database.reading() as connection:
            found = evidence.collect_many(connection, self._reader.bounded(), digests, names, dids, most)
        return [Evidence(trace=stored.trace, registered_at=stored.registered_at) for stored in found]

    def lineage(self, digests: Collection[str], *, up: bool, depth: int | None = None) -> Lineage | None:
        """What the file with these digests was made from, or what was made from it: see `lineage.explore`.

        Raises:
            Circular: the traces say that a product was made from itself.
        """
        with self._database.snapshot() as connection:
            return explore(StoredRecords(connection, self._reader.bounded()), digests, up=up, depth=depth)

    def _find(self, kind: Kind, values: Collection[str], limit: int | None = None) -> list[Stored]:
        # Of members some are in every archive: how to look for such a one is another matter.
        with self._database.reading(prepared=kind != "contents") as connection:
            return self._reader.read(connection, condition_of(kind, values), limit=limit)


def _of_products() -> tuple[ColumnElement[bool], ...]:
    """By which traces others can change the status of a product in Rucio: see `Store.of_products_since`."""
    corrections = traces.c.event.in_((str(Event.OBSOLETE), str(Event.REVOKE)))
    of_products = traces.c.rse.is_(None) & (traces.c.did.is_not(None) | corrections)
    of_batches = (traces.c.event == str(Event.REVOKE)) & traces.c.rse.is_not(None)
    return of_products, of_batches
