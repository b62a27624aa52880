"""What was made from what, as the store tells it: both ways, over unknowns, troubles and circles."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from samples import HOUR, START, authority, digest, product, signer, stored, trace
from sqlalchemy import select
from unit.authority import signed_raw

from rucio_trace.envelope import Trace, parse_traces
from rucio_trace.identity import Trust
from rucio_trace.lineage import Circular, Lineage, explore
from rucio_trace.statement import Event, Found, Input
from rucio_trace.status import Status
from rucio_trace.store import CorruptRow, Outcome, Store
from rucio_trace.store.database import Database
from rucio_trace.store.tables import inputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from rucio_trace.store import Stored

TRUST = Trust.from_anchors([authority().pem])


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as store:
        yield store


def made(number: int, *from_: int | str, event: Event = Event.CREATE, **fields: Any) -> Trace:
    """The CREATE of product *number*, made from others: those that are texts are known to nobody."""
    given = [Input(f"file{i}", digest(f"file{i}")) if isinstance(i, int) else Input(i, digest(i)) for i in from_]
    return trace(event, product(number), inputs=tuple(given) or None, **fields)


def register(store: Store, *traces: Trace) -> None:
    answers = store.register(traces, trust=TRUST)
    assert {answer.outcome for answer in answers} == {Outcome.STORED}, answers


def of(store: Store, number: int, **options: Any) -> Lineage:
    found = store.lineage({digest(f"file{number}")}, **{"up": True, **options})
    assert found is not None
    return found


def named(found: Lineage, keys: Any) -> list[str]:
    return sorted(found.products[key].name for key in keys)


def edges(found: Lineage) -> set[tuple[str, str]]:
    return {(found.products[k].name, found.products[i].name) for k, given in found.inputs.items() for i in given}


@pytest.fixture
def family(store: Store) -> Store:
    """1 was made from 2 and 3, both from 4, which was made from 5 and something unknown; 9 from 3 and 8."""
    register(store, made(1, 2, 3), made(2, 4), made(3, 4), made(4, 5, "lost"), made(5), made(8), made(9, 3, 8))
    return store


def test_upwards_all_that_a_product_was_made_from(family: Store) -> None:
    found = of(family, 1)
    wanted = {("file1", "file2"), ("file1", "file3"), ("file2", "file4"), ("file3", "file4"), ("file4", "file5")}
    assert edges(found) == wanted | {("file4", "lost")}
    assert [p.name for p in found.products.values() if not p.known] == ["lost"]
    assert found.complete
    assert not any(p.beyond for p in found.products.values())
    assert found.products[found.start].did == "test:file1"


def test_downwards_all_that_was_made_from_it(family: Store) -> None:
    found = of(family, 4, up=False)
    wanted = {("file1", "file2"), ("file1", "file3"), ("file2", "file4"), ("file3", "file4"), ("file9", "file3")}
    assert edges(found) == wanted
    unknown = family.lineage({digest("lost")}, up=False)
    assert unknown is not None
    assert not unknown.products[unknown.start].known
    assert ("file4", "lost") in edges(unknown)


def test_it_looks_no_further_than_asked_and_says_so(family: Store) -> None:
    found = of(family, 1, depth=1)
    assert edges(found) == {("file1", "file2"), ("file1", "file3")}
    assert named(found, (k for k, p in found.products.items() if p.beyond)) == ["file2", "file3"]
    found = of(family, 4, up=False, depth=1)
    assert edges(found) == {("file2", "file4"), ("file3", "file4")}
    assert named(found, (k for k, p in found.products.items() if p.beyond)) == ["file2", "file3"]
    assert not any(p.beyond for p in of(family, 3, up=False, depth=1).products.values() if p.name != "file3")


def test_what_nobody_speaks_of_has_no_lineage(family: Store) -> None:
    assert family.lineage({digest("stranger")}, up=True) is None
    assert family.lineage({digest("stranger")}, up=False) is None
    assert family.lineage(set(), up=True) is None


def obsolete(store: Store, number: int) -> None:
    register(store, trace(Event.OBSOLETE, product(number)))


def revoked(store: Store, number: int) -> None:
    [create] = [s for s in store.by_did("test", f"file{number}") if s.trace.statement.event is Event.CREATE]
    register(store, trace(Event.REVOKE, product(number), revokes=create.id, after=2 * HOUR))


def tampered(store: Store, number: int) -> None:
    register(store, made(number, event=Event.CORRUPT, found=Found(9, {"SHA256": digest("rot")}), after=2 * HOUR))


def disputed(store: Store, number: int) -> None:
    register(store, made(number, bytes_of="other bytes", rse="RSE-B"))


@pytest.mark.parametrize(
    ("befalls", "status"),
    [
        (obsolete, Status.OBSOLETE),
        (revoked, Status.REVOKED),
        (tampered, Status.TAMPERED),
        (disputed, Status.DISPUTED),
    ],
)
def test_what_is_wrong_with_an_input_is_told_of_every_descendant(family: Store, befalls: Any, status: Status) -> None:
    befalls(family, 5)
    descendants = {"file1", "file2", "file3", "file4"}
    for found, told in ((of(family, 1), descendants), (of(family, 5, up=False), descendants | {"file9"})):
        blamed = {found.products[k].name: named(found, b) for k, b in found.because_of.items() if b}
        assert blamed == {name: ["file5"] for name in told}
        assert {p.name: p.trouble for p in found.products.values() if p.trouble} == {"file5": status}


def test_downwards_the_troubles_of_other_inputs_are_told_too(family: Store) -> None:
    obsolete(family, 8)
    found = of(family, 3, up=False)
    assert edges(found) == {("file1", "file3"), ("file9", "file3")}
    assert {found.products[k].name: named(found, b) for k, b in found.because_of.items() if b} == {"file9": ["file8"]}


def test_a_revoked_obsolescence_troubles_nobody(family: Store) -> None:
    bad = trace(Event.OBSOLETE, product(5))
    register(family, bad, trace(Event.REVOKE, product(5), revokes=bad.id, after=3 * HOUR))
    assert not any(p.trouble for p in of(family, 1).products.values())


def test_of_two_generations_the_older_ones_troubles_are_its_own(store: Store) -> None:
    old, new = product(1), product(1, generation=START + timedelta(hours=1))
    register(store, trace(Event.CREATE, old, bytes_of="old"), trace(Event.OBSOLETE, old, bytes_of="old"))
    register(store, trace(Event.CREATE, new, bytes_of="new", after=2 * HOUR))
    register(store, trace(Event.CREATE, product(2), inputs=(Input("a", digest("new")), Input("b", digest("old")))))
    found = of(store, 2)
    assert {k: p.trouble for k, p in found.products.items()} == {
        digest("file2"): None,
        digest("new"): None,
        digest("old"): Status.OBSOLETE,
    }


def test_an_input_is_found_by_any_strong_digest_of_its_create_and_by_no_weak_one(store: Store) -> None:
    hashes = {"BLAKE3": digest("as blake3"), "MD5": "0" * 32}
    register(store, trace(Event.CREATE, product(1), hashes=hashes))
    for number, of_input in ((2, digest("file1")), (3, digest("as blake3")), (4, "0" * 32)):
        register(store, trace(Event.CREATE, product(number), inputs=(Input("file1", of_input),)))
    assert edges(of(store, 1, up=False)) == {("file2", "file1"), ("file3", "file1")}
    assert of(store, 3).products[digest("file1")].known
    assert not of(store, 4).products["0" * 32].known


def cdse(number: int, *from_: int, event: str = "CREATE", **changes: Any) -> Trace:
    given = [{"hash": digest(f"file{i}"), "name": f"file{i}"} for i in from_]
    members = {"hash": digest(f"file{number}"), "inputs": given, "name": f"file{number}", "size": 10, "event": event}
    text = json.dumps({**members, **changes}, separators=(",", ":"))
    [found] = parse_traces(json.dumps([signed_raw(text, signer())]).encode())
    return found


def test_traces_of_the_traceability_service_have_a_lineage_and_troubles(store: Store) -> None:
    register(store, cdse(1, 2), cdse(2, 3), cdse(3))
    register(store, cdse(3, event="OBSOLETE"))
    found = of(store, 1)
    assert edges(found) == {("file1", "file2"), ("file2", "file3")}
    assert named(found, found.because_of[digest("file1")]) == ["file3"]
    odd = cdse(7, inputs=[{"hash": "aa11", "name": "in1"}])  # the field's client takes any text for a digest
    register(store, odd)
    assert edges(of(store, 7)) == {("file7", "in1")}


class TestCircles:
    def test_a_product_made_from_itself_is_refused(self, store: Store) -> None:
        [answer] = store.register([made(1, 1)], trust=TRUST)
        assert answer.outcome is Outcome.REFUSED
        assert "itself" in (answer.reason or "")

    def test_a_circle_is_refused_at_its_last_trace_and_the_others_stay(self, store: Store) -> None:
        register(store, made(1, 2), made(2, 3))
        answers = store.register([made(3, 4), made(4, 1), made(5)], trust=TRUST)
        assert [answer.outcome for answer in answers] == [Outcome.STORED, Outcome.REFUSED, Outcome.STORED]
        assert edges(of(store, 1)) == {("file1", "file2"), ("file2", "file3"), ("file3", "file4")}

    def test_a_circle_within_a_batch_is_refused(self, store: Store) -> None:
        answers = store.register([cdse(1, 2), cdse(2, 3), cdse(3, 1)], trust=TRUST)
        assert [answer.outcome for answer in answers] == [Outcome.STORED, Outcome.STORED, Outcome.REFUSED]

    def test_a_diamond_is_no_circle(self, store: Store) -> None:
        register(store, made(4, 5), made(2, 4), made(3, 4), made(1, 2, 3), made(5))

    def test_reading_a_circle_ends_and_names_it(self) -> None:
        for up in (True, False):
            with pytest.raises(Circular, match=r"file1 <- file. <- file. <- file1"):
                explore(Loose(made(1, 2), made(2, 3), made(3, 1)), {digest("file1")}, up=up)


class Loose:
    """Traces that no store takes: its checks see what it holds, and no circle across several stores."""

    def __init__(self, *traces: Trace) -> None:
        self.all = [stored(made, position) for position, made in enumerate(traces, 1)]

    def creating(self, digests: Collection[str], _most: int) -> list[Stored]:
        return [s for s in self.all if s.trace.statement.hash in digests]

    def using(self, digests: Collection[str], _most: int) -> list[Stored]:
        return [s for s in self.all if {given.hash for given in s.trace.statement.inputs or ()} & set(digests)]

    def troubles(self, _creates: Collection[Stored]) -> dict[int, Status]:
        return {}


def test_more_than_can_be_looked_at_is_said(family: Store) -> None:
    from rucio_trace.store.lineage import StoredRecords
    from rucio_trace.store.read import Reader

    with family._database.reading() as connection:
        records = StoredRecords(connection, Reader())
        for up, start in ((True, "file1"), (False, "file5")):
            found = explore(records, {digest(start)}, up=up, most=3)
            assert found is not None
            assert not found.complete


def test_an_altered_index_is_noticed(family: Store) -> None:
    with family._database.writing() as connection:
        position = connection.scalar(select(inputs.c.position))
        connection.execute(inputs.insert().values(digest=bytes.fromhex(digest("other")), position=position))
    with pytest.raises(CorruptRow, match="trace_inputs"):
        family.lineage({digest("other")}, up=False)


def test_an_older_stores_inputs_are_found_after_its_migration(empty_url: str, tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    with Store.open(empty_url) as store:
        register(store, made(1, 2, 3), made(2, 3), made(3), cdse(7, inputs=[{"hash": "aa11", "name": "odd"}]))
        register(store, trace(Event.COPY, product(9), inputs=(Input("x", digest("file3")),)))
    database = Database(empty_url)
    with database.reading() as connection:
        before = sorted(map(tuple, connection.execute(select(inputs))))
    with database.writing() as connection:
        config = Config()
        config.set_main_option("script_location", "rucio_trace.store:migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    with Store.open(empty_url) as store, Store.open(f"sqlite:///{tmp_path / 'copy.db'}") as copied:
        with database.reading() as connection:
            assert sorted(map(tuple, connection.execute(select(inputs)))) == before
        assert len(before) == 3
        assert edges(of(store, 3, up=False)) == {("file1", "file2"), ("file1", "file3"), ("file2", "file3")}
        store.copy_to(copied)
        assert edges(of(copied, 3, up=False)) == edges(of(store, 3, up=False))
