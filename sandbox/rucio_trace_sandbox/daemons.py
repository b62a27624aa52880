"""Rucio's own daemons, one round at a time, in this process.

As commands they wait ten seconds to see who else is there; here nobody is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fts import FtsStandIn

__all__ = ["clean", "evaluate", "finish", "move", "poll", "reap", "recover", "submit"]

# The finisher leaves alone what changed within the last second.
_FINISHER_SECONDS = 1.1


def submit() -> None:
    """Hand the transfers that rules asked for to the transfer tool."""
    from rucio.daemons.conveyor.submitter import submitter

    submitter(once=True, rses=[], partition_wait_time=0)


def poll() -> None:
    """Ask the transfer tool what became of its jobs."""
    from rucio.daemons.conveyor.poller import poller

    poller(once=True, older_than=0, partition_wait_time=0)


def finish() -> None:
    """Draw the consequences of ended transfers: replica AVAILABLE, or another try, or the rule STUCK."""
    from rucio.daemons.conveyor.finisher import finisher

    finisher(once=True, partition_wait_time=0)


def move(fts: FtsStandIn) -> None:
    """Bring every transfer that rules asked for to its end."""
    submit()
    fts.wait()
    poll()
    time.sleep(_FINISHER_SECONDS)
    finish()


def evaluate() -> None:
    """Have the judge apply rules to what was attached since."""
    from rucio.daemons.judge.evaluator import re_evaluator

    re_evaluator(once=True, sleep_time=0, did_limit=1000)


def clean() -> None:
    """Have the judge remove rules whose time is over."""
    from rucio.daemons.judge.cleaner import rule_cleaner

    rule_cleaner(once=True)


def reap(rse: str) -> None:
    """Delete what is due on *rse*, however much room there is."""
    from rucio.daemons.reaper import reaper

    options: dict[str, Any] = {"rses": [], "include_rses": rse, "exclude_rses": None, "greedy": True}
    for _ in range(2):  # the first round finds out how full the RSE is
        reaper.reaper(once=True, delay_seconds=0, **options)


def recover() -> None:
    """Have the necromancer ask for new copies of replicas declared bad, or give the file up."""
    from rucio.daemons.badreplicas import necromancer
    from rucio.daemons.common import HeartbeatHandler

    necromancer.REGION.invalidate()
    with HeartbeatHandler("necromancer", renewal_interval=60) as heartbeat:
        necromancer.run_once(heartbeat_handler=heartbeat, bulk=1_000)
