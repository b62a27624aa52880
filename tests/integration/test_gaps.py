"""`rucio-trace gaps`: every way in which catalogue and traces can part, provoked, found, mended, and gone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from recorder_kit import Kit, on_sqlite
from rucio_trace_daemons.gaps import find
from rucio_trace_daemons.gaps.mend import mend
from rucio_trace_daemons.rses import Rses
from rucio_trace_policy import hooks
from rucio_trace_policy.tables import tables
from sqlalchemy import text, update

from rucio_trace.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse


@pytest.fixture
def here(rucio: EmbeddedRucio) -> Rse:
    """An RSE with two files that are older than the hooks, also where a database keeps whole seconds."""
    rse = rucio.add_posix_rse("HERE")
    for name in ("one", "two"):
        rucio.upload(rse, name, b"content")
    from rucio.db.sqla.models import DataIdentifier

    with rucio.engine.begin() as connection:
        connection.execute(update(DataIdentifier).values(created_at=datetime.now(UTC) - timedelta(minutes=1)))
    return rse


@pytest.fixture
def kit(rucio: EmbeddedRucio, here: Rse) -> Iterator[Kit]:
    kit = Kit(rucio)
    yield kit
    kit.close()


def gaps(kit: Kit, *options: str) -> Result:
    result = CliRunner().invoke(cli, ["--config", str(kit.file), "gaps", *options])
    assert "internal error" not in result.output
    return result


def found(kit: Kit, *options: str, code: int) -> list[dict[str, Any]]:
    """The gaps, without the counts."""
    result = gaps(kit, "--json", *options)
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()][:-1]


def counts(kit: Kit) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(gaps(kit, "--json").stdout.splitlines()[-1])
    return line


def unseen(kit: Kit) -> Any:
    """Take the hooks away, as somebody did who should not have."""
    hooks.remove(kit.rucio.engine, with_tables=False)


def seen(kit: Kit) -> Any:
    hooks.install(kit.rucio.engine)


def test_replicas_without_a_trace_are_adopted_once(kit: Kit, here: Rse) -> None:
    assert [(gap["gap"], gap["rse"], gap["name"]) for gap in found(kit, code=3)] == [
        ("untraced", "HERE", "one"),
        ("untraced", "HERE", "two"),
    ]
    assert [gap["mended"] for gap in found(kit, "--fix", "--rses", "HERE", code=0)] == [True, True]
    assert found(kit, "--fix", code=0) == []  # they wait, and nothing is queued twice
    assert counts(kit)["rses"]["HERE"]["pending"] == 2
    kit.run()
    assert kit.events() == [("VERIFY", "HERE"), ("VERIFY", "HERE")]
    for stored in kit.traces():
        statement = stored.trace.statement
        assert (statement.adopted, statement.method) == (True, "read")
        assert statement.cause is not None
        assert statement.cause.action == "gaps"
    assert found(kit, code=0) == []
    assert counts(kit)["rses"]["HERE"] == {
        **dict.fromkeys(("pending", "untraced", "vanished", "differs", "incomparable"), 0),
        "replicas": 2,
    }


def test_a_search_goes_on_where_a_page_ends(kit: Kit, here: Rse, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        kit.rucio.upload(here, f"file{number}", b"content")
    kit.run()
    unseen(kit)
    for number in range(5):
        kit.delete(here, f"file{number}")
    seen(kit)
    monkeypatch.setattr(find, "PAGE_ROWS", 2)
    expected = [("untraced", "one"), ("untraced", "two"), *(("vanished", f"file{number}") for number in range(5))]
    assert [(gap["gap"], gap["name"]) for gap in found(kit, code=3)] == expected


@on_sqlite
def test_a_bad_replica_is_not_adopted(kit: Kit, here: Rse) -> None:
    kit.rucio.pfn_path(here, "one").write_bytes(b"CONTENT")
    found(kit, "--fix", code=0)
    kit.run()
    assert sorted(kit.events()) == [("CORRUPT", "HERE"), ("VERIFY", "HERE")]
    assert kit.product("one").status != "GENUINE"


def test_what_went_away_unseen_is_signed_as_delete(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.copy(here, there := kit.rucio.add_posix_rse("THERE"), "file")
    kit.run()
    unseen(kit)
    kit.delete(there, "file")
    seen(kit)
    [gap] = [gap for gap in found(kit, "--fix", code=0) if gap["gap"] == "vanished"]
    assert (gap["rse"], gap["name"]) == ("THERE", "file")
    kit.run()
    assert kit.events("file")[-1] == ("DELETE", "THERE")
    [*_, last] = kit.traces("file")
    assert last.trace.statement.unobserved is None
    assert kit.replicas("file") == {"HERE": "proven"}
    assert found(kit, code=0) == []


@on_sqlite
def test_a_product_that_went_away_unseen_ends_as_deleted(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.run()
    unseen(kit)
    kit.delete(here, "file")
    seen(kit)
    found(kit, "--fix", code=0)
    kit.run()
    assert kit.events("file")[-1] == ("DELETE", "HERE")
    assert kit.product("file") is None
    assert found(kit, code=0) == []


def test_a_name_given_again_unseen_is_another_product(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.run()
    unseen(kit)
    kit.delete(here, "file")
    kit.rucio.upload(here, "file", b"another content")
    seen(kit)
    kinds = {gap["gap"]: gap["generation"] for gap in found(kit, "--fix", code=0) if gap["name"] == "file"}
    assert set(kinds) == {"untraced", "vanished"}
    assert kinds["untraced"] > kinds["vanished"]
    kit.run()
    assert [event for event, _ in kit.events("file")] == ["CREATE", "VERIFY", "DELETE"]
    assert kit.product("file").status == "GENUINE"
    assert found(kit, code=0) == []


def test_a_catalogue_that_was_changed_has_its_replica_read_again(kit: Kit, here: Rse) -> None:
    found(kit, "--fix", code=0)
    kit.run()
    kit.rucio.pfn_path(here, "one").write_bytes(b"CONTENT")  # and whoever did that knows SQL
    with kit.rucio.engine.begin() as connection:
        connection.execute(text("UPDATE replicas SET adler32 = '07eb02bc' WHERE name = 'one'"))
        connection.execute(text("UPDATE dids SET bytes = 8 WHERE name = 'one'"))
    [gap] = found(kit, "--fix", code=0)
    assert gap["gap"] == "differs"
    assert "8 bytes, signed 7" in gap["detail"]
    assert "ADLER32 07eb02bc, signed 0" in gap["detail"]
    kit.run()
    assert kit.events("one")[-1] == ("CORRUPT", "HERE")
    [gap] = found(kit, code=3)  # what the catalogue should say is for people to decide
    assert gap["name"] == "one"


def test_what_an_earlier_version_signed_is_asked_of_the_store(kit: Kit, here: Rse) -> None:
    found(kit, "--fix", code=0)
    kit.run()
    ours = tables(kit.rucio.backend)
    with kit.rucio.engine.begin() as connection:
        signed = connection.execute(ours.signed.select()).all()
        connection.execute(ours.signed.delete())
    assert counts(kit)["rses"]["HERE"]["incomparable"] == 2
    found(kit, "--fix", code=0)
    with kit.rucio.engine.connect() as connection:
        assert connection.execute(ours.signed.select()).all() == signed
    assert {(row.bytes, row.adler32) for row in signed} == {(7, "0bcb02fc")}
    assert counts(kit)["rses"]["HERE"]["incomparable"] == 0


def test_the_status_of_a_dead_did_is_removed(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.run()
    ours = tables(kit.rucio.backend)
    with kit.rucio.engine.begin() as connection:
        [row] = connection.execute(ours.products.select().where(ours.products.c.name == "file")).mappings()
        connection.execute(ours.products.insert(), {**row, "name": "dead"})
    [gap] = [gap for gap in found(kit, code=3) if gap["gap"] == "dead"]
    assert (gap["name"], gap["rse"]) == ("dead", None)
    assert not [gap for gap in found(kit, "--rses", "HERE", code=3) if gap["gap"] == "dead"]
    found(kit, "--fix", code=0)
    assert kit.product("dead") is None
    assert kit.product("file") is not None


@on_sqlite
def test_what_rucio_has_overtaken_is_not_looked_at(kit: Kit, here: Rse) -> None:
    kit.rucio.upload(here, "file", b"content")
    kit.run()
    unseen(kit)
    kit.delete(here, "file")
    seen(kit)
    found(kit, "--fix", code=0)
    kit.delete(here, "one")  # the look at it is queued before its deletion,
    kit.rucio.upload(here, "file", b"content")  # and the deletion of this one before it is here again
    kit.run()
    assert [event for event, _ in kit.events("one")] == ["DELETE"]
    assert [event for event, _ in kit.events("file")][:2] == ["CREATE", "DELETE"]
    assert kit.outbox == []
    assert found(kit, code=0) == []


def test_what_two_searches_found_at_once_is_signed_once(kit: Kit, here: Rse) -> None:
    noted = kit.rucio.add_posix_rse("NOTED", trace_method="none")
    kit.rucio.upload(here, "file", b"content")
    kit.run()
    unseen(kit)
    kit.delete(here, "file")
    kit.rucio.upload(noted, "noted", b"content")
    seen(kit)
    rses = Rses(kit.rucio.engine)
    both = list(find.Search(kit.rucio.engine, rses.get([here.id, noted.id])).gaps())
    for _ in range(2):
        mend(kit.rucio.engine, both, rses)
    kit.run()
    mend(kit.rucio.engine, both, rses)  # and a third one was slow
    kit.run()
    assert kit.events("file") == [("CREATE", "HERE"), ("DELETE", "HERE")]
    assert len(kit.events("noted")) == 1
    assert kit.outbox == []


def test_what_was_adopted_since_it_was_found_is_not_read_again(kit: Kit, here: Rse) -> None:
    rses = Rses(kit.rucio.engine)
    slow = list(find.Search(kit.rucio.engine, rses.get([here.id])).gaps())
    mend(kit.rucio.engine, slow[:1], rses)
    kit.run()
    mend(kit.rucio.engine, slow[1:], rses)  # queued, and not yet read
    mend(kit.rucio.engine, slow, rses)
    assert [row.name for row in kit.outbox] == ["two"]
    kit.run()
    assert kit.events() == [("VERIFY", "HERE"), ("VERIFY", "HERE")]


@on_sqlite
def test_rses_that_are_not_read_are_told_apart(kit: Kit, here: Rse) -> None:
    rucio = kit.rucio
    others = {
        "TAPE": rucio.add_posix_rse("TAPE", rse_type="TAPE"),
        "NOTED": rucio.add_posix_rse("NOTED", trace_method="none"),
    }
    rucio.add_posix_rse("CACHE", volatile=True)
    unseen(kit)
    for name, rse in others.items():
        rucio.upload(rse, name, b"content")
    kit.copy(here, others["TAPE"], "one")  # by a transfer that compared the checksum
    seen(kit)
    mended = {(gap["rse"], gap["name"]): gap["mended"] for gap in found(kit, "--fix", code=3)}
    assert mended == {
        ("HERE", "one"): True,
        ("HERE", "two"): True,
        ("NOTED", "NOTED"): True,
        ("TAPE", "TAPE"): False,
        ("TAPE", "one"): True,
    }
    assert counts(kit)["excluded"] == ["CACHE"]
    kit.run()
    methods = {(s.trace.statement.rse, s.trace.statement.method) for s in kit.traces()}
    assert methods == {("HERE", "read"), ("NOTED", "none"), ("TAPE", "transfer")}
    assert [(gap["rse"], gap["name"]) for gap in found(kit, code=3)] == [("TAPE", "TAPE")]


@on_sqlite
def test_the_table_shows_a_few_and_counts_all(kit: Kit, here: Rse) -> None:
    result = gaps(kit, "--limit", "1")
    assert result.exit_code == 3
    assert next(line.split() for line in result.stdout.splitlines() if "untraced" in line)[:3] == [
        "untraced",
        "test:one",
        "HERE",
    ]
    assert "test:two" not in result.stdout
    [line] = [line.split() for line in result.stdout.splitlines() if " read " in line]
    assert line == ["HERE", "read", "2", "0", "2", "0", "0", "0"]


@on_sqlite
def test_an_expression_that_names_no_rse_is_wrong_use(kit: Kit) -> None:
    result = gaps(kit, "--rses", "NOWHERE")
    assert result.exit_code == 2
    assert "NOWHERE" in result.stderr
