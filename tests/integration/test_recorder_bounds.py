"""What keeps a recorder from harming itself or others: bounds on waits, on what one RSE can break, on what piles up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from recorder_kit import Kit
from rucio_trace_daemons.recorder import mending
from rucio_trace_daemons.recorder.missing import Guards, TooManyLost, check_lost
from rucio_trace_daemons.recorder.options import Options
from rucio_trace_daemons.rses import Rses
from rucio_trace_daemons.storage import Replica
from rucio_trace_daemons.storage_errors import Stopping
from rucio_trace_policy.tables import tables
from rucio_trace_sandbox.storage import file_protocol
from sqlalchemy import select, update

from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

HOUR = timedelta(hours=1, seconds=1)


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio_sqlite)
    yield kit
    kit.close()


@pytest.fixture
def both(rucio: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio)
    yield kit
    kit.close()


def fetched_rse(kit: Kit) -> Rse:
    folder = kit.rucio.folder / "rses" / "FETCHED"
    folder.mkdir(parents=True)
    protocol = file_protocol(folder) | {"scheme": "scp", "impl": "fetching_protocol.Fetching"}
    return kit.rucio.add_rse("FETCHED", protocol, folder=folder)


def gone(kit: Kit, rse: Rse, name: str) -> None:
    stored = kit.rucio.upload(rse, name, name.encode())
    kit.run()
    stored.path.unlink()
    kit.set_state(rse, name, "D")


def test_one_loss_too_many_stops_the_rse_also_when_nothing_else_ends_in_that_batch(both: Kit) -> None:
    here = both.rucio.add_posix_rse("HERE")
    both.rucio.upload(here, "witness", b"content")
    for number in range(2):
        gone(both, here, f"file{number}")
    both.run(lost_in_a_row=1)
    both.age(HOUR)
    both.run(lost_in_a_row=1, bulk=1)
    assert [event for event, _ in both.events()].count("LOST") == 1
    [line] = mending.summarise(both.rucio.engine).lines
    assert line.signing_stopped
    both.rucio.upload(here, "fresh", b"content")
    both.run(lost_in_a_row=1)
    assert both.events("fresh") == []


def test_a_stop_is_not_undone_by_a_worker_that_did_not_know_of_it(both: Kit) -> None:
    here, now = both.rucio.add_posix_rse("HERE"), datetime.now(UTC)
    [rse] = Rses(both.rucio.engine).get([here.id]).values()
    first, second, third = (Guards.load(both.rucio.engine, [here.id], 1) for _ in range(3))
    first.count_lost(rse)
    with pytest.raises(TooManyLost):
        first.count_lost(rse)
    second.count_lost(rse)
    third.count_found(rse.id)
    with both.rucio.engine.begin() as connection:
        for guards in (first, second, third):
            guards.save(connection, [rse.id], now)
    assert here.id in Guards.load(both.rucio.engine, [here.id], 1).stopped


def test_a_change_dated_days_ahead_is_not_tried_again_at_once(kit: Kit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    kit.rucio.upload(here, "file", b"content")
    outbox = tables("sqlite").outbox
    with kit.rucio.engine.begin() as connection:
        connection.execute(update(outbox).values(at=datetime.now(UTC) + timedelta(days=3)))
    worker = kit.recorder().worker()
    assert worker.step() == 2
    assert worker.step() == 0


def test_a_deletion_marked_days_ahead_is_not_looked_at_without_end(kit: Kit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    kit.rucio.upload(here, "file", b"content")
    kit.run()
    kit.set_state(here, "file", "B")
    outbox = tables("sqlite").outbox
    with kit.rucio.engine.begin() as connection:
        connection.execute(update(outbox).values(at=datetime.now(UTC) + timedelta(days=3)))
    worker = kit.recorder().worker()
    assert worker.step() == 1
    assert worker.step() == 0


def test_days_between_two_looks_for_a_missing_file_are_waited_for(kit: Kit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    gone(kit, here, "file")
    worker = kit.recorder(lost_after=timedelta(days=3)).worker()
    assert worker.step() == 1
    assert worker.step() == 0


def test_a_lease_that_would_count_as_a_clocks_error_is_refused(kit: Kit) -> None:
    recorder = replace(kit.settings.recorder, lease_seconds=200_000)
    with pytest.raises(ConfigurationError, match="lease_seconds"):
        Options.of(replace(kit.settings, recorder=recorder))


def test_a_recorder_knows_the_rses_that_another_began_to_sign_for(both: Kit) -> None:
    here, there = both.rucio.add_posix_rse("HERE"), both.rucio.add_posix_rse("THERE")
    late = both.recorder(rses="THERE").worker()  # long before the other one signs its first trace
    both.rucio.upload(here, "file", b"content")
    both.run(rses="HERE")
    both.copy(here, there, "file")
    while late.step():
        pass
    created, copied = both.traces("file")
    assert copied.trace.statement.source is not None
    assert copied.trace.statement.source.trace == created.id
    table = tables(both.rucio.backend).replicas
    with both.rucio.engine.connect() as connection:
        assert set(connection.scalars(select(table.c.rse_id))) == {here.id, there.id}


def test_skip_takes_any_number_of_rows(both: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "SKIP_ROWS", 2)
    here = both.rucio.add_posix_rse("HERE")
    for number in range(3):
        both.rucio.upload(here, f"file{number}", b"content")
    waiting = len(both.outbox)
    assert mending.skip(both.rucio.engine, mending.Choice(rse="HERE"), "a test") == waiting
    assert both.outbox == []
    assert both.outcomes == {"skipped": waiting}


def test_a_protocol_that_breaks_keeps_its_own_rows_waiting_and_no_others(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fetching_protocol import Fetching  # late: it asks Rucio for its configuration

    def broken(self: Any, pfn: str, dest: str, transfer_timeout: Any = None) -> None:
        raise KeyError("what the library of a protocol may raise")

    odd, here = fetched_rse(kit), kit.rucio.add_posix_rse("HERE")
    kit.rucio.upload(odd, "odd", b"content")
    kit.rucio.upload(here, "file", b"content")
    monkeypatch.setattr(Fetching, "get", broken)
    kit.run()
    assert kit.events() == [("CREATE", "HERE")]
    assert [row.last_error for row in kit.outbox if row.last_error] == [
        "test:odd on FETCHED: its protocol failed: KeyError"
    ]


def test_where_no_folder_can_be_looked_into_another_file_must_be_found_both_times(kit: Kit) -> None:
    rse = fetched_rse(kit)
    witness = kit.rucio.upload(rse, "witness", b"content").path
    gone(kit, rse, "file")
    hidden = witness.rename(witness.with_name("hidden"))
    kit.run()
    [row] = kit.outbox
    assert row.missing_since is None
    assert "counts for nothing" in row.last_error
    hidden.rename(witness)
    for _ in range(2):
        kit.make_due()
        kit.run()
        assert kit.events("file") == [("CREATE", "FETCHED")]
    assert kit.outbox[0].missing_since is not None
    kit.age(HOUR)
    kit.run()
    assert kit.events("file") == [("CREATE", "FETCHED"), ("LOST", "FETCHED")]


def test_a_stop_is_heard_while_witnesses_are_looked_for(kit: Kit) -> None:
    rse = kit.rucio.add_posix_rse("HERE")
    for number in range(6):
        kit.rucio.upload(rse, f"file-{number}", b"content").path.unlink()
    [facts] = Rses(kit.rucio.engine).get({rse.id}).values()
    asked: list[int] = []

    def watch(count: int) -> None:
        asked.append(count)
        if len(asked) == 3:
            raise Stopping

    now = datetime.now(UTC)
    with pytest.raises(Stopping):
        check_lost(
            kit.recorder().storage,
            kit.rucio.engine,
            Replica(facts, "test", "file-0"),
            now - 2 * HOUR,
            now,
            kit.options,
            watch,
        )
    assert asked == [0, 0, 0]
