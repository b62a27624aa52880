"""What a product's history amounts to today: the status of each replica, and of the product.

The same set of traces gives the same status, in whatever order it is handed in. Pure; the traces are
those the store accepted (docs/format.md, section 8).

**Which trace of a replica is the latest?** A recorder registers the traces of one replica in the order
of its outbox, so among the traces of one *site* the store's position decides, and a clock set back does
no harm. Between sites only the signed times can be compared. Both rules in one: within a site a trace
counts as no older than those registered before it; then times decide, and positions where they tie. A line of a batch
is registered minutes after its bytes were read, so that its position tells nothing: its own time decides alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from rucio_trace.certificates import load
from rucio_trace.dataset import is_dataset
from rucio_trace.errors import Malformed
from rucio_trace.history import History, agree, history_of
from rucio_trace.joining import join
from rucio_trace.statement import STRONG, Event, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rucio_trace.batch import Line
    from rucio_trace.envelope import Trace
    from rucio_trace.statement import Statement
    from rucio_trace.store.records import BatchLine, Stored

__all__ = ["Left", "ProductStatus", "ReplicaStatus", "State", "Status", "left_after", "product_status", "speaker"]


class Status(StrEnum):
    """Of a product: `trace_status`."""

    GENUINE = "GENUINE"  # at least one replica is proven, none is known to be bad
    DEGRADED = "DEGRADED"  # a proven replica is left, another is corrupt or lost
    TAMPERED = "TAMPERED"  # every replica is corrupt or lost
    OBSOLETE = "OBSOLETE"  # should not be used any more
    REVOKED = "REVOKED"  # its CREATE was withdrawn
    DISPUTED = "DISPUTED"  # two CREATEs in force name different bytes
    PENDING = "PENDING"  # nothing is proven yet


class State(StrEnum):
    """Of a replica."""

    PROVEN = "proven"
    CORRUPT = "corrupt"
    LOST = "lost"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """`trace_id` is the trace that decided the state; `proven_at` when its bytes were last read and found genuine."""

    state: State
    trace_id: str
    proven_at: datetime | None


@dataclass(frozen=True, slots=True)
class ProductStatus:
    """`position` is the youngest trace that was considered: an older snapshot never replaces a newer one."""

    status: Status
    origin: Stored | None
    replicas: Mapping[str, ReplicaStatus]
    position: int

    @property
    def total(self) -> int:
        return len(self.replicas)

    @property
    def proven(self) -> int:
        return sum(replica.state is State.PROVEN for replica in self.replicas.values())

    @property
    def trace_replicas(self) -> str:
        return f"{self.proven}/{self.total}"

    @property
    def verified_at(self) -> datetime | None:
        """The youngest proof of a replica that is good."""
        good = [r.proven_at for r in self.replicas.values() if r.state is State.PROVEN and r.proven_at is not None]
        return max(good, default=None)


def product_status(
    history: Sequence[Stored], replica_key: Callable[[str], str], lines: Sequence[BatchLine] = ()
) -> ProductStatus:
    """The status of the one product that *history* speaks of; traces of files in no Rucio count if they join it.

    *replica_key* gives for an RSE's signed name what the RSE is known by now: RSEs can be renamed. *lines* are what
    batches say of the product (`Store.proven`).

    Raises:
        ValueError: traces of several products, or of none.
    """
    judged, counting = _judged(history, lines)
    replicas: dict[str, ReplicaStatus] = {}
    for _ in _life(counting, judged.origin, replica_key, replicas):
        pass
    return ProductStatus(
        status=_status(judged, replicas),
        origin=next((said.stored for said in counting if said.stored.trace is judged.origin), None),
        replicas=replicas,
        position=max((*(stored.position for stored in history), *(line.position for line in lines)), default=0),
    )


@dataclass(frozen=True, slots=True)
class Left:
    """The copies of a product just after one of them went, was lost or turned out corrupt, as far as traces tell.

    `waiting` are copies whose bytes nobody has read. `last`: the one that went may have been good, and none of those
    that are left can be.
    """

    proven: int
    waiting: int
    last: bool


def left_after(
    history: Sequence[Stored], replica_key: Callable[[str], str], lines: Sequence[BatchLine] = ()
) -> dict[int, Left]:
    """What each DELETE, LOST and CORRUPT that stands left of the one product of *history*, by its position.

    Copies are held against the origin as it is known today. Raises what `product_status` does.
    """
    judged, counting = _judged(history, lines)
    replicas: dict[str, ReplicaStatus] = {}
    was: dict[str, State] = {}
    found: dict[int, Left] = {}
    for said in _life(counting, judged.origin, replica_key, replicas):
        statement = said.stored.trace.statement
        if statement.rse is None:
            continue
        key = replica_key(statement.rse)
        # of a replica that nobody had looked at, its deletion alone says that Rucio took it for good
        before = was.pop(key, State.WAITING if statement.event is Event.DELETE else State.LOST)
        if statement.event in _ENDS:
            states = [replica.state for replica in replicas.values()]
            proven, waiting = states.count(State.PROVEN), states.count(State.WAITING)
            last = before in (State.PROVEN, State.WAITING) and not proven + waiting
            found[said.stored.position] = Left(proven, waiting, last)
        if key in replicas:
            was[key] = replicas[key].state
    return found


def _judged(history: Sequence[Stored], lines: Sequence[BatchLine]) -> tuple[History, list[_Said]]:
    """What the traces of one product, and those that joined it, amount to; those that stand, and *lines*, in order."""
    own = [stored.trace for stored in history if stored.trace.statement.product is not None]
    if len({trace.statement.product for trace in own}) != 1 and history:
        raise ValueError("a status is that of one product")
    judged = history_of([*own, *join(own, (stored.trace for stored in history))], speaker)
    standing = {id(trace) for trace in judged.traces}
    said = _in_order(history, lines)
    return judged, [one for one in said if one.line is not None or id(one.stored.trace) in standing]


def speaker(trace: Trace) -> str:
    """Whose word it is, as far as a store knows: a member keeps its names when it renews its certificate."""
    try:
        signer = load(trace.certificate)
    except Malformed:  # who has no name is nobody else
        return trace.certificate.hex()
    return " ".join((signer.subject, *sorted(signer.uris)))


@dataclass(frozen=True, slots=True)
class _Said:
    """What a trace says of a replica, or a *line* of the batch *stored*."""

    time: datetime
    stored: Stored
    line: Line | None = None


def _in_order(history: Iterable[Stored], lines: Iterable[BatchLine]) -> list[_Said]:
    """All that was said, from the oldest to the youngest, by the rule at the head of this module."""
    latest: dict[tuple[str | None, str | None], datetime] = {}
    said = [_Said(parse_time(found.line.time), found.batch, found.line) for found in lines if found.stands]
    for stored in sorted(history, key=lambda stored: stored.position):
        of_site = (stored.trace.statement.site, stored.trace.statement.rse)
        time = max(_time(stored.trace.statement), latest.get(of_site, _EVER))
        latest[of_site] = time
        said.append(_Said(time, stored))
    return sorted(said, key=lambda said: (said.time, said.stored.position))


_EVER: Final = datetime.min.replace(tzinfo=UTC)


def _time(statement: Statement) -> datetime:
    return parse_time(statement.time) if statement.time else _EVER


_GOOD: Final = frozenset({Event.CREATE, Event.COPY, Event.VERIFY})
_ENDS: Final = frozenset({Event.DELETE, Event.LOST, Event.CORRUPT})
_ARRIVALS: Final = frozenset({Event.CREATE, Event.COPY})
_PROOFS: Final = frozenset({"read", "storage"})


def _proves(statement: Statement) -> bool:
    """Whether bytes of a replica were read and found good; a transfer tool's word or a cached answer is no proof."""
    return statement.event in _GOOD and statement.rse is not None and statement.method in _PROOFS


def _life(
    counting: Iterable[_Said],
    origin: Trace | None,
    replica_key: Callable[[str], str],
    replicas: dict[str, ReplicaStatus],
) -> Iterator[_Said]:
    """Each of *counting*, once what it did to *replicas* (empty to begin with) is done."""
    deleted: set[str] = set()
    for said in counting:
        statement = said.stored.trace.statement
        if statement.rse is not None:
            key = replica_key(statement.rse)
            if statement.event is Event.DELETE:
                deleted.add(key)
                replicas.pop(key, None)
            elif statement.event in _ARRIVALS or key not in deleted:  # a late look at a deleted one revives nothing
                deleted.discard(key)
                if said.line is None:
                    replicas[key] = _after(replicas.get(key), said.stored, origin)
                elif found := _after_line(replicas.get(key), said, said.line, origin):
                    replicas[key] = found
        yield said


def _after(before: ReplicaStatus | None, stored: Stored, origin: Trace | None) -> ReplicaStatus:
    """A replica's status once *stored*, which is not its deletion, has happened to it."""
    statement = stored.trace.statement
    last_proof = None if before is None or statement.event in _ARRIVALS else before.proven_at
    if statement.event is Event.CORRUPT:
        return ReplicaStatus(State.CORRUPT, stored.id, last_proof)
    if statement.event is Event.LOST:
        return ReplicaStatus(State.LOST, stored.id, last_proof)
    if not _proves(statement):
        if before is not None and statement.event is Event.VERIFY:
            return before
        return ReplicaStatus(State.WAITING, stored.id, last_proof)
    if origin is None or (agrees := _agrees(statement, origin.statement)) is None:
        return ReplicaStatus(State.WAITING, stored.id, last_proof)
    if not agrees:  # read before the producer said what the bytes should be
        return ReplicaStatus(State.CORRUPT, stored.id, last_proof)
    return ReplicaStatus(State.PROVEN, stored.id, parse_time(statement.observed or statement.time or ""))


def _after_line(before: ReplicaStatus | None, said: _Said, line: Line, origin: Trace | None) -> ReplicaStatus | None:
    """A replica's status once a line said that it has the line's digest; as it was where that cannot be compared."""
    algorithm, _, digest = line.digest.partition(":")
    expected = origin.statement.digests.get(algorithm) if origin is not None else None
    if origin is not None and origin.statement.hash == digest:
        expected = digest  # also that of a CDSE trace, which does not name its algorithm
    if expected is None:
        return before
    last_proof = before.proven_at if before is not None else None
    if expected != digest:
        return ReplicaStatus(State.CORRUPT, said.stored.id, last_proof)
    return ReplicaStatus(State.PROVEN, said.stored.id, max(said.time, last_proof or said.time))


def _agrees(statement: Statement, origin: Statement) -> bool | None:
    """Whether both name the same bytes; None if they have no strong digest in common."""
    if not agree(statement, origin):
        return False
    if not origin.digests:
        return True  # a CDSE trace: the digest they share is a strong one
    return True if statement.digests.keys() & origin.digests.keys() & set(STRONG) else None


def _status(history: History, replicas: Mapping[str, ReplicaStatus]) -> Status:
    """What concerns the product's truth comes first, then its replicas, then whether to use it."""
    if history.rivals:
        return Status.DISPUTED
    if history.withdrawn_origins and history.origin is None:
        return Status.REVOKED
    states = {replica.state for replica in replicas.values()}
    bad = bool(states & {State.CORRUPT, State.LOST})
    if is_dataset(history.traces):
        return Status.OBSOLETE if history.obsolete else Status.GENUINE if history.origin else Status.PENDING
    if bad and not states & {State.PROVEN, State.WAITING}:
        return Status.TAMPERED
    if history.obsolete:
        return Status.OBSOLETE
    if State.PROVEN not in states:
        return Status.PENDING
    return Status.DEGRADED if bad else Status.GENUINE
