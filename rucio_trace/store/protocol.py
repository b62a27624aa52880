"""What commands and daemons ask of a trace store, be it a database of their own or a trace service.

What is not promised here `Store` promises; both kinds keep it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from rucio_trace.batch import check_list, needs_list, product_of
from rucio_trace.store.histories import anybody

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from rucio_trace.batch import LineProof
    from rucio_trace.envelope import Trace
    from rucio_trace.identity import Trust
    from rucio_trace.lineage import Lineage
    from rucio_trace.status import Status
    from rucio_trace.store.histories import MayJoin
    from rucio_trace.store.records import BatchLine, Registration, Stored
    from rucio_trace.store.search import Kind
    from rucio_trace.trace import Event, ProductKey, Statement
    from rucio_trace.verify import Evidence

__all__ = ["TraceStore"]


class TraceStore(ABC):
    """An open store; a context manager. Every method may raise StorageError, and works again once the cause is gone."""

    own: bool = True
    """Whether its times of registration count as those of the verifier's own store (docs/format.md, section 7)."""

    @property
    @abstractmethod
    def shown(self) -> str: ...
    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def register(
        self,
        unverified_traces: Sequence[Trace],
        *,
        trust: Trust | None,
        allow_stale_crl: bool = False,
        scopes: Mapping[str, str] | None = None,
        lists: Mapping[str, bytes] | None = None,
    ) -> list[Registration]: ...
    @abstractmethod
    def position(self) -> int: ...
    @abstractmethod
    def since(self, position: int, limit: int = 1_000) -> list[Stored]: ...
    @abstractmethod
    def of_products_since(self, position: int, limit: int = 1_000) -> list[Stored]: ...
    @abstractmethod
    def product(self, keys: Collection[ProductKey], may_join: MayJoin = anybody) -> dict[ProductKey, list[Stored]]: ...

    def newest(self, dids: Collection[str]) -> dict[str, ProductKey | None]:
        """The newest product of each of *dids* ("scope:name") that there are traces of."""
        newest: dict[str, ProductKey | None] = dict.fromkeys(dids)
        for stored in self._find("dids", dids):
            key = stored.trace.statement.product
            if key is not None and key.did in newest:
                newest[key.did] = max(key, newest[key.did] or key, key=lambda key: key.generation)
        return newest

    @abstractmethod
    def proven(self, keys: Collection[ProductKey]) -> dict[ProductKey, list[BatchLine]]: ...
    @abstractmethod
    def line_proof(self, key: ProductKey, rse: str | None = None) -> LineProof | None: ...
    @abstractmethod
    def list_of(self, trace_id: str) -> bytes | None: ...

    def products_of_batch(self, statement: Statement) -> set[ProductKey]:
        """The products on the list that *statement* repeats, the REVOKE of a batch; none if it is of no batch."""
        if statement.batch is None:
            return set()
        for stored in self.by_digest(statement.hash):
            batch = stored.trace.statement
            of_list = needs_list(batch) and (batch.batch, batch.rse) == (statement.batch, statement.rse)
            if of_list and (data := self.list_of(stored.id)) is not None:
                return {product_of(batch, line) for line in check_list(batch, data)}
        return set()

    @abstractmethod
    def created_outside(self, names: Collection[str]) -> dict[str, list[Stored]]: ...
    @abstractmethod
    def by_ids(self, trace_ids: Collection[str]) -> dict[str, Stored]: ...
    @abstractmethod
    def _find(self, kind: Kind, values: Collection[str], limit: int | None = None) -> list[Stored]:
        """Traces with these ids, base names and so on, the oldest first; a little too much does no harm."""

    def by_id(self, trace_id: str) -> list[Stored]:
        """The trace with this id; several only where members of the Traceability Service signed the same text."""
        return [s for s in self._find("ids", [trace_id]) if s.id == trace_id]

    def by_name(self, name: str, *, limit: int | None = None) -> list[Stored]:
        """Traces of files with this base name, or this whole DID name if it holds folders."""
        found = self._find("names", [name.rpartition("/")[2]], limit)
        if "/" in name:
            return [s for s in found if (key := s.trace.statement.product) is not None and key.name == name]
        return [s for s in found if s.trace.statement.name == name]

    def by_did(self, scope: str, name: str, *, limit: int | None = None) -> list[Stored]:
        """Traces of this DID, of all generations and of every Rucio."""
        did = f"{scope}:{name}"
        return [s for s in self._find("dids", [did], limit) if s.trace.statement.did == did]

    def by_digest(self, hexadecimal: str | Collection[str], *, limit: int | None = None) -> list[Stored]:
        """Traces of files with one of these digests, of any algorithm."""
        wanted = {hexadecimal} if isinstance(hexadecimal, str) else set(hexadecimal)
        found = self._find("digests", wanted, limit)
        return [s for s in found if wanted & {s.trace.statement.hash, *s.trace.statement.digests.values()}]

    def by_content(self, hexadecimal: str, *, limit: int | None = None) -> list[Stored]:
        """Traces of archives that hold a member with this digest."""
        found = self._find("contents", [hexadecimal], limit)
        return [s for s in found if any(c.hash == hexadecimal for c in s.trace.statement.contents or ())]

    @abstractmethod
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
    ) -> list[Stored]: ...
    @abstractmethod
    def candidates(
        self,
        hashes: Mapping[str, str],
        base_name: str | Collection[str],
        did: str | None = None,
        *,
        product_digest: str | None = None,
    ) -> list[Evidence]: ...
    @abstractmethod
    def lineage(self, digests: Collection[str], *, up: bool, depth: int | None = None) -> Lineage | None: ...
