"""`trace_origin`: who may set it, to what, when, and who may not; through REST with Rucio's own permission check."""

from __future__ import annotations

import json
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from producing import produced, text_of
from rucio.common.exception import AccessDenied, DataIdentifierNotFound, InvalidMetadata, RucioException
from rucio_trace_policy import hooks
from rucio_trace_policy.database import GUARDED_JSON, PLUGIN
from rucio_trace_policy.tables import tables
from rucio_trace_policy.versions import VERSION
from rucio_trace_sandbox.pki import SandboxAuthority
from sqlalchemy import insert, select, text, update

from rucio_trace.envelope import parse_traces
from rucio_trace.trace import Event, ProductKey, format_time

if TYPE_CHECKING:
    from rucio.client import Client
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.pki import Member
    from rucio_trace_sandbox.rest import Rest

    from rucio_trace.envelope import Trace

CONTENT = b"the bytes of a product"


class Server:
    """A Rucio with our plugin, its settings, and a producer who may create in the scope `test`."""

    def __init__(self, rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rucio = rucio
        hooks.install(rucio.engine)
        rucio.configure(metadata={"plugins": f"{PLUGIN},{GUARDED_JSON}"})
        rucio.add_posix_rse("DISK")
        self.authority = SandboxAuthority(rucio.folder / "federation")
        self.producer = self.authority.admit("PRODUCER", rses=(), create=("test",))
        self.settings = rucio.folder / "rucio-trace.toml"
        self.trust("federation/federation.toml")
        monkeypatch.setenv("RUCIO_TRACE_CONFIG", str(self.settings))

    def trust(self, federation: str) -> None:
        self.settings.write_text(f'[trust]\nfederation = "{federation}"\n')

    def add(self, name: str = "file", content: bytes = CONTENT, **values: Any) -> None:
        from rucio.gateway.replica import add_replicas

        add_replicas("DISK", [self.file(name, content, **values)], issuer="root")

    def next_generation(self) -> None:
        """Wait until a name that is given again counts as another product: on MariaDB Rucio keeps seconds."""
        if self.rucio.backend == "mysql":
            time.sleep(1.0)

    def file(self, name: str = "file", content: bytes = CONTENT, **values: Any) -> dict[str, Any]:
        adler32 = f"{zlib.adler32(content):08x}"
        fields = {"scope": "test", "name": name, "bytes": len(content), "adler32": adler32, "state": "C"} | values
        return {key: value for key, value in fields.items() if value is not None}

    def trace(self, name: str = "file", content: bytes = CONTENT, *, by: Member | None = None, **changes: Any) -> Trace:
        return produced((by or self.producer).signer, name, content, **changes)

    def shown(self, name: str = "file") -> Any:
        from rucio.gateway.did import get_metadata

        return get_metadata("test", name, plugin="ALL").get("trace_origin")


@pytest.fixture
def server(rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(rucio, monkeypatch)


@pytest.fixture
def client(server: Server, rest: Rest) -> Client:
    return rest.root


def set_origin(client: Client, value: Any, name: str = "file") -> None:
    client.set_metadata("test", name, "trace_origin", value)


def refused(client: Client, value: Any, reason: str, name: str = "file") -> None:
    with pytest.raises(InvalidMetadata, match=reason):
        set_origin(client, value, name)


# Taken ---------------------------------------------------------------------------------------------------------------


def test_a_producers_trace_is_taken_once_shown_and_kept_as_it_was_signed(server: Server, client: Client) -> None:
    server.add()
    trace = server.trace()
    set_origin(client, text_of(trace))
    found = client.get_metadata("test", "file", plugin="ALL")
    assert found["trace_status"] == "PENDING"
    [kept] = parse_traces(found["trace_origin"].encode())
    assert (kept.message, kept.signature, kept.certificate) == (trace.message, trace.signature, trace.certificate)
    set_origin(client, f"[{text_of(trace)}]")  # an answer may be lost: whoever repeats himself has said nothing new
    refused(client, text_of(server.trace()), f"set already, to trace {trace.id}")
    with pytest.raises(RucioException, match="ReadOnlyKey"):
        client.delete_metadata("test", "file", "trace_origin")
    assert json.loads(server.shown())["id"] == trace.id


def test_every_way_of_setting_metadata_leads_there(server: Server, client: Client) -> None:
    server.add("one")
    server.add("two")
    client.set_metadata_bulk("test", "one", {"trace_origin": text_of(server.trace("one"))})
    client.set_dids_metadata_bulk(
        [{"scope": "test", "name": "two", "meta": {"trace_origin": text_of(server.trace("two"))}}]
    )
    with_meta = server.file("three", meta={"trace_origin": text_of(server.trace("three"))})
    client.add_replicas("DISK", [with_meta])
    assert all(server.shown(name) for name in ("one", "two", "three"))


def test_every_way_of_setting_metadata_refuses(server: Server, client: Client) -> None:
    server.add()
    wrong = {"trace_origin": text_of(server.trace(content=b"other bytes, other size"))}
    with pytest.raises(InvalidMetadata, match="bytes, Rucio"):
        client.set_metadata_bulk("test", "file", wrong)
    with pytest.raises(RucioException, match="bytes, Rucio"):
        client.set_dids_metadata_bulk([{"scope": "test", "name": "file", "meta": wrong}])
    with pytest.raises(RucioException, match="bytes, Rucio"):
        client.add_replicas("DISK", [server.file("new", meta={"trace_origin": text_of(server.trace("new", b"other"))})])
    with pytest.raises(RucioException, match="it is no file"):
        client.add_did("test", "set", "DATASET", meta={"trace_origin": text_of(server.trace("set"))})
    with pytest.raises(InvalidMetadata, match="read-only"):
        client.set_metadata("test", "file", "TRACE_Origin", text_of(server.trace()))
    assert server.shown() is None
    with pytest.raises(DataIdentifierNotFound):
        client.get_did("test", "new")


def test_one_trace_for_two_files_of_one_request_refuses_both(server: Server, client: Client) -> None:
    value = text_of(server.trace("file"))
    files = [server.file(name, meta={"trace_origin": value}) for name in ("a/file", "b/file")]
    with pytest.raises(RucioException, match="used for another product"):
        client.add_replicas("DISK", files)


def test_a_name_in_folders_is_held_against_its_base_name(server: Server, client: Client) -> None:
    server.add("folder/file")
    set_origin(client, text_of(server.trace("file")), "folder/file")
    assert server.shown("folder/file")


def test_an_attribute_of_that_name_is_not_shown_for_it(server: Server) -> None:
    server.add()
    ours = tables(server.rucio.backend)
    with server.rucio.engine.begin() as connection:
        generation = connection.scalar(select(ours.outbox.c.generation))
        row = {"scope": "test", "name": "file", "generation": generation, "status": "GENUINE", "proven": 1, "total": 1}
        connection.execute(insert(ours.products).values(**row, attributes='{"origin": "FORGED"}'))
    assert server.shown() is None


# Refused: who --------------------------------------------------------------------------------------------------------


def test_whoever_may_not_write_the_did_may_not_set_it(server: Server, rest: Rest) -> None:
    from rucio.common.types import InternalAccount
    from rucio.core.account import add_account
    from rucio.core.identity import add_account_identity, add_identity
    from rucio.db.sqla.constants import AccountType, IdentityType

    with server.rucio.session() as session:
        alice = InternalAccount("alice")
        add_account(alice, AccountType.USER, "alice@example.org", session=session)
        add_identity("alice", IdentityType.USERPASS, "alice@example.org", password="secret", session=session)
        add_account_identity("alice", IdentityType.USERPASS, alice, "alice@example.org", session=session)
    server.add()
    alice_client = rest.login("alice", "alice", "secret")
    value = text_of(server.trace())
    with pytest.raises(AccessDenied):
        alice_client.set_metadata("test", "file", "trace_origin", value)
    with pytest.raises(AccessDenied):
        alice_client.set_metadata_bulk("test", "file", {"trace_origin": value})
    with pytest.raises(AccessDenied):
        alice_client.set_dids_metadata_bulk([{"scope": "test", "name": "file", "meta": {"trace_origin": value}}])
    assert server.shown() is None


def test_a_forged_one_is_refused(server: Server, client: Client) -> None:
    server.add()
    value = json.loads(text_of(server.trace()))
    other = json.loads(text_of(server.trace()))
    resigned = value | {"signature": value["signature"] | {"signature": other["signature"]["signature"]}}
    refused(client, json.dumps(resigned), "signature")
    renamed = value | {"product": value["product"] | {"size": 1}}
    refused(client, json.dumps(renamed), "size")
    unsigned = value | {"signature": dict.fromkeys(value["signature"], "")}
    refused(client, json.dumps(unsigned), "not signed")


def test_a_foreign_one_is_refused(server: Server, client: Client) -> None:
    server.add()
    elsewhere = server.authority.admit("ELSEWHERE", rses=("*",), create=("other",), outside=True)
    refused(client, text_of(server.trace(by=elsewhere)), "right to CREATE in scope test")
    stranger = SandboxAuthority(server.rucio.folder / "stranger").admit("PRODUCER")
    refused(client, text_of(server.trace(by=stranger)), "anchor")
    refused(client, text_of(server.trace("another")), "'another', not of 'file'")


def test_a_revoked_or_expired_signer_is_refused_as_soon_as_the_files_say_so(server: Server, client: Client) -> None:
    server.add()
    server.add("later")
    short = server.authority.admit("SHORT", create=("test",), lifetime=timedelta(minutes=1, seconds=-5))
    now = datetime.now(UTC) - timedelta(seconds=30)
    refused(client, text_of(server.trace(by=short, time=format_time(now))), "certificate")
    set_origin(client, text_of(server.trace()))
    server.authority.revoke(server.producer, datetime.now(UTC) - timedelta(minutes=1))
    refused(client, text_of(server.trace("later")), "revoked", "later")
    renewed = server.authority.admit("RENEWED", create=("test",))  # admitted after the server read its files
    set_origin(client, text_of(server.trace("later", by=renewed)), "later")


def test_a_server_that_trusts_nobody_takes_none_and_tells_no_path(server: Server, client: Client) -> None:
    server.add()
    for broken in ("", "missing.toml"):
        server.trust(broken)
        with pytest.raises(InvalidMetadata, match="no usable list of whom to trust") as raised:
            set_origin(client, text_of(server.trace()))
        assert str(server.rucio.folder) not in str(raised.value)


# Refused: what -------------------------------------------------------------------------------------------------------


def test_what_is_no_such_trace_is_refused(server: Server, client: Client) -> None:
    server.add()
    vectors = Path(__file__).parents[1] / "vectors" / "cdse" / "real-cdse-trace.json"
    refused(client, "not JSON", "JSON")
    refused(client, {"an": "object"}, "JSON text of a trace")
    refused(client, "[]", "one trace")
    refused(client, f"[{text_of(server.trace())},{text_of(server.trace())}]", "one trace")
    refused(client, "{}", "product")
    refused(client, json.dumps(json.loads(vectors.read_text())), "schema")
    refused(client, " " * (8 * 1024 * 1024 + 1), "at most 8388608 bytes")
    refused(client, text_of(server.trace(event=Event.OBSOLETE, method=None, observed=None)), "CREATE")
    product = ProductKey("rucio", "def", "test", "file", format_time(datetime.now(UTC)))
    refused(client, text_of(server.trace(**product.fields())), "in no Rucio")


def test_one_that_disagrees_with_the_file_is_refused(server: Server, client: Client) -> None:
    server.add()
    md5 = server.trace().statement.digests["MD5"]
    server.add("md5", adler32=None, md5=md5)
    server.add("bare", adler32=None)
    refused(client, text_of(server.trace(content=CONTENT + b"!")), "23 bytes, Rucio 22")
    refused(client, text_of(server.trace(content=CONTENT[::-1])), "ADLER32")
    refused(client, text_of(server.trace("md5", CONTENT[::-1])), "MD5", "md5")
    refused(client, text_of(server.trace("bare")), "no checksum in common", "bare")
    refused(client, text_of(server.trace(hashes={"MD5": md5})), "no checksum in common")
    set_origin(client, text_of(server.trace("md5")), "md5")
    with pytest.raises(DataIdentifierNotFound):
        set_origin(client, text_of(server.trace("nothing")), "nothing")


# Refused: when -------------------------------------------------------------------------------------------------------


def test_a_replayed_one_is_refused(server: Server, client: Client) -> None:
    from rucio.core.replica import delete_replicas
    from rucio.core.rse import get_rse_id

    server.add()
    server.add("folder/file")
    trace = server.trace()
    set_origin(client, text_of(trace))
    refused(client, text_of(trace), "used for another product", "folder/file")
    with server.rucio.session() as session:
        rse_id = get_rse_id("DISK", session=session)
        delete_replicas(rse_id, [{"scope": server.rucio.scope, "name": "file"}], session=session)
    server.next_generation()
    server.add()
    assert server.shown() is None
    refused(client, text_of(trace), "used for another product")
    set_origin(client, text_of(server.trace()))


def test_once_the_product_has_an_origin_it_is_too_late(server: Server, client: Client) -> None:
    server.add()
    server.add("signed")
    ours = tables(server.rucio.backend)
    with server.rucio.engine.begin() as connection:
        generation = connection.scalar(select(ours.outbox.c.generation).where(ours.outbox.c.name == "file"))
        row = {"scope": "test", "name": "file", "generation": generation, "status": "GENUINE", "proven": 1, "total": 1}
        connection.execute(insert(ours.products).values(**row, trace_id="0b9d"))
        connection.execute(update(ours.outbox).where(ours.outbox.c.name == "signed").values(message="a trace"))
    refused(client, text_of(server.trace()), "has an origin already, trace 0b9d")
    refused(client, text_of(server.trace("signed")), "first replica has been recorded", "signed")


def test_of_two_at_once_one_wins_and_the_other_is_told(server: Server, rest: Rest) -> None:
    for number in range(6):
        name = f"file{number}"
        server.add(name)
        values = [text_of(server.trace(name)) for _ in range(4)]
        answers = _at_once(rest, [(name, value) for value in values])
        assert sorted(answers.values()) == ["InvalidMetadata"] * 3 + ["taken"], answers
        [winner] = [values[number] for number, answer in answers.items() if answer == "taken"]
        assert json.loads(server.shown(name)) == json.loads(winner)


def test_of_two_files_that_want_one_trace_at_once_one_gets_it(server: Server, rest: Rest) -> None:
    for number in range(3):
        names = [f"{folder}/file{number}" for folder in "abcd"]
        for name in names:
            server.add(name)
        value = text_of(server.trace(f"file{number}"))
        answers = _at_once(rest, [(name, value) for name in names])
        assert sorted(answers.values()) == ["InvalidMetadata"] * 3 + ["taken"], answers


def _at_once(rest: Rest, requests: list[tuple[str, str]]) -> dict[int, str]:
    answers: dict[int, str] = {}
    client, barrier = rest.root, threading.Barrier(len(requests))

    def ask(number: int, name: str, value: str) -> None:
        barrier.wait()
        try:
            set_origin(client, value, name)
            answers[number] = "taken"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
            answers[number] = type(error).__name__

    threads = [threading.Thread(target=ask, args=(number, *request)) for number, request in enumerate(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# Installed over version 1 --------------------------------------------------------------------------------------------


def test_hooks_of_version_1_are_brought_up_to_date_with_all_they_hold(rucio: EmbeddedRucio) -> None:
    old = (Path(__file__).parent / "hooks_version_1" / f"{rucio.backend}.sql").read_text()
    ours = tables(rucio.backend)
    with rucio.engine.begin() as connection:
        for statement in old.split("\n;;\n"):
            escaped = statement.replace("%", "%%") if rucio.backend == "postgresql" else statement
            connection.exec_driver_sql(escaped.strip())
        connection.execute(insert(ours.installations).values(version=1, at=datetime(2026, 1, 2, tzinfo=UTC)))
    rse = rucio.add_posix_rse("DISK")
    rucio.upload(rse, "file", b"content")
    with rucio.engine.connect() as connection:
        before = connection.execute(select(ours.outbox)).all()
    assert before
    told = rf"of version 1, this program needs {VERSION}.*{ours.origins.name}: missing"
    with pytest.raises(hooks.HooksUnfit, match=told):
        hooks.check(rucio.engine)
    assert ours.origins.fullname in {fault.part for fault in hooks.status(rucio.engine).faults}
    assert hooks.install(rucio.engine)
    hooks.check(rucio.engine)
    rucio.upload(rse, "other", b"content")
    with rucio.engine.connect() as connection:
        after = connection.execute(select(ours.outbox).order_by(ours.outbox.c.id)).all()
        versions = connection.scalars(select(ours.installations.c.version)).all()
        assert connection.scalar(text(f"SELECT count(*) FROM {ours.origins.fullname}")) == 0
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert sorted(versions) == [1, VERSION]
