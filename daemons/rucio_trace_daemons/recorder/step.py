"""One bounded batch of the outbox, from claim to status. Every step may be killed and repeated.

    claim       a short transaction: rows of whole products, under a lease
    look up     RSEs, replicas, transfers, the products' traces: a few queries, nothing stays open
    prove       read, compare, sign; no database transaction of ours is open while bytes are read
    keep        a short transaction: the signed traces go into their rows; from now on these bytes are sent
    register    the store takes them, each once
    finish      one transaction: status recomputed from the store, outcomes counted, rows removed

A `Worker` belongs to one thread. What is done is given to the database every few seconds, so that a long batch loses
little when it is killed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from rucio.common.exception import DatabaseException
from rucio.common.types import InternalScope
from sqlalchemy.exc import DBAPIError

from rucio_trace.envelope import dumps
from rucio_trace.errors import StorageError
from rucio_trace.status import product_status
from rucio_trace.store import Outcome
from rucio_trace.trace import ProductKey, format_time
from rucio_trace_daemons.recorder.decide import Reason
from rucio_trace_daemons.recorder.finish import count_outcomes, outcome, snapshot, write_snapshots
from rucio_trace_daemons.recorder.history import History
from rucio_trace_daemons.recorder.missing import Guards
from rucio_trace_daemons.recorder.outbox import STOPPED
from rucio_trace_daemons.recorder.product import Product, backoff, settle_product
from rucio_trace_daemons.recorder.removals import find_removals, forget_removals
from rucio_trace_daemons.recorder.resolve import resolve
from rucio_trace_daemons.recorder.rows import Fate, Replica, Row, Settled, Signed, Waiting
from rucio_trace_daemons.storage_errors import LeaseLost, Stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from rucio_trace.identity import Trust
    from rucio_trace.store import Store
    from rucio_trace_daemons.recorder.context import Context
    from rucio_trace_daemons.recorder.finish import Names
    from rucio_trace_daemons.recorder.outbox import Claim, Outbox
    from rucio_trace_daemons.rses import Rses

__all__ = ["Worker"]

LOG = logging.getLogger("traceability-recorder")

# How long proofs are gathered before they are given to the databases together.
GATHER_SECONDS = 5.0


class Worker:
    """Does batches. `seam` is told the name of each boundary it passes, `stopping` says when to end early."""

    def __init__(
        self,
        context: Context,
        outbox: Outbox,
        store: Store,
        rses: Rses,
        names: Names,
        *,
        trust: Callable[[], Trust | None],
        rse_ids: Callable[[], set[str] | None],
        installed: datetime | None,
        stopping: Callable[[], bool],
        seam: Callable[[str], None],
    ) -> None:
        self._context, self._outbox, self._store = context, outbox, store
        self._rses, self._names, self._trust, self._rse_ids = rses, names, trust, rse_ids
        self._installed, self._stopping, self._seam = installed, stopping, seam
        self._held: list[Row] = []
        self._renewed = 0.0

    def step(self) -> int:
        """Handle one batch; returns how many rows it claimed: 0 when nothing is due.

        Raises:
            StorageError, DBAPIError, DatabaseException: the store or Rucio's database is away, or we are stopping;
            rows are given back, at the latest when their lease ends.
            CertificateUnfit: nothing can be signed; nothing was claimed.
        """
        context = self._context
        context.keys.signer_at(context.clock(), context.clock())
        claim = self._outbox.claim(context.options.bulk, self._rse_ids())
        context.clock.set(claim.now)
        if not claim.rows:
            return 0
        self._held, self._renewed = list(claim.rows), time.monotonic()
        outcomes: Counter[str] = Counter()
        try:
            self._run(claim, outcomes)
        except (StorageError, DBAPIError, DatabaseException):
            self._give_back()
            raise
        finally:
            if outcomes:
                LOG.info("batch %s", " ".join(f"{word}={count}" for word, count in sorted(outcomes.items())))
        return len(claim.rows)

    def watch(self, _count: int) -> None:
        """Called while bytes are read: keeps the lease alive, and gives up when it is lost or the process stops."""
        if self._stopping():
            raise Stopping
        if time.monotonic() - self._renewed > self._context.options.lease.total_seconds() / 3:
            held = self._outbox.renew(self._held)
            self._renewed = time.monotonic()
            if len(held) < len(self._held):
                raise LeaseLost

    def _run(self, claim: Claim, outcomes: Counter[str]) -> None:
        products, rses, guards = self._look_up(claim)
        self._seam("looked-up")
        done: list[Product] = []
        since = time.monotonic()
        for product in products:
            try:
                self.watch(0)
                settle_product(product, self._context, rses, guards)
            except LeaseLost:
                LOG.warning("lease-lost rows=%d", len(self._held))
                return
            self._seam("proven")
            done.append(product)
            if time.monotonic() - since > GATHER_SECONDS:
                self._flush(done, guards, outcomes)
                done, since = [], time.monotonic()
        self._flush(done, guards, outcomes)

    def _look_up(self, claim: Claim) -> tuple[list[Product], Mapping[str, Any], Guards]:
        """Everything the batch needs to know, by a number of queries that does not grow with it."""
        context = self._context
        rows = [row for row in claim.rows if row.generation is not None]
        keys = {(row.scope, row.name, row.generation): self._key(row) for row in rows}
        histories = self._store.product(set(keys.values())) if keys else {}
        arrived = {(row.scope, row.name) for row in rows if row.new_state == "A" and row.message is None}
        facts = resolve(context.engine, {(row.scope, row.name) for row in rows}, arrived)
        sources = {t.source_rse_id for of in facts.transfers.values() for t in of if t.source_rse_id}
        rses = self._rses.get({row.rse_id for row in rows} | sources)
        guards = Guards.load(context.engine, {row.rse_id for row in rows}, context.options.lost_in_a_row)
        removals = find_removals(context.engine, rows)
        pending = defaultdict(list)
        for row in sorted([*rows, *claim.others], key=lambda row: row.id):
            pending[row.scope, row.name].append(row)
        products = {}
        for (scope, name, generation), key in keys.items():
            history = histories[key]
            status = product_status(history, self._names.rse_id) if history else None
            origin = status.origin.trace.statement if status and status.origin else None
            products[scope, name, generation] = Product(
                key,
                scope,
                generation,
                History(origin, [stored.trace for stored in history], self._names.rse_id),
                facts.replicas.get((scope, name), ()),
                facts.transfers.get((scope, name), ()),
                [row for row in pending[scope, name] if row.generation == generation],
                removals,
                adopted=self._installed is not None and generation < self._installed,
            )
        _group(rows, products)
        return list(products.values()), rses, guards

    def _key(self, row: Row) -> ProductKey:
        scope = InternalScope(row.scope, from_external=False)
        return ProductKey(
            self._context.options.instance, scope.vo, str(scope.external), row.name, format_time(row.generation)
        )

    def _flush(self, products: Sequence[Product], guards: Guards, outcomes: Counter[str]) -> None:
        """Keep, register, finish and give back what was settled."""
        if not products:
            return
        rows = [row for product in products for row in product.rows]
        fates = {e: fate for product in products for replica in product.replicas for e, fate in replica.fates.items()}
        fresh = {e: fate for e, fate in fates.items() if isinstance(fate, Signed) and fate.fresh}
        if fresh:
            kept = self._outbox.keep({e: dumps([fate.trace]) for e, fate in fresh.items()}, rows)
            products = [p for p in products if all(row.event_id in kept for row in p.rows)]
        self._register(products)
        self._finish(products, guards, outcomes)
        self._postpone(products, outcomes)
        settled = {row.event_id for row in rows}
        self._held = [row for row in self._held if row.event_id not in settled]

    def _register(self, products: Sequence[Product]) -> None:
        """Hand the traces to the store; where it does not take one, the row's fate becomes to wait."""
        signed = [
            (replica, row, fate)
            for product in products
            for replica in product.replicas
            for row in replica.rows
            if isinstance(fate := replica.fates[row.event_id], Signed)
        ]
        if not signed:
            return
        now = self._context.clock()
        answers = self._store.register([fate.trace for _, _, fate in signed], trust=self._trust())
        self._seam("registered")
        for (replica, row, _), answer in zip(signed, answers, strict=True):
            if answer.outcome in (Outcome.STORED, Outcome.KNOWN):
                continue
            error = f"the store answers {answer.outcome}: {answer.reason}"
            conflict = answer.outcome is Outcome.CONFLICT
            replica.fates[row.event_id] = Waiting(
                STOPPED if conflict else backoff(row, now),
                error,
                row.missing_since,
                stopped="conflict" if conflict else None,
            )

    def _finish(self, products: Sequence[Product], guards: Guards, outcomes: Counter[str]) -> None:
        finished: dict[str, tuple[Row, Fate]] = {}
        signed: dict[ProductKey, Product] = {}
        names: dict[str, str] = {}
        for product in products:
            for replica in product.replicas:
                free = replica.finished()
                finished |= {row.event_id: (row, free[row.event_id]) for row in replica.rows if row.event_id in free}
                for row, fate in ((row, free.get(row.event_id)) for row in replica.rows):
                    if isinstance(fate, Signed):
                        signed[product.key] = product
                        names[fate.trace.statement.rse or ""] = row.rse_id
        if not finished:
            return
        for name, rse_id in names.items():
            self._names.note(name, rse_id)
        snapshots = []
        if signed:
            histories = self._store.product(signed.keys())
            snapshots = [
                snapshot((p.scope, key.name, p.generation), histories[key], self._names.rse_id)
                for key, p in signed.items()
            ]
        self._seam("recomputed")
        with self._outbox.transaction() as connection:
            write_snapshots(connection, snapshots)
            self._names.save(connection, names)
            gone = self._outbox.remove(connection, [(row.id, e) for e, (row, _) in finished.items()], held=False)
            ended = [(row, outcome(fate)) for e, (row, fate) in finished.items() if e in gone]
            count_outcomes(connection, ended)
            forget_removals(connection, (row for row, _ in ended))
            guards.save(connection, {row.rse_id for row, word in ended if word in _GUARDED}, self._context.clock())
            self._seam("finishing")
        self._seam("finished")
        outcomes.update(word for _, word in ended)

    def _postpone(self, products: Sequence[Product], outcomes: Counter[str]) -> None:
        waits: dict[str, dict[str, Any]] = {}
        stops: list[tuple[Row, str]] = []
        rows = []
        for product in products:
            for replica in product.replicas:
                free = replica.finished()
                left = [row for row in replica.rows if row.event_id not in free]
                fates = [replica.fates[row.event_id] for row in left]
                until = min((fate.until for fate in fates if isinstance(fate, Waiting)), default=self._context.clock())
                for row, fate in zip(left, fates, strict=True):
                    waits[row.event_id] = _wait(row, fate, until)
                    rows.append(row)
                    if isinstance(fate, Waiting) and fate.stopped:
                        stops.append((row, fate.stopped))
                    if isinstance(fate, Waiting) and fate.error:
                        LOG.warning("waiting rse_id=%s until=%s: %s", row.rse_id, fate.until.isoformat(), fate.error)
        if waits:
            self._outbox.postpone(waits, rows)
            if stops:
                with self._outbox.transaction() as connection:
                    count_outcomes(connection, stops)
            outcomes["waiting"] += len(waits)

    def _give_back(self) -> None:
        """Let others take what we hold; if even that fails, the lease runs out by itself."""
        held, self._held = self._held, []
        if held:
            try:
                self._outbox.release(held)
            except (DBAPIError, DatabaseException):  # the error that brought us here is the one to report
                LOG.debug("release-failed rows=%d", len(held))


# Outcomes that say whether the storage of an RSE still has its files.
_GUARDED = frozenset({"CREATE", "COPY", "VERIFY", "CORRUPT", "LOST"})


def _group(rows: Sequence[Row], products: Mapping[Any, Product]) -> None:
    """Put each row, in id order, to its replica in its product."""
    replicas: dict[Any, Replica] = {}
    for row in sorted(rows, key=lambda row: row.id):
        product = products[row.scope, row.name, row.generation]
        replica = replicas.get((product.key, row.rse_id))
        if replica is None:
            replica = replicas[product.key, row.rse_id] = Replica(row.rse_id)
            product.replicas.append(replica)
        replica.rows.append(row)


def _wait(row: Row, fate: Fate, until: datetime) -> dict[str, Any]:
    """The columns of a row that stays."""
    columns = {
        "not_before": until,
        "attempts": row.attempts,
        "last_error": row.last_error,
        "missing_since": row.missing_since,
    }
    if isinstance(fate, Waiting) and not fate.unchanged:
        columns |= {"not_before": fate.until, "attempts": row.attempts + 1, "last_error": fate.error}
        columns["missing_since"] = fate.missing_since or row.missing_since
    elif isinstance(fate, Waiting):
        columns["not_before"] = fate.until
    elif isinstance(fate, Settled):
        assert fate.reason is Reason.SUPERSEDED
    return columns
