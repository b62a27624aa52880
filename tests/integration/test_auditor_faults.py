"""What an auditor meets that is no fault of a file: credentials refused, a store that is away; and whom it tells."""

from __future__ import annotations

import os
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from auditor_kit import AuditKit, flip, names_of
from prometheus_client import REGISTRY
from rucio.core.heartbeat import live
from rucio_trace_daemons import storage
from rucio_trace_daemons.auditor import campaigns, service
from rucio_trace_daemons.auditor.sharing import shares_of
from rucio_trace_daemons.monitoring import served
from rucio_trace_daemons.rses import Rses, Share
from rucio_trace_daemons.running import heartbeat_name
from rucio_trace_daemons.storage import Replica
from rucio_trace_policy.tables import tables
from rucio_trace_sandbox.storage import ssh_protocol
from sqlalchemy import select
from test_alarms import told

from rucio_trace.config import Metrics
from rucio_trace.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.sftp import Sshd


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[AuditKit]:
    kit = AuditKit(rucio_sqlite)
    yield kit
    kit.close()


def test_credentials_refused_mid_audit_pause_the_rse_and_condemn_nothing(
    kit: AuditKit, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{sshd.programs}{os.pathsep}{os.environ['PATH']}")
    folder = sshd.data / kit.rucio.folder.name
    folder.mkdir()
    rse = kit.rucio.add_rse("SSH", ssh_protocol(sshd.port, folder, sshd.user, "sftp"), folder=folder)
    names = kit.filled(rse, 4)
    kit.start(every=86_400)
    key = sshd.folder / "user.pub"  # whose login the server accepts
    hidden = key.with_name("hidden")

    def at_seam(name: str) -> None:
        if name == "claimed" and any(row.outcome for row in kit.work_left) and key.exists():
            key.rename(hidden)

    auditor = kit.auditor(bulk=2, bad_in_a_row=1)
    try:
        kit.work(auditor, at_seam)
        assert Counter(row.outcome for row in kit.work_left) == {"good": 2, None: 2}
    finally:
        hidden.rename(key)
    assert (kit.outbox, kit.breakers(), told(kit.rucio)) == ([], {}, [])
    assert [row.attempts for row in kit.work_left if row.outcome is None] == [0, 0]
    kit.make_work_due()
    kit.work(auditor)
    assert Counter(row.outcome for row in kit.work_left) == {"good": 2, None: 2}  # it leaves the RSE alone
    kit.audit()
    assert names_of(kit.lines()) == names
    [round_] = kit.rounds
    assert (round_.good, round_.bad, round_.unread, round_.ended_at is not None) == (4, 0, 0, True)


def test_a_store_that_is_away_gets_its_batch_later_and_once(kit: AuditKit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    names = kit.filled(here, 3)
    kit.start(every=86_400)
    store = kit.folder / "store.db"
    hidden = store.with_name("hidden")
    auditor = kit.auditor()

    def at_seam(name: str) -> None:
        if name == "kept":
            store.rename(hidden)

    with pytest.raises(StorageError):
        kit.work(auditor, at_seam)
    kit.work(auditor)  # the batch waits, and nothing else is due
    assert (kit.ended, kit.count("audit_batches")) == (0, 1)
    store.unlink(missing_ok=True)
    hidden.rename(store)
    assert kit.batches() == []
    batches = tables(kit.rucio.backend).audit_batches.c
    with kit.rucio.engine.connect() as connection:
        id_, error = connection.execute(select(batches.id, batches.last_error)).one()
    assert "store" in error
    kit.make_work_due()
    kit.work(auditor)
    assert [batch.id for batch in kit.batches()] == [id_]
    assert names_of(kit.lines()) == names
    assert (kit.ended, kit.count("audit_batches"), kit.outcomes["VERIFY"]) == (1, 0, 1)


def test_a_batch_signed_with_a_certificate_that_counts_no_more_is_signed_anew(kit: AuditKit) -> None:
    names = kit.filled(kit.rucio.add_posix_rse("HERE"), 3)
    kit.start(every=86_400)
    auditor = kit.auditor()

    def at_seam(name: str) -> None:
        if name == "kept":
            kit.authority.revoke(kit.member, datetime.now(UTC) - timedelta(minutes=1))
            kit.authority.members.clear()
            kit.authority.admit("SITE-A")
            raise KeyboardInterrupt  # it is killed

    with pytest.raises(KeyboardInterrupt):
        kit.work(auditor, at_seam)
    [kept] = _kept(kit)
    auditor.follow()
    kit.work(auditor)
    assert (_kept(kit), kit.ended) == ([], 0)
    kit.work(auditor)
    assert names_of(kit.lines()) == names
    assert kept not in [batch.id for batch in kit.batches()]
    assert (kit.ended, kit.count("audit_batches"), kit.outcomes["VERIFY"]) == (1, 0, 1)


def _kept(kit: AuditKit) -> list[str]:
    with kit.rucio.engine.connect() as connection:
        return list(connection.scalars(select(tables(kit.rucio.backend).audit_batches.c.id)))


def test_waiting_for_a_stream_of_ones_own_is_no_failure(kit: AuditKit, monkeypatch: pytest.MonkeyPatch) -> None:
    here = kit.rucio.add_posix_rse("HERE", trace_streams=1)
    names = kit.filled(here, 3)
    kit.start(every=86_400)
    auditor = kit.auditor()
    worker = auditor.worker()
    worker.step()  # the round has begun
    monkeypatch.setattr(storage, "TURN_SECONDS", 0.0)
    rse = auditor.rses.get([here.id])[here.id]
    with auditor.storage.turn(Replica(rse, "test", "another", 1), lambda _: None):
        worker.step()
    assert {(row.claimed_by, row.attempts, row.outcome) for row in kit.work_left} == {(None, 0, None)}
    assert auditor.readable(here.id, datetime.now(UTC))
    kit.work(auditor)
    assert names_of(kit.lines()) == names


def test_one_outage_is_one_pause_and_ends_with_an_answer(kit: AuditKit, monkeypatch: pytest.MonkeyPatch) -> None:
    here, now = kit.rucio.add_posix_rse("HERE"), [1_000.0]
    auditor = kit.auditor()
    rse = auditor.rses.get([here.id])[here.id]
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def pause(**how: bool) -> float:
        return auditor.pause(rse, **how).total_seconds()

    assert pause() == 60
    now[0] += 20
    assert pause() == 40  # another thread, the same outage
    assert not auditor.readable(here.id, datetime.now(UTC))
    now[0] += 50
    assert pause() == 120
    now[0] += 130
    assert pause(grows=False) == 60
    now[0] += 70
    auditor.answered(rse)
    assert pause() == 60


def test_auditors_of_other_rses_take_no_share(kit: AuditKit) -> None:
    a, b = (kit.rucio.add_posix_rse(name) for name in ("A", "B"))
    of = service.EXECUTABLE
    for number, rses in enumerate(("B", "*", "NOWHERE")):
        live(heartbeat_name(of, rses), f"!{number}", 1, threading.current_thread())
    shares = shares_of(kit.rucio.engine, of)
    assert (shares.of(a.id), shares.of(b.id)) == (Share(1, 2), Share(2, 3))


def test_a_batch_the_store_refuses_holds_up_no_other_rse(kit: AuditKit) -> None:
    for name in ("HERE", "THERE"):
        kit.filled(kit.rucio.add_posix_rse(name), 2, prefix=name)
    federation = kit.authority.federation
    as_it_was = federation.read_text()
    federation.write_text(as_it_was.replace('rses = ["*"]', 'rses = ["THERE"]'))
    assert federation.read_text() != as_it_was
    kit.start(every=86_400)
    kit.audit()
    assert names_of(kit.lines()) == ["THERE000", "THERE001"]
    assert (kit.ended, kit.count("audit_batches")) == (1, 1)
    assert [alarm["kind"] for alarm in told(kit.rucio)] == ["STORE_REFUSES"]
    federation.write_text(as_it_was)
    kit.make_work_due()
    kit.audit()
    assert names_of(kit.lines("HERE")) == ["HERE000", "HERE001"]
    assert (kit.ended, kit.count("audit_batches")) == (2, 0)


def test_a_breaker_and_last_copies_are_told_once_though_met_again_and_again(kit: AuditKit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    names = kit.filled(here, 8)
    for name in names[:3]:
        flip(kit.rucio.pfn_path(here, name))
    kit.start(every=86_400)
    for _ in range(3):
        kit.audit(bad_in_a_row=3, declare=True)
        kit.run()
    with served(Metrics(), "an-auditor", kit.rucio.engine, Rses(kit.rucio.engine)):
        assert REGISTRY.get_sample_value("traceability_breaker_open", {"rse": "HERE"}) == 1
    campaigns.reset(kit.rucio.engine, "HERE", "a disk was replaced")
    with served(Metrics(), "an-auditor", kit.rucio.engine, Rses(kit.rucio.engine)):
        assert REGISTRY.get_sample_value("traceability_breaker_open", {"rse": "HERE"}) == 0
    for name in names[3:6]:
        flip(kit.rucio.pfn_path(here, name))
    for _ in range(2):
        kit.audit(bad_in_a_row=3, declare=True)
        kit.run()

    alarms = told(kit.rucio)
    assert Counter(alarm["kind"] for alarm in alarms) == {"BREAKER_OPEN": 1, "CORRUPT": 1, "LAST_COPY": 1}
    [breaker] = [alarm for alarm in alarms if alarm["kind"] == "BREAKER_OPEN"]
    assert (breaker["subject"], breaker["detail"]) == ("HERE", {"reason": "3 bad replicas in a row"})
    [last] = [alarm for alarm in alarms if alarm["kind"] == "LAST_COPY"]
    assert names_of(last["detail"]["dids"]) == names[:3]
    table = tables(kit.rucio.backend).alarms.c
    with kit.rucio.engine.connect() as connection:
        counts = dict(connection.execute(select(table.kind, table.count)).tuples().all())
    assert counts["BREAKER_OPEN"] == 2
    assert kit.bad_replicas() == {}
