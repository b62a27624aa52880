"""What the accepted traces of one product amount to: its origin, and what has been withdrawn.

These rules are shared by everyone who draws a conclusion from traces: the verdict on a file, the
status in Rucio, the recorder that looks for the origin to hold a copy against. The order in which
traces arrive never matters (docs/format.md, sections 1 and 7). All traces given must have been
accepted by `verify.check_trace`. Pure; safe to call concurrently.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from rucio_trace.envelope import Trace
from rucio_trace.statement import STRONG, Event, Statement

__all__ = ["History", "Rank", "agree", "history_of", "origin_of", "rank_of", "standing"]


class Rank(IntEnum):
    """Whose word on a product's digests goes first; the lowest there is gives the origin."""

    DECLARED = 1  # a CREATE without an RSE: a producer with the right to create in the scope
    OBSERVED = 2  # a CREATE of the first replica, which agreed with Rucio's row
    ADOPTED = 3  # the first replica read of a product older than the hooks
    REPEATED = 4  # a COPY or VERIFY: repeats an origin whose CREATE has not come yet


def rank_of(s: Statement) -> Rank | None:
    """The statement's rank as an origin; None when it is no word on the origin's digests."""
    if s.schema is not None and s.hash_algorithm not in STRONG:
        return None  # names the product by a checksum, for want of an origin
    if s.event not in (Event.CREATE, Event.COPY, Event.VERIFY) or s.method == "none":
        return None
    if s.adopted:
        return Rank.ADOPTED
    if s.event is not Event.CREATE:
        return Rank.REPEATED
    return Rank.DECLARED if s.rse is None else Rank.OBSERVED


def agree(a: Statement, b: Statement) -> bool:
    """Whether two statements can speak of the same bytes.

    A CDSE trace does not sign which algorithm its digest is of: it agrees with any digest of ours
    that is equal to it.
    """
    if a.size != b.size:
        return False
    mine, theirs = a.digests, b.digests
    if not mine or not theirs:
        return a.hash == b.hash or a.hash in theirs.values() or b.hash in mine.values()
    return all(theirs.get(algorithm, digest) == digest for algorithm, digest in mine.items())


def standing(
    traces: Iterable[Trace], speaker: Callable[[Trace], str] = lambda _trace: ""
) -> tuple[list[Trace], list[tuple[Trace, Trace]]]:
    """The traces that are not withdrawn, and the others, each with the REVOKE that withdrew it.

    All are of one product, or of files in no Rucio; those that joined it among them. A REVOKE acts on the trace
    that it names; if that is a REVOKE, it undoes it. One of a file in no Rucio reaches only traces of such files, of
    the same *speaker*.
    """
    traces = list(traces)
    by_id: dict[str, list[Trace]] = {}
    for trace in traces:
        by_id.setdefault(trace.id, []).append(trace)
    against: dict[int, list[Trace]] = {}
    for revoke in traces:
        if revoke.statement.event is Event.REVOKE and revoke.statement.revokes:
            for target in by_id.get(revoke.statement.revokes, ()):
                if _may_withdraw(revoke, target, speaker):
                    against.setdefault(id(target), []).append(revoke)
    kept, withdrawn = [], []
    effective = _effective([t for t in traces if t.statement.event is Event.REVOKE], against)
    for trace in traces:
        revoke_ = next((r for r in against.get(id(trace), ()) if id(r) in effective), None)
        if revoke_ is None:
            kept.append(trace)
        else:
            withdrawn.append((trace, revoke_))
    return kept, withdrawn


def _may_withdraw(revoke: Trace, target: Trace, speaker: Callable[[Trace], str]) -> bool:
    ours, theirs = revoke.statement, target.statement
    if ours.product is not None:
        return theirs.product == ours.product or theirs.outside
    if theirs.product is not None or speaker(revoke) != speaker(target):
        return False
    return (ours.hash, ours.batch, ours.rse) == (theirs.hash, theirs.batch, theirs.rse)


def _effective(revokes: Sequence[Trace], against: Mapping[int, Sequence[Trace]]) -> set[int]:
    """The REVOKEs that are not themselves withdrawn, settled from the unopposed ones inwards.

    REVOKEs that name each other in a circle never settle and withdraw nothing: each names one
    trace only, so a circle reaches nothing outside itself.
    """
    effective: set[int] = set()
    void: set[int] = set()
    todo = list(revokes)
    while todo:
        left = []
        for revoke in todo:
            opponents = [id(o) for o in against.get(id(revoke), ())]
            if any(o in effective for o in opponents):
                void.add(id(revoke))
            elif all(o in void for o in opponents):
                effective.add(id(revoke))
            else:
                left.append(revoke)
        if len(left) == len(todo):
            break
        todo = left
    return effective


@dataclass(frozen=True, slots=True)
class History:
    """One product. Exactly one of `origin` and `rivals` is set, or neither.

    `deciding` are the standing CREATEs, whatever their rank; without any, the traces of the lowest rank. The first
    is the `origin`, unless they disagree: then `rivals` are the first of each content (the product is disputed).
    `agreeing` are all standing CREATE, COPY and VERIFY that speak of the origin's bytes, `contradicting` those that do
    not. `withdrawn_origins` are withdrawn CREATEs whose bytes no standing CREATE claims; with nothing else left, the
    product is revoked.
    """

    traces: tuple[Trace, ...]
    withdrawn: tuple[tuple[Trace, Trace], ...]
    origin: Trace | None
    deciding: tuple[Trace, ...]
    rivals: tuple[Trace, ...]
    agreeing: tuple[Trace, ...]
    contradicting: tuple[Trace, ...]
    withdrawn_origins: tuple[Trace, ...]
    obsolete: tuple[Trace, ...]


def history_of(traces: Iterable[Trace], speaker: Callable[[Trace], str] = lambda _trace: "") -> History:
    """Weigh the accepted traces of *one* product, with those that joined it (`joining.join`), in any order."""
    kept, withdrawn = standing(sorted(traces, key=_age), speaker)
    creates = [t for t in kept if t.statement.event is Event.CREATE]
    gone = tuple(
        t
        for t, _ in withdrawn
        if t.statement.event is Event.CREATE and not any(agree(t.statement, c.statement) for c in creates)
    )
    candidates: dict[Rank, list[Trace]] = {}
    for trace in kept:
        rank = rank_of(trace.statement)
        # a copy held against an origin that was withdrawn has lost what it was held against
        if rank is Rank.REPEATED and any(agree(trace.statement, g.statement) for g in gone):
            continue
        if rank is not None:
            candidates.setdefault(rank, []).append(trace)
    speaking = [t for rank in sorted(candidates) for t in candidates[rank]]
    deciding = [t for t in speaking if t.statement.event is Event.CREATE]
    if not deciding and candidates:
        deciding = candidates[min(candidates)]
    rivals = _rivals(deciding)
    origin = deciding[0] if deciding and not rivals else None
    return History(
        traces=tuple(kept),
        withdrawn=tuple(withdrawn),
        origin=origin,
        deciding=tuple(deciding),
        rivals=rivals,
        agreeing=tuple(t for t in speaking if origin and agree(t.statement, origin.statement)),
        contradicting=tuple(t for t in speaking if origin and not agree(t.statement, origin.statement)),
        withdrawn_origins=gone,
        obsolete=tuple(t for t in kept if t.statement.event is Event.OBSOLETE),
    )


def origin_of(traces: Iterable[Trace]) -> Trace | None:
    """The trace whose digests all copies of the product are held against; None if none or disputed."""
    return history_of(traces).origin


def _age(trace: Trace) -> tuple[str, str, str]:
    """Oldest statement first, with an order for equal times: never the order of arrival."""
    return trace.statement.time or "", trace.id, trace.message_digest


def _rivals(deciding: Sequence[Trace]) -> tuple[Trace, ...]:
    """The first trace of each of the contents claimed, if there is more than one."""
    distinct: list[Trace] = []
    for trace in deciding:
        if all(not agree(trace.statement, other.statement) for other in distinct):
            distinct.append(trace)
    return tuple(distinct) if len(distinct) > 1 else ()
