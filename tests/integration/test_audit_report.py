"""Campaigns as an operator starts, watches and stops them, and what a report says; on tables as auditors leave them."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from recorder_kit import Kit
from rucio_trace_daemons.auditor import campaigns, copies, page
from rucio_trace_daemons.auditor.progress import progress
from rucio_trace_daemons.auditor.reporting import report
from rucio_trace_policy import hooks
from rucio_trace_policy.database import clock
from rucio_trace_policy.tables import tables
from sqlalchemy import insert, select, update

from rucio_trace.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
HOSTILE = "<script>alert(1)</script>\x1b[2J\n$x^2$ </svg> & \"'"


class Audits:
    """A Rucio with hooks, and what auditors would have written."""

    def __init__(self, rucio: EmbeddedRucio) -> None:
        self.rucio, self.ours = rucio, tables(rucio.backend)
        hooks.install(rucio.engine)
        with rucio.engine.connect() as connection:
            self.now = clock(connection)

    def run(self, *arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["audit", *map(str, arguments)], env={"RUCIO_TRACE_CONFIG": "/dev/null"})
        assert result.exit_code == code, result.output
        return result

    def json(self, *arguments: object) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*arguments, "--json").stdout.splitlines()]

    def write(self, *statements: Any) -> None:
        with self.rucio.engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    def add_round(self, audit: int, rse: Rse, number: int, *, ago: timedelta, lasted: timedelta | None, **counts: int):
        begin = self.now - ago
        values = {"audit": audit, "rse_id": rse.id, "round": number, "sweep_at": begin, "started_at": begin}
        values |= dict.fromkeys(("replicas", "bytes", "good", "bad", "unread", "bytes_read"), 0) | counts
        self.write(insert(self.ours.audit_rounds).values(values | {"ended_at": lasted and begin + lasted}))

    def add_work(self, audit: int, rse: Rse, outcome: str | None, count: int, **columns: Any) -> None:
        with self.rucio.engine.begin() as connection:
            work = self.ours.audit_work
            begin = len(connection.execute(select(work.c.ordinal)).all())
            row = {"audit": audit, "rse_id": rse.id, "scope": "test", "generation": self.now, "bytes": 100}
            row |= {"outcome": outcome, "last_error": None, "not_before": None, "observed": None} | columns
            rows = [row | {"name": f"f{begin + n}", "ordinal": begin + n} for n in range(count)]
            connection.execute(insert(work), rows)

    def open_breaker(self, rse: Rse, reason: str) -> None:
        row = {"rse_id": rse.id, "bad_in_a_row": 20, "opened_at": self.now, "reason": reason}
        self.write(insert(self.ours.breakers).values(row))


@pytest.fixture
def audits(rucio: EmbeddedRucio) -> Audits:
    return Audits(rucio)


def test_a_campaign_begins_where_something_can_be_audited_and_is_stopped_once(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaigns, "_REMOVED_AT_ONCE", 7)
    rucio = audits.rucio
    disk, other = rucio.add_posix_rse("DISK"), rucio.add_posix_rse("OTHER", trace_method="storage")
    rucio.add_posix_rse("TAPE", rse_type="TAPE")
    rucio.add_posix_rse("CACHE", volatile=True)
    assert "no campaign runs" in audits.run("status").stderr
    for wrong, told in {
        "TAPE|CACHE": "TAPE: its replicas are not read",
        "NONE": "found NONE (RSE Expression resulted in an empty set.)",
        "((": "expected RSEs",
    }.items():
        assert told in audits.run("start", "--rses", wrong, code=2).stderr
    begun = audits.run("start", "--rses", "*", "--sample", "30%", "--bytes", "2TB", "--every", "6h")
    number = int(begun.stdout)
    assert "audits DISK, OTHER\n" in begun.stderr
    assert "TAPE is left out: its replicas are not read" in begun.stderr
    assert "CACHE is left out: it is volatile" in begun.stderr
    with rucio.engine.connect() as connection:
        (campaign,) = campaigns.campaigns(connection)
    assert (campaign.id, campaign.rses, campaign.sample) == (number, "*", 0.3)
    assert (campaign.bytes, campaign.every_seconds, campaign.stopped_at) == (2 * 10**12, 21_600, None)
    assert [(line["rse"], line["round"], line["expected_end"]) for line in audits.json("status")] == [
        ("DISK", None, None),
        ("OTHER", None, None),
    ]

    audits.add_work(number, disk, None, 20)
    audits.add_work(number, disk, "good", 2)
    audits.add_work(number, disk, None, 10)
    audits.add_work(number, other, None, 5)
    audits.add_work(number + 1, disk, None, 1)  # of another campaign
    stopped = audits.run("stop", number).stderr
    assert "35 replicas of its rounds will not be read" in stopped
    assert "2 replicas were read and found good" in stopped
    with rucio.engine.connect() as connection:
        left = connection.execute(select(audits.ours.audit_work.c["audit", "outcome"])).all()
        (ended,) = campaigns.campaigns(connection, number)
    assert sorted(map(tuple, left), key=str) == [(number, "good"), (number, "good"), (number + 1, None)]
    again = audits.run("stop", number).stderr
    assert "already" in again
    assert "0 replicas of its rounds" in again
    with rucio.engine.connect() as connection:
        assert campaigns.campaigns(connection, number) == [ended]
        assert campaigns.campaigns(connection) == []
    assert "campaign 99" in audits.run("stop", "99", code=2).stderr
    assert "campaign 99" in audits.run("status", "99", code=2).stderr


def test_status_tells_how_far_rounds_have_come_and_when_they_will_end(audits: Audits) -> None:
    rucio = audits.rucio
    disk, done, stuck = (rucio.add_posix_rse(name) for name in ("DISK", "DONE", "STUCK"))
    number = int(audits.run("start", "--rses", "*").stdout)
    audits.add_round(number, disk, 1, ago=3 * DAY, lasted=HOUR, replicas=9)
    audits.add_round(number, disk, 2, ago=2 * HOUR, lasted=None, replicas=20, bytes=2_000)
    audits.add_work(number, disk, "good", 7)
    audits.add_work(number, disk, "bad", 1)
    audits.add_work(number, disk, "unread", 2)
    audits.add_work(number, disk, None, 7)
    audits.add_work(number, disk, None, 2, last_error="earlier", not_before=audits.now)
    audits.add_work(number, disk, None, 1, last_error=HOSTILE, not_before=audits.now + HOUR)
    counts = {"replicas": 4, "bytes": 400, "good": 3, "bad": 1, "unread": 0, "bytes_read": 400}
    audits.add_round(number, done, 1, ago=2 * HOUR, lasted=HOUR, **counts)
    audits.add_round(number, stuck, 1, ago=HOUR, lasted=None, replicas=2, bytes=200)
    audits.add_work(number, stuck, "bad", 1)
    audits.open_breaker(stuck, "20 bad in a row")

    lines = {line.rse: line for line in progress(rucio.engine)}
    tally = lines["DISK"].tally
    assert (lines["DISK"].round, tally.good, tally.bad, tally.unread, tally.done) == (2, 7, 1, 2, 10)
    assert (tally.bytes_done, tally.bytes_read, tally.waiting, tally.error) == (1_000, 800, 3, HOSTILE)
    begin, at = lines["DISK"].started_at, lines["DISK"].at
    assert begin is not None
    assert lines["DISK"].expected_end == at + (at - begin)  # half is done
    assert lines["DISK"].bytes_per_second == pytest.approx(800 / (at - begin).total_seconds())
    assert lines["DISK"].replicas_per_second == pytest.approx(8 / (at - begin).total_seconds())
    assert lines["DONE"].started_at is not None
    assert (lines["DONE"].tally.good, lines["DONE"].expected_end) == (3, None)
    assert lines["DONE"].next_round == lines["DONE"].started_at + DAY
    assert lines["DONE"].bytes_per_second == pytest.approx(400 / 3_600)
    assert (lines["STUCK"].breaker_reason, lines["STUCK"].expected_end) == ("20 bad in a row", None)

    shown = audits.run("status", number)
    assert re.search(r"DISK +1/2 +10/20 +50% of 2\.0 kB +7/1/2 +3 ", shown.stdout)
    assert "ended; next" in shown.stdout
    assert "STUCK: nothing is read since" in shown.stderr
    assert "DISK: 3 wait: <script>alert(1)</script>\\x1b[2J\\n" in shown.stderr
    by_rse = {line["rse"]: line for line in audits.json("status")}
    assert by_rse["DISK"] | {"good": 7, "done": 10, "waiting": 3, "error": HOSTILE} == by_rse["DISK"]
    assert by_rse["STUCK"]["breaker"]["reason"] == "20 bad in a row"
    assert datetime.fromisoformat(by_rse["DISK"]["expected_end"]) > at

    audits.run("stop", number)
    assert "stopped" in audits.run("status", number).stdout
    assert {line.expected_end for line in progress(rucio.engine, number)} == {None}


def test_a_breaker_is_closed_for_a_reason(
    audits: Audits, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaigns.LOG, "disabled", False)  # as Rucio's migrations left it, run in this process
    disk, other = audits.rucio.add_posix_rse("DISK"), audits.rucio.add_posix_rse("OTHER")
    audits.open_breaker(disk, "20 bad in a row")
    audits.open_breaker(other, "other")
    assert "expected a reason" in audits.run("reset", "DISK", "--reason", " ", code=2).stderr
    assert "the name of an RSE" in audits.run("reset", "*", "--reason", "x", code=2).stderr
    closed = audits.run("reset", "DISK", "--reason", "the disk is back").stderr
    assert "20 bad in a row" in closed
    assert "reason='the disk is back'" in caplog.text
    assert "not open" in audits.run("reset", "DISK", "--reason", "again").stderr
    with audits.rucio.engine.connect() as connection:
        rows = connection.execute(select(audits.ours.breakers)).all()
    assert {(row.rse_id, row.bad_in_a_row, row.opened_at is None) for row in rows} == {
        (disk.id, 0, True),
        (other.id, 20, False),
    }


# ------------------------------------------------------------------------------------------- reports


def made_archive(rucio: EmbeddedRucio) -> tuple[Audits, Rse]:
    """Replicas that a recorder has proven, some of them made older, and three rounds of a campaign."""
    kit = Kit(rucio)
    audits = Audits(rucio)
    disk = rucio.add_posix_rse("DISK")
    rucio.add_posix_rse("EMPTY")
    tape = rucio.add_posix_rse("TAPE", rse_type="TAPE")
    ages = {"fresh": 1, "young": 5, "old": 45, "corrupt": 3, "reborn": 2, "lost": 400}
    for number, name in enumerate(ages, start=1):
        rucio.upload(disk, name, b"x" * 100 * number)
    rucio.upload(tape, "fresh-tape", b"tape")
    kit.run()
    kit.close()
    rucio.upload(disk, "unproven", b"x" * 1_000)
    p = audits.ours.replicas
    for name, days in ages.items():
        audits.write(update(p).where(p.c.name == name).values(proven_at=audits.now - days * DAY - HOUR))
    for state in ("corrupt", "lost"):
        audits.write(update(p).where(p.c.name == state).values(state=state))
    kit.set_state(disk, "corrupt", "B")
    # What stands there of an earlier generation of a name is not of the living one.
    audits.write(update(p).where(p.c.name == "reborn").values(generation=audits.now - 9 * DAY))
    number = int(audits.run("start", "--rses", "DISK|EMPTY").stdout)
    audits.add_round(number, disk, 1, ago=8 * DAY, lasted=DAY, bytes_read=800)
    audits.add_round(number, disk, 2, ago=4 * DAY, lasted=DAY, bytes_read=400)
    audits.add_round(number, disk, 3, ago=2 * DAY, lasted=None, replicas=3, bytes=300)
    audits.add_work(number, disk, "good", 1, observed=audits.now - HOUR)
    audits.add_work(number, disk, "bad", 1, observed=audits.now - 25 * HOUR)
    audits.add_work(number, disk, None, 1, last_error=HOSTILE)
    audits.open_breaker(disk, HOSTILE)
    return audits, disk


def test_a_report_counts_and_lists_what_is_proven_overdue_and_bad(rucio: EmbeddedRucio) -> None:
    audits, disk_rse = made_archive(rucio)
    (found,) = audits.json("report")
    assert (found["about"], found["overdue_seconds"]) == ("all RSEs that can be audited", 30 * 86_400)
    disk, empty = found["rses"]
    assert (disk["rse"], disk["replicas"], disk["bytes"]) == ("DISK", 7, 3_100)
    # reborn and unproven arrived just now: never proven, but not overdue yet
    assert (disk["proven"], disk["never_proven"], disk["corrupt"], disk["lost"]) == (3, 2, 1, 1)
    assert (disk["overdue"], disk["overdue_bytes"]) == (1, 300)
    assert (disk["median_age_days"], disk["ages"]) == (5, [0, 2, 0, 1, 0, 0])
    assert datetime.fromisoformat(disk["oldest_proof"]) == audits.now - 45 * DAY - HOUR
    assert sum(disk["daily_bytes"]) == 800 + 400 + 200
    assert disk["daily_bytes"][-2:] == [100, 100]
    assert disk["bytes_per_day_30"] == pytest.approx(1_400 / 8, rel=0.01)
    assert disk["bytes_per_day_7"] == pytest.approx(600 / 7, rel=0.01)
    assert disk["left_bytes"] == 200 + 300 + 500 + 1_000  # young, old, reborn, unproven: not since the sweep began
    assert datetime.fromisoformat(disk["all_read_by"]) == pytest.approx(
        datetime.fromisoformat(found["at"]) + DAY * (2_000 / disk["bytes_per_day_30"]), abs=HOUR
    )
    assert (empty["rse"], empty["replicas"], empty["oldest_proof"]) == ("EMPTY", 0, None)
    assert [(line["rse"], line["round"], line["done"]) for line in found["rounds"]] == [
        ("DISK", 3, 2),
        ("EMPTY", None, 0),
    ]

    (strict,) = audits.json("report", "--overdue", "0.5d", "--rses", "DISK|TAPE")
    assert [(line["rse"], line["overdue"]) for line in strict["rses"]] == [("DISK", 3), ("TAPE", 0)]
    (of_campaign,) = audits.json("report", "1")
    assert of_campaign["about"] == "campaign 1, RSEs DISK|EMPTY"
    assert of_campaign["rses"][0]["daily_bytes"] == disk["daily_bytes"]
    table = audits.run("report").stdout
    assert re.search(r"DISK +7 +3\.1 kB +3 +2 +45 d +5 d +1 \(300 bytes\) +1 corrupt, 1 lost", table)

    rucio.upload(disk_rse, HOSTILE.replace("/", "|"), b"evil")
    listed = audits.json("report", "--replicas")
    assert [(x["did"].removeprefix("test:"), x["state"], x["overdue"]) for x in listed[-5:]] == [
        ("lost", "lost", False),
        ("old", "proven", True),
        ("young", "proven", False),
        ("corrupt", "corrupt", False),
        ("fresh", "proven", False),
    ]
    assert {(x["did"], x["proven_at"]) for x in listed[:-5]} == {
        ("test:reborn", None),
        ("test:unproven", None),
        (f"test:{HOSTILE.replace('/', '|')}", None),
    }
    shown = audits.run("report", "--replicas", "--rses", "DISK").stdout.splitlines()
    assert len(shown) == 1 + len(listed)
    assert all(line.isprintable() for line in shown)
    assert any(re.fullmatch(r"DISK +proven +\d{4}-\d\d-\d\d \d\d:\d\d +overdue +test:old", line) for line in shown)


def test_the_page_needs_nothing_else_and_shows_names_as_they_are(rucio_sqlite: EmbeddedRucio, tmp_path: Path) -> None:
    audits, _disk = made_archive(rucio_sqlite)
    evil = rucio_sqlite.add_posix_rse(HOSTILE.replace("/", "|"), folder=tmp_path / "evil")
    rucio_sqlite.upload(evil, "file", b"x")
    audits.add_round(1, evil, 1, ago=DAY, lasted=HOUR, replicas=1, bytes_read=10**12, good=1)
    made = report(rucio_sqlite.engine, 30 * DAY)
    text = page.render(made)
    assert page.render(made) == text
    read = Page(text)
    assert read.ids.keys() >= {"ages-title", "daily-title", "rounds-title"}
    assert read.tags["svg"] == 3
    assert read.text.count(HOSTILE) == 2  # the reason of the breaker, the error of what waits
    assert read.text.count(evil.name) >= 2  # in both tables


class Page(HTMLParser):
    """A page that is well formed and asks for nothing outside itself."""

    VOID = frozenset({"meta", "br", "hr"})
    ALLOWED = frozenset(
        """html head meta title style body main header section footer figure figcaption div span p h1 h2 dl dt dd ul li
        small strong table thead tbody tr th td svg desc defs g path use text tspan rect clippath pattern""".split()  # noqa: SIM905
    )

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        self.references: set[str] = set()
        self.text = ""
        assert source.startswith("<!DOCTYPE html>")
        assert "://" not in source
        assert "@import" not in source
        self.references.update(re.findall(r"url\(([^)]*)\)", source))
        self.feed(source)
        self.close()
        assert not self.open
        assert set(self.ids.values()) <= {1}
        assert all(name.startswith("#") and name[1:] in self.ids for name in self.references)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.ALLOWED
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert name not in ("src", "action", "data", "srcset")
            assert not name.startswith("on")
            if name.endswith("href"):
                self.references.add(value or "")
            elif name == "id":
                self.ids[value or ""] = self.ids.get(value or "", 0) + 1
            elif name == "aria-labelledby":
                self.references.update(f"#{one}" for one in (value or "").split())

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_rucio_without_our_tables_is_told_to_install_them(rucio_sqlite: EmbeddedRucio) -> None:
    result = CliRunner().invoke(cli, ["audit", "status"])
    assert (result.exit_code, "`rucio-trace hooks install` mends it" in result.stderr) == (3, True)


def test_an_empty_rucio_has_an_empty_report(audits: Audits, tmp_path: Path) -> None:
    assert "no RSE that can be audited" in audits.run("report").stderr
    assert audits.json("report")[0]["rses"] == []
    assert audits.json("report", "--replicas") == []
    audits.run("report", "--html", tmp_path / "empty.html")
    assert "goes with neither" in audits.run("report", "--html", "x", "--json", code=2).stderr
    read = Page((tmp_path / "empty.html").read_text())
    assert "svg" not in read.tags
    assert "There is no RSE that can be audited." in read.text
    assert list(copies.each_copy(audits.rucio.engine, [], audits.now)) == []
