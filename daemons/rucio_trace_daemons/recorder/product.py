"""The rows of one product: proven, composed and signed, one after the other in the order of ids.

Writes nothing: what became of each row stands in the product's `Replica`s afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from rucio_trace.errors import TraceabilityError
from rucio_trace.trace import Event
from rucio_trace_daemons.recorder.decide import Decision, Prove, Reason, Send, Settle, SignDelete, Wait, decide
from rucio_trace_daemons.recorder.outbox import LONGEST_WAIT, STOPPED
from rucio_trace_daemons.recorder.rows import Fate, Replica, Row, Settled, Signed, Waiting
from rucio_trace_daemons.recorder.testimony import Testimony
from rucio_trace_daemons.storage_errors import LeaseLost, Stopping

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.recorder.before import Before
    from rucio_trace_daemons.recorder.compose import Who
    from rucio_trace_daemons.recorder.context import Context
    from rucio_trace_daemons.recorder.history import History
    from rucio_trace_daemons.recorder.missing import Guards
    from rucio_trace_daemons.recorder.resolve import Known, Transfer
    from rucio_trace_daemons.rses import Rse

__all__ = ["Product", "backoff", "settle_product"]

# A change dated later than this ahead of now was stamped by a clock that ran ahead; verifiers would refuse its trace.
FUTURE = timedelta(minutes=5)
FIRST_WAIT, LONGEST_BACKOFF = timedelta(seconds=30), timedelta(hours=1)


@dataclass(slots=True)
class Product:
    """One product of a batch with everything that was looked up for it."""

    key: ProductKey
    scope: str  # as Rucio keeps it
    generation: datetime
    history: History
    before: Before
    known: Sequence[Known]  # its replicas in Rucio now
    transfers: Sequence[Transfer]
    pending: Sequence[Row]  # all its rows, those on other recorders' RSEs too
    removals: Mapping[str, Who] = field(default_factory=dict)  # who let go of a replica, by event id
    overtaken: Collection[str] = ()  # event ids of queued rows that no longer hold
    replicas: list[Replica] = field(default_factory=list)
    adopted: bool = False  # older than the hooks

    @property
    def rows(self) -> list[Row]:
        return [row for replica in self.replicas for row in replica.rows]


def settle_product(product: Product, context: Context, rses: Mapping[str, Rse], guards: Guards) -> None:
    """Find the fate of every row of *product*.

    Raises:
        Stopping, LeaseLost: nothing was decided.
    """
    now = context.clock()
    todo: list[tuple[Row, Replica, Decision]] = []
    for replica in product.replicas:
        for row, decision in zip(replica.rows, _decisions(replica, product, context, rses, now), strict=True):
            todo.append((row, replica, decision))
    testimony = Testimony(product, context, rses, guards)
    for row, replica, decision in sorted(todo, key=lambda entry: entry[0].id):
        replica.fates[row.event_id] = _fate(row, replica, decision, testimony, context)
    for replica in product.replicas:
        _supersede_bad_arrival(replica)


def _decisions(
    replica: Replica, product: Product, context: Context, rses: Mapping[str, Rse], now: datetime
) -> Sequence[Decision]:
    standing = [row for row in replica.rows if row.event_id not in product.overtaken]
    decided = decide(
        [row.change for row in standing],
        rses[replica.rse_id].method,
        traced=product.history.traced(replica.rse_id),
        now=now,
        grace=context.options.grace,
    )
    of_row = {row.event_id: decision for row, decision in zip(standing, decided, strict=True)}
    decisions = [of_row.get(row.event_id, Settle(Reason.SUPERSEDED)) for row in replica.rows]
    if any(_is_due(row, now) for row in replica.rows):
        return decisions
    return [
        Wait(row.not_before or now) if isinstance(decision, Prove | SignDelete) else decision
        for row, decision in zip(replica.rows, decisions, strict=True)
    ]


def _is_due(row: Row, now: datetime) -> bool:
    not_before = row.not_before
    return not_before is None or not_before <= now or now + LONGEST_WAIT < not_before < STOPPED


def _fate(row: Row, replica: Replica, decision: Decision, testimony: Testimony, context: Context) -> Fate:
    match decision:
        case Settle(reason):
            return Settled(reason)
        case Wait(until):
            return Waiting(_bounded(until, context.clock()), unchanged=True)
        case Send():
            return testimony.repeat(row)
    now = context.clock()
    if row.at > now + FUTURE:
        return Waiting(
            _bounded(row.at, now), f"dated {row.at - now} ahead of the database's clock, which must have run ahead"
        )
    try:
        if isinstance(decision, SignDelete):
            return testimony.deletion(row, unobserved=decision.unobserved)
        return testimony.proof(row, replica, decision.question)
    except (Stopping, LeaseLost):
        raise
    except TraceabilityError as error:
        return Waiting(backoff(row, now), str(error), row.missing_since)


def _bounded(until: datetime, now: datetime) -> datetime:
    """A wait longer than `LONGEST_WAIT` counts as over, and would be tried again at once and without end."""
    return until if until >= STOPPED else min(until, now + LONGEST_BACKOFF)


def backoff(row: Row, now: datetime) -> datetime:
    """When a row that failed is tried again: later each time, up to an hour."""
    return now + min(FIRST_WAIT * 2 ** min(row.attempts, 16), LONGEST_BACKOFF)


def _supersede_bad_arrival(replica: Replica) -> None:
    """Where one look answered both an arrival and a doubt, and the answer is bad, the doubt's trace says it alone."""
    bad = [
        row.event_id
        for row in replica.rows
        if isinstance(fate := replica.fates[row.event_id], Signed)
        and fate.fresh
        and fate.trace.statement.event in (Event.CORRUPT, Event.LOST)
    ]
    for event_id in bad[:-1]:
        replica.fates[event_id] = Settled(Reason.SUPERSEDED)
