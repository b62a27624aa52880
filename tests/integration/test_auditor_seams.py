"""The auditor is killed between any two of its steps, and the next one brings the round to its end; two share one.

An auditor runs in a child forked from this warm process and kills itself (SIGKILL) at a seam (`forking`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
from auditor_kit import AuditKit, flip, names_of
from forking import forked, killed_at, was_killed
from recorder_kit import on_sqlite
from rucio_trace_policy.tables import tables
from sqlalchemy import select

from rucio_trace.trace import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

SEAMS = (
    "claiming",
    "claimed",
    "writing",
    "written",
    "keeping",
    "kept",
    "registered",
    "shown",
    "forgetting",
    "delivered",
)
# Three claims, and two batches of what is good in them.
SMALL = {"bulk": 2, "batch_lines": 3}


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[AuditKit]:
    kit = AuditKit(rucio)
    yield kit
    kit.close()


def proven_at(kit: AuditKit) -> dict[str, datetime]:
    replicas = tables(kit.rucio.backend).replicas.c
    with kit.rucio.engine.connect() as connection:
        return {row.name: row.proven_at for row in connection.execute(select(replicas.name, replicas.proven_at))}


def test_killed_at_any_seam_nothing_is_lost_and_nothing_doubled(kit: AuditKit) -> None:
    for number, seam in enumerate(SEAMS, 1):
        rse = kit.rucio.add_posix_rse(f"RSE{number}")
        first, bad, *others = kit.filled(rse, 5, prefix=seam)
        good, before = [first, *others], proven_at(kit)
        flip(kit.rucio.pfn_path(rse, bad))
        kit.start(rse.name, every=86_400)

        assert killed_at(kit, partial(kit.audit, **SMALL), seam), seam
        kit.make_work_due()
        kit.audit(**SMALL)

        assert Counter(names_of(kit.lines(rse.name))) == Counter(good), seam
        assert [batch.trace.statement.batch.count for batch in kit.batches(rse.name)] == [3, 1], seam
        assert kit.outcomes["VERIFY"] == 2 * number, seam
        assert [(row.name, row.action) for row in kit.outbox] == [(bad, "audit")], seam
        round_ = kit.rounds[-1]
        assert (round_.rse_id, round_.ended_at is not None) == (rse.id, True), seam
        assert (round_.replicas, round_.good, round_.bad, round_.unread, round_.bytes_read) == (5, 4, 1, 0, 5000), seam
        assert (kit.work_left, kit.count("audit_batches")) == ([], 0), seam
        _check_shown(kit, rse, good, before)
        kit.run()
        assert kit.events(bad) == [("CREATE", rse.name), ("CORRUPT", rse.name)], seam
        assert (kit.product(bad).status, kit.outbox) == ("TAMPERED", []), seam


def _check_shown(kit: AuditKit, rse: Rse, good: list[str], before: dict[str, datetime]) -> None:
    """The last proof of each is the batch it is in, of all others it is where it was."""
    after = proven_at(kit)
    latest = max(parse_time(batch.trace.statement.time) for batch in kit.batches(rse.name))
    assert {name for name in after if after[name] != before[name]} == set(good)
    for name in good:
        assert before[name] < after[name] <= latest
        assert (kit.product(name).status, kit.product(name).verified_at) == ("GENUINE", after[name])


@on_sqlite
def test_these_are_all_the_seams(kit: AuditKit) -> None:
    passed: set[str] = set()
    kit.filled(kit.rucio.add_posix_rse("HERE"), 2)
    kit.start()
    kit.audit(passed.add)
    assert passed == set(SEAMS)


# ------------------------------------------------------------------------------------------ side by side


@pytest.fixture
def shared(rucio_postgresql: EmbeddedRucio) -> Iterator[AuditKit]:
    kit = AuditKit(rucio_postgresql)
    yield kit
    kit.close()


def _holds(kit: AuditKit) -> bool:
    """Whether this process has claimed anything."""
    return any(f":{os.getpid()}:" in (row.claimed_by or "") for row in kit.work_left)


def test_two_auditors_share_a_round_and_read_nothing_twice(shared: AuditKit) -> None:
    kit = shared
    here = kit.rucio.add_posix_rse("HERE")
    names = kit.filled(here, 40, 100)
    kit.start(every=86_400)
    kit.auditor().worker().step()  # the round has begun
    gate = multiprocessing.get_context("fork").Barrier(2)

    def audit(journal: Path) -> None:
        opened: list[str] = []

        def note(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" and str(arguments[0]).startswith(str(here.folder)):
                opened.append(str(arguments[0]).rpartition("/")[2])

        def at_seam(name: str) -> None:
            if name == "claimed" and not opened and _holds(kit):
                gate.wait(300)  # until the other one has a claim, too

        sys.addaudithook(note)  # sees every file that this process opens
        while not opened:  # what the other is just claiming may be locked, and all that is left with it
            kit.audit(at_seam, bulk=5)
        journal.write_text(json.dumps(opened))

    journals = [kit.folder / "one", kit.folder / "two"]
    children = [forked(kit, partial(audit, journal)) for journal in journals]
    assert [was_killed(child) for child in children] == [False, False]

    opened = [json.loads(journal.read_text()) for journal in journals]
    assert min(map(len, opened)) >= 5
    assert sorted(opened[0] + opened[1]) == names
    assert sorted(names_of(kit.lines())) == names
    [round_] = kit.rounds
    assert (round_.good, round_.bad, round_.unread, round_.ended_at is not None) == (40, 0, 0, True)
