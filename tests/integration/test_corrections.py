"""What was said is taken back: obsolete, revoke, their undo, who may, and Rucio that follows."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from producing import Declaring, produced
from recorder_kit import on_sqlite
from rucio_trace_daemons.recorder import service
from rucio_trace_daemons.recorder.finish import snapshot, write_snapshots
from rucio_trace_policy.database import writing
from rucio_trace_policy.tables import tables
from sqlalchemy import select, text
from unit.authority import signed_raw

from rucio_trace.cli import cli
from rucio_trace.envelope import Trace, parse_traces, sign
from rucio_trace.trace import Event, ProductKey, Statement, new_event_id, new_salt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio

CONTENT = b"the bytes of a product"
WRONG = CONTENT[::-1]
COPIES = 100


class Correcting(Declaring):
    """A recorder without the right to correct anything, and the owner of the scope, who has it."""

    def __init__(self, rucio: EmbeddedRucio) -> None:
        super().__init__(rucio)
        self.owner = self.authority.admit("OWNER", rses=(), create=("test",), obsolete=("test",), revoke=("test",))
        self.use("OWNER")
        self.one = rucio.add_posix_rse("ONE")

    def use(self, name: str) -> None:
        """Whose key `[producer]` names."""
        key, certificate = f"federation/{name}.key.pem", f"federation/{name}.pem"
        without = self.file.read_text().partition("[producer]")[0]
        self.file.write_text(f'{without}[producer]\nsite = "{name}"\nkey = "{key}"\ncertificate = "{certificate}"\n')

    def call(self, *arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(cli, arguments, env={"RUCIO_TRACE_CONFIG": str(self.file)})
        assert result.exit_code == code, result.output
        return result

    def upload(self, name: str = "file", content: bytes = CONTENT) -> ProductKey:
        """A recorded upload; the product."""
        self.rucio.upload(self.one, name, content)
        self.run()
        key = self.traces(name)[-1].trace.statement.product
        assert key is not None
        return key

    def take(self, *traces: Trace) -> None:
        """What `rucio-trace import` does."""
        recorder = self.recorder()
        answers = recorder.store.register(traces, trust=recorder.trust())
        assert all(answer.position for answer in answers), answers

    def status(self, name: str = "file") -> str:
        return str(self.product(name).status)

    def follow(self) -> None:
        """What a recorder does between its batches."""
        self.recorder().follow()

    def followed(self) -> int | None:
        with self.rucio.engine.connect() as connection:
            return connection.scalar(select(tables(self.rucio.backend).followed.c.position))


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[Correcting]:
    kit = Correcting(rucio)
    yield kit
    kit.close()


# Obsolete ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rucio", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_an_obsolete_product_shows_at_once_once_and_can_be_taken_back(kit: Correcting) -> None:
    kit.upload()
    done = kit.call("obsolete", "test:file", "--reason", "wrong orbit", "--replaced-by", "test:new")
    assert "the store knows nothing of test:new" in done.stderr
    assert "in Rucio: OBSOLETE, 1/1 good" in done.stderr
    [create, obsolete] = (stored.trace.statement for stored in kit.traces())
    assert (obsolete.event, obsolete.event_id) == (Event.OBSOLETE, done.stdout.strip())
    assert (obsolete.product, obsolete.digests, obsolete.size) == (create.product, create.digests, create.size)
    assert (obsolete.obsolescence, obsolete.replaced_by) == ("wrong orbit", "test:new")
    assert (obsolete.site, obsolete.signer) == ("OWNER", kit.owner.signer.fingerprint)
    assert kit.status() == "OBSOLETE"
    (kit.folder / "file").write_bytes(CONTENT)
    kit.call("verify", str(kit.folder / "file"), code=4)

    again = kit.call("obsolete", "test:file", "--reason", "in other words", "--replaced-by", "test:new")
    assert f"obsolete already: {obsolete.event_id}, wrong orbit" in again.stderr
    other = kit.call("obsolete", "test:file", "--reason", "x", "--replaced-by", "test:other", code=3)
    assert "--undo" in other.stderr
    assert (again.stdout, other.stdout, len(kit.traces())) == ("", "", 2)

    kit.call("obsolete", "test:file", "--undo", "--reason", "the orbit was right")
    revoke = kit.traces()[-1].trace.statement
    assert (revoke.event, revoke.revokes, revoke.obsolescence) == (
        Event.REVOKE, obsolete.event_id, "the orbit was right",
    )  # fmt: skip
    assert kit.status() == "GENUINE"
    assert "is not obsolete" in kit.call("obsolete", "test:file", "--undo").stderr
    assert len(kit.traces()) == 3
    kit.call("revoke", revoke.event_id, "--reason", "it was wrong after all")
    assert kit.status() == "OBSOLETE"


@on_sqlite
def test_a_dry_run_shows_what_would_be_signed_and_changes_nothing(kit: Correcting) -> None:
    key = kit.upload()
    done = kit.call("obsolete", "test:file", "--reason", "old", "--dry-run")
    signed = json.loads(done.stdout)
    assert (signed["event"], signed["did"], signed["generation"]) == ("OBSOLETE", key.did, key.generation)
    assert (len(kit.traces()), kit.status()) == (1, "GENUINE")


@on_sqlite
def test_the_first_key_with_the_right_signs_and_without_one_nothing_is_done(kit: Correcting) -> None:
    kit.upload()
    kit.use("PRODUCER")  # may create, no more
    refused = kit.call("obsolete", "test:file", "--reason", "old", code=3)
    for part in ("PRODUCER", "SITE-A", "the right to OBSOLETE in scope test", "federation file"):
        assert part in refused.stderr
    kit.call("revoke", kit.traces()[0].id, "--reason", "old", code=3)
    assert (len(kit.traces()), kit.status()) == (1, "GENUINE")
    text = kit.authority.federation.read_text()
    kit.authority.federation.write_text(text.replace("obsolete = []", 'obsolete = ["test"]', 1))  # SITE-A's
    kit.call("obsolete", "test:file", "--reason", "old")
    assert kit.traces()[-1].trace.statement.site == "SITE-A"
    own = ("--key", str(kit.owner.key), "--cert", str(kit.owner.certificate), "--site", "DESK")
    others = kit.call("obsolete", "test:file", "--undo", *own, code=3)
    assert "rucio-trace revoke" in others.stderr
    assert (len(kit.traces()), kit.status()) == (2, "OBSOLETE")
    kit.call("revoke", kit.traces()[-1].id, "--reason", "not for them to say", *own)
    assert (kit.traces()[-1].trace.statement.site, kit.status()) == ("DESK", "GENUINE")


@on_sqlite
def test_a_name_given_again_is_not_taken_for_the_old_product(kit: Correcting) -> None:
    old = kit.upload()
    kit.delete(kit.one, "file")
    kit.rucio.upload(kit.one, "file", CONTENT)
    refused = kit.call("obsolete", "test:file", "--reason", "old", code=3)
    assert "--generation" in refused.stderr
    kit.call("obsolete", "test:file", "--reason", "old", "--generation", old.generation)
    kit.run()
    new = kit.traces()[-1].trace.statement.product
    assert (new != old, kit.status()) == (True, "GENUINE")
    kit.call("obsolete", "test:file", "--reason", "new")
    assert (kit.traces()[-1].trace.statement.product, kit.status()) == (new, "OBSOLETE")


@on_sqlite
def test_what_is_not_known_cannot_be_corrected(kit: Correcting) -> None:
    kit.recorder()
    assert "found none" in kit.call("obsolete", "test:none", "--reason", "x", code=3).stderr
    kit.call("revoke", new_event_id(), "--reason", "x", code=3)
    kit.upload()
    kit.call("revoke", kit.traces()[0].id, "--reason", "x")
    assert "none that stands" in kit.call("obsolete", "test:file", "--reason", "x", code=3).stderr


# Revoke --------------------------------------------------------------------------------------------------------------


@on_sqlite
def test_a_withdrawal_is_said_once_and_can_be_taken_back_again_and_again(kit: Correcting) -> None:
    kit.upload()
    create = kit.traces()[0].id
    first = kit.call("revoke", create.upper(), "--reason", "wrong").stdout.strip()
    assert kit.status() == "REVOKED"
    assert f"withdrawn already: {first}, wrong" in kit.call("revoke", create, "--reason", "again").stderr
    second = kit.call("revoke", create, "--undo").stdout.strip()
    assert (kit.status(), kit.traces()[-1].trace.statement.revokes) == ("GENUINE", first)
    assert "is not withdrawn" in kit.call("revoke", create, "--undo").stderr
    kit.call("revoke", second, "--reason", "wrong after all")
    assert (kit.status(), len(kit.traces())) == ("REVOKED", 4)
    (kit.folder / "file").write_bytes(CONTENT)
    kit.call("verify", str(kit.folder / "file"), code=1)


@on_sqlite
def test_a_producers_word_is_withdrawn_in_the_product_that_it_joined(kit: Correcting) -> None:
    kit.rucio.upload(kit.one, "file", CONTENT)
    word = kit.declare("file", CONTENT)
    kit.run()
    kit.call("revoke", word.id, "--reason", "of an earlier build")
    revoke = kit.traces()[-1].trace.statement
    assert (revoke.product, revoke.hash) == (kit.traces()[1].trace.statement.product, word.statement.hash)
    assert kit.status() == "REVOKED"
    kit.call("revoke", word.id, "--undo")
    assert kit.status() == "GENUINE"


@on_sqlite
def test_where_an_origin_does_not_sign_its_algorithm_the_copys_digests_are_repeated(kit: Correcting) -> None:
    archive = kit.authority.admit("ARCHIVE", rses=(), create=(), outside=True)
    digest = produced(archive.signer, "file", CONTENT).statement.hash
    words = {"hash": digest, "name": "file", "size": len(CONTENT), "event": "CREATE"}  # as the Traceability Service
    kit.take(*parse_traces(json.dumps([signed_raw(json.dumps(words), archive.signer)]).encode()))
    kit.upload()
    word, copy = kit.traces()
    assert copy.trace.statement.source.trace == word.id
    kit.call("obsolete", "test:file", "--reason", "old")
    assert (kit.traces()[-1].trace.statement.digests, kit.status()) == (copy.trace.statement.digests, "OBSOLETE")
    kit.call("revoke", word.id, "--reason", "not theirs")
    revoke = kit.traces()[-1].trace.statement
    assert (revoke.revokes, revoke.digests, kit.status()) == (word.id, copy.trace.statement.digests, "REVOKED")


@on_sqlite
def test_a_trace_of_a_file_in_no_rucio_is_withdrawn_by_who_signed_it_alone(kit: Correcting) -> None:
    archive = kit.authority.admit("ARCHIVE", rses=(), create=(), outside=True)
    word = produced(archive.signer, "elsewhere.zip", CONTENT)
    kit.take(word)
    assert "is not who said it" in kit.call("revoke", word.id, "--reason", "wrong", code=3).stderr
    kit.use("ARCHIVE")
    kit.call("revoke", word.id, "--reason", "wrong")
    revoke = kit.traces()[-1].trace.statement
    assert (revoke.product, revoke.revokes, revoke.digests) == (None, word.id, word.statement.digests)
    assert "withdrawn already" in kit.call("revoke", word.id, "--reason", "wrong").stderr
    (kit.folder / "elsewhere.zip").write_bytes(CONTENT)
    kit.call("verify", str(kit.folder / "elsewhere.zip"), code=1)


@on_sqlite
def test_a_datasets_list_is_withdrawn_once_and_as_a_datasets_and_that_can_be_taken_back(kit: Correcting) -> None:
    from rucio.core.did import add_did, attach_dids, set_status
    from rucio.db.sqla.constants import DIDType

    kit.upload()
    rucio, scope = kit.rucio, kit.rucio.scope
    with rucio.session() as session:
        add_did(scope, "june", DIDType.DATASET, rucio.root, session=session)
        attach_dids(scope, "june", [{"scope": scope, "name": "file"}], rucio.root, session=session)
        set_status(scope, "june", session=session, open=False)
    kit.run()
    [create] = kit.traces("june")
    withdrawn = kit.call("revoke", create.id, "--reason", "wrong list").stdout.strip()
    revoke = kit.traces("june")[-1].trace.statement
    assert (revoke.event_id, revoke.members, revoke.hash) == (withdrawn, 1, create.trace.statement.hash)
    assert "withdrawn already" in kit.call("revoke", create.id, "--reason", "wrong list").stderr
    kit.call("revoke", create.id, "--undo")
    kit.call("obsolete", "test:june", "--reason", "superseded")
    assert [event for event, _ in kit.events("june")] == ["CREATE", "REVOKE", "REVOKE", "OBSOLETE"]


# An origin that turns out wrong --------------------------------------------------------------------------------------


class Disputed:
    """A product of a hundred copies and a few, all of CONTENT; then the owner says that it should be WRONG."""

    def __init__(self, kit: Correcting) -> None:
        self.kit, self.key = kit, kit.upload()
        self.create = kit.traces()[0]
        kit.take(*self._copies())
        self.two = kit.rucio.add_posix_rse("TWO")
        kit.copy(kit.one, self.two, "file")
        kit.run()
        assert (kit.status(), kit.product("file").proven) == ("GENUINE", COPIES + 2)
        self.word = produced(kit.owner.signer, "file", WRONG, **self.key.fields())
        kit.take(self.word)
        kit.follow()
        assert kit.status() == "DISPUTED"

    def _copies(self) -> list[Trace]:
        """What a recorder signs of a hundred more RSEs."""
        s, signer = self.create.trace.statement, self.kit.member.signer
        same = ("hash", "size", "hash_algorithm", "hashes", "name", "site", "signer", "time", "observed", "method")
        fields = {name: getattr(s, name) for name in same} | self.key.fields()
        rses = [f"RSE-{number}" for number in range(COPIES)]
        own = [{"rse": rse, "event": Event.COPY, "event_id": new_event_id(), "salt": new_salt()} for rse in rses]
        return [sign(Statement(**fields, **more), signer) for more in own]


@pytest.mark.parametrize("rucio", ["postgresql"], indirect=True)
def test_a_second_creation_that_was_wrong_is_withdrawn_and_every_copy_is_good_again(kit: Correcting) -> None:
    disputed = Disputed(kit)
    refused = kit.call("obsolete", "test:file", "--reason", "x", code=3)
    assert disputed.create.id in refused.stderr
    assert disputed.word.id in refused.stderr
    kit.copy(kit.one, kit.rucio.add_posix_rse("THREE"), "file")  # Rucio goes on, and so does the recorder
    kit.run()
    assert (kit.status(), kit.outbox) == ("DISPUTED", [])
    kit.call("revoke", disputed.word.id, "--reason", "digest of an earlier build")
    product = kit.product("file")
    assert (product.status, product.proven, product.total) == ("GENUINE", COPIES + 3, COPIES + 3)
    assert product.trace_id == disputed.create.id


@on_sqlite
def test_a_first_creation_that_was_wrong_makes_its_copies_bad_until_good_ones_are_there(kit: Correcting) -> None:
    disputed = Disputed(kit)
    kit.call("revoke", disputed.create.id, "--reason", "recorded from a damaged upload")
    product = kit.product("file")
    assert (product.status, product.proven, product.trace_id) == ("TAMPERED", 0, disputed.word.id)
    kit.call("revoke", disputed.create.id, "--undo")
    assert kit.status() == "DISPUTED"
    kit.call("revoke", disputed.create.id, "--reason", "it was damaged, really")
    for rse in (kit.one, disputed.two):
        kit.delete(rse, "file")
    kit.run()
    assert kit.product("file") is None  # with its last replica Rucio forgets the file
    kit.upload("better", WRONG)
    kit.call("obsolete", "test:file", "--reason", "damaged upload", "--replaced-by", "test:better")
    for name, content, code in (("file", CONTENT, 1), ("file", WRONG, 4), ("better", WRONG, 0)):
        (kit.folder / name).write_bytes(content)
        kit.call("verify", str(kit.folder / name), "--did", f"test:{name}", code=code)


# Rucio follows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rucio", ["postgresql"], indirect=True)
def test_a_recorder_shows_what_others_registered_each_once(kit: Correcting) -> None:
    key = kit.upload()
    kit.upload("other")
    kit.follow()
    assert kit.followed() == 2
    obsolete = produced(kit.owner.signer, "file", CONTENT, event=Event.OBSOLETE, method=None, observed=None,
                        obsolescence="old", **key.fields())  # fmt: skip
    kit.take(obsolete)
    assert kit.status() == "GENUINE"
    kit.follow()
    assert (kit.status(), kit.status("other"), kit.followed()) == ("OBSOLETE", "GENUINE", 3)
    recorder = kit.recorder()
    assert [stored.id for stored in recorder.store.of_products_since(0)] == [obsolete.id]
    assert recorder.store.of_products_since(3) == []


@on_sqlite
def test_what_is_said_outside_rucio_reaches_the_product_it_joined(kit: Correcting) -> None:
    archive = kit.authority.admit("ARCHIVE", rses=(), create=(), outside=True)
    kit.take(produced(archive.signer, "file", CONTENT))
    kit.upload()
    kit.follow()
    kit.take(produced(archive.signer, "file", CONTENT, event=Event.OBSOLETE, obsolescence="old"))
    kit.follow()
    assert kit.status() == "OBSOLETE"


@on_sqlite
def test_a_product_that_rucio_removed_and_one_of_another_rucio_are_left_alone(kit: Correcting) -> None:
    key = kit.upload()
    kit.delete(kit.one, "file")
    kit.run()
    words = {"event": Event.OBSOLETE, "method": None, "observed": None, "obsolescence": "old"}
    elsewhere = ProductKey("other-rucio", "def", "test", "file", key.generation)
    for of in (key, elsewhere):
        kit.take(produced(kit.owner.signer, "file", CONTENT, **words, **of.fields()))
    kit.follow()
    assert (kit.product("file"), kit.followed()) == (None, 4)


@on_sqlite
def test_a_store_that_went_back_is_followed_from_its_beginning(kit: Correcting) -> None:
    key = kit.upload()
    table = tables(kit.rucio.backend).followed
    with kit.rucio.engine.begin() as connection:
        connection.execute(table.insert().values(one=1, position=1_000_000))
    kit.take(produced(kit.owner.signer, "file", CONTENT, event=Event.OBSOLETE, method=None, observed=None,
                      obsolescence="old", **key.fields()))  # fmt: skip
    kit.follow()
    assert (kit.status(), kit.followed()) == ("OBSOLETE", 2)


@on_sqlite
def test_an_altered_row_of_the_store_does_not_end_the_recording(
    kit: Correcting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = kit.upload()
    kit.take(produced(kit.owner.signer, "file", CONTENT, event=Event.OBSOLETE, method=None, observed=None,
                      obsolescence="old", **key.fields()))  # fmt: skip
    recorder = kit.recorder()
    with recorder.store._database.writing() as connection:
        connection.execute(
            text("UPDATE traces SET message = replace(message, 'test:file', 'test:evil') WHERE event = 'OBSOLETE'")
        )
    monkeypatch.setattr(service.LOG, "disabled", False)  # as Alembic leaves loggers that were there before it
    recorder.follow()
    assert "not-followed" in caplog.text
    kit.rucio.upload(kit.one, "another", CONTENT)
    kit.run()
    assert kit.status("another") == "GENUINE"


def test_an_older_view_of_a_product_waits_for_a_newer_one_and_gives_way(rucio_postgresql: EmbeddedRucio) -> None:
    """Both on PostgreSQL, where a row that was replaced while one waited for it is not seen any more."""
    kit = Correcting(rucio_postgresql)
    key = kit.upload()
    recorder = kit.recorder()
    older = recorder.store.product([key])[key]
    kit.take(produced(kit.owner.signer, "file", CONTENT, event=Event.OBSOLETE, method=None, observed=None,
                      obsolescence="old", **key.fields()))  # fmt: skip
    newer = recorder.store.product([key])[key]
    row = kit.product("file")
    views = [snapshot((row.scope, row.name, row.generation), of, str) for of in (older, newer)]
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def write_older() -> None:
        with writing(recorder.engine) as connection:
            write_snapshots(connection, views[:1])

    late = threading.Thread(target=write_older)
    with writing(recorder.engine) as connection:
        write_snapshots(connection, views[1:])
        late.start()
        with recorder.engine.connect() as looking:
            while not looking.scalar(waiting):
                assert late.is_alive()
    late.join()
    assert (kit.status(), kit.product("file").position) == ("OBSOLETE", newer[-1].position)
    kit.close()


# Where Rucio's database is not at hand -------------------------------------------------------------------------------


@on_sqlite
def test_from_a_clients_machine_accounts_are_told_and_the_recorder_shows_the_rest(kit: Correcting) -> None:
    from rucio_trace_sandbox.rest import in_process

    kit.upload()
    kit.copy(kit.one, kit.rucio.add_posix_rse("TWO"), "file")
    kit.run()
    beside = kit.call("who", "test:file", "--json").stdout.splitlines()
    assert [json.loads(line)["account"] for line in beside] == [None, "root"]
    program = "import sys; from rucio_trace.cli import main; sys.argv[0] = 'rucio-trace'; main()"
    with in_process(kit.rucio.folder / "rest") as rest:
        rest.home.configure({"client": {"auth_token_file_path": kit.rucio.folder / "token"}})

        def call(*arguments: str) -> Any:
            return rest.home.run(sys.executable, "-c", program, *arguments, RUCIO_TRACE_CONFIG=str(kit.file))

        away = call("who", "test:file", "--json")
        assert away.stdout.splitlines() == beside, away.stderr
        done = call("obsolete", "test:file", "--reason", "old")
    assert "Rucio's database is not at hand" in done.stderr
    assert kit.status() == "GENUINE"
    kit.follow()
    assert kit.status() == "OBSOLETE"
