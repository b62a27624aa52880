"""A store that a service keeps gives the answers of the store that the service has."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import samples
from client_kit import Service

from rucio_trace.client import ServiceStore, ServiceUnavailable
from rucio_trace.statement import Event, Input, Source
from rucio_trace.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rucio_trace.envelope import Trace
    from rucio_trace.store import Store, TraceStore

A, B, OLD = (
    samples.product(1),
    samples.product(2, "folder/file"),
    samples.product(1, generation=samples.START - samples.HOUR),
)
OUTSIDE = {"rucio": None, "did": None, "generation": None, "rse": None, "name": "file1", "after": timedelta()}
LINES = [samples.line(A), samples.line(B)]
BATCH = samples.batch(LINES)
DIGEST = samples.digest


def world() -> list[Trace]:
    """A bit of everything."""
    declared = samples.trace(Event.CREATE, A, **OUTSIDE)
    copy = samples.trace(Event.COPY, A, source=Source(None, declared.id))
    withdrawn = samples.trace(Event.CREATE, B)
    inputs = (Input("file1", DIGEST("file1")), Input("raw", DIGEST("raw")))
    return [
        declared,
        copy,
        samples.trace(Event.CREATE, OLD, bytes_of="old"),
        samples.trace(Event.CORRUPT, A, rse="RSE-B"),
        samples.trace(Event.OBSOLETE, OLD, bytes_of="old", rse=None),
        withdrawn,
        samples.trace(Event.REVOKE, B, revokes=withdrawn.id, obsolescence="wrong", rse=None),
        samples.trace(Event.CREATE, samples.product(3), inputs=inputs),
    ]


WORLD = world()
REVOKED = samples.batch(LINES, event=Event.REVOKE, revokes=BATCH.id, obsolescence="no", name=BATCH.statement.name)


@pytest.fixture(scope="module")
def service(sandbox_folder: Path) -> Iterator[Service]:
    folder = sandbox_folder / "client-store"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(samples.authority().pem)
    service = Service(folder, 'anchors = ["ca.pem"]')
    yield service
    service.close()


@pytest.fixture(scope="module")
def stores(service: Service) -> Iterator[tuple[Store, ServiceStore]]:
    """The service's own store, and the service as a store."""
    with service.store() as store, service.asked() as asked:
        answers = asked.register([*WORLD, BATCH], lists={BATCH.id: samples.write_lines(LINES)})
        assert {answer.outcome for answer in answers} == {"stored"}, answers
        yield store, asked


def plain(value: Any) -> Any:
    """What is signed and where it stands; of what repeats the signed text a trace from a service has more."""
    if hasattr(value, "trace") and hasattr(value, "position"):
        return value.id, value.position, value.registered_at, value.trace.message, value.trace.signature
    if hasattr(value, "batch") and hasattr(value, "stands"):
        return plain(value.batch), value.line, value.index, value.position, value.stands
    if hasattr(value, "trace") and hasattr(value, "registered_at"):
        return value.trace.message, value.registered_at
    if hasattr(value, "path") and hasattr(value, "line"):
        return value.trace.message, value.line, value.index, tuple(value.path)
    if hasattr(value, "because_of"):
        told = value.start, dict(value.products), value.complete, sorted(k for k, v in value.because_of.items() if v)
        return *told, {key: set(given) for key, given in value.inputs.items() if given}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


QUESTIONS: dict[str, Callable[[TraceStore], Any]] = {
    "position": lambda s: s.position(),
    "since": lambda s: s.since(0),
    "since some": lambda s: s.since(3, limit=2),
    "since the end": lambda s: s.since(s.position()),
    "of products": lambda s: s.of_products_since(0),
    "of products, some": lambda s: s.of_products_since(0, limit=1),
    "product": lambda s: s.product([A, B, OLD, samples.product(9)]),
    "no product": lambda s: s.product([]),
    "product to which none may join": lambda s: s.product([A], lambda _stored, _scope: False),
    "newest": lambda s: s.newest([A.did, B.did, "test:none"]),
    "newest of none": lambda s: s.newest([]),
    "proven": lambda s: s.proven([A, B, OLD]),
    "line proof": lambda s: s.line_proof(A),
    "line proof on an RSE": lambda s: s.line_proof(A, "RSE-A"),
    "line proof elsewhere": lambda s: s.line_proof(A, "RSE-Z"),
    "no line proof": lambda s: s.line_proof(OLD),
    "list": lambda s: s.list_of(BATCH.id),
    "list of no batch": lambda s: s.list_of(WORLD[0].id),
    "list of nothing": lambda s: s.list_of("none"),
    "products of a batch": lambda s: s.products_of_batch(REVOKED.statement),
    "products of no batch": lambda s: s.products_of_batch(WORLD[0].statement),
    "created outside": lambda s: s.created_outside(["file1", "none"]),
    "created outside, none": lambda s: s.created_outside(["none"]),
    "id": lambda s: s.by_id(WORLD[1].id),
    "no id": lambda s: s.by_id("none\udcff"),
    "ids": lambda s: s.by_ids([t.id for t in WORLD] + ["none"]),
    "name": lambda s: s.by_name("file1"),
    "name in a folder": lambda s: s.by_name("folder/file2"),
    "name that is no UTF-8": lambda s: s.by_name("a\udcff"),
    "did": lambda s: s.by_did("test", A.name),
    "did, some": lambda s: s.by_did("test", A.name, limit=2),
    "digest": lambda s: s.by_digest(DIGEST("file1")),
    "digests": lambda s: s.by_digest({DIGEST("file1"), DIGEST("old")}),
    "what is no digest": lambda s: s.by_digest("no digest"),
    "content": lambda s: s.by_content(DIGEST("file1")),
    "search": lambda s: s.search(),
    "search, some": lambda s: s.search(limit=3),
    "search a name": lambda s: s.search(name_prefix="file"),
    "search a DID": lambda s: s.search(name_prefix="test:folder/"),
    "search an event": lambda s: s.search(event=Event.CREATE, rse="RSE-A"),
    "search a status": lambda s: s.search(status=Status.OBSOLETE),
    "search a time": lambda s: s.search(since=samples.START, until=samples.START + 2 * samples.HOUR),
    "search a digest": lambda s: s.search(digest=DIGEST("old")),
    "search a strange name": lambda s: s.search(name_prefix="a\udcff&b=c #"),
    "candidates": lambda s: s.candidates({"SHA256": DIGEST("file1")}, "file1"),
    "candidates by a DID": lambda s: s.candidates({}, "x", A.did),
    "candidates by names": lambda s: s.candidates({}, ["file1", "file2"]),
    "candidates for nobody": lambda s: s.candidates({"SHA256": DIGEST("nobody")}, "a\udcff"),
    "lineage up": lambda s: s.lineage([samples.digest("file3")], up=True),
    "lineage down": lambda s: s.lineage([DIGEST("file1")], up=False, depth=1),
    "lineage by several": lambda s: s.lineage([DIGEST("file1"), DIGEST("other")], up=False),
    "no lineage": lambda s: s.lineage([DIGEST("nobody")], up=True),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_both_answer_alike(stores: tuple[Store, ServiceStore], question: str) -> None:
    store, asked = stores
    expected, found = plain(QUESTIONS[question](store)), plain(QUESTIONS[question](asked))
    assert found == expected
    asks_for_nothing = ("no ", "none", "nothing", "nobody", "elsewhere", "strange", "UTF-8", "content", "the end")
    assert bool(expected) is not any(word in question for word in asks_for_nothing) or isinstance(expected, dict)


def test_times_of_registration_are_for_ones_own_service_only(service: Service, stores: object) -> None:
    with service.asked(own=False) as asked:
        found = asked.candidates({"SHA256": DIGEST("file1")}, "file1")
        assert found
        assert all(evidence.registered_at is None for evidence in found)


def test_answers_longer_than_a_page_are_whole(
    stores: tuple[Store, ServiceStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = stores
    monkeypatch.setattr("rucio_trace.client.talk.PAGE_TRACES", 2)
    monkeypatch.setattr("rucio_trace.client.talk.KEYS_A_REQUEST", 1)
    for question in ("since", "of products", "did", "digests", "search", "search, some", "ids", "product", "newest"):
        assert plain(QUESTIONS[question](asked)) == plain(QUESTIONS[question](store)), question


def test_a_withdrawn_batch_is_told_to_stand_no_more(service: Service, stores: tuple[Store, ServiceStore]) -> None:
    store, asked = stores
    (answer,) = asked.register([REVOKED])
    assert answer.outcome == "stored", answer
    (line,) = asked.proven([A])[A]
    assert (line.stands, line.position) == (False, answer.position)
    assert plain(asked.proven([A])) == plain(store.proven([A]))
    assert asked.line_proof(A) is None


def test_a_trace_that_was_altered_in_the_services_store_is_not_taken(folder: Path) -> None:
    """The service finds it first, and does not answer; of one that does not look test_client_talk tells."""
    from sqlalchemy import create_engine, text

    (folder / "ca.pem").write_bytes(samples.authority().pem)
    service = Service(folder, 'anchors = ["ca.pem"]')
    try:
        with service.client(patience=0.5) as client:
            client.register([samples.trace(Event.CREATE, A)])
            engine = create_engine(service.store_url)
            with engine.begin() as connection:
                connection.execute(text("UPDATE traces SET message = replace(message, 'RSE-A', 'RSE-B')"))
            engine.dispose()
            with pytest.raises(ServiceUnavailable, match="503"):
                client.find("dids", [A.did])
    finally:
        service.close()
