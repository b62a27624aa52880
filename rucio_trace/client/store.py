"""A trace store that a service keeps: what `Store` promises, by asking.

What is signed is read anew from every trace, and what was not asked for is not taken. On the service's word alone rest
where traces stand and when they were registered, that none is held back, that a line is on its batch's list and the
batch stands (`list_of` and `line_proof` prove the first), and lineages, which it puts together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rucio_trace.batch import LineProof, check_line, check_list, needs_list
from rucio_trace.client.errors import BadAnswer
from rucio_trace.errors import Malformed, Refuted
from rucio_trace.merkle import hash_leaf, path_of
from rucio_trace.statement import Event
from rucio_trace.store.histories import anybody, assemble
from rucio_trace.store.protocol import TraceStore
from rucio_trace.store.records import youngest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rucio_trace.client.clients import Client
    from rucio_trace.envelope import Trace
    from rucio_trace.identity import Trust
    from rucio_trace.lineage import Lineage
    from rucio_trace.statement import ProductKey
    from rucio_trace.store.histories import MayJoin
    from rucio_trace.store.records import BatchLine, Registration, Stored
    from rucio_trace.store.search import Kind
    from rucio_trace.verify import Evidence

__all__ = ["ServiceStore"]


class ServiceStore(TraceStore):
    """See `TraceStore`. Closes its client."""

    def __init__(self, client: Client, *, own: bool) -> None:
        """*own*: the verifier's own service, whose times of registration count; anybody else's do not."""
        self._client, self.own = client, own

    @property
    def shown(self) -> str:
        return self._client.url

    @property
    def client(self) -> Client:
        """For what only a service can be asked."""
        return self._client

    def close(self) -> None:
        self._client.close()

    def register(
        self,
        unverified_traces: Sequence[Trace],
        *,
        trust: Trust | None = None,
        allow_stale_crl: bool = False,
        scopes: Mapping[str, str] | None = None,
        lists: Mapping[str, bytes] | None = None,
    ) -> list[Registration]:
        """What is taken is for the service to say, by whom it trusts: *trust* and *allow_stale_crl* are not asked."""
        return self._client.register(unverified_traces, scopes=scopes, lists=lists)

    def position(self) -> int:
        return int(self._client.statistics()["position"])

    def since(self, position: int, limit: int = 1_000) -> list[Stored]:
        return self._since(position, limit, products=False)

    def of_products_since(self, position: int, limit: int = 1_000) -> list[Stored]:
        return self._since(position, limit, products=True)

    def _since(self, position: int, limit: int, *, products: bool) -> list[Stored]:
        found: list[Stored] = []
        while len(found) < limit:
            changes = self._client.changes(position, limit=limit - len(found), products=products)
            found += changes.traces
            if not changes.traces or changes.position <= position:
                break
            position = changes.position
        return found

    def product(self, keys: Collection[ProductKey], may_join: MayJoin = anybody) -> dict[ProductKey, list[Stored]]:
        found = self._client.products(keys, lines=False)
        return assemble({key: known.traces for key, known in found.products.items()}, found.strangers, may_join)

    def proven(self, keys: Collection[ProductKey]) -> dict[ProductKey, list[BatchLine]]:
        known = self._client.products(keys, traces=False).products
        return {key: list(of.lines) for key, of in known.items() if of.lines}

    def line_proof(self, key: ProductKey, rse: str | None = None) -> LineProof | None:
        """Made from the list, which is held against what was signed."""
        newest = youngest(self.proven([key]).get(key, ()), rse)
        if newest is None:
            return None
        entries = (self._list_of(newest.batch) or b"").split(b"\n")[:-1]
        path = path_of([hash_leaf(entry) for entry in entries], newest.index) if entries else ()
        proof = LineProof(newest.batch.trace, newest.line, newest.index, tuple(path))
        try:
            check_line(proof)
        except Refuted as error:
            raise BadAnswer(self.shown, error.subject, error.expected, error.found) from error
        return proof

    def list_of(self, trace_id: str) -> bytes | None:
        batches = [stored for stored in self.by_id(trace_id) if needs_list(stored.trace.statement)]
        return self._list_of(batches[0]) if batches else None

    def _list_of(self, batch: Stored) -> bytes | None:
        data = self._client.list_of(batch.id)
        if data is not None:
            try:
                check_list(batch.trace.statement, data)
            except (Refuted, Malformed) as error:
                raise BadAnswer(self.shown, error.subject, error.expected, error.found) from error
        return data

    def created_outside(self, names: Collection[str]) -> dict[str, list[Stored]]:
        found = [s for s in self._find("names", names) if s.trace.statement.outside]
        created = [s for s in found if s.trace.statement.event is Event.CREATE]
        return {name: [s for s in created if s.trace.statement.name == name] for name in names} if created else {}

    def by_ids(self, trace_ids: Collection[str]) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for stored in self._find("ids", trace_ids):
            if stored.id in trace_ids:
                found.setdefault(stored.id, stored)
        return found

    def _find(self, kind: Kind, values: Collection[str], limit: int | None = None) -> list[Stored]:
        wanted = [text for text in values if _is_hex(text)] if kind in ("digests", "contents") else values
        return self._client.find(kind, wanted, limit=limit)

    def search(self, *, name_prefix: str | None = None, limit: int = 100, **filters: Any) -> list[Stored]:
        return list(self._client.search(prefix=name_prefix, limit=limit, **filters))

    def candidates(
        self,
        hashes: Mapping[str, str],
        base_name: str | Collection[str],
        did: str | None = None,
        *,
        product_digest: str | None = None,
    ) -> list[Evidence]:
        from rucio_trace.verify import Evidence

        names = [base_name] if isinstance(base_name, str) else base_name
        found = self._client.evidence(hashes, names, did, product_digest=product_digest)
        return [Evidence(stored.trace, stored.registered_at if self.own else None) for stored in found]

    def lineage(self, digests: Collection[str], *, up: bool, depth: int | None = None) -> Lineage | None:
        return self._client.lineage(digests, up=up, depth=depth)


def _is_hex(text: str) -> bool:
    """What is no hexadecimal text is nobody's digest."""
    return bool(text) and all(character in "0123456789abcdef" for character in text)
