"""From fates to facts: signed traces are kept, registered, shown in Rucio; rows leave the outbox or go back to it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rucio_trace.envelope import dumps
from rucio_trace.statement import DEFAULT_VO
from rucio_trace.store import Outcome
from rucio_trace_daemons import metrics
from rucio_trace_daemons.alarms import Kind
from rucio_trace_daemons.recorder.before import declared_since, may_join
from rucio_trace_daemons.recorder.finish import count_outcomes, outcome, snapshot, write_snapshots
from rucio_trace_daemons.recorder.outbox import STOPPED
from rucio_trace_daemons.recorder.product import backoff
from rucio_trace_daemons.recorder.removals import forget_removals
from rucio_trace_daemons.recorder.rows import Settled, Signed, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from rucio_trace.identity import Trust
    from rucio_trace.store import Registration, TraceStore
    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.alarms import Alarms
    from rucio_trace_daemons.recorder.context import Context
    from rucio_trace_daemons.recorder.finish import Names, Snapshot
    from rucio_trace_daemons.recorder.missing import Guards
    from rucio_trace_daemons.recorder.outbox import Outbox
    from rucio_trace_daemons.recorder.product import Product
    from rucio_trace_daemons.recorder.rows import Fate, Replica, Row
    from rucio_trace_daemons.rses import Rses

__all__ = ["Delivery", "not_taken", "waiting_columns"]

LOG = logging.getLogger("traceability-recorder")

# Outcomes that say whether the storage of an RSE still has its files.
_GUARDED = frozenset({"CREATE", "COPY", "VERIFY", "CORRUPT", "LOST"})
# Outcomes of a batch after which there may be something to tell.
_ALARMING = frozenset({"CORRUPT", "LOST", "waiting"})


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivers what one worker found. `seam` is told the name of each boundary between two steps."""

    context: Context
    outbox: Outbox
    store: TraceStore
    names: Names
    rses: Rses
    alarms: Alarms
    trust: Callable[[], Trust | None]
    seam: Callable[[str], None]

    def deliver(self, products: Sequence[Product], guards: Guards) -> Counter[str]:
        """Keep, register, finish and give back; returns how many rows had which outcome.

        A product of which another worker holds a row by now is left to that worker.
        """
        outcomes: Counter[str] = Counter()
        fresh = {row.event_id: fate for product in products for _, row, fate in _signed(product) if fate.fresh}
        if fresh:
            rows = [row for product in products for row in product.rows]
            messages = {event: dumps([fate.trace]) for event, fate in fresh.items()}
            held = self.outbox.keep(messages, rows, lambda connection: _overtaken(connection, products))
            products = [p for p in products if all(row.event_id in held for row in p.rows)]
        self._register(products)
        outcomes.update(self._finish(products, guards))
        outcomes["waiting"] += self._postpone(products, guards)
        outcomes = +outcomes
        if outcomes.keys() & _ALARMING:
            self.alarms.tell()
        return outcomes

    def _register(self, products: Sequence[Product]) -> None:
        """Hand the traces to the store; where it does not take one, the row's fate becomes to wait."""
        signed = [entry for product in products for entry in _signed(product)]
        if not signed:
            return
        answers = self.store.register([fate.trace for _, _, fate in signed], trust=self.trust())
        self.seam("registered")
        for (replica, row, _), answer in zip(signed, answers, strict=True):
            if answer.outcome not in (Outcome.STORED, Outcome.KNOWN):
                replica.fates[row.event_id] = not_taken(row, answer, self.context.clock())
        refused = [answer.reason for answer in answers if answer.outcome in (Outcome.REFUSED, Outcome.UNDECIDED)]
        if refused:
            self.alarms.report(Kind.STORE_REFUSES, self.context.options.site, {"reason": refused[-1]}, len(refused))

    def _finish(self, products: Sequence[Product], guards: Guards) -> Counter[str]:
        """One transaction: status, counts, and the rows are gone."""
        finished: dict[str, tuple[Row, Fate]] = {}
        for replica in (replica for product in products for replica in product.replicas):
            free = replica.finished()
            finished |= {row.event_id: (row, free[row.event_id]) for row in replica.rows if row.event_id in free}
        if not finished:
            return Counter()
        signed = [(row, fate) for row, fate in finished.values() if isinstance(fate, Signed)]
        names = {(fate.trace.statement.rse or "", row.rse_id) for row, fate in signed}
        for row, fate in signed:
            statement = fate.trace.statement
            self.names.note(statement.vo or DEFAULT_VO, statement.rse or "", row.rse_id)
        touched = {fate.trace.statement.product for _, fate in signed}
        snapshots = self._snapshots([product for product in products if product.key in touched])
        labels = self.rses.labels({row.rse_id for row, _ in finished.values()} | guards.unsaved)
        self.seam("recomputed")
        with self.outbox.transaction() as connection:
            write_snapshots(connection, snapshots)
            self.names.save(connection, names)
            # Whoever holds them: what was signed is in the store, and the rest was decided together with it.
            gone = self.outbox.remove(connection, [(row.id, event) for event, (row, _) in finished.items()])
            ended = [(row, outcome(fate)) for event, (row, fate) in finished.items() if event in gone]
            count_outcomes(connection, ended)
            forget_removals(connection, [row for row, _ in ended])
            dids = {row.event_id: fate.trace.statement.did for row, fate in signed}
            for kind in (Kind.CORRUPT, Kind.LOST):
                bad = [(labels[row.rse_id], dids[row.event_id]) for row, word in ended if word == kind]
                self._note(connection, kind, bad)
            self._save(connection, guards, {row.rse_id for row, word in ended if word in _GUARDED}, labels)
            self.seam("finishing")
        guards.unsaved.clear()
        self.seam("finished")
        for row, word in ended:
            metrics.row_ended(labels[row.rse_id], word)
        return Counter(word for _, word in ended)

    def _snapshots(self, products: Sequence[Product]) -> list[Snapshot]:
        if not products:
            return []
        by_key: dict[ProductKey, Product] = {product.key: product for product in products}
        histories = self.store.product(by_key.keys(), may_join(self.trust()))
        lines = self.store.proven(by_key.keys())
        self.names.learn(histories, lines)
        return [
            snapshot((p.scope, key.name, p.generation), histories[key], self.names.of(key.vo), lines.get(key, ()))
            for key, p in by_key.items()
        ]

    def _postpone(self, products: Sequence[Product], guards: Guards) -> int:
        """Give back what did not end; returns how many rows."""
        waits: dict[str, dict[str, Any]] = {}
        rows: list[Row] = []
        stops: list[tuple[Row, str]] = []
        for replica in (replica for product in products for replica in product.replicas):
            for row, fate, until in _left(replica, self.context.clock()):
                waits[row.event_id] = waiting_columns(row, fate, until)
                rows.append(row)
                if isinstance(fate, Waiting) and fate.error:
                    LOG.warning("waiting until=%s attempts=%d %s", f"{until:%FT%TZ}", row.attempts + 1, fate.error)
                if isinstance(fate, Waiting) and fate.stopped:
                    stops.append((row, fate.stopped))

        labels = self.rses.labels({row.rse_id for row, _ in stops} | guards.unsaved)

        def also(connection: Connection) -> None:
            count_outcomes(connection, stops)
            stuck = [(labels[row.rse_id], f"{row.scope}:{row.name}") for row, _ in stops]
            self._note(connection, Kind.OUTBOX_STUCK, stuck)
            self._save(connection, guards, (), labels)

        if waits:
            self.outbox.postpone(waits, rows, also)
            guards.unsaved.clear()
        return len(waits)

    def _save(
        self, connection: Connection, guards: Guards, rse_ids: Collection[str], labels: Mapping[str, str]
    ) -> None:
        """Write the guards of *rse_ids*, and of RSEs that are signed for no more: that is an alarm."""
        guards.save(connection, guards.unsaved.union(rse_ids), self.context.clock())
        for rse in sorted(labels[rse_id] for rse_id in guards.unsaved):
            self.alarms.note(connection, Kind.SIGNING_STOPPED, rse, {"lost_in_a_row": guards.limit})

    def _note(self, connection: Connection, kind: Kind, found: Sequence[tuple[str, str | None]]) -> None:
        """Count DIDs, each with its RSE: one alarm for each RSE."""
        for rse in sorted({rse for rse, _ in found}):
            dids = [did for of_rse, did in found if of_rse == rse]
            self.alarms.note(connection, kind, rse, {"dids": dids}, len(dids))


def _overtaken(connection: Connection, products: Sequence[Product]) -> list[str]:
    """The rows of products whose producer has spoken since they were looked up."""
    unheard = {(p.scope, p.key.name, p.generation): p for p in products if not p.before.set_by_producer}
    late = declared_since(connection, unheard.keys())
    return [row.event_id for key in late for row in unheard[key].rows]


def _signed(product: Product) -> Iterator[tuple[Replica, Row, Signed]]:
    for replica in product.replicas:
        for row in replica.rows:
            fate = replica.fates[row.event_id]
            if isinstance(fate, Signed):
                yield replica, row, fate


def not_taken(row: Row, answer: Registration, now: datetime) -> Waiting:
    """A conflict is beyond mending by time; what is refused today may be trusted tomorrow."""
    error = f"the store answers {answer.outcome}: {answer.reason}"
    if answer.outcome is Outcome.CONFLICT:
        return Waiting(STOPPED, error, row.missing_since, stopped="conflict")
    return Waiting(backoff(row, now), error, row.missing_since)


def _left(replica: Replica, now: datetime) -> list[tuple[Row, Fate, datetime]]:
    """The rows that stay, each with its fate and when it is due again: what gave way waits for what it gave way to."""
    free = replica.finished()
    left = [(row, replica.fates[row.event_id]) for row in replica.rows if row.event_id not in free]
    first = min((fate.until for _, fate in left if isinstance(fate, Waiting)), default=now)
    return [(row, fate, fate.until if isinstance(fate, Waiting) else first) for row, fate in left]


def waiting_columns(row: Row, fate: Fate, until: datetime) -> dict[str, Any]:
    """The columns of a row that stays."""
    columns = {
        "not_before": until,
        "attempts": row.attempts,
        "last_error": row.last_error,
        "missing_since": row.missing_since,
    }
    if isinstance(fate, Waiting) and not fate.unchanged:
        columns |= {"attempts": row.attempts + 1, "last_error": fate.error}
        columns["missing_since"] = fate.missing_since or row.missing_since
    assert not isinstance(fate, Settled) or fate.reason == "superseded"
    return columns
