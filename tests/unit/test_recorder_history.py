"""What an arrival is called, and what may leave the outbox together: pure rules of the recorder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rucio_trace_daemons.recorder.decide import Reason
from rucio_trace_daemons.recorder.history import History, arrival_event, transfer_of
from rucio_trace_daemons.recorder.resolve import Known, Transfer
from rucio_trace_daemons.recorder.rows import Replica, Row, Settled, Signed, Waiting

from rucio_trace.envelope import Trace
from rucio_trace.trace import Event, Statement, format_time

BIRTH = datetime(2026, 3, 1, tzinfo=UTC)
SKEW = timedelta(minutes=1)


def row(number: int, rse: str, old: str | None = "C", new: str | None = "A", **values: Any) -> Row:
    return Row(
        id=number,
        event_id=f"00000000-0000-4000-8000-{number:012}",
        rse_id=rse,
        scope="test",
        name="file",
        old_state=old,
        new_state=new,
        bytes=7,
        adler32="0bcb02fc",
        md5=None,
        generation=BIRTH,
        account=None,
        action=None,
        rule=None,
        at=BIRTH + timedelta(seconds=number),
        attempts=0,
        **{"not_before": None, "missing_since": None, "last_error": None, "message": None} | values,
    )


def known(rse: str, state: str = "A") -> Known:
    return Known(rse, state, None, BIRTH)


def trace(event: Event, of: Row) -> Trace:
    statement = Statement(
        hash="0" * 64,
        name="file",
        size=7,
        event=event,
        event_id=of.event_id,
        hash_algorithm="BLAKE3",
        rse=of.rse_id,
        time=format_time(of.at),
        method="read",
    )
    return Trace(statement=statement, message="", signature=b"", certificate=b"")


def empty() -> History:
    return History(None, [], lambda name: name)


@given(st.permutations(range(1, 6)))
def test_the_first_to_arrive_is_the_creation_in_whatever_order_they_are_handled(order: list[int]) -> None:
    rows = {number: row(number, f"rse{number}") for number in order}
    history, states, names = empty(), [known(f"rse{number}") for number in order], {}
    pending = dict(rows)
    for number in order:
        names[number] = arrival_event(rows[number], history, list(pending.values()), states, None)
        history.note(trace(names[number], rows[number]), rows[number].rse_id)
        del pending[number]
    assert names == {number: Event.CREATE if number == 1 else Event.COPY for number in order}


def test_what_a_transfer_brought_is_a_copy_even_if_it_is_all_there_is() -> None:
    assert arrival_event(row(1, "a"), empty(), [row(1, "a")], [known("a")], request("a")) is Event.COPY


def test_after_a_replica_older_than_the_hooks_comes_a_copy() -> None:
    assert arrival_event(row(1, "a"), empty(), [row(1, "a")], [known("a"), known("b")], None) is Event.COPY


@pytest.mark.parametrize("state", ["C", "U"])
def test_a_replica_that_never_arrived_is_not_earlier(state: str) -> None:
    states = [known("a"), known("b", state)]
    assert arrival_event(row(1, "a"), empty(), [row(1, "a")], states, None) is Event.CREATE


def test_a_replica_that_arrives_again_is_a_copy() -> None:
    history = empty()
    history.note(trace(Event.CREATE, row(1, "a")), "a")
    assert arrival_event(row(3, "a", "D"), history, [row(3, "a", "D")], [known("a")], None) is Event.COPY
    assert history.last_trace("a") == row(1, "a").event_id


def test_a_deleted_replica_has_no_last_trace_and_proves_nothing() -> None:
    history = empty()
    history.note(trace(Event.CREATE, row(1, "a")), "a")
    history.note(trace(Event.DELETE, row(2, "a", "A", None)), "a")
    assert not history.traced("a")
    assert history.proof("a") is None


# ----------------------------------------------------------------------------------------- requests


def request(rse: str, *, minutes: float = 0.0, state: str = "D") -> Transfer:
    moment = BIRTH + timedelta(minutes=minutes)
    return Transfer("id", rse, None, None, None, None, "fts3", None, None, state, None, moment)


def test_a_request_of_another_rse_or_generation_or_of_later_is_not_ours() -> None:
    ours = row(600, "a")  # ten minutes after the birth
    for other in (request("b"), request("a", minutes=-5), request("a", minutes=30)):
        assert transfer_of(ours, [other], SKEW) is None
    assert transfer_of(ours, [], SKEW) is None


def test_the_last_finished_request_brought_the_replica() -> None:
    first, failed, last = request("a", minutes=1), request("a", minutes=3, state="F"), request("a", minutes=2)
    assert transfer_of(row(600, "a"), [first, failed, last], SKEW) is last


# ------------------------------------------------------------------------------- leaving the outbox

SUPERSEDED, EXPECTED = Settled(Reason.SUPERSEDED), Settled(Reason.EXPECTED)
WAITING = Waiting(BIRTH)


def finished(*fates: Any) -> list[int]:
    replica = Replica("a", [row(number, "a") for number in range(len(fates))])
    replica.fates = {r.event_id: fate for r, fate in zip(replica.rows, fates, strict=True)}
    free = replica.finished()
    return [r.id for r in replica.rows if r.event_id in free]


def test_a_superseded_row_stays_with_the_row_it_gave_way_to() -> None:
    signed = Signed(trace(Event.COPY, row(9, "a")), fresh=True)
    assert finished(EXPECTED, SUPERSEDED, WAITING) == [0]
    assert finished(EXPECTED, SUPERSEDED, signed) == [0, 1, 2]
    assert finished(SUPERSEDED, signed, SUPERSEDED, WAITING) == [0, 1]
    assert finished(EXPECTED, WAITING, EXPECTED) == [0, 2]
    assert finished(SUPERSEDED, SUPERSEDED) == [0, 1]
    assert finished() == []
