"""Rows of datasets: a closed one's list is signed, and withdrawn when it no longer holds.

The steps are those of replicas (`step`): claim under a lease, look, sign once, keep, register, finish in one
transaction. Rows of one dataset are handled in id order, and one that waits holds back those after it: what they mean
depends on it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from rucio_trace.dataset import Listing
from rucio_trace.envelope import dumps, parse_traces, sign
from rucio_trace.errors import TraceabilityError, Undecided
from rucio_trace.status import product_status
from rucio_trace.store import Outcome
from rucio_trace.trace import Event
from rucio_trace_daemons import metrics
from rucio_trace_daemons.alarms import Kind
from rucio_trace_daemons.recorder.before import may_join
from rucio_trace_daemons.recorder.compose import Who
from rucio_trace_daemons.recorder.decide import DATASETS, Reason, Send, Settle, SignList, Withdraw, decide_dataset
from rucio_trace_daemons.recorder.deliver import not_taken, waiting_columns
from rucio_trace_daemons.recorder.finish import count_outcomes, outcome, snapshot, write_snapshots
from rucio_trace_daemons.recorder.members import content_of, members_of
from rucio_trace_daemons.recorder.outbox import STOPPED, Claim
from rucio_trace_daemons.recorder.product import FUTURE, backoff
from rucio_trace_daemons.recorder.resolve import product_key
from rucio_trace_daemons.recorder.rows import Settled, Signed, Waiting
from rucio_trace_daemons.storage_errors import LeaseLost, Stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from rucio_trace.envelope import Trace
    from rucio_trace.identity import Trust
    from rucio_trace.statement import Statement
    from rucio_trace.store import Stored, TraceStore
    from rucio_trace_daemons.alarms import Alarms
    from rucio_trace_daemons.recorder.context import Context
    from rucio_trace_daemons.recorder.counting import Counting
    from rucio_trace_daemons.recorder.members import Content, Key
    from rucio_trace_daemons.recorder.outbox import Outbox
    from rucio_trace_daemons.recorder.rows import Fate, Row

__all__ = ["Datasets"]

LOG = logging.getLogger("traceability-recorder")

ROWS_AT_ONCE = 20
MEMBERS_AT_ONCE = 500


class Incomplete(Undecided):
    """A closed dataset has files of which nothing is signed yet."""

    def __init__(self, did: str, lacking: int, total: int) -> None:
        super().__init__(f"{did}: {lacking} of {total} files have no origin yet", hint="it is signed when they have")


@dataclass(frozen=True, slots=True)
class Datasets:
    """Of one worker. `seam` is told the name of each boundary between two steps."""

    context: Context
    outbox: Outbox
    store: TraceStore
    alarms: Alarms
    trust: Callable[[], Trust | None]
    counting: Counting
    seam: Callable[[str], None]

    def claim(self) -> Claim:
        """The rows of a few datasets; none where other recorders sign them."""
        if self.context.options.datasets == "leave":
            return Claim((), (), self.context.clock())
        return self.outbox.claim_datasets(ROWS_AT_ONCE)

    def count(self) -> int:
        """Bring the status of datasets up to date; returns how many."""
        return self.counting.step()

    def run(self, claim: Claim) -> Iterator[tuple[Sequence[Row], str]]:
        """Handle the rows of *claim*, a dataset after the other; tells which are done with, and how they ended."""
        rows = sorted(claim.rows, key=lambda row: (row.scope, row.name, str(row.generation), row.id))
        for (scope, name, generation), group in groupby(rows, lambda row: (row.scope, row.name, row.generation)):
            dataset = _Dataset(self, (scope, name, generation))
            of_one = list(group)
            for number, row in enumerate(of_one):
                self.context.watch(0)
                word = dataset.handle(row, of_one[number + 1 :])
                yield (of_one[number:] if word == "waiting" else [row]), word
                if word == "waiting":
                    break


class _Dataset:
    """One dataset, for the time of one batch."""

    def __init__(self, tools: Datasets, key: Key) -> None:
        self._tools, self._key, self._context = tools, key, tools.context
        self._product = product_key(self._context.options.instance, *key)

    def handle(self, row: Row, later: Sequence[Row]) -> str:
        """Bring one row to its end; returns the word under which it is counted, or `waiting`: *later* ones do too."""
        fate = self._fate(row, later)
        self._tools.seam("listed")
        if isinstance(fate, Signed):
            fate = self._register(row, fate)
        if isinstance(fate, Waiting):
            self._wait(row, later, fate)
            return "waiting"
        self._finish(row, fate)
        return outcome(fate)

    def _fate(self, row: Row, later: Sequence[Row]) -> Fate:
        try:
            return self._decide(row, later)
        except (Stopping, LeaseLost):
            raise
        except TraceabilityError as error:
            return Waiting(backoff(row, self._context.clock()), str(error))

    def _decide(self, row: Row, later: Sequence[Row]) -> Fate:
        now = self._context.clock()
        if self._context.options.datasets == "exclude" and row.message is None:
            return Settled(Reason.EXCLUDED)
        if row.at > now + FUTURE:
            return Waiting(backoff(row, now), f"dated {row.at - now} ahead of the database's clock")
        history = self._history()
        origin = product_status(history, str).origin if history else None
        match decide_dataset(row.change, [other.change for other in later], stands=origin is not None):
            case Send():
                return Signed(parse_traces((row.message or "").encode())[0], fresh=False)
            case Settle(reason):
                return Settled(reason)
            case SignList():
                return self._sign_list(row)
            case Withdraw(reason, only_if_changed):
                assert origin is not None
                return self._withdraw(row, origin.trace, reason, only_if_changed=only_if_changed)

    def _history(self) -> Sequence[Stored]:
        tools = self._tools
        return tools.store.product([self._product], may_join(tools.trust()))[self._product]

    def _sign_list(self, row: Row) -> Fate:
        content = self._content()
        if content is None:
            return Settled(Reason.SUPERSEDED)  # erased before anything was signed
        if content.lacking:
            raise Incomplete(self._product.did, content.lacking, content.counted.total)
        listing = self._listing()
        return self._signed(row, Event.CREATE, listing, contents=listing.contents)

    def _withdraw(self, row: Row, standing: Trace, reason: str, *, only_if_changed: bool) -> Fate:
        if only_if_changed:
            if self._content() is None:
                return Settled(Reason.SUPERSEDED)
            if self._holds(standing.statement):
                return Settled(Reason.EXPECTED)
        return self._signed(row, Event.REVOKE, standing.statement, revokes=standing.id, obsolescence=reason)

    def _holds(self, standing: Statement) -> bool:
        """Whether the dataset's files are still those of its signed list."""
        try:
            listing = self._listing()
        except Incomplete:  # of one of them nothing stands any more
            return False
        return (listing.hash, listing.size) == (standing.hash, standing.size)

    def _content(self) -> Content | None:
        with self._context.engine.connect() as connection:
            return content_of(connection, self._key)

    def _listing(self) -> Listing:
        """The dataset's files as they are now, with what is signed of each.

        Raises:
            Incomplete: nothing is signed of some.
        """
        listing, missing = Listing(), 0
        members = members_of(self._context.engine, self._key[:2])
        while some := list(islice(members, MEMBERS_AT_ONCE)):
            self._context.watch(0)
            keys = [product_key(self._context.options.instance, *member) for member in some]
            histories = self._tools.store.product(keys, may_join(self._tools.trust()))
            for key in keys:
                origin = product_status(histories[key], str).origin if histories[key] else None
                if origin is None:
                    missing += 1
                else:
                    listing.add(key.scope, key.name, origin.trace.statement)
        if missing:
            raise Incomplete(self._product.did, missing, listing.members + missing)
        return listing

    def _signed(self, row: Row, event: Event, of: Listing | Statement, **more: Any) -> Signed:
        context, now = self._context, self._context.clock()
        signer = context.keys.signer_at(row.at, now)
        cause = context.composer.cause(Who(row.account, row.action, row.rule), None)
        statement = context.composer.compose_dataset(
            row, self._product, event, of, signer=signer.fingerprint, observed=now, cause=cause, **more
        )
        return Signed(sign(statement, signer), fresh=True)

    def _register(self, row: Row, fate: Signed) -> Signed | Waiting:
        """Keep the trace in its row, hand it to the store; where that does not take it, the row waits.

        Raises:
            LeaseLost: somebody else holds the row by now.
        """
        tools = self._tools
        if fate.fresh and row.event_id not in tools.outbox.keep({row.event_id: dumps([fate.trace])}, [row]):
            raise LeaseLost
        [answer] = tools.store.register([fate.trace], trust=tools.trust())
        tools.seam("registered")
        if answer.outcome in (Outcome.STORED, Outcome.KNOWN):
            return fate
        if answer.outcome in (Outcome.REFUSED, Outcome.UNDECIDED):
            tools.alarms.report(Kind.STORE_REFUSES, self._context.options.site, {"reason": answer.reason})
        return not_taken(row, answer, self._context.clock())

    def _finish(self, row: Row, fate: Signed | Settled) -> None:
        """One transaction: what its traces amount to, the count, and the row is gone."""
        outbox, word = self._tools.outbox, outcome(fate)
        snapshots = [snapshot(self._key, self._history(), str)] if isinstance(fate, Signed) else []
        with outbox.transaction() as connection:
            write_snapshots(connection, snapshots)
            if ended := outbox.remove(connection, [(row.id, row.event_id)]):
                count_outcomes(connection, [(row, word)])
            self._tools.seam("finishing")
        self._tools.seam("finished")
        if ended:
            metrics.row_ended(DATASETS, word)

    def _wait(self, row: Row, later: Sequence[Row], fate: Waiting) -> None:
        tools = self._tools
        LOG.warning("waiting until=%s attempts=%d %s", f"{fate.until:%FT%TZ}", row.attempts + 1, fate.error)
        columns = {row.event_id: waiting_columns(row, fate, fate.until)}
        columns |= {other.event_id: waiting_columns(other, _BEHIND, fate.until) for other in later}

        def also(connection: Connection) -> None:
            if fate.stopped:
                count_outcomes(connection, [(row, fate.stopped)])
                tools.alarms.note(connection, Kind.OUTBOX_STUCK, DATASETS, {"dids": [self._product.did]})

        tools.outbox.postpone(columns, [row, *later], also)
        tools.alarms.tell()


_BEHIND = Waiting(STOPPED, unchanged=True)  # nothing was tried
