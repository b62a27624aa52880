"""Adding traces: in one transaction, each once, in positions whose order is the order of commits.

Everything slow (parsing, signatures) happens before the lock. Under the lock there is one look at what
is there by now, and the inserts; so no reader ever meets a position below one that it has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, update

from rucio_trace import certificates as x509
from rucio_trace.batch import needs_list
from rucio_trace.checking import Refused, check_trace
from rucio_trace.errors import Malformed, Refuted, Undecided
from rucio_trace.faults import Uncertain, Unsigned
from rucio_trace.statement import SCHEMA
from rucio_trace.store import index
from rucio_trace.store.bulk import insert_rows
from rucio_trace.store.clock import lock_head
from rucio_trace.store.counts import add_counts, move_count
from rucio_trace.store.cycles import Ancestry
from rucio_trace.store.index import Findable
from rucio_trace.store.lists import SignedList, insert_lists, to_list
from rucio_trace.store.read import Lookup
from rucio_trace.store.records import Item, Outcome, Registration
from rucio_trace.store.rows import Entry, fingerprint, to_entry
from rucio_trace.store.tables import certificates, digest_sets, digests, head, inputs, traces

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from rucio_trace.envelope import Trace
    from rucio_trace.faults import Fault
    from rucio_trace.identity import Trust
    from rucio_trace.store.database import Database

__all__ = ["Judged", "Terms", "add", "judge", "refusal"]


class _Known(NamedTuple):
    position: int
    certificate: bytes
    message: str
    provider: str | None
    event: str
    rse: str | None

    @classmethod
    def of(cls, entry: Entry, position: int, provider: str | None) -> _Known:
        columns = entry.columns
        return cls(position, columns["certificate"], entry.trace.message, provider, columns["event"], columns["rse"])


_Registered = dict[str, list[_Known]]  # by id; several only where members of the Traceability Service signed one text


class Judged(NamedTuple):
    """A trace, and what would be stored of it or why it is not taken; `add` has the last word unless it is `hopeless`.

    What is hopeless can never be stored, so that it cannot be there already. `signed` tells whether by its certificate.
    """

    trace: Trace
    found: Entry | Registration
    hopeless: bool = False
    signed: bool = False


class Terms(NamedTuple):
    """Whose traces they are, which providers' are shown to their own alone, and whether to index later."""

    provider: str | None = None
    private: Collection[str] = ()
    defer: bool = False

    @property
    def hidden(self) -> bool:
        """Whether these traces are not shown to all."""
        return self.provider in self.private

    def opens(self, known: _Known) -> bool:
        """Whether what was hidden so far is brought openly now: nobody can hide another's REVOKE by being first."""
        return known.provider in self.private and not self.hidden


def judge(items: Iterable[Item], trust: Trust | None, now: datetime, *, allow_stale_crl: bool) -> list[Judged]:
    """See `Store.judge`; *now* is the time by which certificates are judged."""
    return [_judged(item, trust, now, allow_stale_crl=allow_stale_crl) for item in items]


def _judged(item: Item, trust: Trust | None, now: datetime, *, allow_stale_crl: bool) -> Judged:
    if refused := refusal(item.trace):
        return Judged(item.trace, refused, hopeless=True)
    found = _judge(item, trust, now, allow_stale_crl=allow_stale_crl)
    return Judged(item.trace, found, signed=isinstance(found, Entry) or _signed(item.trace))


def add(database: Database, judged: Sequence[Judged], terms: Terms) -> list[Registration]:
    """See `Store.add`."""
    if any(isinstance(each.found, Entry) for each in judged):
        # In the first minutes of a store PostgreSQL does not know how many traces there are, and would read them all.
        with database.writing("enable_seqscan = off") as connection:
            return _add(connection, judged, terms)
    with database.reading() as connection:
        known = _registered(connection, judged)
    return [answer for each in judged if (answer := _answer(each, known)) is not None]


def refusal(trace: Trace) -> Registration | None:
    """Why a trace can never be stored, whoever is trusted."""
    if not trace.message or not trace.signature:
        unsigned = Unsigned("signature", "a signed text, a signature and a certificate", "no signature")
        return _refused("", Outcome.REFUSED, trace.faults or (unsigned,))
    if trace.faults:
        return _refused(trace.id, Outcome.REFUSED, trace.faults)
    return None


def _refused(id_: str, outcome: Outcome, faults: tuple[Fault, ...]) -> Registration:
    return Registration(id_, None, outcome, "; ".join(str(fault) for fault in faults), faults)


def _answer(judged: Judged, known: _Registered) -> Registration | None:
    """What can be said of it without storing it.

    A repeat gets its success again: whoever was not told asks once more, perhaps after the certificate's end. Not
    without its signature, which nobody has to whom it was not shown.
    """
    trace = judged.trace
    if not judged.hopeless:
        for row in known.get(trace.id, ()):
            if row.message != trace.message:
                return Registration(trace.id, None, Outcome.CONFLICT, "this id is registered with another message")
        if (same := _same(judged, known)) is not None:
            return Registration(trace.id, same.position, Outcome.KNOWN)
    return judged.found if isinstance(judged.found, Registration) else None


def _same(judged: Judged, known: _Registered) -> _Known | None:
    """The trace as it is stored, if this is one, truly signed."""
    trace = judged.trace
    if not judged.signed or (rows := known.get(trace.id)) is None:
        return None
    certificate = fingerprint(trace.certificate)
    return next((row for row in rows if (row.message, row.certificate) == (trace.message, certificate)), None)


def _signed(trace: Trace) -> bool:
    try:
        return x509.load(trace.certificate).verifies(trace.signature, trace.message.encode())
    except (Malformed, UnicodeError):
        return False


def _opened(judged: Judged, known: _Registered, terms: Terms) -> _Known | None:
    row = _same(judged, known)
    return row if row is not None and terms.opens(row) else None


def _judge(item: Item, trust: Trust | None, now: datetime, *, allow_stale_crl: bool) -> Entry | Registration:
    """What is stored of a trace, or why it is not taken."""
    trace = item.trace
    try:
        if trust is not None:
            check_trace(trace, trust, now, allow_stale_crl=allow_stale_crl, scope=item.scope)
        else:
            _check_signature(trace)
        return to_entry(trace, _list_of(item) if needs_list(trace.statement) else None)
    except Refused as error:
        return _refused(trace.id, Outcome.UNDECIDED if error.family is Uncertain else Outcome.REFUSED, error.faults)
    except (Malformed, Refuted) as error:
        return Registration(trace.id, None, Outcome.REFUSED, str(error))
    except Undecided as error:
        return Registration(trace.id, None, Outcome.UNDECIDED, str(error))


def _list_of(item: Item) -> SignedList:
    trace = item.trace
    if item.list is None:
        raise Refuted(f"trace {trace.id}", expected=f"its list {trace.statement.name} with it", found="the trace alone")
    return to_list(trace.statement, item.list)


def _check_signature(trace: Trace) -> None:
    """Accept a trace that was signed with its own certificate, whoever's that is."""
    if trace.statement.schema not in (None, SCHEMA):
        raise Undecided("schema", expected=SCHEMA, found=f"{trace.statement.schema}, made by a newer version")
    certificate = x509.load(trace.certificate)
    signer = trace.statement.signer or certificate.fingerprint
    if certificate.fingerprint != signer:
        raise Refuted(f"certificate of trace {trace.id}", expected=signer, found=certificate.fingerprint)
    if not certificate.verifies(trace.signature, trace.message.encode()):
        raise Refuted(f"signature of trace {trace.id}", expected="one of its text and certificate", found="another")


def _add(connection: Connection, judged: Sequence[Judged], terms: Terms) -> list[Registration]:
    """Insert what is not there yet; the head's lock is held until the transaction ends."""
    position, now = lock_head(connection)
    known = _registered(connection, judged)
    entries = [each.found for each in judged if isinstance(each.found, Entry)]
    ancestry = Ancestry(connection, entries, set(terms.private) - {terms.provider})
    answers: list[Registration] = []
    new: dict[int, Entry] = {}
    for each in judged:
        answer = _answer(each, known)
        entry = each.found
        if isinstance(entry, Entry):
            if hidden := _opened(each, known, terms):
                _open(connection, hidden, terms.provider)
            if answer is None and ancestry.closes_circle(entry):
                answer = Registration(entry.id, None, Outcome.REFUSED, "its product would be made from itself")
            if answer is None:
                position += 1
                new[position] = entry
                known.setdefault(entry.id, []).append(_Known.of(entry, position, terms.provider))
                answer = Registration(entry.id, position, Outcome.STORED)
        assert answer is not None
        answers.append(answer)
    if new:
        _insert(connection, new, now, terms)
        connection.execute(_MOVE_HEAD, {"position": position})
    return answers


_MOVE_HEAD = update(head).values(position=bindparam("position"))


def _open(connection: Connection, known: _Known, provider: str | None) -> None:
    """Show to all what a private provider brought first."""
    hidden = (traces.c.position == known.position) & (traces.c.provider == known.provider)
    if connection.execute(update(traces).where(hidden).values(provider=provider)).rowcount:  # once, be it given twice
        move_count(connection, (known.event, known.rse, known.provider), provider, known.position)


def _insert(connection: Connection, new: dict[int, Entry], now: datetime, terms: Terms) -> None:
    ders = {fingerprint: der for entry in new.values() for fingerprint, der in entry.certificates.items()}
    there = {fingerprint for (fingerprint,) in _CERTIFICATES.rows(connection, ders)}
    missing = [{"fingerprint": key, "certificate": der} for key, der in ders.items() if key not in there]
    if missing:
        insert_rows(connection, certificates, missing)
    sets = _insert_digests(connection, new)
    rows = [
        entry.columns
        | {
            "position": position,
            "registered_at": now,
            "time": entry.time or now,
            "digest_set": sets[entry.digest_set],
            "provider": terms.provider,
        }
        for position, entry in new.items()
    ]
    insert_rows(connection, traces, rows)
    add_counts(connection, rows)
    findable = {
        position: Findable(
            entry.columns["name"], entry.contents if sets[entry.digest_set] == position else (), entry.words
        )
        for position, entry in new.items()
    }
    (index.defer if terms.defer else index.insert)(connection, findable)
    lists = {position: entry.list for position, entry in new.items() if entry.list is not None}
    insert_lists(connection, lists, terms.provider if terms.hidden else None)
    edges = [{"digest": digest, "position": position} for position, entry in new.items() for digest in entry.inputs]
    if edges:
        insert_rows(connection, inputs, edges)


def _insert_digests(
    connection: Connection,
    new: dict[int, Entry],
) -> dict[bytes, int]:
    """The ids of the entries' digest sets, by fingerprint; those not there yet are added."""
    first = {entry.digest_set: position for position, entry in reversed(new.items())}
    sets: dict[bytes, int] = dict(tuple(row) for row in _SETS.rows(connection, first))
    added = {fingerprint: position for fingerprint, position in first.items() if fingerprint not in sets}
    if added:
        insert_rows(connection, digest_sets, [{"id": id_, "fingerprint": key} for key, id_ in added.items()])
        rows = [
            {"digest": digest, "digest_set": position, "of_content": False}
            for position in added.values()
            for digest in new[position].digests
        ]
        insert_rows(connection, digests, rows)
    return sets | added


def _registered(connection: Connection, judged: Iterable[Judged]) -> _Registered:
    found: _Registered = {}
    for id_, *rest in _KNOWN.rows(connection, {each.trace.id for each in judged if not each.hopeless}):
        found.setdefault(id_, []).append(_Known(*rest))
    return found


_KNOWN = Lookup(traces.c.id, *(traces.c[name] for name in _Known._fields))
_CERTIFICATES = Lookup(certificates.c.fingerprint)
_SETS = Lookup(digest_sets.c.fingerprint, digest_sets.c.id)
