"""Batches in the trace store: a list comes with its trace or not at all, and each line is found, proven and dropped."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from samples import HOUR, authority, batch, digest, line, product, trace
from sqlalchemy import select, text, update
from unit.authority import Authority

from rucio_trace.batch import check_line, list_fields, write_lines
from rucio_trace.identity import Trust
from rucio_trace.statement import MAX_LINES, Event
from rucio_trace.status import State, Status, product_status
from rucio_trace.store import CorruptRow, Outcome, Store
from rucio_trace.store.lists import LINES_A_PIECE
from rucio_trace.store.tables import lines as line_rows
from rucio_trace.store.tables import list_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rucio_trace.batch import Line
    from rucio_trace.envelope import Trace
    from rucio_trace.statement import ProductKey
    from rucio_trace.store import BatchLine

TRUST = Trust.from_anchors([authority().pem])


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as store:
        yield store


def add(store: Store, lines: Sequence[Line], **fields: Any) -> Trace:
    """Register the batch of *lines*; it must be new."""
    made = batch(lines, **fields)
    (answer,) = store.register([made], trust=TRUST, lists={made.id: write_lines(lines)})
    assert answer.outcome is Outcome.STORED, answer
    return made


def only(store: Store, key: ProductKey) -> BatchLine:
    (found,) = store.proven([key])[key]
    return found


# ------------------------------------------------------------------------------------- registration


def test_a_batch_is_kept_with_its_list_and_its_lines_are_found(store: Store) -> None:
    lines = [line(product(number)) for number in range(LINES_A_PIECE * 2 + 3)]
    made = add(store, lines)
    assert store.list_of(made.id) == write_lines(lines)
    found = store.proven([product(number) for number in range(-1, len(lines) + 1)])
    assert found.keys() == {product(number) for number in range(len(lines))}
    for number in range(len(lines)):
        (one,) = found[product(number)]
        assert (one.line, one.index, one.batch.id, one.rse) == (lines[number], number, made.id, "RSE-A")
    assert store.proven([]) == {}
    assert store.list_of("nobody's") is None


def test_a_batch_without_its_list_or_with_another_one_is_refused(store: Store) -> None:
    lines = [line(product(1)), line(product(2))]
    made = batch(lines)

    for wrong in ({}, {made.id: write_lines(lines[:1])}, {made.id: b""}):
        (answer,) = store.register([made], trust=TRUST, lists=wrong)
        assert answer.outcome is Outcome.REFUSED
        assert "list" in (answer.reason or "")
    assert store.position() == 0
    assert store.proven([product(1)]) == {}


def test_a_list_that_no_reader_would_take_is_refused_whoever_signed_it(store: Store) -> None:
    twice = write_lines([line(product(1))]) * 2
    made = batch([line(product(1))], **list_fields(twice))
    (answer,) = store.register([made], trust=TRUST, lists={made.id: twice})
    assert answer.outcome is Outcome.REFUSED
    assert "every product once" in (answer.reason or "")


def test_a_repeat_is_known_with_or_without_its_list(store: Store) -> None:
    lines = [line()]
    made = add(store, lines)
    for lists in ({}, {made.id: write_lines(lines)}, {made.id: b"anything"}):
        (answer,) = store.register([made], trust=TRUST, lists=lists)
        assert (answer.outcome, answer.position) == (Outcome.KNOWN, 1)


def test_only_who_may_attest_the_rse_registers_a_batch(store: Store) -> None:
    text = '[[member]]\nname = "A"\nca = ["ca"]\nsubject = "*"\nrses = ["RSE-A"]\n'
    rights = Trust.from_federation('name = "F"\n' + text, lambda _: authority().pem)
    lines = [line()]
    own, foreign = batch(lines), batch(lines, rse="RSE-B")
    data = write_lines(lines)
    answers = store.register([own, foreign], trust=rights, lists={own.id: data, foreign.id: data})
    assert [answer.outcome for answer in answers] == [Outcome.STORED, Outcome.REFUSED]
    assert "RSE-B" in (answers[1].reason or "")


def test_batches_and_single_traces_are_registered_together(store: Store) -> None:
    lines = [line(product(1)), line(product(2))]
    made = [trace(Event.CREATE, product(1)), batch(lines), batch(lines[:1], rse="RSE-B"), trace(Event.COPY, product(2))]
    lists = {made[1].id: write_lines(lines), made[2].id: write_lines(lines[:1])}
    answers = store.register(made, trust=TRUST, lists=lists)
    assert [(answer.outcome, answer.position) for answer in answers] == [(Outcome.STORED, n) for n in (1, 2, 3, 4)]
    assert [found.rse for found in store.proven([product(1)])[product(1)]] == ["RSE-A", "RSE-B"]


def test_the_largest_batch_there_is_is_kept(store: Store) -> None:
    lines = [line(product(number, name="f" * 230)) for number in range(MAX_LINES)]
    made = add(store, lines)
    assert store.list_of(made.id) == write_lines(lines)
    assert only(store, product(MAX_LINES - 1, name="f" * 230)).index == MAX_LINES - 1


# ---------------------------------------------------------------------------------- which line counts


def test_the_last_line_of_a_site_on_a_replica_takes_the_place_of_those_before(store: Store) -> None:
    key = product()
    first = add(store, [line(key), line(product(2))])
    second = add(store, [line(product(3)), line(key, after=5 * HOUR)])
    other_rse = add(store, [line(key, after=2 * HOUR)], rse="RSE-B")
    other_site = add(store, [line(key, after=3 * HOUR)], site="ELSEWHERE")
    found = store.proven([key])[key]
    assert [one.batch.id for one in found] == [second.id, other_rse.id, other_site.id]
    assert only(store, product(2)).batch.id == first.id
    assert store.list_of(first.id) == write_lines([line(key), line(product(2))])


def test_generations_and_rucios_do_not_mix(store: Store) -> None:
    key = product()
    younger = replace(key, generation=line(after=9 * HOUR).time)
    add(store, [line(key)])
    add(store, [line(key)], rucio="OTHER")
    add(store, [line(key)], vo="atl")
    assert store.proven([younger]) == {}
    for same in (key, replace(key, rucio="OTHER"), replace(key, vo="atl")):
        assert only(store, same).batch.trace.statement.product is None
    assert len({only(store, k).batch.id for k in (key, replace(key, rucio="OTHER"), replace(key, vo="atl"))}) == 3


def test_the_lines_of_a_withdrawn_batch_count_no_more_until_that_is_undone(store: Store) -> None:
    lines = [line()]
    made = add(store, lines)
    s = made.statement

    def revoke(target: Trace, **fields: Any) -> Trace:
        return batch(lines, event=Event.REVOKE, revokes=target.id, name=s.name, **fields)

    for powerless in (revoke(made, by="somebody else"), revoke(made, rse="RSE-B")):
        store.register([powerless], trust=TRUST)
    assert (only(store, product()).batch.id, only(store, product()).stands) == (made.id, True)
    withdrawal = revoke(made)
    store.register([withdrawal], trust=TRUST)
    assert (only(store, product()).stands, only(store, product()).position) == (False, 4)
    assert store.line_proof(product()) is None
    assert store.list_of(made.id) == write_lines(lines)
    store.register([revoke(withdrawal)], trust=TRUST)
    assert (only(store, product()).stands, only(store, product()).position) == (True, 5)


def test_a_line_moves_the_status_and_is_no_trace_of_the_product(store: Store) -> None:
    key = product()
    store.register([trace(Event.COPY, key, method="transfer", observed=None)], trust=TRUST)
    add(store, [line(key, after=7 * HOUR)])
    history = store.product([key])[key]
    assert [stored.trace.statement.event for stored in history] == [Event.COPY]
    status = product_status(history, str, store.proven([key])[key])
    assert (status.status, status.replicas["RSE-A"].state) == (Status.GENUINE, State.PROVEN)
    assert status.position == 2
    assert [stored.id for stored in store.search(status=Status.GENUINE)] == [history[0].id]
    assert store.search(status=Status.PENDING) == []
    assert store.by_digest(digest("file1")) == history


# -------------------------------------------------------------------------------------------- proofs


@pytest.mark.parametrize("count", [1, LINES_A_PIECE, LINES_A_PIECE + 1, LINES_A_PIECE * 5 - 2])
def test_the_proof_of_every_line_holds(store: Store, count: int) -> None:
    lines = [line(product(number)) for number in range(count)]
    made = add(store, lines)
    for number in {0, count // 2, count - 1}:
        proof = store.line_proof(product(number))
        assert proof is not None
        assert (check_line(proof), proof.trace, proof.index) == (lines[number], made, number)


def test_the_youngest_line_is_proven_or_that_of_an_rse(store: Store) -> None:
    key = product()
    add(store, [line(key, after=9 * HOUR)])
    add(store, [line(key, after=2 * HOUR)], rse="RSE-B")
    assert store.line_proof(key) == store.line_proof(key, "RSE-A")
    proof = store.line_proof(key, "RSE-B")
    assert proof is not None
    assert check_line(proof) == line(key, after=2 * HOUR)
    assert store.line_proof(key, "RSE-C") is None
    assert store.line_proof(product(2)) is None


# ------------------------------------------------------------------------------------- copies, damage


def test_lists_and_lines_move_with_their_store(store: Store, tmp_path: Path) -> None:
    lines = [line(product(number)) for number in range(40)]
    made = add(store, lines)
    add(store, [line(product(0), after=3 * HOUR)])
    keys = [product(number) for number in range(40)]
    with Store.open(f"sqlite:///{tmp_path / 'copy.db'}") as copied:
        store.copy_to(copied)
        assert copied.list_of(made.id) == store.list_of(made.id)
        assert copied.proven(keys) == store.proven(keys)


def damage(store: Store, table: Any, **values: Any) -> None:
    with store._database.writing() as connection:
        connection.execute(update(table).values(**values))


def test_a_list_that_was_altered_is_noticed(store: Store) -> None:
    lines = [line(product(number)) for number in range(3)]
    made = add(store, lines)
    younger = [replace(one, time=line(after=2 * HOUR).time) for one in lines]
    damage(store, list_pieces, entries=write_lines(younger))
    with pytest.raises(CorruptRow, match="list"):
        store.proven([product(1)])
    with pytest.raises(CorruptRow, match="list"):
        store.list_of(made.id)
    with pytest.raises(CorruptRow, match="list"):
        store.line_proof(product(1))


def test_a_path_that_was_altered_is_noticed(store: Store) -> None:
    add(store, [line(product(number)) for number in range(3)])
    for path in (b"\0" * 32, b"\0"):
        damage(store, list_pieces, path=path)
        with pytest.raises(CorruptRow, match="piece 0"):
            store.proven([product(1)])


def test_an_index_that_was_altered_is_noticed(store: Store) -> None:
    add(store, [line(product(number)) for number in range(3)])
    single = trace()
    store.register([single], trust=TRUST)
    for wrong in ({"line": 0}, {"line": LINES_A_PIECE}, {"position": 2}, {"position": 99}, {"line": 17}):
        with store._database.reading() as connection:
            before = connection.execute(select(line_rows)).all()
        damage(store, line_rows, **wrong)
        with pytest.raises(CorruptRow):
            store.proven([product(2)])
        with store._database.writing() as connection:
            connection.execute(line_rows.delete())
            connection.execute(line_rows.insert(), [row._asdict() for row in before])
    assert only(store, product(2)).index == 2


def test_pieces_that_are_gone_are_noticed(store: Store) -> None:
    made = add(store, [line(product(number)) for number in range(3)])
    with store._database.writing() as connection:
        connection.execute(text("DELETE FROM trace_list_pieces"))
    with pytest.raises(CorruptRow, match="piece 0"):
        store.proven([product(1)])
    with pytest.raises(CorruptRow):
        store.list_of(made.id)


def test_a_stranger_registers_no_batch(store: Store) -> None:
    lines = [line()]
    stranger = Trust.from_anchors([Authority.root("Stranger").pem])
    made = batch(lines)
    (answer,) = store.register([made], trust=stranger, lists={made.id: write_lines(lines)})
    assert answer.outcome is Outcome.REFUSED
