"""A product that comes with its trace: imported, then its file arrives in Rucio, and its history begins elsewhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from producing import Declaring, produced
from rucio_trace_policy.tables import tables
from sqlalchemy import update
from unit.authority import signed_raw

from rucio_trace.cli import cli
from rucio_trace.digest import DigestPass
from rucio_trace.envelope import to_json
from rucio_trace.trace import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio

CONTENT = b"the bytes of a product"


class Importing(Declaring):
    def __init__(self, rucio: EmbeddedRucio) -> None:
        super().__init__(rucio)
        self.archive = self.authority.admit("ARCHIVE", rses=(), create=(), outside=True)
        self.recorder()  # which makes the store

    def call(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, arguments, env={"RUCIO_TRACE_CONFIG": str(self.file)})
        assert result.exit_code == code, result.output
        return str(result.stdout)

    def take(self, value: dict[str, Any], *options: str) -> None:
        file = self.folder / "came-with-it.json"
        file.write_text(json.dumps([value]))
        self.call("import", str(file), *options)


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[Importing]:
    kit = Importing(rucio_sqlite)
    yield kit
    kit.close()


def test_the_history_of_a_product_begins_with_what_was_imported(kit: Importing) -> None:
    with DigestPass(("BLAKE3",)) as digests:
        digests.update(CONTENT)
        members = {"hash": digests.finish().hashes["BLAKE3"], "name": "file", "size": len(CONTENT), "event": "CREATE"}
    text = json.dumps(members, separators=(",", ":"))
    kit.take(signed_raw(text, kit.archive.signer, origin="lta", timestamp="2026-05-01T00:00:00.000000Z"))
    kit.rucio.upload(kit.rucio.add_posix_rse("ONE"), "file", CONTENT)
    kit.run()
    first, second = map(json.loads, kit.call("history", "test:file", "--json").splitlines())
    assert (first["statement"]["event"], second["statement"]["event"]) == ("CREATE", "COPY")
    assert first["not_signed"]["origin"] == "lta"
    assert second["statement"]["source"] == {"rse": None, "trace": first["id"]}
    shown = kit.call("history", "test:file")
    assert "GENUINE" in shown
    assert "not signed: timestamp, origin, hash_algorithm" in shown
    assert shown.index("CREATE") < shown.index("COPY")
    file = kit.folder / "file"
    file.write_bytes(CONTENT)
    verdict = json.loads(kit.call("verify", "--json", str(file)))
    assert (verdict["verdict"], verdict["trace"]) == ("GENUINE", first["id"])


def test_a_producers_trace_imported_for_its_scope_joins_there(kit: Importing) -> None:
    trace = produced(kit.producer.signer, "file", CONTENT)
    kit.take(to_json(trace), "--scope", "test")
    kit.rucio.upload(kit.rucio.add_posix_rse("ONE"), "file", CONTENT)
    kit.run()
    found = [json.loads(line) for line in kit.call("history", "test:file", "--json").splitlines()]
    assert [item["statement"]["event"] for item in found] == ["CREATE", "COPY"]
    assert found[1]["statement"]["source"]["trace"] == trace.id == found[0]["id"]
    assert kit.product("file").status == "GENUINE"


def test_what_was_taken_for_one_scope_says_nothing_in_another(kit: Importing) -> None:
    elsewhere = kit.authority.admit("ELSEWHERE", rses=(), create=("other",), obsolete=("other",))
    kit.take(to_json(produced(kit.archive.signer, "file", CONTENT)))
    obsolete = produced(elsewhere.signer, "file", CONTENT, event=Event.OBSOLETE, obsolescence="old")
    kit.take(to_json(obsolete), "--scope", "other")
    kit.rucio.upload(kit.rucio.add_posix_rse("ONE"), "file", CONTENT)
    kit.run()
    file = kit.folder / "file"
    file.write_bytes(CONTENT)
    assert json.loads(kit.call("verify", "--json", str(file)))["verdict"] == "GENUINE"
    assert kit.product("file").status == "GENUINE"


def test_an_old_product_whose_producer_withdrew_his_word_is_not_adopted(kit: Importing) -> None:
    one, two = (kit.rucio.add_posix_rse(name) for name in ("ONE", "TWO"))
    kit.rucio.upload(one, "file", CONTENT)
    with kit.rucio.engine.begin() as connection:  # as if the hooks had come later
        ours = tables(kit.rucio.backend)
        later = datetime.now(UTC) + timedelta(hours=1)
        connection.execute(update(ours.installations).values(at=later))
    trace = produced(kit.archive.signer, "file", CONTENT)
    kit.take(to_json(trace))
    kit.run()
    revoke = produced(kit.archive.signer, "file", CONTENT, event=Event.REVOKE, revokes=trace.id)
    kit.take(to_json(revoke))
    kit.copy(one, two, "file")
    kit.run()
    assert kit.events()[-1] == ("COPY", "TWO")
    assert kit.product("file").status == "REVOKED"
