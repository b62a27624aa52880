"""What commands and daemons ask of a trace store, be it a database of their own or a trace service.

`Store` says what each method promises; both kinds keep those promises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from rucio_trace.batch import check_list, product_of
from rucio_trace.store.histories import anybody
from rucio_trace.trace import Event

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
    from rucio_trace.trace import ProductKey, Statement
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
    @abstractmethod
    def newest(self, dids: Collection[str]) -> dict[str, ProductKey | None]: ...
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
            of_list = batch.event is Event.VERIFY and (batch.batch, batch.rse) == (statement.batch, statement.rse)
            if of_list and (data := self.list_of(stored.id)) is not None:
                return {product_of(batch, line) for line in check_list(batch, data)}
        return set()

    @abstractmethod
    def created_outside(self, names: Collection[str]) -> dict[str, list[Stored]]: ...
    @abstractmethod
    def by_id(self, trace_id: str) -> list[Stored]: ...
    @abstractmethod
    def by_ids(self, trace_ids: Collection[str]) -> dict[str, Stored]: ...
    @abstractmethod
    def by_name(self, name: str, *, limit: int | None = None) -> list[Stored]: ...
    @abstractmethod
    def by_did(self, scope: str, name: str, *, limit: int | None = None) -> list[Stored]: ...
    @abstractmethod
    def by_digest(self, hexadecimal: str | Collection[str], *, limit: int | None = None) -> list[Stored]: ...
    @abstractmethod
    def by_content(self, hexadecimal: str, *, limit: int | None = None) -> list[Stored]: ...
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
