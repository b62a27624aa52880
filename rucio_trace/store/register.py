"""Adding traces: in one transaction, each once, in positions whose order is the order of commits.

Everything slow (parsing, signatures) happens before the lock. Under the lock there is one look at what
is there by now, and the inserts; so no reader ever meets a position below one that it has seen.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, literal_column, select, update

from rucio_trace import certificates as x509
from rucio_trace.batch import needs_list
from rucio_trace.checking import Refused, check_trace
from rucio_trace.errors import Malformed, Refuted, Undecided
from rucio_trace.faults import Uncertain, Unsigned
from rucio_trace.statement import SCHEMA
from rucio_trace.store import index
from rucio_trace.store.bulk import insert_rows
from rucio_trace.store.counts import add_counts, move_count
from rucio_trace.store.cycles import Ancestry
from rucio_trace.store.errors import CorruptRow
from rucio_trace.store.index import Findable
from rucio_trace.store.lists import SignedList, insert_lists, to_list
from rucio_trace.store.read import KEYS_A_QUERY, among, batches
from rucio_trace.store.records import Item, Outcome, Registration
from rucio_trace.store.rows import Entry, fingerprint, to_entry
from rucio_trace.store.tables import certificates, digest_sets, digests, head, inputs, traces

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Column, Connection

    from rucio_trace.envelope import Trace
    from rucio_trace.faults import Fault
    from rucio_trace.identity import Trust
    from rucio_trace.store.database import Database

__all__ = ["Judged", "Terms", "add", "clock", "judge", "refusal"]


class _Known(NamedTuple):
    position: int
    certificate: bytes
    message: str
    provider: str | None
    event: str
    rse: str | None


_Registered = dict[str, list[_Known]]  # by id; several only where members of the Traceability Service signed one text


class Judged(NamedTuple):
    """A trace, and what would be stored of it or why it is not taken; `add` has the last word."""

    trace: Trace
    found: Entry | Registration


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


def judge(database: Database, items: Iterable[Item], trust: Trust | None, *, allow_stale_crl: bool) -> list[Judged]:
    """See `Store.judge`."""
    with database.reading() as connection:
        now = clock(connection)
    return [
        Judged(item.trace, refusal(item.trace) or _judge(item, trust, now, allow_stale_crl=allow_stale_crl))
        for item in items
    ]


def add(database: Database, judged: Sequence[Judged], terms: Terms) -> list[Registration]:
    """See `Store.add`."""
    readable = [refusal(each.trace) is None for each in judged]
    with database.reading() as connection:
        known = _registered(connection, [each.trace.id for each, can in zip(judged, readable, strict=True) if can])
    answers: list[Registration | None] = []
    entries: dict[int, Entry] = {}
    for number, (trace, found) in enumerate(judged):
        answer = _answer_known(trace, known) if readable[number] else None
        if isinstance(found, Entry) and (answer is None or _opened(trace, known, terms)):
            entries[number] = found
        answers.append(answer or (found if isinstance(found, Registration) else None))
    if entries:
        with database.writing() as connection:
            added = _add(connection, list(entries.values()), terms)
        for number, new in zip(entries, added, strict=True):
            answers[number] = new
    return [answer for answer in answers if answer is not None]


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


def _answer_known(trace: Trace, known: _Registered) -> Registration | None:
    """What a repeat gets: whoever was not told of a success asks again, perhaps after the certificate's end.

    Not without its signature, which nobody has to whom it was not shown.
    """
    for row in known.get(trace.id, ()):
        if row.message != trace.message:
            return Registration(trace.id, None, Outcome.CONFLICT, "this id is registered with another message")
    row_ = _same(trace, known)
    return None if row_ is None else Registration(trace.id, row_.position, Outcome.KNOWN)


def _same(trace: Trace, known: _Registered) -> _Known | None:
    """The trace as it is stored, if this is one, truly signed."""
    certificate = fingerprint(trace.certificate)
    for row in known.get(trace.id, ()):
        if (row.message, row.certificate) == (trace.message, certificate) and _signed(trace):
            return row
    return None


def _signed(trace: Trace) -> bool:
    try:
        return x509.load(trace.certificate).verifies(trace.signature, trace.message.encode())
    except (Malformed, UnicodeError):
        return False


def _opened(trace: Trace, known: _Registered, terms: Terms) -> _Known | None:
    row = _same(trace, known)
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


def _add(connection: Connection, entries: Sequence[Entry], terms: Terms) -> list[Registration]:
    """Insert what is not there yet; the head's lock is held until the transaction ends."""
    position = connection.scalar(select(head.c.position).with_for_update())
    if position is None:
        raise CorruptRow("none", "table trace_head", "one row", "none")
    now = clock(connection)
    known = _registered(connection, [entry.id for entry in entries])
    ancestry = Ancestry(connection, entries, set(terms.private) - {terms.provider})
    answers: list[Registration] = []
    new: dict[int, Entry] = {}
    for entry in entries:
        answer = _answer_known(entry.trace, known)
        if hidden := _opened(entry.trace, known, terms):
            _open(connection, hidden, terms.provider)
        if answer is None and ancestry.closes_circle(entry):
            answer = Registration(entry.id, None, Outcome.REFUSED, "its product would be made from itself")
        if answer is None:
            position += 1
            new[position] = entry
            columns = entry.columns
            row = _Known(
                position,
                columns["certificate"],
                entry.trace.message,
                terms.provider,
                columns["event"],
                columns["rse"],
            )
            known.setdefault(entry.id, []).append(row)
            answer = Registration(entry.id, position, Outcome.STORED)
        answers.append(answer)
    if new:
        _insert(connection, new, now, terms)
        connection.execute(update(head).values(position=position))
    return answers


def _open(connection: Connection, known: _Known, provider: str | None) -> None:
    """Show to all what a private provider brought first."""
    hidden = (traces.c.position == known.position) & (traces.c.provider == known.provider)
    if connection.execute(update(traces).where(hidden).values(provider=provider)).rowcount:  # once, be it given twice
        move_count(connection, (known.event, known.rse, known.provider), provider, known.position)


def _insert(connection: Connection, new: dict[int, Entry], now: datetime, terms: Terms) -> None:
    ders = {fingerprint: der for entry in new.values() for fingerprint, der in entry.certificates.items()}
    there = _existing(connection, certificates.c.fingerprint, certificates.c.fingerprint, ders)
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
    sets = _existing(connection, digest_sets.c.fingerprint, digest_sets.c.id, first)
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


def _existing(
    connection: Connection, key: Column[Any], value: Column[Any], wanted: Iterable[bytes]
) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for some in batches(wanted, KEYS_A_QUERY):
        found.update(tuple(row) for row in connection.execute(select(key, value).where(among(connection, key, some))))
    return found


def _registered(connection: Connection, ids: Iterable[str]) -> _Registered:
    found: _Registered = {}
    columns = (traces.c.id, *(traces.c[name] for name in _Known._fields))
    for some in batches(dict.fromkeys(ids), KEYS_A_QUERY):
        for id_, *rest in connection.execute(select(*columns).where(among(connection, traces.c.id, some))):
            found.setdefault(id_, []).append(_Known(*rest))
    return found


def clock(connection: Connection) -> datetime:
    """The database's clock at this moment: there may be many of our hosts, each with a clock of its own."""
    if connection.dialect.name == "postgresql":
        now = connection.scalar(select(func.clock_timestamp()))
    elif connection.dialect.name == "mysql":
        now = connection.execute(select(func.utc_timestamp(6))).scalar_one().replace(tzinfo=UTC)
    else:
        now = datetime.fromisoformat(
            str(connection.scalar(select(func.strftime(literal_column("'%Y-%m-%dT%H:%M:%f+00:00'"), "now"))))
        )
    assert isinstance(now, datetime)
    return now.astimezone(UTC)
