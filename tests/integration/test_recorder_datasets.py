"""Closed datasets: their list of files is signed, withdrawn when it no longer holds, and their status is shown.

Every test runs on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import blake3
import pytest
from click.testing import CliRunner
from datasets_kit import DatasetKit
from forking import killed_at
from prometheus_client import generate_latest
from recorder_kit import on_sqlite
from rucio_trace_daemons.monitoring import served
from rucio_trace_daemons.recorder import counting, mending
from rucio_trace_daemons.recorder.mending import Choice
from rucio_trace_daemons.rses import Rses
from rucio_trace_policy.database import GUARDED_JSON, PLUGIN

from rucio_trace.cli import cli
from rucio_trace.config import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.rest import Rest
    from rucio_trace_sandbox.storage import Rse

SEAMS = (
    "claiming",
    "claimed",
    "listed",
    "keeping",
    "kept",
    "registered",
    "finishing",
    "finished",
    "counted",
    "counting",
)


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[DatasetKit]:
    kit = DatasetKit(rucio, revoke=["*"])
    yield kit
    kit.close()


@pytest.fixture
def here(kit: DatasetKit) -> Rse:
    return kit.rucio.add_posix_rse("HERE")


@pytest.fixture(autouse=True)
def every_row_ended_or_waits(kit: DatasetKit) -> Iterator[None]:
    """Whatever a test did: as many rows were counted as traces were signed, and no row is held."""
    yield
    assert all(row.claimed_by is None for row in kit.outbox)
    counted = {word: count for word, count in kit.outcomes.items() if word.isupper()}
    assert counted == Counter(event for event, _ in kit.events())


def traced(kit: DatasetKit, here: Rse, *names: str) -> None:
    for name in names:
        kit.rucio.upload(here, name, name.encode())
    kit.run()


def test_a_dataset_closed_opened_and_closed_again(kit: DatasetKit, here: Rse) -> None:
    for name in ("b", "a", "B", "a-b"):
        kit.rucio.upload(here, name, name.encode())
    kit.dataset("dataset", "b", "a", "B")
    kit.run()
    assert kit.shown() == ("GENUINE", "3/3")
    assert kit.outbox == []
    kit.close_dataset()
    kit.run()
    [create] = kit.signed()
    hashes = {name: kit.signed(name)[0].hash for name in "Bab"}
    text = "".join(f"BLAKE3:{hashes[name]} 1 test:{name}\n" for name in "Bab")
    assert (create.event, create.members, create.size, create.rse) == ("CREATE", 3, 3, None)
    assert create.hash == blake3.blake3(text.encode()).hexdigest()
    assert [(c.path, c.hash) for c in create.contents] == [(f"test:{name}", hashes[name]) for name in "Bab"]
    kit.set_open(True)
    kit.attach("a-b")
    kit.close_dataset()
    kit.run()
    _, revoke, again = kit.signed()
    assert (revoke.event, revoke.obsolescence, revoke.revokes) == ("REVOKE", "reopened", create.event_id)
    assert (again.event, again.members) == ("CREATE", 4)
    assert [content.path for content in again.contents] == ["test:B", "test:a", "test:a-b", "test:b"]
    kit.make_due()
    kit.run()
    assert kit.shown() == ("GENUINE", "4/4")
    assert kit.product("dataset").trace_id == again.event_id
    dids = "\n".join(f"test:{name}" for name in ("b", "a", "a-b", "B"))
    printed = told(kit, "dataset", input=dids)
    assert blake3.blake3(printed.encode()).hexdigest() == again.hash
    assert told(kit, "dataset", input="test:a\ntest:unknown", code=3) == printed.splitlines(keepends=True)[1]
    shown = told(kit, "history", "test:dataset")
    assert "GENUINE, a dataset of 4 files" in shown
    assert "reopened" in shown
    assert told(kit, "search", "--status", "GENUINE", "--json").count('"members":4') == 1


def told(kit: DatasetKit, *arguments: str, code: int = 0, **options: str) -> str:
    """What `rucio-trace` prints."""
    result = CliRunner().invoke(cli, ["--config", str(kit.file), *arguments], **options)
    assert result.exit_code == code, result.output
    return result.stdout


@on_sqlite
def test_a_closed_dataset_waits_for_files_without_a_trace(kit: DatasetKit, here: Rse) -> None:
    traced(kit, here, "a")
    kit.rucio.upload(here, "b", b"b")
    path = kit.rucio.pfn_path(here, "b")
    path.rename(path.with_name("hidden"))
    kit.dataset("dataset", "a", "b")
    kit.close_dataset()
    kit.run()
    [_, row] = kit.outbox
    assert row.last_error.startswith("test:dataset: 1 of 2 files have no origin yet")
    [_, line] = sorted(mending.summarise(kit.rucio.engine).lines, key=lambda line: line.rse)
    assert (line.rse, line.waiting) == ("datasets", 1)
    for choice in (Choice(scope="test", name="dataset"), Choice(rse="datasets")):
        [listed] = mending.chosen(kit.rucio.engine, choice, 5)
        assert (listed[0], listed[1].event_id) == ("datasets", row.event_id)
    assert kit.shown() is None or kit.shown()[0] == "PENDING"
    path.with_name("hidden").rename(path)
    mending.retry(kit.rucio.engine, Choice(name="b"))
    kit.run()  # the dataset's own row is due now, whatever its wait was
    assert [statement.members for statement in kit.signed()] == [2]
    assert kit.outbox == []


def test_a_file_detached_from_a_closed_dataset_withdraws_its_list(kit: DatasetKit, here: Rse) -> None:
    traced(kit, here, "a", "b", "c")
    kit.dataset("dataset", "a", "b", "c")
    kit.close_dataset()
    kit.run()
    kit.detach("a", "b")
    kit.make_due()
    kit.run()
    revoke = kit.signed()[-1]
    assert (revoke.event, revoke.obsolescence) == ("REVOKE", "content changed while closed")
    assert kit.shown() == ("REVOKED", "1/1")
    assert kit.outcomes["superseded"] == 1  # the second file: nothing stood any more
    kit.set_open(True)
    kit.close_dataset()
    kit.make_due()
    kit.run()
    assert (kit.signed()[-1].event, kit.signed()[-1].members) == ("CREATE", 1)
    kit.make_due()
    kit.run()
    assert kit.shown() == ("GENUINE", "1/1")


def test_a_file_that_goes_with_its_last_replica_is_missed_by_the_next_count(kit: DatasetKit, here: Rse) -> None:
    """Rucio's reaper takes it out of closed datasets too, and changes nothing else of them."""
    traced(kit, here, "a", "b")
    kit.dataset("dataset", "a", "b")
    kit.close_dataset()
    kit.run()
    kit.delete(here, "a")
    kit.run()
    kit.make_due()
    kit.run()
    assert [statement.event for statement in kit.signed()] == ["CREATE"]
    assert kit.shown() == ("TAMPERED", "1/1")


@on_sqlite
def test_what_changed_before_anything_was_signed_leaves_one_list(kit: DatasetKit, here: Rse) -> None:
    traced(kit, here, "a", "b")
    kit.dataset("dataset", "a", "b")
    kit.close_dataset()
    kit.set_open(True)
    kit.close_dataset()
    kit.detach("a")
    kit.run()
    assert [(statement.event, statement.members) for statement in kit.signed()] == [("CREATE", 1)]
    assert (kit.outcomes["superseded"], kit.outbox) == (1, [])


def test_a_dataset_is_what_the_worst_of_its_files_is(kit: DatasetKit, here: Rse) -> None:
    traced(kit, here, "a", "b")
    kit.dataset("dataset", "a", "b")
    kit.dataset("other", "b")
    kit.close_dataset()
    kit.run()
    assert kit.shown() == ("GENUINE", "2/2")
    kit.rucio.pfn_path(here, "a").write_bytes(b"z")
    kit.set_state(here, "a", "D")
    kit.make_due()
    kit.run()
    kit.make_due()
    kit.run()
    assert (kit.shown("a")[0], kit.shown()) == ("TAMPERED", ("TAMPERED", "1/2"))
    assert kit.shown("other") is None  # nothing of its file changed since it was put there


@on_sqlite
def test_a_file_whose_name_holds_a_line_feed_keeps_its_dataset_waiting_and_nothing_else(
    kit: DatasetKit, here: Rse
) -> None:
    traced(kit, here, "a", "b\n", "c")
    kit.dataset("odd", "a", "b\n", "c")
    kit.close_dataset("odd")
    kit.run()
    [row] = kit.outbox
    assert "no line break" in row.last_error
    kit.dataset("dataset", "a", "c")
    kit.close_dataset()
    kit.run()
    assert kit.shown() == ("GENUINE", "2/2")


def metrics(kit: DatasetKit) -> str:
    """What Prometheus is told."""
    with served(Metrics(), "recorder", kit.rucio.engine, Rses(kit.rucio.engine)):
        return generate_latest().decode()


@on_sqlite
def test_a_recorder_without_the_right_waits_and_signs_once_it_has_it(rucio: EmbeddedRucio, kit: DatasetKit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    traced(kit, here, "a")
    kit.dataset("dataset", "a")
    federation = kit.authority.federation
    rights = federation.read_text()
    federation.write_text(rights.replace('create = ["*"]', "create = []"))
    kit.close_dataset()
    kit.run()
    [row] = kit.outbox
    assert "the right to CREATE in scope test" in row.last_error
    assert row.message is not None
    assert 'traceability_outbox_rows{rse="datasets",state="waiting"} 1.0' in metrics(kit)
    assert 'traceability_alarm_reports{kind="STORE_REFUSES",subject="SITE-A"} 1.0' in metrics(kit)
    federation.write_text(rights)
    kit.make_due()
    kit.run()
    assert 'traceability_outcomes_total{outcome="CREATE",rse="datasets"}' in metrics(kit)
    assert [statement.event_id for statement in kit.signed()] == [row.event_id]


@on_sqlite
@pytest.mark.parametrize(("choice", "waiting", "excluded"), [("leave", 1, 0), ("exclude", 0, 1)])
def test_datasets_can_be_left_to_others_or_excluded(
    kit: DatasetKit, here: Rse, choice: str, waiting: int, excluded: int
) -> None:
    traced(kit, here, "a")
    kit.dataset("dataset", "a")
    kit.close_dataset()
    kit.run(datasets=choice)
    assert (len(kit.outbox), kit.outcomes.get("excluded", 0), kit.signed()) == (waiting, excluded, [])


def test_a_million_files_do_not_count_their_dataset_a_million_times(
    kit: DatasetKit, here: Rse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "SHORTEST_PAUSE", timedelta(hours=1))
    names = [f"file{number}" for number in range(5)]
    for name in names:
        kit.rucio.upload(here, name, b"content")
    kit.dataset("dataset", *names)
    passed = Counter[str]()
    kit.run(lambda seam: passed.update([seam]), bulk=1)
    assert passed["registered"] >= len(names)
    assert passed["counting"] == 1
    kit.make_due()
    kit.run()
    assert kit.shown() == ("GENUINE", "5/5")


def test_recorders_side_by_side_sign_each_list_once(kit: DatasetKit, here: Rse) -> None:
    traced(kit, here, "a", "b")
    names = [f"dataset{number}" for number in range(4)]
    for name in names:
        kit.dataset(name, "a", "b")
        kit.close_dataset(name)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            kit.run()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    kit.make_due()
    kit.run()
    assert failures == []
    assert [kit.shown(name) for name in names] == [("GENUINE", "2/2")] * len(names)
    assert [len(kit.signed(name)) for name in names] == [1] * len(names)


def test_killed_at_any_seam_each_row_of_a_dataset_ends_once(kit: DatasetKit, here: Rse) -> None:
    traced(kit, here, "a", "b")
    for seam in SEAMS:
        name = f"dataset-{seam}"
        kit.dataset(name, "a", "b")
        kit.close_dataset(name)
        events = [row.event_id for row in kit.outbox]
        hit = 2 if seam.startswith("claim") else 1  # the first claim is of replicas
        assert killed_at(kit, kit.run, seam, hit), seam
        kit.make_due()
        kit.run()
        assert [statement.event_id for statement in kit.signed(name)] == events
        assert (kit.shown(name), kit.outbox) == (("GENUINE", "2/2"), [])


@on_sqlite
def test_these_are_all_the_seams(kit: DatasetKit, here: Rse) -> None:
    traced(kit, here, "a")
    kit.dataset("dataset", "a")
    kit.close_dataset()
    passed: set[str] = set()
    kit.run(passed.add)
    assert passed == set(SEAMS)


def test_rucio_lists_datasets_by_their_status(kit: DatasetKit, here: Rse, rest: Rest) -> None:
    kit.rucio.configure(metadata={"plugins": f"{PLUGIN},{GUARDED_JSON}"})
    traced(kit, here, "a")
    rest.root.add_dataset("test", "closed", files=[{"scope": "test", "name": "a"}])
    rest.root.add_dataset("test", "empty")
    rest.root.close("test", "closed")
    kit.run()

    def listed(did_type: str, **filters: str) -> list[str]:
        return sorted(rest.root.list_dids("test", [filters], did_type=did_type))

    assert listed("dataset", trace_status="GENUINE") == ["closed"]
    assert listed("dataset", trace_status="PENDING") == ["empty"]
    assert listed("all", trace_status="GENUINE") == listed("collection", trace_status="GENUINE") == ["a", "closed"]
    assert listed("file", trace_status="GENUINE") == listed("all", trace_replicas="1/1") == ["a"]
    assert listed("dataset", trace_files="1/1") == listed("dataset", trace_hash=kit.signed("closed")[0].hash)
    assert listed("container", trace_status="*") == []
    found = rest.root.get_metadata("test", "closed", plugin="ALL")
    assert (found["trace_status"], found["trace_files"], "trace_replicas" in found) == ("GENUINE", "1/1", False)
    [shown] = rest.root.list_dids("test", [{"trace_files": "1/1"}], did_type="dataset", long=True)
    assert (shown["name"], shown["did_type"]) == ("closed", "DATASET")
