"""Which change ends as what (docs/format.md, section 2). Pure: no database, no clock, no storage.

`decide` takes every pending outbox row of one replica in the order of their ids and says, row by row, whether it is
counted without a trace, sent as it was signed before, or proven and signed now. A replica lives from its first row to
its deletion; the rows of one call may hold several lives.

    NULL>C            Settle(expected)
    C>A               Prove(ARRIVAL)

    NULL>C            Settle(expected)
    C>A               Settle(superseded)     never read, and now it is gone
    A>B               Settle(superseded)
    B>NULL            SignDelete(unobserved=True)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rucio_trace_daemons.methods import Method

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

__all__ = [
    "DATASETS",
    "Change",
    "Decision",
    "Prove",
    "Question",
    "Reason",
    "Send",
    "Settle",
    "SignDelete",
    "Wait",
    "decide",
    "decide_dataset",
]

AVAILABLE, BAD, BEING_DELETED, COPYING, TEMPORARY, UNAVAILABLE = "A", "D", "B", "C", "T", "U"


class Reason(StrEnum):
    """Why an outbox row leaves no trace of its own; each is counted."""

    EXPECTED = "expected"
    SUPERSEDED = "superseded"
    EXCLUDED = "excluded"
    SKIPPED = "skipped"  # by an operator: `rucio-trace outbox skip`


class Question(StrEnum):
    """What a proof has to answer."""

    ARRIVAL = "arrival"  # is what came the product? CREATE, COPY or CORRUPT
    RECHECK = "recheck"  # it is doubted; is it still the product? VERIFY, CORRUPT or LOST


@dataclass(frozen=True, slots=True)
class Change:
    """One outbox row: a replica's state before and after; None for not existing."""

    old: str | None
    new: str | None
    at: datetime
    signed: bool = False  # its trace is already in the row: whatever happened since, those bytes are sent
    ours: bool = False  # what our auditor did, on the word of a trace that stands
    queued: bool = False  # no trigger wrote it: a search for gaps found that it must have happened


@dataclass(frozen=True, slots=True)
class Settle:
    """No trace: count the reason. It may only go together with the later rows it depends on."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Send:
    """Send the trace that was signed before."""


@dataclass(frozen=True, slots=True)
class Prove:
    """Look at the replica as its RSE's method says, then sign what was found."""

    question: Question


@dataclass(frozen=True, slots=True)
class SignDelete:
    """Sign that it was removed on purpose; `unobserved` when we never saw it while it was available."""

    unobserved: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing yet: something that follows soon may answer this row better."""

    until: datetime


Decision = Settle | Send | Prove | SignDelete | Wait


class _Kind(StrEnum):
    NOTHING = "nothing"  # part of a transfer or an upload under way
    IGNORED = "ignored"  # a whole RSE away for a while: millions of rows, no news about bytes
    ARRIVED = "arrived"
    DOUBTED = "doubted"
    DELETED = "deleted"


def decide(
    changes: Sequence[Change], method: Method, *, traced: bool, now: datetime, grace: timedelta
) -> list[Decision]:
    """One decision for each of *changes*, all pending rows of one replica in one generation, in id order.

    `traced`: the store holds a trace of this replica since it last came to be. `grace` is how long a replica that
    the reaper has marked waits for its deletion before it is read once more.
    """
    decisions: list[Decision] = []
    for life in _lives(changes):
        decisions += _decide_life(life, method, traced=traced)
        traced = False
    last = changes[-1] if changes else None
    if last is not None and last.new == BEING_DELETED and last.at + grace > now:
        return _held_back(decisions, Wait(last.at + grace))
    return decisions


def _lives(changes: Sequence[Change]) -> list[list[Change]]:
    """The changes cut after each deletion."""
    lives: list[list[Change]] = [[]]
    for change in changes:
        lives[-1].append(change)
        if change.new is None:
            lives.append([])
    return lives if lives[-1] else lives[:-1]


def _decide_life(life: Sequence[Change], method: Method, *, traced: bool) -> list[Decision]:
    if method is Method.EXCLUDED:
        return [Send() if change.signed else Settle(Reason.EXCLUDED) for change in life]
    # Whatever was signed was signed together with a decision about all rows before it.
    decided = max((index + 1 for index, change in enumerate(life) if change.signed), default=0)
    decisions = [_passed(change) for change in life[:decided]]
    rest = life[decided:]
    if rest and rest[-1].new is None:
        decisions += [_passed(change) for change in rest[:-1]]
        return [*decisions, _deleted(life, traced=traced)]
    if traced and rest and rest[0].queued and rest[0].old is None:  # since the search somebody has told of it
        return [*decisions, Settle(Reason.SUPERSEDED), *_decide_open(rest[1:], method)]
    return decisions + _decide_open(rest, method)


def _kind(change: Change) -> _Kind:
    """docs/format.md, section 2, the table's first column."""
    old, new = change.old, change.new
    if new is None:
        return _Kind.DELETED
    if change.ours and new == BAD:
        return _Kind.NOTHING
    if new == TEMPORARY or (old, new) == (TEMPORARY, AVAILABLE):
        return _Kind.IGNORED
    if old == new == AVAILABLE:  # no change at all: one of our own programs asks for a look
        return _Kind.DOUBTED
    if new == AVAILABLE:
        return _Kind.ARRIVED
    if old in (AVAILABLE, TEMPORARY) and new in (BAD, BEING_DELETED, UNAVAILABLE):
        return _Kind.DOUBTED
    return _Kind.NOTHING


def _passed(change: Change) -> Decision:
    """A row that a later one of the same life has overtaken."""
    if change.signed:
        return Send()
    match _kind(change):
        case _Kind.NOTHING:
            return Settle(Reason.EXPECTED)
        case _Kind.IGNORED:
            return Settle(Reason.EXCLUDED)
        case _:
            return Settle(Reason.SUPERSEDED)


def _deleted(life: Sequence[Change], *, traced: bool) -> Decision:
    if traced or any(change.signed for change in life):
        return SignDelete(unobserved=False)
    if life[-1].queued:  # it was found missing because it was traced: since then somebody has told of its deletion
        return Settle(Reason.SUPERSEDED)
    if any(state in (AVAILABLE, TEMPORARY) for change in life for state in (change.old, change.new)):
        return SignDelete(unobserved=True)
    return Settle(Reason.SUPERSEDED)


def _decide_open(life: Sequence[Change], method: Method) -> list[Decision]:
    """Decisions for a replica that still exists, as far as nothing of it was signed yet."""
    kinds = [_kind(change) for change in life]
    arrival = max((index for index, kind in enumerate(kinds) if kind is _Kind.ARRIVED), default=-1)
    doubt = max((index for index, kind in enumerate(kinds) if kind is _Kind.DOUBTED), default=-1)
    decisions = [_passed(change) for change in life]
    if arrival >= 0:
        decisions[arrival] = Prove(Question.ARRIVAL)
    if doubt > arrival:
        decisions[doubt] = _recheck(method)
    return decisions


def _recheck(method: Method) -> Decision:
    """Rucio's word alone is never signed: where nothing can be looked at, nothing is said."""
    return Settle(Reason.EXCLUDED) if method in (Method.NONE, Method.TRANSFER) else Prove(Question.RECHECK)


def _held_back(decisions: Sequence[Decision], wait: Wait) -> list[Decision]:
    """The same, with what is still to be proven, and all that gave way to it, waiting."""
    proofs = [index for index, decision in enumerate(decisions) if isinstance(decision, Prove)]
    if not proofs:
        return list(decisions)
    gave_way = Settle(Reason.SUPERSEDED)
    start = max((index + 1 for index, decision in enumerate(decisions) if _closes(decision)), default=0)
    return [
        wait if index >= start and (index in proofs or decision == gave_way) else decision
        for index, decision in enumerate(decisions)
    ]


def _closes(decision: Decision) -> bool:
    """Nothing before this row depends on anything after it."""
    return isinstance(decision, Send | SignDelete)


# Under what the outcomes of datasets' rows are counted, where those of replicas have the id of their RSE.
DATASETS = "datasets"
OPEN, CLOSED = "open", "closed"


@dataclass(frozen=True, slots=True)
class SignList:
    """Sign the list of the closed dataset's files: CREATE."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Sign that the list no longer holds: REVOKE. Unless it is *only_if_changed* and the files are the same still."""

    reason: str
    only_if_changed: bool


def decide_dataset(change: Change, later: Sequence[Change], *, stands: bool) -> Send | SignList | Withdraw | Settle:
    """What becomes of *change*, the first pending one of a dataset, before the *later* ones.

    `stands`: there is a trace of its list. What files a dataset had before it changed again nobody can know any more.
    """
    if change.signed:
        return Send()
    if stands:
        if change.new == OPEN:
            return Withdraw("reopened", only_if_changed=False)
        return Withdraw("content changed while closed", only_if_changed=True)
    if change.new == OPEN:
        return Settle(Reason.EXPECTED)
    if change.old == CLOSED or any(OPEN in (other.old, other.new) for other in later):
        return Settle(Reason.SUPERSEDED)
    return SignList()
