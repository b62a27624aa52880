"""What was said of a product before it was in Rucio: its producer's word, and traces that were imported.

A producer's word (`trace_origin`) goes into the store before anything is signed about the product. Where the store
does not take it (the certificate was revoked meanwhile, the federation file here is older than the server's), the
product waits for a while and says so; then it is recorded without, and the word is offered again with every later
change. Imported traces are found by the file's base name; reading shows whether one of them is of these bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rucio_trace_policy.columns import Moment
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, select

from rucio_trace.checking import Refused, check_trace
from rucio_trace.envelope import parse_traces
from rucio_trace.errors import Refuted, TraceabilityError
from rucio_trace.faults import OutsideRights
from rucio_trace.store import Outcome
from rucio_trace.trace import SCHEMA, Event, base_name
from rucio_trace_daemons.recorder.prove import Expected
from rucio_trace_daemons.recorder.sets import among

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from rucio_trace.envelope import Trace
    from rucio_trace.faults import Fault
    from rucio_trace.identity import Trust
    from rucio_trace.store import Registration, Stored, TraceStore
    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.recorder.prove import Reading
    from rucio_trace_daemons.recorder.rows import Row

__all__ = ["Before", "Origins", "declared_since", "may_join"]

# Scope and name as Rucio keeps them, and the begin of the generation.
Key = tuple[str, str, datetime]


@dataclass(frozen=True, slots=True)
class Before:
    """Of one product. `declared` is its producer's word, once it is in the store; `refusal` is why it is not.

    `joined` says whether a trace of the product names `declared` already.
    """

    declared: Trace | None = None
    joined: bool = False
    refusal: str | None = None
    imported: Sequence[Trace] = ()

    @property
    def set_by_producer(self) -> bool:
        return self.declared is not None or self.refusal is not None

    def algorithms(self, size: int | None) -> tuple[str, ...]:
        """The digests by which a file of *size* may show to be an imported one."""
        of_size = [t for t in self.imported if size in (None, t.statement.size)]
        named = (t.statement.hash_algorithm or t.claimed_hash_algorithm or "BLAKE3" for t in of_size)
        return tuple(dict.fromkeys(name for name in named if name in ("BLAKE3", "SHA256", "SHA3", "SHA512")))

    def of_bytes(self, reading: Reading) -> Trace | None:
        """The imported trace of what was read, the oldest of several."""
        return next((t for t in self.imported if _is_of(t, reading)), None)


def _is_of(trace: Trace, reading: Reading) -> bool:
    s = trace.statement
    if s.size != reading.size:
        return False
    if not s.digests:
        return s.hash in reading.hashes.values()
    shared = s.digests.keys() & reading.hashes.keys()
    return s.hash_algorithm in shared and all(s.digests[a] == reading.hashes[a] for a in shared)


@dataclass(frozen=True, slots=True)
class Origins:
    """Finds what was said before; a number of queries that does not grow with the batch."""

    engine: Engine
    store: TraceStore
    trust: Callable[[], Trust | None]
    seam: Callable[[str], None]

    def find(
        self,
        keys: Mapping[Key, ProductKey],
        histories: Mapping[ProductKey, Sequence[Stored]],
        rows: Iterable[Row],
        arriving: Collection[Key],
    ) -> dict[Key, Before]:
        """For each of *keys*, of which there are *rows*; imported traces only for new ones among *arriving*."""
        with self.engine.connect() as connection:
            texts = _declared(connection, keys)
        declared, unfit = _read(texts, {(row.scope, row.name, row.generation): row for row in rows})
        joined = {key for key, trace in declared.items() if any(s.id == trace.id for s in histories[keys[key]])}
        refusals = unfit | self._register(keys, {key: trace for key, trace in declared.items() if key not in joined})
        new = {key for key in arriving if key not in texts and not histories[keys[key]]}
        imported = self._imported({key: keys[key].scope for key in new}) if new else {}
        return {
            key: Before(
                declared.get(key) if key not in refusals else None,
                key in joined,
                refusals.get(key),
                imported.get(key, ()),
            )
            for key in keys
        }

    def _imported(self, scopes: Mapping[Key, str]) -> dict[Key, list[Trace]]:
        """The traces from elsewhere that may join each product, by its scope: nobody's word on another one."""
        found = self.store.created_outside({base_name(key[1]) for key in scopes})
        ids = {stored.id for of in found.values() for stored in of}
        if not ids:
            return {}
        origins, trust = tables(self.engine.dialect.name).origins, self.trust()
        with self.engine.connect() as connection:
            used = set(connection.scalars(select(origins.c.trace_id).where(origins.c.trace_id.in_(ids))))
        return {
            key: [
                s.trace
                for s in found[base_name(key[1])]
                if s.id not in used and (trust is None or _counts(s, trust, scope))
            ]
            for key, scope in scopes.items()
        }

    def _register(self, keys: Mapping[Key, ProductKey], traces: Mapping[Key, Trace]) -> dict[Key, str]:
        """Put producers' words into the store, each as it was signed; why it did not take those it did not."""
        if not traces:
            return {}
        scopes = {trace.id: keys[key].scope for key, trace in traces.items()}
        answers = self.store.register(list(traces.values()), trust=self.trust(), scopes=scopes)
        self.seam("declared")
        return {
            key: _refusal(answer)
            for key, answer in zip(traces, answers, strict=True)
            if answer.outcome not in (Outcome.STORED, Outcome.KNOWN)
        }


def _read(texts: Mapping[Key, str], rows: Mapping[Key, Row]) -> tuple[dict[Key, Trace], dict[Key, str]]:
    """The traces that fit their products, and what is wrong with the others: somebody may have been at the table."""
    fit: dict[Key, Trace] = {}
    unfit: dict[Key, str] = {}
    for key, text in texts.items():
        try:
            trace = parse_traces(text.encode())[0]
            _check_fit(trace, base_name(key[1]), Expected.of_row(rows[key]))
            fit[key] = trace
        except (TraceabilityError, IndexError) as error:
            unfit[key] = f"trace_origin does not fit the product: {error}"
    return fit, unfit


def _check_fit(trace: Trace, name: str, row: Expected) -> None:
    """Raises Refuted: it is not what the metadata plugin lets in for this file."""
    s = trace.statement
    if s.schema != SCHEMA or s.event is not Event.CREATE or s.product is not None:
        raise Refuted(f"trace {trace.id}", expected="a CREATE of a file in no Rucio", found=f"{s.event} of {s.did}")
    if s.name != name or row.size not in (None, s.size):
        raise Refuted(f"trace {trace.id}", expected=f"{name}, {row.size} bytes", found=f"{s.name}, {s.size} bytes")
    for algorithm in s.digests.keys() & row.hashes.keys():
        if s.digests[algorithm] != row.hashes[algorithm]:
            raise Refuted(f"trace {trace.id}, {algorithm}", expected=row.hashes[algorithm], found=s.digests[algorithm])


def may_join(trust: Trust | None) -> Callable[[Stored, str], bool]:
    """Whether the signer of a trace of a file in no Rucio may speak for products of a scope, by today's rights.

    Everything else was asked when the store took the trace: a list of revocations that is out of date today must not
    take a product's origin away.
    """
    return lambda stored, scope: trust is None or not _lacks_right(stored, trust, scope)


def _lacks_right(stored: Stored, trust: Trust, scope: str) -> bool:
    return all(
        any(isinstance(fault, OutsideRights) for fault in _faults(stored, trust, right_in))
        for right_in in (scope, None)
    )


def _counts(stored: Stored, trust: Trust, scope: str) -> bool:
    """Whether its signer may still speak of products of *scope*, or of any file outside Rucio."""
    return any(not _faults(stored, trust, right_in) for right_in in (scope, None))


def _faults(stored: Stored, trust: Trust, scope: str | None) -> Sequence[Fault]:
    try:
        check_trace(stored.trace, trust, datetime.now(UTC), registered_at=stored.registered_at, scope=scope)
    except Refused as error:
        return error.faults
    return ()


def _refusal(answer: Registration) -> str:
    return f"trace_origin {answer.id}: the store answers {answer.outcome}: {answer.reason}"


def declared_since(connection: Connection, keys: Collection[Key]) -> set[Key]:
    """Those of *keys*, which had none, whose producer has spoken by now."""
    return set(_declared(connection, keys)) if keys else set()


def _declared(connection: Connection, keys: Collection[Key]) -> dict[Key, str]:
    if not keys:
        return {}
    c = tables(connection.dialect.name).origins.c
    where = among(connection.dialect.name, (c.scope, c.name, c.generation), (Text(), Text(), Moment()), list(keys))
    query = select(c.scope, c.name, c.generation, c.trace).where(where)
    return {(row.scope, row.name, row.generation): row.trace for row in connection.execute(query)}
