"""What may go wrong around the recorder; nothing false is signed, nothing is lost, nothing is signed twice."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from producing import Declaring
from recorder_kit import Kit
from rucio_trace_daemons.keys import CertificateUnfit
from rucio_trace_daemons.recorder.outbox import STOPPED
from rucio_trace_policy.tables import tables
from rucio_trace_sandbox.storage import file_protocol
from rucio_trace_sandbox.xrootd import XRootD
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError
from test_recorder_seams import SEAMS, Ledger, tell_everything

from rucio_trace.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

HOUR = timedelta(hours=1, seconds=1)


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio_sqlite)
    yield kit
    kit.close()


@pytest.fixture
def both(rucio: EmbeddedRucio) -> Iterator[Declaring]:
    """The same on SQLite, then on PostgreSQL."""
    kit = Declaring(rucio)
    yield kit
    kit.close()


@pytest.fixture
def here(request: pytest.FixtureRequest) -> Rse:
    kit: Kit = request.getfixturevalue("both" if "both" in request.fixturenames else "kit")
    return kit.rucio.add_posix_rse("HERE")


def fetched_rse(kit: Kit) -> Rse:
    folder = kit.rucio.folder / "rses" / "FETCHED"
    folder.mkdir(parents=True)
    protocol = file_protocol(folder) | {"scheme": "scp", "impl": "fetching_protocol.Fetching"}
    return kit.rucio.add_rse("FETCHED", protocol, folder=folder)


def errors(kit: Kit) -> list[str]:
    return [row.last_error for row in kit.outbox if row.last_error]


# ---------------------------------------------------------------------------------------- missing files


def gone(kit: Kit, rse: Rse, name: str = "file") -> None:
    """A file that was recorded, then vanished, then was declared bad."""
    stored = kit.rucio.upload(rse, name, name.encode())
    kit.run()
    stored.path.unlink()
    kit.set_state(rse, name, "D")


def test_a_file_missing_twice_an_hour_apart_is_lost(both: Kit, here: Rse) -> None:
    both.rucio.upload(here, "witness", b"content")
    gone(both, here)
    both.run()
    assert both.events("file") == [("CREATE", "HERE")]
    both.age(timedelta(minutes=59))
    both.make_due()
    both.run()
    assert both.events("file") == [("CREATE", "HERE")]
    both.age(HOUR)
    both.run()
    assert both.events("file") == [("CREATE", "HERE"), ("LOST", "HERE")]
    product = both.product("file")
    assert product is not None
    assert product.status == "TAMPERED"
    assert both.replicas("file") == {"HERE": "lost"}


def test_a_file_that_turns_up_again_is_not_lost(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "witness", b"content")
    gone(kit, here)
    kit.run()
    kit.rucio.pfn_path(here, "file").write_bytes(b"file")
    kit.age(HOUR)
    kit.run()
    assert kit.events("file") == [("CREATE", "HERE"), ("VERIFY", "HERE")]


def test_behind_an_unmounted_prefix_nothing_is_lost(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "witness", b"content")
    gone(kit, here)
    assert here.folder is not None
    unmounted = here.folder.rename(here.folder.with_name("unmounted"))
    for _ in range(3):
        kit.run()
        kit.age(HOUR)
        kit.make_due()
    assert kit.events("file") == [("CREATE", "HERE")]
    assert all(row.missing_since is None for row in kit.outbox)
    assert "mounted" in errors(kit)[0]
    unmounted.rename(here.folder)
    kit.run()
    assert kit.outbox[0].missing_since is not None  # only now the first "not found" counts


def test_in_an_empty_mount_point_nothing_is_lost(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "witness", b"content")
    gone(kit, here)
    assert here.folder is not None
    here.folder.rename(here.folder.with_name("unmounted"))
    here.folder.mkdir()
    for _ in range(3):
        kit.run()
        kit.age(HOUR)
        kit.make_due()
    assert kit.events("file") == [("CREATE", "HERE")]
    assert "other replicas" in errors(kit)[0]


def test_without_another_replica_to_compare_nothing_is_lost(kit: Kit, here: Rse) -> None:
    gone(kit, here)
    for _ in range(3):
        kit.run()
        kit.age(HOUR)
        kit.make_due()
    assert kit.events() == [("CREATE", "HERE")]
    assert "no other replica" in errors(kit)[0]


def test_too_many_losses_in_a_row_stop_the_rse_until_somebody_looks(kit: Kit, here: Rse) -> None:
    from rucio_trace_daemons.recorder import mending

    kit.rucio.upload(here, "witness", b"content")
    for number in range(4):
        gone(kit, here, f"file{number}")
    kit.run(lost_in_a_row=2)
    kit.age(HOUR)
    kit.run(lost_in_a_row=2)
    assert [event for event, _ in kit.events()].count("LOST") == 2
    assert "in a row" in errors(kit)[0]
    kit.rucio.upload(here, "fresh", b"content")
    kit.run(lost_in_a_row=2)
    assert kit.events("fresh") == []
    [line] = mending.summarise(kit.rucio.engine).lines
    assert line.signing_stopped
    assert mending.retry(kit.rucio.engine, mending.Choice(rse="HERE")) == 3
    kit.run(lost_in_a_row=2)
    assert kit.events("fresh") == [("CREATE", "HERE")]
    assert [event for event, _ in kit.events()].count("LOST") == 4


def test_a_good_file_between_begins_the_count_anew(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "witness", b"content")
    for number in range(3):
        gone(kit, here, f"file{number}")
        kit.run(lost_in_a_row=1)
        kit.age(HOUR)
        kit.run(lost_in_a_row=1)
        kit.rucio.upload(here, f"good{number}", b"content")
    kit.run(lost_in_a_row=1)
    assert [event for event, _ in kit.events()].count("LOST") == 3


def test_what_rucio_calls_available_without_bytes_is_never_a_copy(kit: Kit, here: Rse) -> None:
    """Rucio's `mock` transfer tool does this."""
    there = kit.rucio.add_posix_rse("THERE")
    for name in ("file", "witness"):
        kit.rucio.upload(here, name, b"content")
    kit.copy(here, there, "witness")
    kit.copy(here, there, "file", transfertool="mock").unlink()
    kit.run()
    kit.age(HOUR)
    kit.run()
    assert kit.events("file") == [("CREATE", "HERE"), ("LOST", "THERE")]
    product = kit.product("file")
    assert product is not None
    assert product.status == "DEGRADED"


# -------------------------------------------------------------------------------------------- storage


def test_while_a_server_is_down_rows_wait_and_then_are_signed(
    kit: Kit, sandbox_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rucio_trace_daemons.readers import xrootd

    monkeypatch.setattr(xrootd, "REQUEST_SECONDS", 2)
    with XRootD.start(sandbox_folder / "xrd-faults", "faults") as server:
        rse = kit.rucio.add_xrootd_rse("REMOTE", server)
        kit.rucio.upload(rse, "file", b"content")
    kit.run()
    [row] = kit.outbox
    assert row.attempts == 1
    assert row.missing_since is None
    assert row.not_before > datetime.now(UTC)
    assert kit.events() == []


def test_a_storage_that_contradicts_itself_is_not_believed(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    rse = fetched_rse(kit)
    kit.rucio.upload(rse, "file", b"content")
    answers = iter([b"CONTENT", b"KONTENT", b"content"])
    _answer(monkeypatch, lambda path: path.write_bytes(next(answers)))
    kit.run()
    assert kit.events() == []
    assert "read twice" in errors(kit)[0]
    kit.make_due()
    kit.run()
    assert kit.events() == [("CREATE", "FETCHED")]


def test_wrong_bytes_once_are_not_corruption(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    rse = fetched_rse(kit)
    kit.rucio.upload(rse, "file", b"content")
    answers = iter([b"CONTENT", b"content"])
    _answer(monkeypatch, lambda path: path.write_bytes(next(answers)))
    kit.run()
    assert kit.events() == []
    assert len(kit.outbox) == 1


def test_a_disk_full_while_staging_keeps_the_row(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    rse = fetched_rse(kit)
    kit.rucio.upload(rse, "file", b"content")
    import fetching_protocol

    monkeypatch.setattr(fetching_protocol.Fetching, "disk_is_full", True)
    kit.run()
    assert kit.events() == []
    assert len(errors(kit)) == 1
    monkeypatch.undo()
    kit.make_due()
    kit.run(staging_bytes=6)
    assert "staging_bytes = 6" in errors(kit)[0]
    kit.make_due()
    kit.run()
    assert kit.events() == [("CREATE", "FETCHED")]


def test_a_replica_deleted_while_it_is_read_is_copied_then_deleted(both: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    rse = fetched_rse(both)
    both.rucio.upload(rse, "file", b"content")

    def answer(path: Path) -> None:
        both.delete(rse, "file")
        path.write_bytes(b"content")

    _answer(monkeypatch, answer)
    both.run()
    assert both.events() == [("CREATE", "FETCHED"), ("DELETE", "FETCHED")]
    assert both.traces()[-1].trace.statement.unobserved is None
    assert both.product("file") is None


def _answer(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Path], object]) -> None:
    """From here on, fetching a file does what *answer* does."""
    from pathlib import Path

    import fetching_protocol

    def get(_self: Any, _pfn: str, dest: str, transfer_timeout: Any = None) -> None:
        answer(Path(dest))

    monkeypatch.setattr(fetching_protocol.Fetching, "get", get)


def test_during_a_slow_read_no_transaction_of_ours_is_open(
    rucio_postgresql: EmbeddedRucio, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = Kit(rucio_postgresql, postgres.url(postgres.create()))
    kit.rucio.upload(fetched_rse(kit), "file", b"content")
    open_transactions: list[Any] = []

    def answer(path: Path) -> None:
        path.write_bytes(b"content")
        with postgres.connect() as connection:
            query = "SELECT datname, state, query FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> %s"
            busy = connection.execute(query, [connection.info.backend_pid]).fetchall()
            open_transactions.extend(row for row in busy if row[0] is not None)

    _answer(monkeypatch, answer)
    kit.run()
    assert kit.events() == [("CREATE", "FETCHED")]
    assert open_transactions == []
    kit.close()


# ------------------------------------------------------------------------------------------- databases


@pytest.mark.parametrize("seam", ["claimed", "looked-up", "proven", "kept", "registered"])
def test_the_store_may_be_away_and_come_back(kit: Kit, here: Rse, seam: str) -> None:
    kit.rucio.upload(here, "file", b"content")
    ledger = Ledger(kit)
    ledger.note()
    store = kit.folder / "store.db"
    worker = kit.recorder().worker(lambda name: _hide(store) if name == seam else None)
    with pytest.raises(StorageError):
        worker.step()
    assert [row.claimed_by for row in kit.outbox] == [None] * 2  # given back at once
    store.with_name("hidden").rename(store)
    kit.run()
    ledger.check()
    assert kit.events() == [("CREATE", "HERE")]


def _hide(store: Path) -> None:
    if store.exists():
        store.rename(store.with_name("hidden"))


@pytest.mark.parametrize("seam", SEAMS)
def test_rucios_database_may_be_away_and_come_back(rucio_postgresql: EmbeddedRucio, postgres: Any, seam: str) -> None:
    kit = Declaring(rucio_postgresql)
    rses = [kit.rucio.add_posix_rse(name) for name in ("ONE", "TWO", "THREE")]
    tell_everything(kit, rses)
    ledger = Ledger(kit)
    ledger.note()
    from rucio.common.exception import DatabaseException

    database = kit.rucio.engine.url.database
    cut: list[str] = []

    def at_seam(name: str) -> None:
        if name == seam and not cut:
            cut.append(name)
            with postgres.connect() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s",
                    [database, connection.info.backend_pid],
                )

    worker = kit.recorder().worker(at_seam)
    for _ in range(10):  # as the daemon's loop does
        try:
            if not worker.step():
                break
        except (DBAPIError, DatabaseException):
            kit.make_due()
    assert cut == [seam]
    kit.delete(rses[2], "copied")
    ledger.note()
    kit.make_due()
    kit.run()
    ledger.check()
    kit.close()


# ------------------------------------------------------------------------------------- other recorders


@pytest.mark.parametrize("seam", SEAMS)
def test_a_recorder_whose_lease_ran_out_does_no_harm(both: Declaring, seam: str) -> None:
    """It stops at a seam; meanwhile its lease ends and another recorder does everything; then it goes on."""
    rses = [both.rucio.add_posix_rse(name) for name in ("ONE", "TWO", "THREE")]
    tell_everything(both, rses)
    ledger = Ledger(both)
    ledger.note()
    if seam in ("claiming", "keeping", "finishing", "postponing"):
        seam = {"claiming": "claimed", "keeping": "proven", "finishing": "recomputed", "postponing": "finished"}[seam]
    others: list[str] = []

    def at_seam(name: str) -> None:
        if name == seam and not others:
            others.append(name)
            both.make_due()
            both.run()

    worker = both.recorder().worker(at_seam)
    while worker.step():
        pass
    assert others == [seam]
    both.delete(rses[2], "copied")
    ledger.note()
    both.make_due()
    both.run()
    ledger.check()


def test_a_lease_lost_during_a_read_is_noticed(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    rse = fetched_rse(kit)
    kit.rucio.upload(rse, "file", b"content")
    other: list[Kit] = []

    def answer(path: Path) -> None:
        path.write_bytes(b"content")
        if not other:
            other.append(kit)
            kit.make_due()
            kit.run()

    _answer(monkeypatch, answer)
    kit.run(lease=timedelta(0))
    assert kit.events() == [("CREATE", "FETCHED")]
    assert kit.outbox == []
    assert kit.outcomes == {"expected": 1, "CREATE": 1}


def test_a_long_read_keeps_its_lease(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    recorder = kit.recorder(lease=timedelta(seconds=3))
    leases: list[Any] = []
    worker = recorder.worker(lambda name: leases.append(kit.outbox[0].claimed_until) if name == "looked-up" else None)
    original = worker.held.watch

    def watch() -> None:
        worker.held._renewed -= 2.0  # as if two seconds had passed
        original()
        leases.append(kit.outbox[0].claimed_until)

    worker.held.watch = watch  # type: ignore[method-assign]
    worker.step()
    assert leases == sorted(leases)
    assert leases[-1] > leases[0]
    assert kit.events() == [("CREATE", "HERE")]


@pytest.mark.parametrize("threads", [4])
def test_workers_side_by_side_share_the_work_without_a_clash(both: Kit, here: Rse, threads: int) -> None:
    there = both.rucio.add_posix_rse("THERE")
    for number in range(40):
        both.rucio.upload(here, f"file{number}", b"content")
        both.copy(here, there, f"file{number}")
    ledger = Ledger(both)
    ledger.note()
    recorder = both.recorder(bulk=5)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            worker = recorder.worker()
            while both.outbox:
                worker.step()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    ledger.check()
    assert both.outcomes == {"expected": 80, "CREATE": 40, "COPY": 40}


# ------------------------------------------------------------------------------------ keys, time, trust


def test_an_expired_certificate_stops_signing_and_a_new_one_resumes(kit: Kit, here: Rse) -> None:
    kit.authority.members.clear()
    kit.authority.admit("SITE-A", lifetime=timedelta(seconds=90))  # which began a minute ago
    recorder = kit.recorder()
    worker = recorder.worker()
    kit.rucio.upload(here, "first", b"content")
    worker.step()
    assert kit.events() == [("CREATE", "HERE")]
    kit.rucio.upload(here, "second", b"content")
    worker._context.clock.set(datetime.now(UTC) + timedelta(seconds=35))
    with pytest.raises(CertificateUnfit, match="renew"):
        worker.step()
    assert len(kit.outbox) == 2
    assert kit.outbox[0].attempts == 0
    kit.authority.members.clear()
    kit.authority.admit("SITE-A")
    assert recorder.keys.refresh()
    worker.step()
    assert kit.outbox == []
    assert len({s.trace.statement.signer for s in kit.traces()}) == 2


def test_a_key_that_does_not_fit_its_certificate_is_not_taken(kit: Kit) -> None:
    recorder = kit.recorder()
    key = kit.member.key.read_bytes()
    kit.member.key.write_bytes(kit.authority.admit("ANOTHER").key.read_bytes())
    assert not recorder.keys.refresh()
    assert recorder.keys.fault is not None
    now = datetime.now(UTC)
    recorder.keys.signer_at(now, now)
    kit.member.key.write_bytes(key)
    recorder.keys.refresh()
    assert recorder.keys.fault is None


def test_a_change_older_than_the_certificate_waits_and_says_so(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    outbox = tables("sqlite").outbox
    with kit.rucio.engine.begin() as connection:
        connection.execute(update(outbox).values(at=datetime.now(UTC) - timedelta(hours=1)))
    kit.run()
    assert kit.events() == []
    assert "notBefore" in errors(kit)[0]


def test_a_clock_set_back_holds_no_row_for_long(kit: Kit, here: Rse) -> None:
    """Leases and waits written by a clock that ran days ahead count as over."""
    kit.rucio.upload(here, "file", b"content")
    outbox = tables("sqlite").outbox
    ahead = datetime.now(UTC) + timedelta(days=3)
    with kit.rucio.engine.begin() as connection:
        connection.execute(update(outbox).values(not_before=ahead, claimed_until=ahead, claimed_by="somebody"))
    kit.run()
    assert kit.events() == [("CREATE", "HERE")]


def test_a_change_dated_in_the_future_waits_until_verifiers_would_accept_it(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    outbox = tables("sqlite").outbox
    ahead = datetime.now(UTC) + timedelta(hours=2)
    with kit.rucio.engine.begin() as connection:
        connection.execute(update(outbox).values(at=ahead))
    kit.run()
    assert kit.events() == []
    assert "ahead" in errors(kit)[0]


def test_a_trace_the_store_refuses_waits_and_can_be_signed_anew(kit: Kit, here: Rse) -> None:
    from rucio_trace_daemons.recorder import mending

    kit.rucio.upload(here, "file", b"content")
    federation = kit.authority.federation
    text_before = federation.read_text()
    federation.write_text(text_before.replace('rses = ["*"]', 'rses = ["ELSEWHERE"]'))
    kit.run()
    assert kit.events() == []
    assert "refused" in errors(kit)[0]
    [row] = kit.outbox
    assert row.message is not None
    federation.write_text(text_before)
    kit.authority.members.clear()
    kit.authority.admit("SITE-A")  # the old certificate is in the federation no more than the new one's URI allows
    mending.retry(kit.rucio.engine, mending.Choice(event_ids=[row.event_id]), discard_signature=True)
    kit.run()
    assert kit.events() == [("CREATE", "HERE")]


def test_another_message_for_a_known_event_stops_the_row_and_is_counted(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    event_id = kit.outbox[-1].event_id
    kit.run()
    outbox = tables("sqlite").outbox
    kit.set_state(here, "file", "D")
    with kit.rucio.engine.begin() as connection:
        connection.execute(update(outbox).values(event_id=event_id))
    kit.run()
    [row] = kit.outbox
    assert row.not_before == STOPPED
    assert "conflict" in row.last_error
    assert kit.outcomes["conflict"] == 1
    kit.run()
    assert kit.outcomes["conflict"] == 1  # it is not tried again


# ---------------------------------------------------------------------------------------- what it needs


def test_the_recorder_refuses_to_begin_without_its_hooks(kit: Kit) -> None:
    from rucio_trace_daemons.recorder.main import PROGRAM
    from rucio_trace_policy.hooks import HooksUnfit

    with kit.rucio.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER traceability_replicas_update"))
    with pytest.raises(HooksUnfit):
        PROGRAM.run(kit.settings, once=True)
