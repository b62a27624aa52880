"""One bounded batch of the outbox, from claim to status. Every step may be killed and repeated.

    claim       a short transaction: rows of whole products, under a lease
    look up     RSEs, replicas, transfers, the products' traces: a few queries, nothing stays open
    prove       read, compare, sign; no database transaction of ours is open while bytes are read
    keep        a short transaction: the signed traces go into their rows; from now on these bytes are sent
    register    the store takes them, each once
    finish      one transaction: status recomputed from the store, outcomes counted, rows removed

Then a few rows of datasets in the same way (`datasets`), and datasets whose files changed are counted (`counting`).

A `Worker` belongs to one thread. What is found is delivered every few seconds, so that a long batch loses little when
it is killed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from rucio.common.exception import DatabaseException
from sqlalchemy.exc import DBAPIError

from rucio_trace.errors import TraceabilityError
from rucio_trace_daemons.recorder.held import Held
from rucio_trace_daemons.recorder.product import Product, backoff, settle_product
from rucio_trace_daemons.storage_errors import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rucio_trace_daemons.recorder.context import Context
    from rucio_trace_daemons.recorder.datasets import Datasets
    from rucio_trace_daemons.recorder.deliver import Delivery
    from rucio_trace_daemons.recorder.lookup import LookUp
    from rucio_trace_daemons.recorder.outbox import Claim, Outbox
    from rucio_trace_daemons.recorder.rows import Row

__all__ = ["Worker"]

LOG = logging.getLogger("traceability-recorder")

# How long proofs are gathered before they are given to the databases together.
GATHER_SECONDS = 5.0


class Worker:
    """Does batches. `rse_ids` are the RSEs to look at (None: all), `stopping` says when to end early."""

    def __init__(
        self,
        context: Context,
        outbox: Outbox,
        lookup: LookUp,
        delivery: Delivery,
        datasets: Datasets,
        rse_ids: Callable[[], set[str] | None],
        stopping: Callable[[], bool],
        seam: Callable[[str], None],
    ) -> None:
        self._context, self._outbox, self._lookup, self._delivery = context, outbox, lookup, delivery
        self._rse_ids, self._seam = rse_ids, seam
        self.held = Held(outbox, context.options.lease, stopping)
        self._datasets = datasets

    def step(self) -> int:
        """Handle one batch of replicas' rows, then one of datasets'; returns how many were claimed: 0 if none is due.

        Raises:
            TraceabilityError, DBAPIError, DatabaseException: the store or Rucio's database is away, files of trust
                cannot be read, or we are stopping; rows are given back, at the latest when their lease ends.
            CertificateUnfit: nothing can be signed; nothing was claimed.
        """
        context = self._context
        context.keys.signer_at(context.clock(), context.clock())
        claim = self._outbox.claim(context.options.bulk, self._rse_ids())
        context.clock.set(claim.now)
        done = self._hold(claim, self._run) if claim.rows else 0
        return done + self._step_datasets()

    def _step_datasets(self) -> int:
        claim = self._datasets.claim()
        done = self._hold(claim, self._run_datasets) if claim.rows else 0
        return done + self._datasets.count()

    def _run_datasets(self, claim: Claim, outcomes: Counter[str]) -> None:
        for done, word in self._datasets.run(claim):
            outcomes[word] += 1
            self.held.let_go(done)

    def _hold(self, claim: Claim, run: Callable[[Claim, Counter[str]], None]) -> int:
        """Do *run* under the lease of *claim*; returns how many rows it has."""
        self.held.hold(claim.rows)
        outcomes: Counter[str] = Counter()
        try:
            run(claim, outcomes)
        except LeaseLost:
            LOG.warning("lease-lost rows=%d; raise recorder.lease_seconds if this happens often", len(self.held))
        except (TraceabilityError, DBAPIError, DatabaseException):
            self.held.give_back()
            raise
        finally:
            if outcomes:
                LOG.info("batch %s", " ".join(f"{word}={count}" for word, count in sorted(outcomes.items())))
        self.held.hold(())
        return len(claim.rows)

    def _run(self, claim: Claim, outcomes: Counter[str]) -> None:
        batch = self._lookup.batch(claim)
        self._seam("looked-up")
        self._give_up(batch.unfit)
        found: list[Product] = []
        since = time.monotonic()
        for product in batch.products:
            self.held.watch()
            settle_product(product, self._context, batch.rses, batch.guards)
            self._seam("proven")
            found.append(product)
            if time.monotonic() - since > GATHER_SECONDS:
                outcomes.update(self._delivery.deliver(found, batch.guards))
                self.held.let_go([row for product in found for row in product.rows])
                found, since = [], time.monotonic()
        outcomes.update(self._delivery.deliver(found, batch.guards))

    def _give_up(self, unfit: Sequence[tuple[Row, str]]) -> None:
        """Rows about which nothing can be said wait, and say why."""
        now = self._context.clock()
        waits = {
            row.event_id: {"not_before": backoff(row, now), "attempts": row.attempts + 1, "last_error": error}
            for row, error in unfit
        }
        if waits:
            self._outbox.postpone(waits, [row for row, _ in unfit])
            self.held.let_go([row for row, _ in unfit])
