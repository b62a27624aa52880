"""One backfill, from what there is to do to what has become of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rucio_trace_policy.tables import tables
from sqlalchemy import func, select

from rucio_trace_daemons.backfill.feed import Feed
from rucio_trace_daemons.gaps.find import Search
from rucio_trace_daemons.methods import Method
from rucio_trace_daemons.recorder.mending import backlog
from rucio_trace_daemons.rses import Rses, matching

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Engine

    from rucio_trace_daemons.backfill.work import Crew
    from rucio_trace_daemons.rses import Rse

__all__ = ["Plan", "Progress", "plan", "run"]

# Rows that are ready in the outbox, for each row that the workers claim at a time.
AHEAD = 10
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """What there is to do: *files* of *bytes* on `rses`; `skipped` are RSEs that leave no trace."""

    rses: Mapping[str, Rse]
    skipped: Collection[Rse]
    files: int
    bytes: int


@dataclass
class Progress:
    """How far it is. `outcomes`: how changes on these RSEs ended since it began, whoever ended them."""

    plan: Plan
    seconds: float = 0.0
    bytes: int = 0
    waiting: int = 0
    unspeakable: int = 0
    choked: bool = False
    ended: bool = False  # nothing is left but what waits
    interrupted: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def files(self) -> int:
        return self.outcomes.total()


def plan(engine: Engine, expression: str) -> Plan:
    """Raises ConfigurationError: *expression* names no RSE."""
    chosen = Rses(engine).get(matching(expression, f"--rses {expression}"))
    rses = {i: rse for i, rse in chosen.items() if rse.method not in (Method.EXCLUDED, Method.UNKNOWN)}
    files, size = Search(engine, rses).count()
    waiting = backlog(engine, rses)
    skipped = [rse for i, rse in chosen.items() if i not in rses]
    return Plan(rses, skipped, files + waiting.ready + waiting.waiting, size)


def run(engine: Engine, what: Plan, crew: Crew, bulk: int, show: Callable[[Progress], None]) -> Progress:
    """Feed *crew*, whose workers claim *bulk* rows together, until nothing is left, or until KeyboardInterrupt.

    *show* is called about twice a second. What could not be read waits in the outbox, as it does for every recorder.
    """
    feed = Feed(engine, Search(engine, what.rses), Rses(engine), AHEAD * bulk)
    before, began = _outcomes(engine, what.rses), time.monotonic()
    progress = Progress(what)
    try:
        crew.start()
        while True:
            crew.check()
            here = feed.fill()
            progress = replace(
                progress,
                seconds=time.monotonic() - began,
                bytes=crew.bytes,
                waiting=here.waiting,
                unspeakable=feed.unspeakable,
                choked=feed.choked(here),
                outcomes=_outcomes(engine, what.rses) - before,
            )
            show(progress)
            if not here.ready and (feed.ended or progress.choked):
                progress.ended = feed.ended
                break
            crew.stop.wait(LOOK_SECONDS)
    except KeyboardInterrupt:
        progress.interrupted = True
    finally:
        crew.end()
    progress.outcomes = _outcomes(engine, what.rses) - before
    return progress


def _outcomes(engine: Engine, rse_ids: Collection[str]) -> Counter[str]:
    """How many changes on these RSEs ever ended as what."""
    c = tables(engine.dialect.name).outcomes.c
    query = select(c.reason, func.sum(c.count)).where(c.rse_id.in_(list(rse_ids))).group_by(c.reason)
    with engine.connect() as connection:
        return Counter({reason: int(count) for reason, count in connection.execute(query)})
