"""The auditor: every replica is read again in its turn, and what is good is signed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from auditor_kit import AuditKit, flip, forge, names_of, remove, truncate
from recorder_kit import on_sqlite
from rucio_trace_daemons.auditor import campaigns

from rucio_trace.trace import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[AuditKit]:
    kit = AuditKit(rucio)
    yield kit
    kit.close()


@pytest.fixture
def here(kit: AuditKit) -> Rse:
    return kit.rucio.add_posix_rse("HERE")


def test_a_round_signs_one_statement_about_all_that_is_good(kit: AuditKit, here: Rse) -> None:
    names = kit.filled(here, 5)
    before = {name: kit.product(name).verified_at for name in names}
    kit.start()
    kit.audit()
    [batch] = kit.batches()
    statement = batch.trace.statement
    assert (statement.event, statement.rse, statement.method, statement.batch.count) == ("VERIFY", "HERE", "read", 5)
    assert names_of(kit.lines()) == names
    round_ = kit.rounds[0]
    assert (round_.replicas, round_.good, round_.bad, round_.unread) == (5, 5, 0, 0)
    assert round_.bytes == round_.bytes_read == 5000
    for name in names:
        product = kit.product(name)
        assert (product.status, product.proven) == ("GENUINE", 1)
        assert before[name] < product.verified_at <= parse_time(statement.time)
    assert (kit.count("audit_batches"), kit.outbox) == (0, [])
    assert kit.outcomes["VERIFY"] == 1


def test_three_rounds_with_a_budget_of_a_third_read_all_once_the_oldest_first(kit: AuditKit, here: Rse) -> None:
    names = kit.filled(here, 9)
    kit.start(bytes=3000)
    for number in (1, 2, 3):
        kit.audit()
        assert names_of(kit.lines()) == names[: 3 * number]
    kit.audit()  # the next sweep, from the beginning
    assert names_of(kit.lines()) == names + names[:3]
    assert {row.replicas for row in kit.rounds} == {3}


@on_sqlite
def test_a_sample_bounds_a_round_by_number(kit: AuditKit, here: Rse) -> None:
    names = kit.filled(here, 5)
    kit.start(sample=0.4)
    for _ in range(3):
        kit.audit()
    assert names_of(kit.lines()) == names


@on_sqlite
def test_a_file_larger_than_the_budget_is_read_all_the_same(kit: AuditKit, here: Rse) -> None:
    kit.filled(here, 2)
    kit.start(bytes=10)
    kit.audit()
    kit.audit()
    assert names_of(kit.lines()) == ["file000", "file001"]


@on_sqlite
def test_the_next_round_waits_for_its_time(kit: AuditKit, here: Rse) -> None:
    kit.filled(here, 2)
    kit.start(every=86_400)
    kit.audit()
    assert kit.auditor().worker().step() == 0
    assert kit.ended == 1


@on_sqlite
@pytest.mark.parametrize("change", [flip, truncate, forge, remove])
def test_what_is_not_the_origin_leaves_a_doubt_and_no_line(
    kit: AuditKit, here: Rse, change: Callable[[Path], None]
) -> None:
    names = kit.filled(here, 3)
    change(kit.rucio.pfn_path(here, names[1]))
    kit.start()
    kit.audit()
    assert names_of(kit.lines()) == [names[0], names[2]]
    [doubt] = kit.outbox
    assert (doubt.name, doubt.old_state, doubt.new_state, doubt.action) == (names[1], "A", "A", "audit")
    assert kit.rounds[0].bad == 1
    kit.run()
    if change is remove:
        assert "looked for again" in kit.outbox[0].last_error
        return
    last = kit.traces(names[1])[-1].trace.statement
    assert (last.event, last.rse, last.cause.action) == ("CORRUPT", "HERE", "audit")
    assert last.found.hashes["BLAKE3"] != last.hash
    assert kit.replicas(names[1]) == {"HERE": "corrupt"}
    assert kit.outbox == []


def test_what_rucio_removed_meanwhile_is_not_missed(kit: AuditKit, here: Rse) -> None:
    names = kit.filled(here, 3)
    kit.start()
    worker = kit.auditor().worker()
    assert worker.step()  # the round has begun
    kit.delete(here, names[1])
    while worker.step() and not kit.ended:
        pass
    assert names_of(kit.lines()) == [names[0], names[2]]
    assert (kit.rounds[0].good, kit.rounds[0].bad, kit.rounds[0].unread) == (2, 0, 1)


@on_sqlite
def test_storage_that_goes_away_mid_audit_is_an_outage_and_nothing_else(kit: AuditKit, here: Rse) -> None:
    names = kit.filled(here, 6)
    kit.start()
    away = here.folder.with_name("away")

    def at_seam(name: str) -> None:
        if name == "claimed" and len([w for w in kit.work_left if w.outcome]) == 2:
            here.folder.rename(away)

    kit.audit(at_seam, bulk=2)
    assert {row.outcome for row in kit.work_left} == {"good", None}
    assert (kit.outbox, kit.breakers()) == ([], {})
    away.rename(here.folder)
    kit.make_work_due()
    kit.audit()
    assert Counter(names_of(kit.lines())) == Counter(names)
    assert (kit.rounds[0].good, kit.rounds[0].unread) == (6, 0)


@on_sqlite
def test_a_storage_with_nothing_mounted_opens_the_breaker_and_loses_nothing(kit: AuditKit, here: Rse) -> None:
    kit.filled(here, 12)
    here.folder.rename(here.folder.with_name("away"))
    here.folder.mkdir()  # the mount point
    kit.start()
    kit.audit(bad_in_a_row=5, declare=True)
    assert "bad replicas in a row" in kit.breakers()[here.id]
    kit.run(lost_after=kit.options.lost_after * 0)
    assert [event for event, _ in kit.events() if event in ("LOST", "CORRUPT")] == []
    assert kit.bad_replicas() == {}
    assert kit.auditor().worker().step() == 0  # nothing more is read there


@on_sqlite
def test_too_large_a_share_opens_the_breaker_and_counts_anew_after_a_reset(kit: AuditKit, here: Rse) -> None:
    names = kit.filled(here, 30)
    for number in (18, 19, 20, 25):
        flip(kit.rucio.pfn_path(here, names[number]))
    kit.start(every=86_400)
    kit.audit(bad_share=0.1)
    assert kit.breakers() == {here.id: "3 of 21 replicas read are bad"}
    campaigns.reset(kit.rucio.engine, "HERE", "a disk was replaced")
    kit.audit(bad_share=0.1)
    assert kit.breakers() == {}
    assert (kit.rounds[0].good, kit.rounds[0].bad) == (26, 4)


@on_sqlite
def test_what_cannot_be_read_holds_up_no_other_in_a_round_that_is_small(kit: AuditKit, here: Rse) -> None:
    names, there = kit.filled(here, 4), kit.rucio.add_posix_rse("THERE")
    for name in names:
        kit.copy(here, there, name)
    kit.run()
    for name in names[:2]:  # no file, and yet there: a reading fails
        path = kit.rucio.pfn_path(here, name)
        path.unlink()
        path.mkdir()
    kit.start("HERE", sample=0.5)
    _end_rounds(kit, 1)
    for name in names[:2]:  # what is known of these products is computed anew
        kit.delete(there, name)
    kit.run()
    _end_rounds(kit, 3)
    assert [(r.good, r.unread, r.ends_sweep) for r in kit.rounds[:3]] == [(0, 2, False), (2, 0, True), (0, 2, False)]
    assert names_of(kit.lines()) == names[2:]


def _end_rounds(kit: AuditKit, count: int) -> None:
    """So many rounds, though what fails is tried again only after a while."""
    for _ in range(20):
        if kit.ended == count:
            return
        kit.audit()
        kit.make_work_due()
    raise AssertionError(f"{kit.ended} rounds have ended, not {count}")


@on_sqlite
def test_quiet_hours_of_an_rse_are_kept(kit: AuditKit, here: Rse) -> None:
    kit.filled(here, 2)
    kit.rucio.set_attribute(here, "trace_quiet_hours", "00:00-24:00")
    kit.start()
    kit.audit()
    assert kit.lines() == []
    kit.rucio.set_attribute(here, "trace_quiet_hours", "")
    kit.audit()
    assert len(kit.lines()) == 2


def test_a_stopped_campaign_signs_what_it_has_read(kit: AuditKit, here: Rse) -> None:
    from rucio_trace_policy.tables import tables
    from sqlalchemy import func, update

    names = kit.filled(here, 4)
    kit.start()
    worker = kit.auditor(bulk=2).worker()
    worker.step()
    worker.step()
    ours = tables(kit.rucio.backend)
    with kit.rucio.engine.begin() as connection:
        connection.execute(update(ours.audits).values(stopped_at=func.current_timestamp()))
        connection.execute(ours.audit_work.delete().where(ours.audit_work.c.outcome.is_(None)))
    kit.audit()
    assert names_of(kit.lines()) == names[:2]
    assert (kit.ended, kit.work_left) == (1, [])


@on_sqlite
def test_what_cannot_be_read_holds_up_no_sweep(kit: AuditKit, here: Rse) -> None:
    names = kit.filled(here, 3)
    path = kit.rucio.pfn_path(here, names[0])
    path.rename(path.with_name("aside"))
    path.mkdir()  # neither a file nor missing
    kit.start()
    auditor = kit.auditor()
    while kit.ended < 2:
        kit.make_work_due()
        kit.work(auditor)
    assert [(round_.good, round_.unread) for round_ in kit.rounds[:2]] == [(2, 1), (2, 1)]


def test_a_round_that_is_over_signs_nothing_of_the_next(kit: AuditKit, here: Rse) -> None:
    kit.filled(here, 2)
    kit.start()
    worker, late = kit.auditor().worker(), kit.auditor().worker()
    worker.step()
    [before] = kit.under_way()
    while worker.step() and not kit.ended:
        pass
    while not kit.under_way():
        worker.step()
    worker._read_some(kit.under_way())
    assert {row.outcome for row in kit.work_left} == {"good"}
    assert late._sign(before) == 0
    assert {row.batch for row in kit.work_left} == {None}


def test_what_rucio_removes_while_it_is_read_is_not_bad(
    kit: AuditKit, here: Rse, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = kit.filled(here, 2)
    kit.start(every=86_400)
    worker = kit.auditor().worker()
    worker.step()  # the round has begun
    watch, last = worker.watch, kit.rucio.pfn_path(here, names[1])

    def remove_meanwhile(count: int) -> None:
        watch(count)
        if last.exists():  # the replicas of this claim are looked up by now
            kit.set_state(here, names[1], "B")  # the reaper has marked it
            last.unlink()

    monkeypatch.setattr(worker, "watch", remove_meanwhile)
    while worker.step() and not kit.ended:
        pass
    assert (kit.rounds[0].good, kit.rounds[0].bad, kit.rounds[0].unread) == (1, 0, 1)
    assert [row.action for row in kit.outbox if row.action == "audit"] == []


@on_sqlite
def test_one_rse_that_may_not_be_read_stops_no_other(kit: AuditKit, here: Rse) -> None:
    there = kit.rucio.add_posix_rse("THERE")
    kit.filled(here, 2)
    kit.rucio.upload(there, "there", b"there")
    kit.run()
    kit.start(every=86_400)
    kit.auditor().worker().step()  # the rounds have begun
    kit.rucio.set_attribute(here, "trace_quiet_hours", "at night")
    kit.audit()
    assert names_of(kit.lines()) == ["there"]
    kit.rucio.set_attribute(here, "trace_quiet_hours", "")
    kit.rucio.set_attribute(here, "trace_method", "none")
    kit.audit()
    assert len(kit.lines()) == 1
    kit.rucio.set_attribute(here, "trace_method", "read")
    kit.audit()
    assert len(kit.lines()) == 3


def test_an_auditor_beats_while_it_reads(kit: AuditKit, here: Rse) -> None:
    from datetime import timedelta

    from rucio.db.sqla.models import Heartbeat
    from sqlalchemy import select

    kit.filled(here, 1)
    kit.start(every=86_400)
    kit.audit(lease=timedelta(microseconds=1))
    with kit.rucio.session() as session:
        assert session.execute(select(Heartbeat.readable)).scalars().all() == ["traceability-auditor"]
