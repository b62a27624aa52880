"""Alarms: one message for many reports, none lost and none told twice, on every kind of database."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from recorder_kit import Kit
from rucio_trace_daemons import alarms as module
from rucio_trace_daemons.alarms import Alarms, Kind
from rucio_trace_policy import hooks
from rucio_trace_policy.database import writing
from rucio_trace_policy.tables import tables
from sqlalchemy import select, update

from rucio_trace.config import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio

HOUR, DAY = timedelta(hours=1, seconds=1), timedelta(days=1, seconds=1)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def any_rucio(request: pytest.FixtureRequest) -> EmbeddedRucio:
    rucio = request.getfixturevalue(f"rucio_{request.param}")
    hooks.install(rucio.engine)
    return rucio


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio)
    yield kit
    kit.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    # Alembic, which has made this test's database, silences every logger it does not know.
    monkeypatch.setattr(logging.getLogger("traceability-alarms"), "disabled", False)
    return caplog


def told(rucio: EmbeddedRucio, event_type: str = "traceability-alarm") -> list[dict[str, Any]]:
    """The payloads of Rucio's messages, in no order, and they are gone."""
    from rucio.core.message import delete_messages, retrieve_messages

    with rucio.session() as session:
        found = retrieve_messages(bulk=1000, old_mode=False, event_type=event_type, session=session)
        delete_messages([{"id": message["id"], "payload": ""} for message in found], session=session)
    return [message["payload"] for message in found]


def age(rucio: EmbeddedRucio, by: timedelta) -> None:
    """Let time pass for all alarms."""
    table = tables(rucio.backend).alarms
    with rucio.engine.begin() as connection:
        for row in connection.execute(select(table)).all():
            moments = {name: getattr(row, name) for name in ("first_at", "last_at", "told_at")}
            past = {name: moment - by for name, moment in moments.items() if moment is not None}
            connection.execute(
                update(table).where(table.c.kind == row.kind, table.c.subject == row.subject).values(past)
            )


def test_a_first_report_is_told_at_once_and_later_ones_together(any_rucio: EmbeddedRucio) -> None:
    alarms = Alarms(any_rucio.engine, "test-rucio")
    alarms.report(Kind.CORRUPT, "HERE", {"dids": ["s:one"]})
    [first] = told(any_rucio)
    assert (first["kind"], first["subject"], first["rucio"]) == ("CORRUPT", "HERE", "test-rucio")
    assert (first["count"], first["new"], first["detail"]) == (1, 1, {"dids": ["s:one"]})
    for number in range(12):
        alarms.report(Kind.CORRUPT, "HERE", {"dids": [f"s:{number}"]})
    alarms.report(Kind.CORRUPT, "THERE", {"dids": ["s:one"]})
    assert [payload["subject"] for payload in told(any_rucio)] == ["THERE"]
    age(any_rucio, HOUR)
    assert alarms.tell() == 1
    [summary] = told(any_rucio)
    assert (summary["count"], summary["new"]) == (13, 12)
    assert summary["detail"] == {"dids": [f"s:{number}" for number in range(10)]}
    assert alarms.tell() == 0


def test_daemons_that_report_the_same_at_once_send_one_message(any_rucio: EmbeddedRucio) -> None:
    start = threading.Barrier(6)

    def report() -> None:
        start.wait()
        for number in range(5):
            Alarms(any_rucio.engine).report(Kind.LOST, "HERE", {"dids": [f"s:{number}"]})

    threads = [threading.Thread(target=report) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told(any_rucio)) == 1
    table = tables(any_rucio.backend).alarms
    with any_rucio.engine.connect() as connection:
        assert connection.execute(select(table.c.count)).scalars().all() == [30]


def test_an_alarm_is_over_after_a_quiet_day_and_the_next_is_a_first_one(any_rucio: EmbeddedRucio) -> None:
    alarms = Alarms(any_rucio.engine)
    for _ in range(2):
        alarms.report(Kind.LOST, "HERE", {})
    age(any_rucio, DAY)
    assert alarms.tell() == 1  # what is untold is told first
    assert alarms.tell() == 0
    alarms.report(Kind.LOST, "HERE", {})
    assert sorted((payload["count"], payload["new"]) for payload in told(any_rucio)) == [(1, 1), (1, 1), (2, 1)]


def test_what_was_counted_and_not_told_is_told_by_whoever_comes_next(rucio_sqlite: EmbeddedRucio) -> None:
    hooks.install(rucio_sqlite.engine)
    with writing(rucio_sqlite.engine) as connection:
        Alarms(rucio_sqlite.engine).note(connection, Kind.LOST, "HERE", {"dids": ["s:n"]})
    assert told(rucio_sqlite) == []
    assert Alarms(rucio_sqlite.engine).tell() == 1
    assert len(told(rucio_sqlite)) == 1


def test_an_alarm_that_rucio_has_no_service_for_is_logged_and_waits(
    rucio_sqlite: EmbeddedRucio, log: pytest.LogCaptureFixture
) -> None:
    hooks.install(rucio_sqlite.engine)
    rucio_sqlite.configure(hermes={"services_list": "pigeon"})
    alarms = Alarms(rucio_sqlite.engine)
    alarms.report(Kind.LOST, "HERE", {})
    assert "alarm-untold kind=LOST subject=HERE" in log.text
    rucio_sqlite.configure(hermes={"services_list": "activemq"})
    assert Alarms(rucio_sqlite.engine).tell() == 1
    assert len(told(rucio_sqlite)) == 1


def test_mail_goes_to_those_the_settings_name(rucio_sqlite: EmbeddedRucio) -> None:
    hooks.install(rucio_sqlite.engine)
    settings = Settings.parse('[alarms]\nemail = ["operator@example.org"]', rucio_sqlite.folder / "file")
    Alarms.of(rucio_sqlite.engine, settings).report(Kind.LOST, "HERE", {"dids": ["s:one", "s:two"]}, 2)
    [mail] = told(rucio_sqlite, "email")
    assert mail["to"] == ["operator@example.org"]
    assert mail["subject"] == "[rucio-trace] LOST on HERE: 2 new, 2 in all"
    assert "  s:two" in mail["body"].splitlines()
    Alarms(rucio_sqlite.engine).report(Kind.LOST, "THERE", {})
    assert told(rucio_sqlite, "email") == []


# ------------------------------------------------------------------------------------ by the recorder


def spoil(kit: Kit, rse: Any, names: list[str]) -> None:
    """Same size, other bytes; then somebody doubts them."""
    for name in names:
        path = kit.rucio.pfn_path(rse, name)
        path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
        kit.set_state(rse, name, "D")


def test_many_corrupt_replicas_are_one_alarm(kit: Kit, log: pytest.LogCaptureFixture) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    names = [f"file{number:02}" for number in range(25)]
    for name in names:
        kit.rucio.upload(here, name, name.encode())
    kit.run()
    assert told(kit.rucio) == []
    spoil(kit, here, names)
    kit.run()
    [alarm] = told(kit.rucio)
    assert (alarm["kind"], alarm["subject"], alarm["count"], alarm["rucio"]) == ("CORRUPT", "HERE", 25, "test-rucio")
    assert alarm["detail"]["dids"] == [f"{kit.rucio.scope.external}:{name}" for name in names[:10]]
    assert "alarm kind=CORRUPT subject=HERE count=25 new=25" in log.text
    assert "file://" not in str(alarm) + log.text


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("seam", ["finishing", "finished"])
def test_a_recorder_killed_as_it_ends_a_row_loses_no_alarm_and_counts_none_twice(kit: Kit, seam: str) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    kit.rucio.upload(here, "file", b"content")
    kit.run()
    spoil(kit, here, ["file"])

    def kill(name: str) -> None:
        if name == seam:
            raise KilledError

    with pytest.raises(KilledError):
        kit.run(kill)
    kit.make_due()
    kit.run()
    kit.recorder().follow()
    assert [(alarm["kind"], alarm["count"]) for alarm in told(kit.rucio)] == [("CORRUPT", 1)]


def test_an_rse_that_is_signed_for_no_more_is_an_alarm(kit: Kit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    kit.rucio.upload(here, "witness", b"content")
    for name in ("one", "two"):
        stored = kit.rucio.upload(here, name, b"content")
        kit.run()
        stored.path.unlink()
        kit.set_state(here, name, "D")
    kit.run(lost_in_a_row=1)
    kit.age(HOUR)
    kit.run(lost_in_a_row=1)
    found = {alarm["kind"]: alarm for alarm in told(kit.rucio)}
    assert found.keys() == {"LOST", "SIGNING_STOPPED"}
    assert found["SIGNING_STOPPED"]["detail"] == {"lost_in_a_row": 1}


def test_a_store_that_refuses_and_a_row_that_no_time_mends_are_alarms(rucio_sqlite: EmbeddedRucio) -> None:
    kit = Kit(rucio_sqlite)
    here = kit.rucio.add_posix_rse("HERE")
    kit.rucio.upload(here, "file", b"content")
    federation = kit.folder / "federation" / "federation.toml"
    known = federation.read_text()
    federation.write_text(known.replace('rses = ["*"]', 'rses = ["ELSEWHERE"]'))
    assert federation.read_text() != known
    kit.run()
    [alarm] = told(kit.rucio)
    assert (alarm["kind"], alarm["subject"]) == ("STORE_REFUSES", "SITE-A")
    kit.make_due(message="no trace at all")
    kit.run()
    [alarm] = told(kit.rucio)
    assert (alarm["kind"], alarm["subject"]) == ("OUTBOX_STUCK", "HERE")
    assert alarm["detail"] == {"dids": [f"{kit.rucio.scope.external}:file"]}
    kit.close()


def test_a_certificate_near_its_end_is_told_once_a_day(
    rucio_sqlite: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = Kit(rucio_sqlite)
    kit.recorder().follow()
    assert told(kit.rucio) == []
    left = kit.recorder().keys.not_after - datetime.now(UTC)
    monkeypatch.setattr(module, "CERTIFICATE_DAYS", left.days + 1)
    for _ in range(2):
        kit.recorder().follow()
        [alarm] = told(kit.rucio)
        assert (alarm["kind"], alarm["subject"]) == ("CERTIFICATE_ENDS", "SITE-A")
        age(kit.rucio, HOUR)
        kit.recorder().follow()
        assert told(kit.rucio) == []
        table = tables("sqlite").alarms
        with kit.rucio.engine.begin() as connection:
            day_ago = datetime.now(UTC) - DAY
            connection.execute(update(table).values(told_at=day_ago, first_at=day_ago))
    age(kit.rucio, timedelta(hours=4))  # renewed: nobody reports it any more, and that is no message
    kit.recorder().alarms.tell()
    assert told(kit.rucio) == []
    kit.close()
