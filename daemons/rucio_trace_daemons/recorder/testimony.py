"""What the recorder says about one row: it looks at the replica as the RSE's method allows, and signs what it found."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rucio_trace.envelope import parse_traces, sign
from rucio_trace.errors import Malformed, TraceabilityError
from rucio_trace.trace import Event, Source
from rucio_trace_daemons.methods import Method
from rucio_trace_daemons.recorder.compose import Cannot, Who
from rucio_trace_daemons.recorder.decide import Question
from rucio_trace_daemons.recorder.history import arrival_event, transfer_of
from rucio_trace_daemons.recorder.missing import NotYetLost, check_lost
from rucio_trace_daemons.recorder.outbox import LONGEST_WAIT, STOPPED
from rucio_trace_daemons.recorder.rows import Signed, Waiting
from rucio_trace_daemons.recorder.transferred import compared
from rucio_trace_daemons.storage import Replica as StoredReplica
from rucio_trace_daemons.storage_errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rucio_trace.envelope import Trace
    from rucio_trace.trace import Cause, Statement
    from rucio_trace_daemons.recorder.context import Context
    from rucio_trace_daemons.recorder.missing import Guards
    from rucio_trace_daemons.recorder.product import Product
    from rucio_trace_daemons.recorder.prove import Reading
    from rucio_trace_daemons.recorder.resolve import Transfer
    from rucio_trace_daemons.recorder.rows import Fate, Replica, Row
    from rucio_trace_daemons.rses import Rse

__all__ = ["Testimony"]

LOG = logging.getLogger("traceability-recorder")

# Rucio's hosts stamp requests, its database stamps changes: their clocks may differ by so much.
CLOCK_SKEW = timedelta(minutes=1)


class Testimony:
    """Speaks about the rows of one product; each replica is looked at once, however many rows ask."""

    def __init__(self, product: Product, context: Context, rses: Mapping[str, Rse], guards: Guards) -> None:
        self._product, self._context, self._rses, self._guards = product, context, rses, guards
        self._looks: dict[str, tuple[Reading, bool] | TraceabilityError] = {}
        self._lost: set[str] = set()
        self._linked = product.before.joined

    def repeat(self, row: Row) -> Fate:
        """The trace that was signed before and is kept in the row."""
        assert row.message is not None
        try:
            [trace] = parse_traces(row.message.encode())
        except (Malformed, ValueError) as error:
            return Waiting(STOPPED, f"the signed trace kept in the row cannot be read: {error}", stopped="unreadable")
        self._product.history.note(trace, row.rse_id)
        return Signed(trace, fresh=False)

    def deletion(self, row: Row, *, unobserved: bool) -> Fate:
        rse = self._rse(row)
        who = self._product.removals.get(row.event_id) or Who(row.account, row.action, row.rule)
        return self._signed(
            row, Event.DELETE, rse, cause=self._context.composer.cause(who, None), unobserved=unobserved or None
        )

    def proof(self, row: Row, replica: Replica, question: Question) -> Fate:
        """Raises TraceabilityError: nothing can be said now."""
        rse = self._rse(row)
        self._hear_producer(row)
        match rse.method:
            case Method.READ:
                return self._read(row, replica, rse, question)
            case Method.STORAGE:
                return self._by_storage(row, replica, rse, question)
            case Method.TRANSFER:
                return self._by_transfer(row, rse)
            case Method.NONE:
                return self._arrival(row, Event.COPY, rse, None, method="none")
            case _:
                raise Cannot(
                    f"{rse.name}, RSE attribute trace_method",
                    expected="read, storage, transfer or none",
                    found=str(rse.attributes.get("trace_method")),
                )

    def _hear_producer(self, row: Row) -> None:
        """Wait, with the reason, while the store does not take the producer's word; for a while, and once at least."""
        refusal, patience = self._product.before.refusal, self._context.options.origin_patience
        if refusal is None:
            return
        if not row.attempts or self._context.clock() < row.at + patience:
            raise Cannot(refusal, hint=f"the product is recorded without it {patience} after its arrival")
        LOG.warning("origin-ignored did=%s:%s %s", row.scope, row.name, refusal)

    def _rse(self, row: Row) -> Rse:
        rse = self._rses[row.rse_id]
        self._guards.check(rse)
        return rse

    def _read(self, row: Row, replica: Replica, rse: Rse, question: Question) -> Fate:
        try:
            reading, good = self._look(row, rse)
        except NotFound:
            return self._missing(row, replica, rse, question)
        self._guards.count_found(rse.id)
        if question is Question.RECHECK:
            event = Event.VERIFY if good else Event.CORRUPT
            return self._signed(row, event, rse, reading, cause=self._cause(row, None), **self._adopted(event))
        if not good:
            return self._signed(row, Event.CORRUPT, rse, reading, cause=self._cause(row, self._transfer(row)))
        product = self._product
        if product.history.origin is None and (imported := product.before.of_bytes(reading)) is not None:
            return self._arrival(row, Event.COPY, rse, reading, source=Source(None, imported.id))
        event = arrival_event(row, product.history, product.pending, product.known, self._transfer(row))
        return self._arrival(row, event, rse, reading, **self._adopted(event))

    def _by_storage(self, row: Row, replica: Replica, rse: Rse, question: Question) -> Fate:
        """What the storage's own digest proves; whatever it does not prove is read."""
        origin, context = self._origin(), self._context
        held = origin is not None and (self._linked or self._product.before.declared is None)
        if origin is None or not held or rse.id in self._looks:
            return self._read(row, replica, rse, question)
        answer = context.prover.ask(self._stored(row, rse), origin, context.watch)
        if answer is None:
            return self._read(row, replica, rse, question)
        self._guards.count_found(rse.id)
        checksums = {answer.algorithm: answer.value}
        found: dict[str, Any] = {"method": "storage", "observed": context.clock(), "checksums": checksums}
        if question is Question.RECHECK:
            return self._signed(row, Event.VERIFY, rse, cause=self._cause(row, None), **found)
        return self._arrival(row, Event.COPY, rse, None, **found)

    def _look(self, row: Row, rse: Rse) -> tuple[Reading, bool]:
        """One look at each replica and batch; what it was is remembered, also a failure."""
        if rse.id not in self._looks:
            try:
                before = self._product.before
                self._looks[rse.id] = self._context.prover.prove(
                    self._stored(row, rse),
                    row,
                    self._origin(),
                    self._context.watch,
                    first=not self._linked and before.declared is not None,
                    also=(*before.algorithms(row.bytes), *(["SHA256"] if rse.method is Method.STORAGE else [])),
                )
            except NotFound as error:
                self._looks[rse.id] = error
        look = self._looks[rse.id]
        if isinstance(look, TraceabilityError):
            raise look
        return look

    def _stored(self, row: Row, rse: Rse) -> StoredReplica:
        path = next((known.path for known in self._product.known if known.rse_id == rse.id), None)
        return StoredReplica(rse, self._product.key.scope, row.name, row.bytes, path)

    def _missing(self, row: Row, replica: Replica, rse: Rse, question: Question) -> Fate:
        """The storage says there is no such file: LOST, once that is sure."""
        context, now = self._context, self._context.clock()
        since = min((r.missing_since for r in replica.rows if r.missing_since is not None), default=None)
        if rse.id not in self._lost:
            try:
                missing = self._stored(row, rse)
                check_lost(context.storage, context.engine, missing, since, now, context.options, context.watch)
            except NotYetLost as error:
                since = since or now
                again = max(since + context.options.lost_after, now + context.options.retry)
                return Waiting(min(again, now + LONGEST_WAIT), str(error), since)
            self._guards.count_lost(rse)
            self._lost.add(rse.id)
        transfer = self._transfer(row) if question is Question.ARRIVAL else None
        cause = self._cause(row, transfer)
        return self._signed(row, Event.LOST, rse, method="read", observed=now, cause=cause)

    def _by_transfer(self, row: Row, rse: Rse) -> Fate:
        transfer = self._transfer(row)
        checksums = compared(transfer, self._product.transfers, self._rses) if transfer else {}
        if not checksums:
            tool = transfer.tool if transfer else None
            raise Cannot(
                f"{row.scope}:{row.name} on {rse.name}",
                expected="a transfer by FTS that compared the destination's checksum (trace_method = transfer)",
                found=f"one by {tool} that compared none" if tool else "none",
                hint="trace_method = none records the event alone, trace_method = read reads the file",
            )
        origin = self._origin()
        known = {**(origin.hashes or {}), origin.hash_algorithm: origin.hash} if origin is not None else {}
        if any(known.get(algorithm, value) != value for algorithm, value in checksums.items()):
            raise Cannot(
                f"{row.scope}:{row.name} on {rse.name}",
                expected="a transfer of the origin's bytes",
                found="one of bytes with another checksum",
                hint="trace_method = read reads the file",
            )
        return self._arrival(row, Event.COPY, rse, None, method="transfer", checksums=checksums)

    def _arrival(self, row: Row, event: Event, rse: Rse, reading: Reading | None, **more: Any) -> Fate:
        transfer, history = self._transfer(row), self._product.history
        if event is Event.COPY:
            more["replaces"] = history.last_trace(rse.id)
            more.setdefault("source", self._source(transfer))
        return self._signed(row, event, rse, reading, cause=self._cause(row, transfer), **more)

    def _adopted(self, event: Event) -> dict[str, Any]:
        """What makes a replica that was read first the origin of a product older than the hooks."""
        first = self._product.history.origin is None and not self._product.history.revoked
        return {"adopted": True} if first and self._product.adopted and event is not Event.CORRUPT else {}

    def _source(self, transfer: Transfer | None) -> Source | None:
        if transfer is None:
            return None
        source = transfer.source_rse_id
        rse = self._rses.get(source) if source else None
        return Source(rse.name if rse else None, self._product.history.proof(source) if source else None)

    def _declared(self) -> Source | None:
        """The producer's word, until a good copy has named it: it joins the product through that (format.md, 1.9)."""
        declared = self._product.before.declared
        return Source(None, declared.id) if declared is not None and not self._linked else None

    def _transfer(self, row: Row) -> Transfer | None:
        return transfer_of(row, self._product.transfers, CLOCK_SKEW)

    def _cause(self, row: Row, transfer: Transfer | None) -> Cause | None:
        return self._context.composer.cause(Who(row.account, row.action, row.rule), transfer)

    def _origin(self) -> Statement | None:
        return self._product.history.origin

    def _signed(self, row: Row, event: Event, rse: Rse, reading: Reading | None = None, **more: Any) -> Signed:
        context = self._context
        signer = context.keys.signer_at(row.at, context.clock())
        if reading is not None:
            more.setdefault("method", "read")
        if event in (Event.COPY, Event.CORRUPT):
            more["source"] = self._declared() or more.get("source")
            self._linked |= event is Event.COPY
        statement = context.composer.compose(
            row,
            self._product.key,
            event,
            rse=rse.name,
            signer=signer.fingerprint,
            origin=self._origin(),
            reading=reading,
            **more,
        )
        trace: Trace = sign(statement, signer)
        self._product.history.note(trace, rse.id)
        return Signed(trace, fresh=True)
