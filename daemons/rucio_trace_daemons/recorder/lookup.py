"""Everything a batch needs to know, asked by a number of queries that does not grow with it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace.status import Status, product_status
from rucio_trace_daemons.recorder.before import may_join
from rucio_trace_daemons.recorder.history import History
from rucio_trace_daemons.recorder.missing import Guards
from rucio_trace_daemons.recorder.product import Product
from rucio_trace_daemons.recorder.removals import find_removals
from rucio_trace_daemons.recorder.resolve import alive, product_key, resolve
from rucio_trace_daemons.recorder.rows import QUEUED_BY_GAPS, Replica

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rucio_trace.store import BatchLine, Stored, TraceStore
    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.recorder.before import Before, Origins
    from rucio_trace_daemons.recorder.context import Context
    from rucio_trace_daemons.recorder.finish import Names
    from rucio_trace_daemons.recorder.outbox import Claim
    from rucio_trace_daemons.recorder.resolve import Facts
    from rucio_trace_daemons.recorder.rows import Row
    from rucio_trace_daemons.rses import Rse, Rses

__all__ = ["Batch", "LookUp"]

# Scope and name as Rucio keeps them, and the begin of the generation.
Key = tuple[str, str, "datetime"]


@dataclass(frozen=True, slots=True)
class Batch:
    """The claimed rows, put to their products. `unfit`: rows that nothing can be said about, with the reason."""

    products: Sequence[Product]
    rses: Mapping[str, Rse]
    guards: Guards
    unfit: Sequence[tuple[Row, str]]


@dataclass(frozen=True, slots=True)
class LookUp:
    """Makes batches. `installed` is when hooks first came: older products were never seen arriving."""

    context: Context
    store: TraceStore
    rses: Rses
    names: Names
    origins: Origins
    installed: datetime | None

    def batch(self, claim: Claim) -> Batch:
        """No transaction is open afterwards."""
        known = self.rses.get({row.rse_id for row in claim.rows})
        rows, unfit = _sorted_out(claim.rows, known)
        keys: dict[Key, ProductKey] = {(row.scope, row.name, row.generation): self._key(row) for row in rows}
        histories = self.store.product(set(keys.values()), may_join(self.origins.trust())) if keys else {}
        arriving = {(row.scope, row.name, row.generation) for row in rows if row.new_state == "A" and not row.message}
        before = self.origins.find(keys, histories, rows, arriving)
        lines = self.store.proven(set(keys.values())) if keys else {}
        self.names.learn(histories, lines)
        arrived = {(scope, name) for scope, name, _ in arriving}
        facts = resolve(self.context.engine, {(row.scope, row.name) for row in rows}, arrived)
        ends = {i for of in facts.transfers.values() for t in of for i in (t.source_rse_id, t.rse_id) if i}
        overtaken = self._overtaken(rows, facts)
        products = self._products(keys, histories, lines, before, facts, [*rows, *claim.others])
        removals = find_removals(self.context.engine, rows)
        for product in products.values():
            product.removals, product.overtaken = removals, overtaken
        _put(rows, products)
        guards = Guards.load(self.context.engine, known.keys(), self.context.options.lost_in_a_row)
        return Batch(list(products.values()), known | self.rses.get(ends), guards, unfit)

    def _products(
        self,
        keys: Mapping[Key, ProductKey],
        histories: Mapping[ProductKey, Sequence[Stored]],
        lines: Mapping[ProductKey, Sequence[BatchLine]],
        before: Mapping[Key, Before],
        facts: Facts,
        rows: Sequence[Row],
    ) -> dict[Key, Product]:
        pending: dict[Key, list[Row]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.id):
            pending[row.scope, row.name, row.generation].append(row)
        return {
            (scope, name, generation): Product(
                key,
                scope,
                generation,
                self._history(key.vo, histories[key], lines.get(key, ()), before[scope, name, generation]),
                before[scope, name, generation],
                facts.replicas.get((scope, name), ()),
                facts.transfers.get((scope, name), ()),
                pending[scope, name, generation],
                adopted=self.installed is not None and generation < self.installed,
            )
            for (scope, name, generation), key in keys.items()
        }

    def _overtaken(self, rows: Sequence[Row], facts: Facts) -> set[str]:
        """What a search for gaps has queued and no longer holds: no trigger's row says when that came to be."""
        queued = [row for row in rows if row.action == QUEUED_BY_GAPS and row.message is None]
        if not queued:
            return set()
        with self.context.engine.connect() as connection:
            living = alive(connection, {(row.scope, row.name) for row in queued})

        def states(row: Row) -> list[str]:
            product = (row.scope, row.name)
            known = facts.replicas.get(product, ()) if living.get(product) == row.generation else ()
            return [replica.state for replica in known if replica.rse_id == row.rse_id]

        return {row.event_id for row in queued if states(row) != ([] if row.new_state is None else [row.new_state])}

    def _history(self, vo: str, stored: Sequence[Stored], lines: Sequence[BatchLine], before: Before) -> History:
        status = product_status(stored, self.names.of(vo)) if stored else None
        origin = status.origin.trace.statement if status and status.origin else None
        if origin is None and before.declared is not None and not before.joined:
            origin = before.declared.statement
        revoked = status is not None and status.status is Status.REVOKED
        return History(origin, [s.trace for s in stored], self.names.of(vo), lines, revoked=revoked)

    def _key(self, row: Row) -> ProductKey:
        return product_key(self.context.options.instance, row.scope, row.name, row.generation)


def _sorted_out(rows: Sequence[Row], rses: Mapping[str, Rse]) -> tuple[list[Row], list[tuple[Row, str]]]:
    """Rows of known RSEs and products, and the others with what is wrong."""
    fit, unfit = [], []
    for row in rows:
        if row.generation is None:
            unfit.append((row, "Rucio knew no such DID when the change was made"))
        elif row.rse_id not in rses:
            unfit.append((row, f"Rucio knows no RSE of the id {row.rse_id}"))
        else:
            fit.append(row)
    return fit, unfit


def _put(rows: Sequence[Row], products: Mapping[Key, Product]) -> None:
    """Put each row, in id order, to its replica in its product."""
    replicas: dict[tuple[Key, str], Replica] = {}
    for row in sorted(rows, key=lambda row: row.id):
        key = (row.scope, row.name, row.generation)
        replica = replicas.get((key, row.rse_id))
        if replica is None:
            replica = replicas[key, row.rse_id] = Replica(row.rse_id)
            products[key].replicas.append(replica)
        replica.rows.append(row)
