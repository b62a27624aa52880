"""From a flipped bit to a healed replica: auditor, recorder, and Rucio's necromancer, conveyor, reaper and minos."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import rucio_daemons
from auditor_kit import AuditKit, flip
from click.testing import CliRunner
from recorder_kit import on_sqlite
from rucio_trace_sandbox import daemons
from test_alarms import told

from rucio_trace.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.fts import FtsStandIn
    from rucio_trace_sandbox.storage import Rse

CONTENT = bytes(range(256)) * 100


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[AuditKit]:
    kit = AuditKit(rucio)
    yield kit
    kit.close()


@pytest.fixture
def two(kit: AuditKit, fts: FtsStandIn) -> tuple[Rse, Rse]:
    """Two RSEs between which Rucio copies."""
    a, b = (kit.rucio.add_posix_rse(name, fts=fts.url) for name in ("A", "B"))
    kit.rucio.connect(a, b)
    return a, b


def replicate(kit: AuditKit, fts: FtsStandIn, source: Rse, *names: str) -> None:
    """Files on *source*, and a copy of each on B by a rule; all of it signed."""
    for name in names:
        stored = kit.rucio.upload(source, name, name.encode() + CONTENT)
        kit.rucio.add_rule(stored.did, "B")
    daemons.move(fts)
    kit.run()


def test_a_flipped_bit_becomes_a_fresh_copy(kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn) -> None:
    a, b = two
    replicate(kit, fts, a, "file", "other")
    assert kit.product("file").status == "GENUINE"
    flip(kit.rucio.pfn_path(b, "file"))
    kit.start(every=86_400)
    kit.audit(declare=True)
    kit.run()
    corrupt = kit.traces("file")[-1]
    assert (str(corrupt.trace.statement.event), corrupt.trace.statement.rse) == ("CORRUPT", "B")
    assert kit.product("file").status == "DEGRADED"

    kit.audit(declare=True)
    assert kit.rucio.replica_states("test:file") == {"A": "A", "B": "D"}
    assert kit.bad_replicas() == {"file": 1}
    kit.run()
    assert kit.events("file")[-1] == ("CORRUPT", "B")  # Rucio's row tells nothing new
    assert kit.outcomes["expected"] >= 1

    daemons.recover()
    daemons.move(fts)
    kit.run()
    copy = kit.traces("file")[-1].trace.statement
    assert (copy.event, copy.rse, copy.replaces) == ("COPY", "B", corrupt.id)
    assert copy.source.rse == "A"
    assert kit.product("file").status == "GENUINE"
    assert kit.rucio.pfn_path(b, "file").read_bytes() == b"file" + CONTENT
    assert Counter(event for event, _ in kit.events("file")) == {"CREATE": 1, "COPY": 2, "CORRUPT": 1}
    kit.audit(declare=True)
    assert (kit.bad_replicas(), kit.outbox) == ({"file": 1}, [])


@on_sqlite
def test_a_dry_run_declares_nothing_and_says_what_it_would(
    kit: AuditKit,
    two: tuple[Rse, Rse],
    fts: FtsStandIn,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Building Rucio's database has Alembic switch off the loggers that are there.
    monkeypatch.setattr(logging.getLogger("traceability-auditor"), "disabled", False)
    a, b = two
    replicate(kit, fts, a, "file")
    flip(kit.rucio.pfn_path(b, "file"))
    kit.start(every=86_400)
    kit.audit()
    kit.run()
    auditor = kit.auditor()
    for _ in range(3):
        kit.work(auditor)
    assert kit.rucio.replica_states("test:file") == {"A": "A", "B": "A"}
    assert [r.message for r in caplog.records if r.message.startswith("would-declare")] == [
        "would-declare rse=B replicas=1: auditor.declare is off"
    ]


def test_the_last_good_copy_is_never_declared(kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn) -> None:
    a, b = two
    replicate(kit, fts, a, "file", "saved")
    kit.rucio.upload(a, "alone", CONTENT)
    kit.run()
    for rse, name in ((a, "file"), (b, "file"), (a, "alone"), (b, "saved")):
        flip(kit.rucio.pfn_path(rse, name))
    kit.start(every=86_400)
    kit.audit(declare=True)
    kit.run()
    kit.audit(declare=True)
    assert kit.bad_replicas() == {"saved": 1}
    assert {name: kit.product(name).status for name in ("file", "alone", "saved")} == {
        "file": "TAMPERED",
        "alone": "TAMPERED",
        "saved": "DEGRADED",
    }


@on_sqlite
def test_a_bad_copy_beside_one_that_nobody_read_is_told_and_not_declared(kit: AuditKit) -> None:
    here, tape = kit.rucio.add_posix_rse("HERE"), kit.rucio.add_posix_rse("TAPE", rse_type="TAPE")
    kit.rucio.upload(here, "file", CONTENT)
    kit.copy(here, tape, "file")
    kit.run()
    flip(kit.rucio.pfn_path(here, "file"))
    kit.start(every=86_400)
    kit.audit(declare=True)
    kit.run()
    kit.audit(declare=True)
    assert ("CORRUPT", "HERE") in kit.events("file")
    assert kit.product("file").status == "PENDING"
    assert kit.bad_replicas() == {}
    assert [alarm["detail"] for alarm in told(kit.rucio) if alarm["kind"] == "LAST_COPY"] == [{"dids": ["test:file"]}]


@on_sqlite
def test_in_a_dry_run_what_waits_opens_no_breaker(kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn) -> None:
    a, b = two
    replicate(kit, fts, a, "first", "good", "third")
    for name in ("first", "third"):
        flip(kit.rucio.pfn_path(b, name))
    kit.start(every=86_400)
    limits = {"bad_in_a_row": 2, "bad_share": 1.0}
    kit.audit(**limits)
    kit.run()
    kit.audit(**limits)
    assert kit.breakers() == {}
    kit.audit(**limits, declare=True)
    assert kit.breakers() == {b.id: "2 bad replicas wait to be declared"}
    assert kit.bad_replicas() == {}


@on_sqlite
def test_a_good_copy_that_rucio_cannot_reach_saves_nothing(
    kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn
) -> None:
    a, b = two
    replicate(kit, fts, a, "file")
    flip(kit.rucio.pfn_path(b, "file"))
    kit.start("B", every=86_400)
    kit.audit(declare=True)
    kit.run()
    kit.set_state(a, "file", "T")  # what minos does to a whole RSE
    kit.run()
    kit.audit(declare=True)
    assert kit.bad_replicas() == {}
    kit.set_state(a, "file", "A")
    kit.run()
    kit.audit(declare=True)
    assert kit.bad_replicas() == {"file": 1}


def test_many_bad_replicas_at_once_are_not_declared_until_somebody_looked(
    kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn
) -> None:
    a, b = two
    names = [f"file{number}" for number in range(6)]
    replicate(kit, fts, a, *names)
    for name in names[:3]:
        flip(kit.rucio.pfn_path(b, name))
    kit.start("B", every=86_400)
    kit.audit(declare=True, bad_in_a_row=3)
    kit.run()
    assert kit.breakers() == {b.id: "3 bad replicas in a row"}
    kit.audit(declare=True, bad_in_a_row=3)
    assert kit.bad_replicas() == {}
    assert Counter(event for event, _ in kit.events() if event == "CORRUPT") == {"CORRUPT": 3}


@on_sqlite
def test_a_bad_copy_that_no_rule_wants_is_deleted_by_the_reaper(
    kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn
) -> None:
    a, b = two
    kit.rucio.upload(a, "file", CONTENT)
    kit.run()
    kit.copy(a, b, "file")
    kit.run()
    flip(kit.rucio.pfn_path(b, "file"))
    kit.start("B", every=86_400)
    kit.audit(declare=True)
    kit.run()
    kit.audit(declare=True)
    daemons.recover()
    rucio_daemons.end_tombstones(kit.rucio)
    daemons.reap("B")
    kit.run()
    assert kit.events("file")[-1] == ("DELETE", "B")
    assert kit.product("file").status == "GENUINE"


@on_sqlite
def test_what_minos_calls_unavailable_for_a_while_is_not_read(
    kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn
) -> None:
    a, b = two
    replicate(kit, fts, a, "file")
    kit.start("B", every=86_400)
    worker = kit.auditor().worker()
    worker.step()
    from rucio.core.replica import add_bad_pfns
    from rucio.db.sqla.constants import BadPFNStatus

    pfn = f"file://localhost:0{kit.rucio.pfn_path(b, 'file')}"
    with kit.rucio.session() as session:
        add_bad_pfns(
            [pfn],
            account=kit.rucio.root,
            state=BadPFNStatus.TEMPORARY_UNAVAILABLE,
            reason="a shutdown",
            expires_at=rucio_daemons.in_an_hour(),
            session=session,
        )
    rucio_daemons.minos()
    assert kit.rucio.replica_states("test:file")["B"] == "T"
    while worker.step() and not kit.ended:
        pass
    assert (kit.rounds[0].unread, kit.batches()) == (1, [])


def test_an_operator_declares_what_the_breaker_held_back_and_the_last_copy_by_name(
    kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    replicate(kit, fts, a, "one", "two", "three")
    for rse, name in ((b, "one"), (b, "two"), (a, "three"), (b, "three")):
        flip(kit.rucio.pfn_path(rse, name))
    kit.start(every=86_400)
    kit.audit()
    kit.run()

    def declare(*arguments: str, answer: str = "y\n") -> str:
        result = CliRunner().invoke(cli, ["audit", "declare", *arguments], input=answer)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output

    assert "good copy left" in declare("--rses", "B", answer="n\n")
    assert kit.bad_replicas() == {}
    assert "test:three has no good copy left" in declare("--rses", "B")
    assert kit.bad_replicas() == {"one": 1, "two": 1}
    assert "nothing to declare" in declare("test:three")
    declare("test:three", "--rses", "A", "--last-copy", "--yes")
    assert kit.bad_replicas() == {"one": 1, "two": 1, "three": 1}
    kit.run()
    assert kit.outbox == []


def test_what_changed_after_it_was_condemned_is_not_declared(
    kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn
) -> None:
    from rucio.db.sqla.constants import BadFilesStatus
    from rucio.db.sqla.models import BadReplica
    from rucio_trace_daemons.auditor.declare import condemned, declare

    a, b = two
    replicate(kit, fts, a, "file")
    flip(kit.rucio.pfn_path(b, "file"))
    kit.start("B", every=86_400)
    kit.audit()
    kit.run()
    found = list(condemned(kit.rucio.engine, None))
    assert [(one.name, one.saved) for one in found] == [("file", True)]
    kit.set_state(a, "file", "T")
    kit.run()
    assert declare(found, "root") == 0  # the good copy is out of reach
    kit.set_state(a, "file", "A")
    assert declare(found, "root") == 0  # something is pending about the good copy
    kit.run()
    again = [replace(one, generation=one.generation - timedelta(days=1)) for one in found]
    assert declare(again, "root") == 0  # of an older file of that name
    kit.audit(declare=True, account="nobody")  # no such account in Rucio
    assert kit.bad_replicas() == {}
    with kit.rucio.session() as session:  # an older declaration that nobody closed
        BadReplica(
            scope=kit.rucio.scope, name="file", rse_id=b.id, reason="", state=BadFilesStatus.BAD, account=kit.rucio.root
        ).save(session=session)
    assert declare(found, "root") == 1
    assert kit.rucio.replica_states("test:file") == {"A": "A", "B": "D"}
    assert (declare(found, "root"), kit.bad_replicas()) == (0, {"file": 1})
