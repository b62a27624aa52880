"""docs/format.md, section 2: which change ends as what, over every sequence of changes Rucio can make."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from rucio_trace_daemons.methods import Method
from rucio_trace_daemons.recorder.decide import (
    Change,
    Decision,
    Prove,
    Question,
    Reason,
    Send,
    Settle,
    SignDelete,
    Wait,
    decide,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GRACE = timedelta(minutes=10)
STATES = ("A", "B", "C", "D", "T", "U")

EXPECTED, SUPERSEDED, EXCLUDED = Settle(Reason.EXPECTED), Settle(Reason.SUPERSEDED), Settle(Reason.EXCLUDED)
ARRIVAL, RECHECK = Prove(Question.ARRIVAL), Prove(Question.RECHECK)
DELETE, UNOBSERVED = SignDelete(unobserved=False), SignDelete(unobserved=True)


def _changes(path: str, *, signed: tuple[int, ...] = (), at: datetime = NOW - timedelta(days=1)) -> list[Change]:
    """`"-CA"`: inserted as C, then made A; `-` is not existing."""
    states = [None if letter == "-" else letter for letter in path]
    return [Change(old, new, at, index in signed) for index, (old, new) in enumerate(itertools.pairwise(states))]


def _decide(path: str, method: Method = Method.READ, *, traced: bool = False, **options: object) -> list[Decision]:
    return decide(_changes(path, **options), method, traced=traced, now=NOW, grace=GRACE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "ends"),
    [
        ("-C", [EXPECTED]),
        ("-U", [EXPECTED]),
        ("-A", [ARRIVAL]),
        ("CA", [ARRIVAL]),
        ("UA", [ARRIVAL]),
        ("DA", [ARRIVAL]),
        ("BA", [ARRIVAL]),
        ("DC", [EXPECTED]),
        ("DU", [EXPECTED]),
        ("CU", [EXPECTED]),
        ("UC", [EXPECTED]),
        ("AC", [EXPECTED]),
        ("AT", [EXCLUDED]),
        ("TA", [EXCLUDED]),
        ("AD", [RECHECK]),
        ("AB", [RECHECK]),
        ("AU", [RECHECK]),
        ("TD", [RECHECK]),
        ("TB", [RECHECK]),
        ("AA", [RECHECK]),
        ("CD", [EXPECTED]),
        ("UD", [EXPECTED]),
        ("UB", [EXPECTED]),
        ("A-", [UNOBSERVED]),
        ("T-", [UNOBSERVED]),
        ("C-", [SUPERSEDED]),
        ("U-", [SUPERSEDED]),
        ("D-", [SUPERSEDED]),
        ("B-", [SUPERSEDED]),
        ("-CA", [EXPECTED, ARRIVAL]),
        ("-C-", [EXPECTED, SUPERSEDED]),
        ("-CA-", [EXPECTED, SUPERSEDED, UNOBSERVED]),
        ("CAB-", [SUPERSEDED, SUPERSEDED, UNOBSERVED]),
        ("ADCA", [SUPERSEDED, EXPECTED, ARRIVAL]),
        ("CAD", [ARRIVAL, RECHECK]),
        ("CAA", [ARRIVAL, RECHECK]),
        ("AAA", [SUPERSEDED, RECHECK]),
        ("AAD", [SUPERSEDED, RECHECK]),
        ("AAUA", [SUPERSEDED, SUPERSEDED, ARRIVAL]),
        ("AA-", [SUPERSEDED, UNOBSERVED]),
        ("CAUA", [SUPERSEDED, SUPERSEDED, ARRIVAL]),
        ("CATA", [ARRIVAL, EXCLUDED, EXCLUDED]),
        ("ADB", [RECHECK, EXPECTED]),
        ("-A-A", [SUPERSEDED, UNOBSERVED, ARRIVAL]),
    ],
)
def test_a_change_that_was_never_seen_ends_as_the_table_says(path: str, ends: list[Decision]) -> None:
    assert _decide(path) == ends


@pytest.mark.parametrize("path", ["A-", "B-", "D-", "U-", "T-", "AB-", "AD-"])
def test_a_traced_replica_ends_as_delete(path: str) -> None:
    assert _decide(path, traced=True)[-1] == DELETE


def test_the_second_life_of_a_replica_owes_nothing_to_the_first() -> None:
    assert _decide("A-C-", traced=True) == [DELETE, EXPECTED, SUPERSEDED]


def test_a_signed_arrival_makes_the_deletion_observed() -> None:
    assert _decide("-CAB-", signed=(1,)) == [EXPECTED, Send(), SUPERSEDED, DELETE]


def test_what_was_decided_with_a_signed_row_is_decided_so_again() -> None:
    assert _decide("CAD", signed=(1,)) == [SUPERSEDED, Send()]
    assert _decide("CAD", signed=(0, 1)) == [Send(), Send()]
    assert _decide("CA-", signed=(1,)) == [SUPERSEDED, Send()]


def test_a_replica_marked_by_the_reaper_waits_for_its_deletion() -> None:
    wait = Wait(NOW + GRACE)
    assert _decide("AB", at=NOW) == [wait]
    assert _decide("CAB", at=NOW) == [wait, wait]
    assert _decide("ADB", at=NOW) == [wait, EXPECTED]
    assert _decide("CAB", at=NOW, signed=(0,)) == [Send(), wait]
    assert _decide("A-CAB", at=NOW, traced=True) == [DELETE, EXPECTED, wait, wait]


def test_once_the_grace_is_over_it_is_read() -> None:
    assert _decide("AB", at=NOW - GRACE) == [RECHECK]


@pytest.mark.parametrize("method", [Method.NONE, Method.TRANSFER])
def test_where_nothing_can_be_looked_at_a_doubt_is_not_signed(method: Method) -> None:
    assert _decide("AD", method) == [EXCLUDED]
    assert _decide("AA", method) == [EXCLUDED]
    assert _decide("CAD", method) == [ARRIVAL, EXCLUDED]


def test_what_a_search_queued_tells_nothing_that_was_told_since() -> None:
    def decided(*changes: tuple[str | None, str | None], traced: bool) -> list[Decision]:
        queued = [Change(old, new, NOW, queued=True) for old, new in changes]
        return decide(queued, Method.NONE, traced=traced, now=NOW, grace=GRACE)

    gone, here = ("A", None), (None, "A")
    assert decided(gone, gone, traced=True) == [DELETE, SUPERSEDED]
    assert decided(gone, traced=False) == [SUPERSEDED]
    assert decided(here, here, traced=False) == [SUPERSEDED, ARRIVAL]
    assert decided(here, traced=True) == [SUPERSEDED]


def test_no_row_is_no_decision() -> None:
    assert _decide("") == []


def _paths(length: int) -> list[str]:
    """Every way of a replica with up to *length* changes; a deleted replica may be inserted again."""
    found, ends = [], [*STATES, "-"]
    for _ in range(length):
        ends = [path + state for path in ends for state in (*STATES, "-") if state != path[-1]]
        found += ends
    return found


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("traced", [False, True])
def test_every_sequence_of_changes_keeps_the_law(method: Method, traced: bool) -> None:
    for path in _paths(4):
        changes = _changes(path)
        decisions = decide(changes, method, traced=traced, now=NOW, grace=GRACE)
        assert len(decisions) == len(changes), path
        if method is Method.EXCLUDED:
            assert set(decisions) == {EXCLUDED}, path
            continue
        for change, decision in zip(changes, decisions, strict=True):
            _check_one(path, change, decision)
        last_delete = max((i for i, change in enumerate(changes) if change.new is None), default=-1)
        assert not any(isinstance(decision, Prove) for decision in decisions[: last_delete + 1]), path
        assert decisions.count(ARRIVAL) <= 1, path
        assert decisions.count(RECHECK) <= 1, path


def _check_one(path: str, change: Change, decision: Decision) -> None:
    if change.new is None:
        assert decision in (DELETE, UNOBSERVED, SUPERSEDED), path
        if change.old == "A":
            assert decision != SUPERSEDED, path
    if decision == ARRIVAL:
        assert change.new == "A", path
    if decision == RECHECK:
        assert change.old in ("A", "T"), path
    if "T" in (change.old, change.new) and change.new in ("A", "T"):
        assert decision == EXCLUDED, path


@pytest.mark.parametrize("method", list(Method))
def test_every_signed_row_is_sent_and_every_row_before_it_settled(method: Method) -> None:
    for path in _paths(4):
        count = len(path) - 1
        for cut in range(count):
            decisions = decide(_changes(path, signed=(cut,)), method, traced=False, now=NOW, grace=GRACE)
            assert decisions[cut] == Send(), path
            start = max((i + 1 for i in range(cut) if path[i + 1] == "-"), default=0)
            assert all(isinstance(d, Settle | Send) for d in decisions[start:cut]), path
