"""Between a trace and its row, both ways.

Writing derives the index columns from the signed message. Reading parses the message anew and holds the
index columns against it, so that a row altered in the database is refused, here because it contradicts
itself or by the verifier because its signature fails: it is never believed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rucio_trace import strictjson
from rucio_trace.envelope import Trace
from rucio_trace.errors import Malformed
from rucio_trace.product_digest import digest_of_contents
from rucio_trace.store.errors import CorruptRow
from rucio_trace.store.records import Stored
from rucio_trace.store.tables import indexable
from rucio_trace.trace import HEX_DIGITS, Event, parse_time
from rucio_trace.words import words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Row

    from rucio_trace.store.lists import SignedList
    from rucio_trace.trace import Statement

__all__ = [
    "FINGERPRINT_BYTES",
    "Entry",
    "content_digests",
    "fingerprint",
    "index_columns",
    "input_digests",
    "split_chain",
    "to_entry",
    "to_stored",
]

FINGERPRINT_BYTES: Final = 32

_DIGEST_LENGTHS: Final = frozenset(HEX_DIGITS.values())
_CLAIMED: Final = (
    "claimed_id",
    "claimed_timestamp",
    "claimed_origin",
    "claimed_hash_algorithm",
    "claimed_obsolescence",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A trace made ready for its row."""

    trace: Trace
    id: str
    time: datetime | None
    columns: dict[str, Any]
    """Those columns of the row that the database has no part in."""
    certificates: dict[bytes, bytes]
    """DER by fingerprint: the leaf and the intermediates."""
    digests: frozenset[bytes]
    """What the statement says of the file's bytes."""
    contents: frozenset[bytes]
    """What it says of those of the archive's members."""
    words: frozenset[str]
    """Of the name and of attributes."""
    digest_set: bytes
    """The fingerprint of both."""
    inputs: frozenset[bytes]
    """The digests of what the product was made from, if the statement is a CREATE."""
    list: SignedList | None
    """The list that comes with the trace of a batch."""


def to_entry(trace: Trace, of_batch: SignedList | None = None) -> Entry:
    """Everything a row needs; *trace* has no faults, so that its statement is what its message says."""
    statement = trace.statement
    ders = (trace.certificate, *trace.chain)
    signer, *above = fingerprints = [fingerprint(der) for der in ders]
    digests, contents = _own_digests(statement), content_digests(statement)
    columns = index_columns(statement) | {
        "id": trace.id,
        "certificate": signer,
        "chain": b"".join(above),
        "message": trace.message,
        "signature": trace.signature,
        "claimed": _claimed(trace) if statement.schema is None else None,
    }
    return Entry(
        trace=trace,
        id=trace.id,
        time=parse_time(statement.time) if statement.time else None,
        columns=columns,
        certificates=dict(zip(fingerprints, ders, strict=True)),
        digests=digests,
        contents=contents,
        words=words_of(statement.name, statement.attributes),
        digest_set=_fingerprint(digests, contents),
        inputs=input_digests(statement),
        list=of_batch,
    )


def index_columns(statement: Statement) -> dict[str, str | None]:
    """What the index columns of *statement*'s row hold."""
    in_rucio = statement.product is not None
    return {
        "event": str(statement.event),
        "name": indexable(statement.name),
        "did": indexable(statement.did) if in_rucio and statement.did else None,
        "generation": statement.generation if in_rucio else None,
        "rse": None if statement.rse is None else indexable(statement.rse),
        "revokes": statement.revokes,
    }


def content_digests(statement: Statement) -> frozenset[bytes]:
    """The digests of an archive's members, and of its content as a whole."""
    if statement.members is not None:  # a dataset's files are found by themselves, not as the members of an archive
        return frozenset()
    found = {content.hash for content in statement.contents or ()}
    if product := digest_of_contents(statement):
        found.add(product)
    # A text of the Traceability Service may give its members digests of any length: nobody can look for those.
    return frozenset(bytes.fromhex(digest) for digest in found if len(digest) in _DIGEST_LENGTHS)


def _own_digests(statement: Statement) -> frozenset[bytes]:
    return frozenset(bytes.fromhex(digest) for digest in (statement.hash, *statement.digests.values()))


def _fingerprint(own: Iterable[bytes], contents: Iterable[bytes]) -> bytes:
    """What a set of digests is known by; migration 0003 writes it too."""
    marked = [*(_OWN[len(d)] + d for d in own), *(_OF_CONTENT[len(d)] + d for d in contents)]
    return fingerprint(b"".join(sorted(marked)))


_OWN: Final = [bytes([length, False]) for length in range(65)]
_OF_CONTENT: Final = [bytes([length, True]) for length in range(65)]


def input_digests(statement: Statement) -> frozenset[bytes]:
    """What a CREATE says its product was made from, as far as anybody can look for it."""
    if statement.event is not Event.CREATE:
        return frozenset()
    given = {given.hash for given in statement.inputs or ()}
    return frozenset(bytes.fromhex(digest) for digest in given if len(digest) in _DIGEST_LENGTHS)


def _claimed(trace: Trace) -> str | None:
    claimed = {name: value for name in _CLAIMED if (value := getattr(trace, name)) is not None}
    return json.dumps(claimed) if claimed else None


def to_stored(row: Row[Any], certificate: Callable[[bytes], bytes]) -> Stored:
    """The trace in *row*; *certificate* gives the DER of a fingerprint.

    Raises:
        CorruptRow: the row is not one that `to_entry` made.
    """
    for column, kind in _KINDS.items():
        if not isinstance(getattr(row, column), kind):  # SQLite takes any value in any column
            raise CorruptRow(row.position, f"column {column}", "of its type", repr(getattr(row, column)))
    try:
        chain = [certificate(fingerprint) for fingerprint in split_chain(row.chain)]
        trace = Trace.restore(row.message, row.signature, certificate(row.certificate), chain, **_reclaimed(row))
    except Malformed as error:
        raise CorruptRow(row.position, error.subject, error.expected, error.found) from error
    except KeyError as error:
        raise CorruptRow(row.position, "certificate", "a stored one", error.args[0].hex()) from error
    for column, expected in (index_columns(trace.statement) | {"id": trace.id}).items():
        if getattr(row, column) != expected:
            raise CorruptRow(row.position, f"column {column}", str(expected), str(getattr(row, column)))
    time = trace.statement.time
    if row.time != (parse_time(time) if time else row.registered_at):
        raise CorruptRow(row.position, "column time", time or str(row.registered_at), str(row.time))
    if row.claimed is not None and trace.statement.schema is not None:
        raise CorruptRow(row.position, "column claimed", "none with a text of ours", row.claimed)
    return Stored(trace.id, trace, row.position, row.registered_at)


_KINDS: Final[Mapping[str, Any]] = {
    "position": int,
    "registered_at": datetime,
    "message": str,
    "signature": bytes,
    "certificate": bytes,
    "chain": bytes,
    "claimed": str | None,
}


def _reclaimed(row: Row[Any]) -> dict[str, str]:
    if row.claimed is None:
        return {}
    claimed = strictjson.read(row.claimed, "column claimed")
    if not isinstance(claimed, dict) or not all(k in _CLAIMED and isinstance(v, str) for k, v in claimed.items()):
        raise Malformed("column claimed", expected="texts by name", found=row.claimed)
    return claimed


def split_chain(chain: bytes) -> list[bytes]:
    """The fingerprints that a row's `chain` is made of."""
    return [chain[start : start + FINGERPRINT_BYTES] for start in range(0, len(chain), FINGERPRINT_BYTES)]


def fingerprint(data: bytes) -> bytes:
    """What certificates and sets of digests are known by."""
    return hashlib.sha256(data).digest()
