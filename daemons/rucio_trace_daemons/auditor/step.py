"""One bounded step of the auditor: read some replicas of a round, sign what was found, or take the next turn.

A `Worker` belongs to one thread. Whatever is found is written every few seconds; no database transaction is open
while bytes are read.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

from rucio.common.exception import DatabaseException
from rucio_trace_policy.database import writing
from sqlalchemy.exc import DBAPIError

from rucio_trace.errors import ConfigurationError, StorageError, TraceabilityError, shown
from rucio_trace_daemons.alarms import Kind
from rucio_trace_daemons.auditor import breaker
from rucio_trace_daemons.auditor.batches import NotTaken
from rucio_trace_daemons.auditor.campaigns import AUDITED
from rucio_trace_daemons.auditor.declare import condemned, declare
from rucio_trace_daemons.auditor.examine import Bad, examine
from rucio_trace_daemons.auditor.origins import look_up
from rucio_trace_daemons.auditor.sharing import SILENT
from rucio_trace_daemons.auditor.work import Unread
from rucio_trace_daemons.rses import matching
from rucio_trace_daemons.storage_errors import Busy, LeaseLost, Refused, Stopping, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rucio_trace_daemons.auditor.batches import Batches
    from rucio_trace_daemons.auditor.campaigns import Campaign
    from rucio_trace_daemons.auditor.declare import Condemned
    from rucio_trace_daemons.auditor.origins import Held
    from rucio_trace_daemons.auditor.rounds import Round
    from rucio_trace_daemons.auditor.service import Auditor
    from rucio_trace_daemons.auditor.work import Claim, Outcome, Task, Work
    from rucio_trace_daemons.recorder.context import Clock
    from rucio_trace_daemons.recorder.prove import Prover
    from rucio_trace_daemons.rses import Rse

__all__ = ["Worker"]

LOG = logging.getLogger("traceability-auditor")

# So many failures one after another mean that it is not the files. Where the RSE's folder can be looked into, it may be
# one disk of many that is broken, and the rest is to be read: many more, then.
FAILED_IN_A_ROW, FAILED_THOUGH_ANSWERING = 5, 50
# How long results are gathered before they are written together: what a worker that is killed reads in vain.
GATHER_SECONDS = 2.0


class Worker:
    """Reads, signs, and takes its turn at the rounds."""

    def __init__(self, auditor: Auditor, work: Work, batches: Batches, prover: Prover, clock: Clock) -> None:
        self._auditor, self._work, self._batches, self._prover, self._clock = auditor, work, batches, prover, clock
        self._claim: Claim | None = None
        self._held: list[Task] = []
        self._renewed = 0.0
        self._first = 0  # of the rounds under way, the one to begin with: none is starved

    def step(self) -> int:
        """Do one thing; returns how much was done, 0 when nothing is due.

        Raises:
            TraceabilityError, DBAPIError, DatabaseException: the store or Rucio's database is away, nothing can be
                signed, or we are stopping; replicas are given back, at the latest when their lease ends.
        """
        auditor = self._auditor
        auditor.keys.signer_at(self._clock(), self._clock())
        rounds = auditor.rounds.under_way(auditor.chosen())
        done = 0
        if auditor.take_turn():
            done += self._turn(rounds)
        done += self._read_some(rounds)
        done += sum(self._sign(round_) for round_ in rounds)
        return done or self._turn(rounds)

    # ------------------------------------------------------------------------------- rounds, and what they found

    def _turn(self, rounds: Sequence[Round]) -> int:
        """End the rounds that are over, begin those that are due, declare what is bad."""
        auditor, chosen = self._auditor, self._auditor.chosen()
        names = auditor.rses.get({round_.rse_id for round_ in rounds})
        done = sum(auditor.rounds.end(r, names[r.rse_id].label) for r in rounds if r.rse_id in names)
        with auditor.engine.connect() as connection:
            broken = breaker.open_breakers(connection)
        for audit in auditor.rounds.running():
            for rse in self._rses_of(audit, chosen):
                done += rse.id not in broken and auditor.rounds.begin(audit, rse)
        return done + self._declare(chosen)

    def _rses_of(self, audit: Campaign, chosen: set[str] | None) -> list[Rse]:
        """The RSEs of a campaign that are ours to read; none of one whose expression names no RSE any more."""
        try:
            wanted = matching(audit.rses, f"the RSE expression of campaign {audit.id}")
        except ConfigurationError as error:
            why = str(error).splitlines()[0]
            if self._auditor.news("campaign stands", str(audit.id), why):
                LOG.error("campaign-stands %s", why)
            return []
        found = self._auditor.rses.get(wanted if chosen is None else wanted & chosen).values()
        return [rse for rse in found if rse.method in AUDITED]

    def _declare(self, chosen: set[str] | None) -> int:
        """Have Rucio replace what a trace condemns, where another good copy is left; returns how many were declared."""
        found: dict[str, tuple[list[Condemned], list[Condemned]]] = defaultdict(lambda: ([], []))
        for replica in condemned(self._auditor.engine, chosen):
            found[replica.rse_id][0 if replica.saved else 1].append(replica)
        done = 0
        for rse in self._auditor.rses.get(found).values():
            saved, last = found[rse.id]
            told = self._auditor.swap("last copies", rse.id, frozenset(last)) or frozenset()
            if new := [replica for replica in last if replica not in told]:
                try:
                    self._tell_last(rse, new)
                except (DBAPIError, DatabaseException):
                    self._auditor.swap("last copies", rse.id, told)  # they were not told
                    raise
            if saved:
                done += self._declare_on(rse, saved)
        return done

    def _tell_last(self, rse: Rse, last: Sequence[Condemned]) -> None:
        """Their products have no good copy; to declare these would have Rucio give the files up."""
        dids = [replica.did for replica in last]
        LOG.error("last-copy rse=%s replicas=%d first=%s: not declared", rse.label, len(dids), dids[0])
        self._auditor.alarms.report(Kind.LAST_COPY, rse.label, {"dids": dids}, len(dids))

    def _declare_on(self, rse: Rse, replicas: Sequence[Condemned]) -> int:
        options, engine, alarms = self._auditor.options, self._auditor.engine, self._auditor.alarms
        with writing(engine) as connection:
            closed = rse.id not in breaker.open_breakers(connection)
            # In a dry run what waits only grows, over months, and says nothing about the storage.
            if closed and options.declare and len(replicas) >= options.bad_in_a_row:
                breaker.open_breaker(connection, alarms, rse, f"{len(replicas)} bad replicas wait to be declared")
                closed = False
        alarms.tell()
        if not closed or not options.declare:
            why = "auditor.declare is off" if closed else "its breaker is open"
            if self._auditor.news("would declare", rse.id, len(replicas)):
                LOG.warning("would-declare rse=%s replicas=%d: %s", rse.label, len(replicas), why)
            return 0
        try:
            declared = declare(replicas, options.account)
        except ConfigurationError as error:  # auditor.account; all the rest goes on
            if self._auditor.news("not declared", rse.id, str(error)):
                LOG.error("not-declared rse=%s replicas=%d: auditor.%s", rse.label, len(replicas), error)
            return 0
        if declared:
            LOG.warning("declared rse=%s replicas=%d", rse.label, declared)
        return declared

    def _sign(self, round_: Round) -> int:
        """Sign what is ripe of *round_*, and bring what is signed where it belongs."""
        rse = self._auditor.rses.get([round_.rse_id]).get(round_.rse_id)
        if rse is None:
            return 0
        done = 0
        while self._batches.close(round_, rse):
            done += 1
        try:
            while self._batches.deliver(round_, rse):
                done += 1
        except NotTaken as error:  # it is kept, and sent again; other rounds go on
            LOG.error("batch-refused audit=%d rse=%s %s", round_.audit, rse.label, error)
            self._auditor.alarms.report(Kind.STORE_REFUSES, self._auditor.options.site, {"reason": str(error)})
        return done

    # ------------------------------------------------------------------------------------------------- reading

    def _read_some(self, rounds: Sequence[Round]) -> int:
        """Read one claim's replicas; returns how many were claimed."""
        open_ = [round_ for round_ in rounds if not round_.stopped]
        with self._auditor.engine.connect() as connection:
            broken = breaker.open_breakers(connection)
        rses = self._auditor.rses.get({round_.rse_id for round_ in open_} - broken)
        self._first += 1
        for number in range(len(open_)):
            round_ = open_[(self._first + number) % len(open_)]
            rse = rses.get(round_.rse_id)
            share = self._auditor.shares.of(round_.rse_id)
            if rse is None or not share.reads(rse) or not self._auditor.readable(rse.id, self._clock()):
                continue
            if claimed := self._read_claim(self._work.claim(round_), share.bounds(rse)):
                return claimed
        return 0

    def _read_claim(self, claim: Claim, rse: Rse) -> int:
        self._clock.set(claim.now)
        if not claim.tasks:
            return 0
        self._claim, self._held, self._renewed = claim, list(claim.tasks), time.monotonic()
        try:
            self._read(claim, rse)
        except LeaseLost:
            LOG.warning("lease-lost replicas=%d; raise auditor.lease_seconds if this happens often", len(self._held))
            self._give_back(claim)
        except (TraceabilityError, DBAPIError, DatabaseException):
            self._give_back(claim)
            raise
        finally:
            self._claim = None
        return len(claim.tasks)

    def _read(self, claim: Claim, rse: Rse) -> None:
        auditor = self._auditor
        looked_up = look_up(auditor.engine, auditor.store, auditor.options.instance, rse, claim.tasks)
        found: dict[Task, Outcome] = {}
        failed, since = 0, time.monotonic()
        try:
            for task in claim.tasks:
                self.watch(0)
                if not auditor.readable(rse.id, self._clock()):  # a claim of large files takes hours
                    self._work.release(claim, [t for t in self._held if t not in found])
                    break
                outcome = self._look(looked_up[task])
                if not isinstance(outcome, Unread):
                    auditor.answered(rse)
                failed = failed + 1 if isinstance(outcome, Unread) and outcome.again else 0
                if failed and (wait := self._pause(rse, failed)):
                    LOG.warning("paused rse=%s seconds=%.0f: %s", rse.label, wait.total_seconds(), outcome.reason)
                    self._work.release(claim, [t for t in self._held if t not in found], wait)
                    break
                found[task] = outcome
                # A bad one is written at once: the breaker may open before the next is read.
                if isinstance(outcome, Bad) or time.monotonic() - since > GATHER_SECONDS:
                    written, found, since = found, {}, time.monotonic()
                    if self._write(claim, rse, written):
                        self._work.release(claim, self._held)
                        break
        except Busy:  # our other threads read here: no fault of the storage, and no attempt
            self._work.release(claim, [t for t in self._held if t not in found])
        finally:
            if found:
                self._write(claim, rse, found)

    def _look(self, held: Held | Unread) -> Outcome:
        if isinstance(held, Unread):
            return held
        try:
            return examine(self._prover, held.replica, held.origin, self.watch)
        except Busy:
            raise
        except (Refused, Unavailable) as error:
            return Unread(str(error), again=True)

    def _pause(self, rse: Rse, failed: int) -> timedelta:
        """For how long to leave *rse* alone after so many failures in a row: its folder tells, where it has one.

        While the RSE itself answers its other files may well be read: then the pause does not grow.
        """
        try:
            answers = self._auditor.storage.check_prefix(rse)
        except StorageError:
            return self._auditor.pause(rse)
        if failed < (FAILED_THOUGH_ANSWERING if answers else FAILED_IN_A_ROW):
            return timedelta()
        return self._auditor.pause(rse, grows=not answers)

    def _write(self, claim: Claim, rse: Rse, outcomes: Mapping[Task, Outcome]) -> bool:
        """Write what was found; returns whether the RSE's breaker is open, by whomever."""
        found = self._work.write(claim, rse, outcomes)
        self._held = [task for task in self._held if task not in outcomes]
        if found.counts:
            told = " ".join(f"{word}={count}" for word, count in sorted(found.counts.items()))
            LOG.info("read audit=%d rse=%s %s", claim.round.audit, rse.label, told)
        for did in found.bad:
            LOG.warning("doubted did=%s rse=%s: the recorder looks for itself", shown(did), rse.label)
        if found.broken:
            self._auditor.alarms.tell()
        return found.broken

    def watch(self, _count: int) -> None:
        """Called while bytes are read: keeps the lease alive, and gives up when it is lost or the process stops."""
        if self._auditor.stop.is_set():
            raise Stopping
        if time.monotonic() - self._renewed > min(self._auditor.options.lease, SILENT).total_seconds() / 3:
            self._renewed = time.monotonic()
            self._auditor.beat()
            assert self._claim is not None
            if not self._work.renew(self._claim, self._held):
                raise LeaseLost

    def _give_back(self, claim: Claim) -> None:
        """Let others take what we hold; if even that fails, the lease runs out by itself."""
        held, self._held = self._held, []
        try:
            self._work.release(claim, held)
        except (DBAPIError, DatabaseException):  # the error that brought us here is the one to report
            LOG.debug("release-failed replicas=%d", len(held))
