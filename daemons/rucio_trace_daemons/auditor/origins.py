"""What a claim's replicas are held against: the origins as they were signed, and where Rucio has the copies now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio.common.types import InternalScope
from rucio_trace_policy.columns import Moment
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, select

from rucio_trace_daemons.auditor.work import GONE, Unread
from rucio_trace_daemons.recorder.history import measurable
from rucio_trace_daemons.recorder.resolve import alive, product_key, resolve
from rucio_trace_daemons.recorder.sets import among
from rucio_trace_daemons.storage import Replica

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from rucio_trace.store import TraceStore
    from rucio_trace.trace import Statement
    from rucio_trace_daemons.auditor.work import Task
    from rucio_trace_daemons.recorder.resolve import Known
    from rucio_trace_daemons.rses import Rse

__all__ = ["Held", "look_up"]


@dataclass(frozen=True, slots=True)
class Held:
    """A replica, and the statement its bytes are held against."""

    replica: Replica
    origin: Statement


def look_up(
    engine: Engine, store: TraceStore, instance: str, rse: Rse, tasks: Sequence[Task]
) -> dict[Task, Held | Unread]:
    """A few queries, however many *tasks*. Those that are not what was to be read any more say so."""
    names = {(task.scope, task.name) for task in tasks}
    known = resolve(engine, names, ()).replicas
    ids = _origin_ids(engine, tasks)
    with engine.connect() as connection:
        living = alive(connection, names)
    stored = store.by_ids(set(ids.values()))
    found: dict[Task, Held | Unread] = {}
    for task in tasks:
        there = next((k for k in known.get((task.scope, task.name), ()) if k.rse_id == rse.id), None)
        origin = stored.get(ids.get(task, ""))
        if there is None or there.state != "A" or living.get((task.scope, task.name)) != task.generation:
            found[task] = GONE
        elif origin is None:
            found[task] = Unread("the store has no origin of it", again=False)
        else:
            found[task] = _held(store, instance, rse, task, there, origin.trace.statement)
    return found


def _held(store: TraceStore, instance: str, rse: Rse, task: Task, known: Known, origin: Statement) -> Held | Unread:
    scope = InternalScope(task.scope, from_external=False)
    replica = Replica(rse, str(scope.external), task.name, task.bytes, known.path)
    if origin.hash_algorithm is not None:
        return Held(replica, origin)
    # A CDSE trace does not sign which digest it gives: some later trace of the product does.
    key = product_key(instance, task.scope, task.name, task.generation)
    measured = measurable(origin, [s.trace for s in store.product([key])[key]])
    return Held(replica, measured) if measured else Unread("its origin names no digest to take", again=False)


def _origin_ids(engine: Engine, tasks: Sequence[Task]) -> dict[Task, str]:
    p = tables(engine.dialect.name).products.c
    keys = {(task.scope, task.name, task.generation): task for task in tasks}
    of_tasks = among(engine.dialect.name, (p.scope, p.name, p.generation), (Text(), Text(), Moment()), keys.keys())
    with engine.connect() as connection:
        rows = connection.execute(select(p.scope, p.name, p.generation, p.trace_id).where(of_tasks)).all()
    return {keys[row.scope, row.name, row.generation]: row.trace_id for row in rows if row.trace_id}
