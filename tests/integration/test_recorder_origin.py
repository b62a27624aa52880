"""What was said of a product before it was in Rucio: registered, held against the bytes, joined by the first look."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from producing import Declaring, produced, text_of
from recorder_kit import on_sqlite
from rucio.common.exception import InvalidMetadata
from rucio_trace_policy.tables import tables
from sqlalchemy import event, update

from rucio_trace.digest import DigestPass
from rucio_trace.envelope import parse_traces
from rucio_trace.trace import Event, new_event_id
from rucio_trace.verify import Candidate, Evidence, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

    from rucio_trace.envelope import Signer, Trace
    from rucio_trace.store import Stored

CONTENT = b"the bytes of a product"


class Told(Declaring):
    """A recorder whose federation has a producer, and an archive that may speak outside Rucio."""

    def __init__(self, rucio: EmbeddedRucio) -> None:
        super().__init__(rucio)
        self.archive = self.authority.admit("ARCHIVE", rses=(), create=(), outside=True)

    def declare(self, name: str = "file", content: bytes = CONTENT, **changes: Any) -> Trace:
        return super().declare(name, content, **changes)

    def take(self, *traces: Trace) -> None:
        """What `rucio-trace import` does."""
        recorder = self.recorder()
        answers = recorder.store.register(traces, trust=recorder.trust())
        assert all(answer.position for answer in answers), answers

    def statements(self) -> list[Any]:
        return [stored.trace.statement for stored in self.traces()]

    def whole(self, name: str = "file") -> list[Stored]:
        """The product's history, with what joined it."""
        recorder = self.recorder()
        [key] = {s.product for s in self.statements() if s.product is not None and s.product.name == name}
        return recorder.store.product([key])[key]

    def verdict(self, content: bytes = CONTENT, name: str = "file") -> Any:
        """Of a consumer with the trace files and the federation file alone."""
        with DigestPass(("BLAKE3", "SHA256", "SHA3")) as digests:
            digests.update(content)
            whole = digests.finish()
        candidate = Candidate(file=name, base_name=name, size=whole.size, hashes=whole.hashes)
        evidence = [Evidence(stored.trace) for stored in self.whole(name)]
        return judge(candidate, evidence, self.authority.trust, datetime.now(UTC))


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[Told]:
    kit = Told(rucio)
    yield kit
    kit.close()


@pytest.fixture
def one(kit: Told) -> Rse:
    return kit.rucio.add_posix_rse("ONE")


def of_copernicus(signer: Signer, name: str, content: bytes, event: str = "CREATE", algorithm: str = "SHA256") -> Trace:
    """A trace of the Traceability Service."""
    with DigestPass((algorithm,)) as digests:
        digests.update(content)
        hash_ = digests.finish().hashes[algorithm]
    product = {"hash": hash_, "name": name, "size": len(content)}
    message = json.dumps({**product, "event": event}, separators=(",", ":"))
    value = {
        "event": event,
        "hash_algorithm": algorithm,
        "product": product,
        "signature": {
            "algorithm": signer.algorithm,
            "certificate": base64.b64encode(signer.certificate).decode(),
            "message": message,
            "signature": base64.b64encode(signer._sign(message.encode())).decode(),
        },
    }
    [trace] = parse_traces(json.dumps(value).encode())
    assert not trace.faults
    return trace


# The producer's word -------------------------------------------------------------------------------------------------


def test_it_is_registered_as_it_was_signed_and_the_first_look_confirms_it(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    trace = kit.declare()
    kit.run()
    kit.copy(one, kit.rucio.add_posix_rse("TWO"), "file")
    kit.run()
    stored = kit.traces()
    assert (stored[0].trace.message, stored[0].trace.signature) == (trace.message, trace.signature)
    first, second = stored[1].trace.statement, stored[2].trace.statement
    assert (first.event, first.rse, first.source.rse, first.source.trace) == (Event.COPY, "ONE", None, trace.id)
    assert (first.hash, first.hashes, first.method) == (trace.statement.hash, trace.statement.hashes, "read")
    assert (second.event, second.source.rse, second.source.trace) == (Event.COPY, "ONE", stored[1].id)
    assert kit.outbox == []
    product = kit.product("file")
    assert (product.status, product.proven, product.trace_id) == ("GENUINE", 2, trace.id)
    assert product.signer == trace.statement.signer
    judgement = kit.verdict()
    assert (judgement.verdict, judgement.signer, judgement.faults) == (Verdict.GENUINE, "PRODUCER", ())
    assert kit.verdict(b"other").verdict is Verdict.TAMPERED
    with pytest.raises(InvalidMetadata, match=f"set already, to trace {trace.id}"):
        kit.declare()


def test_bytes_that_are_not_the_producers_are_corrupt_and_a_good_copy_heals_it(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    kit.rucio.pfn_path(one, "file").write_bytes(CONTENT[::-1])
    trace = kit.declare()
    kit.run()
    corrupt = kit.statements()[1]
    assert (corrupt.event, corrupt.source.trace, corrupt.hash) == (Event.CORRUPT, trace.id, trace.statement.hash)
    product = kit.product("file")
    assert (product.status, product.trace_id) == ("TAMPERED", trace.id)
    assert kit.verdict().verdict is Verdict.GENUINE
    assert kit.verdict(CONTENT[::-1]).verdict is Verdict.TAMPERED
    two = kit.rucio.add_posix_rse("TWO")
    kit.copy(one, two, "file").write_bytes(CONTENT)
    kit.run()
    assert (kit.statements()[-1].event, kit.product("file").status) == (Event.COPY, "DEGRADED")


@on_sqlite
def test_a_second_upload_after_a_bad_one_is_no_creation(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    kit.rucio.pfn_path(one, "file").write_bytes(b"cut")
    kit.declare()
    kit.run()
    kit.rucio.upload(kit.rucio.add_posix_rse("TWO"), "file", CONTENT)
    kit.run()
    assert [s.event for s in kit.statements()] == [Event.CREATE, Event.CORRUPT, Event.COPY]


@on_sqlite
def test_a_producer_whose_digests_contradict_each_other_is_caught_by_the_bytes(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    kit.rucio.pfn_path(one, "file").write_bytes(CONTENT[::-1])
    honest = produced(kit.producer.signer, "file", CONTENT).statement
    kit.declare(content=CONTENT[::-1], hashes=honest.hashes)  # BLAKE3 of the bytes that lie there, ADLER32 of others
    kit.run()
    assert [s.event for s in kit.statements()] == [Event.CREATE, Event.CORRUPT]
    assert kit.product("file").status == "TAMPERED"


@on_sqlite
@pytest.mark.parametrize("method", ["none", "read"])
def test_an_arrival_nobody_reads_names_it_too(kit: Told, one: Rse, method: str) -> None:
    from rucio.core.rse import add_rse_attribute

    with kit.rucio.session() as session:
        add_rse_attribute(one.id, "trace_method", method, session=session)
    kit.rucio.upload(one, "file", CONTENT)
    trace = kit.declare()
    kit.run()
    assert kit.statements()[1].source.trace == trace.id
    product = kit.product("file")
    assert (product.status, product.trace_id) == ({"none": "PENDING", "read": "GENUINE"}[method], trace.id)


def test_a_name_given_again_begins_without_it(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    trace = kit.declare()
    kit.run()
    kit.delete(one, "file")
    kit.rucio.upload(one, "file", CONTENT)
    with pytest.raises(InvalidMetadata, match="used for another product"):
        kit.set(trace, "file")
    kit.run()
    last = kit.traces()[-1]
    assert (last.trace.statement.event, last.trace.statement.source) == (Event.CREATE, None)
    assert kit.product("file").trace_id == last.id


def test_a_word_that_comes_while_the_bytes_are_read_is_heard(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    told: list[Trace] = []

    def at_seam(name: str) -> None:
        if name == "proven" and not told:
            told.append(kit.declare())

    kit.run(at_seam)
    assert [s.event for s in kit.statements()] == [Event.CREATE, Event.COPY]
    assert kit.product("file").trace_id == told[0].id
    assert kit.outbox == []


def test_a_word_that_comes_once_the_trace_is_signed_is_refused(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    refused: list[str] = []

    def at_seam(name: str) -> None:
        if name in ("kept", "registered", "recomputed", "finished"):
            with pytest.raises(InvalidMetadata) as raised:
                kit.declare()
            refused.append(str(raised.value))

    kit.run(at_seam)
    assert len(refused) == 4
    assert all("has been recorded" in reason for reason in refused[:3])
    assert "has an origin already" in refused[3]
    assert [s.event for s in kit.statements()] == [Event.CREATE]


# The store does not take it ------------------------------------------------------------------------------------------


def test_a_word_the_store_refuses_is_told_waited_for_and_then_left_out(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    trace = kit.declare()
    kit.authority.revoke(kit.producer, datetime.now(UTC) - timedelta(minutes=2))
    kit.run()
    [waiting] = [row for row in kit.outbox if row.last_error]
    assert f"trace_origin {trace.id}: the store answers refused" in waiting.last_error
    assert "revoked" in waiting.last_error
    assert kit.traces() == []
    kit.make_due()
    kit.run()
    assert kit.traces() == []
    kit.make_due()
    kit.run(origin_patience=timedelta(0))
    assert kit.outbox == []
    assert [s.event for s in kit.statements()] == [Event.CREATE]
    assert (kit.product("file").status, kit.statements()[0].site) == ("GENUINE", "SITE-A")


@pytest.mark.parametrize("how", ["no JSON", "[]", "of another file", "of other bytes", "altered"])
def test_a_word_changed_in_the_table_is_told_and_harms_no_other_product(kit: Told, one: Rse, how: str) -> None:
    for name in ("file", "other"):
        kit.rucio.upload(one, name, CONTENT)
        kit.declare(name)
    texts = {
        "of another file": text_of(produced(kit.producer.signer, "another", CONTENT)),
        "of other bytes": text_of(produced(kit.producer.signer, "file", CONTENT[::-1])),
        "altered": text_of(produced(kit.producer.signer, "file", CONTENT)).replace('"site', '"size', 1),
    }
    table = tables(kit.rucio.backend).origins
    with kit.rucio.engine.begin() as connection:
        connection.execute(update(table).where(table.c.name == "file").values(trace=texts.get(how, how)))
    kit.run()
    assert kit.product("other").status == "GENUINE"
    assert {row.name for row in kit.outbox if "trace_origin" in (row.last_error or "")} == {"file"}
    kit.make_due()
    kit.run(origin_patience=timedelta(0))
    assert (kit.events("file"), kit.product("file").status) == ([("CREATE", "ONE")], "GENUINE")


def test_a_word_that_is_taken_later_becomes_the_origin_with_the_next_copy(kit: Told, one: Rse) -> None:
    kit.rucio.upload(one, "file", CONTENT)
    trace = kit.declare()
    federation = kit.authority.federation.read_text()
    kit.authority.federation.write_text(federation.replace('create = ["test"]', "create = []"))
    kit.run()
    assert "the right to CREATE in scope test" in kit.outbox[-1].last_error
    kit.make_due()
    kit.run(origin_patience=timedelta(0))
    kit.authority.federation.write_text(federation)
    kit.copy(one, kit.rucio.add_posix_rse("TWO"), "file")
    kit.run()
    assert kit.statements()[-1].source.trace == trace.id
    product = kit.product("file")
    assert (product.status, product.trace_id, product.proven) == ("GENUINE", trace.id, 2)


# Imported traces -----------------------------------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("algorithm", ["BLAKE3", "SHA256", "SHA3"])
def test_an_imported_trace_of_the_bytes_is_joined_before_our_copy(kit: Told, one: Rse, algorithm: str) -> None:
    imported = of_copernicus(kit.archive.signer, "file", CONTENT, algorithm=algorithm)
    kit.take(imported)
    kit.rucio.upload(one, "file", CONTENT)
    kit.run()
    kit.copy(one, kit.rucio.add_posix_rse("TWO"), "file")
    kit.run()
    first, second = kit.statements()[1:]
    assert (first.event, first.source.rse, first.source.trace) == (Event.COPY, None, imported.id)
    assert (first.hash_algorithm, first.digests[algorithm]) == ("BLAKE3", imported.statement.hash)
    assert (second.event, second.digests) == (Event.COPY, first.digests)
    product = kit.product("file")
    assert (product.status, product.proven, product.trace_id) == ("GENUINE", 2, imported.id)
    assert kit.verdict().origin.id == imported.id
    assert kit.verdict(b"other").verdict is Verdict.TAMPERED


@on_sqlite
def test_a_later_copy_is_held_against_what_an_imported_trace_said(kit: Told, one: Rse) -> None:
    kit.take(of_copernicus(kit.archive.signer, "file", CONTENT))
    kit.rucio.upload(one, "file", CONTENT)
    kit.run()
    kit.copy(one, kit.rucio.add_posix_rse("TWO"), "file").write_bytes(CONTENT[::-1])
    kit.run()
    assert (kit.statements()[-1].event, kit.product("file").status) == (Event.CORRUPT, "DEGRADED")


@on_sqlite
def test_an_imported_trace_of_other_bytes_joins_nothing(kit: Told, one: Rse) -> None:
    kit.take(of_copernicus(kit.archive.signer, "file", CONTENT[::-1]), of_copernicus(kit.archive.signer, "x", CONTENT))
    kit.rucio.upload(one, "file", CONTENT)
    kit.run()
    last = kit.statements()[-1]
    assert (last.event, last.source, kit.product("file").status) == (Event.CREATE, None, "GENUINE")


@on_sqlite
def test_an_imported_obsolescence_counts(kit: Told, one: Rse) -> None:
    create = of_copernicus(kit.archive.signer, "file", CONTENT)
    kit.take(create, of_copernicus(kit.archive.signer, "file", CONTENT, "OBSOLETE"))
    kit.rucio.upload(one, "file", CONTENT)
    kit.run()
    assert (kit.product("file").status, kit.product("file").trace_id) == ("OBSOLETE", create.id)
    assert kit.verdict().verdict is Verdict.OBSOLETE


@on_sqlite
def test_the_producers_word_goes_before_what_was_imported(kit: Told, one: Rse) -> None:
    imported = of_copernicus(kit.archive.signer, "file", CONTENT, algorithm="BLAKE3")
    kit.take(imported)
    kit.rucio.upload(one, "file", CONTENT)
    trace = kit.declare()
    kit.run()
    assert kit.statements()[-1].source.trace == trace.id
    assert {stored.id for stored in kit.whole()} >= {trace.id, imported.id}  # it speaks of the same bytes


@on_sqlite
def test_one_native_trace_without_rucio_is_joined_too(kit: Told, one: Rse) -> None:
    imported = produced(kit.archive.signer, "file", CONTENT, event_id=new_event_id())
    kit.take(imported)
    kit.rucio.upload(one, "folder/file", CONTENT)
    kit.run()
    assert kit.statements()[-1].source.trace == imported.id


def test_more_products_ask_no_more_questions(kit: Told, one: Rse) -> None:
    def queries(count: int, prefix: str) -> int:
        asked: list[str] = []
        for number in range(count):
            kit.rucio.upload(one, f"{prefix}{number}", CONTENT)
            kit.declare(f"{prefix}{number}")
        recorder = kit.recorder()
        engines = (recorder.engine, recorder.store._database._engine)
        for engine in engines:
            event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
        worker = recorder.worker()
        while worker.step():
            pass
        return len(asked)

    assert queries(2, "few") >= queries(12, "many")
