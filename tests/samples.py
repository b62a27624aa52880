"""Signed traces for tests: statements with sensible defaults, signed by a real key."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from unit.authority import Authority

from rucio_trace.batch import Line, list_fields, list_name, write_lines
from rucio_trace.envelope import Signer, Trace, sign
from rucio_trace.statement import (
    Event,
    Found,
    ProductKey,
    Statement,
    format_time,
    new_event_id,
    new_salt,
    parse_time,
)
from rucio_trace.store.records import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)
HOUR = timedelta(hours=1)


@lru_cache
def authority() -> Authority:
    return Authority.root(since=START - timedelta(days=30), until=START + timedelta(days=365))


@lru_cache
def signer(name: str = "recorder") -> Signer:
    issued = authority().issue(name, since=START - timedelta(days=30), until=START + timedelta(days=365))
    return issued.signer


def product(number: int = 1, name: str = "file", scope: str = "test", generation: datetime = START) -> ProductKey:
    return ProductKey("RUCIO", "def", scope, f"{name}{number}", format_time(generation))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def statement(
    event: Event = Event.COPY,
    key: ProductKey | None = None,
    *,
    bytes_of: str = "",
    after: timedelta = HOUR,
    **fields: Any,
) -> Statement:
    """A statement of *event* about *key*, whose bytes are called *bytes_of* (its name unless told)."""
    key = key or product()
    time = format_time(START + after)
    wanted: dict[str, Any] = {
        **key.fields(),
        "event": event,
        "name": key.name.rpartition("/")[2],
        "size": 10,
        "hash": digest(bytes_of or key.name),
        "hash_algorithm": "SHA256",
        "event_id": new_event_id(),
        "site": "SITE",
        "signer": signer().fingerprint,
        "time": time,
        "salt": new_salt(),
    }
    if event not in (Event.OBSOLETE, Event.REVOKE):
        wanted["rse"] = "RSE-A"
    if event in (Event.CREATE, Event.COPY, Event.VERIFY, Event.CORRUPT, Event.LOST):
        wanted |= {"method": "read", "observed": time}
    if event is Event.CORRUPT:
        wanted["found"] = Found(9, {"SHA256": digest("corrupt")})
    if event is Event.OBSOLETE:
        wanted["obsolescence"] = "reprocessed"
    wanted |= fields
    if wanted.get("rse") is None:
        wanted |= {"method": None, "observed": None}
    return Statement(**wanted)


def trace(event: Event = Event.COPY, key: ProductKey | None = None, **fields: Any) -> Trace:
    return sign(statement(event, key, **fields), signer())


def unsigned(event: Event = Event.COPY, key: ProductKey | None = None, **fields: Any) -> Trace:
    """Quick to make, for rules that never look at a signature."""
    made = statement(event, key, **fields)
    return Trace(statement=made, message="{}", signature=b"", certificate=b"")


def line(key: ProductKey | None = None, *, bytes_of: str = "", after: timedelta = HOUR) -> Line:
    """A line on a replica whose bytes are called *bytes_of* (the product's name unless told)."""
    key = key or product()
    return Line(key.did, key.generation, f"SHA256:{digest(bytes_of or key.name)}", format_time(START + after))


def batch(lines: Sequence[Line], *, by: str = "recorder", **fields: Any) -> Trace:
    """The VERIFY of *lines*, an hour after the youngest; its list is `write_lines(lines)`."""
    return sign(batch_statement(lines, signer=signer(by).fingerprint, **fields), signer(by))


def batch_statement(lines: Sequence[Line], event: Event = Event.VERIFY, **fields: Any) -> Statement:
    time = format_time(max(parse_time(line.time) for line in lines) + HOUR)
    wanted: dict[str, Any] = {
        "rucio": "RUCIO",
        "event": event,
        "event_id": new_event_id(),
        "site": "SITE",
        "rse": "RSE-A",
        "time": time,
        "method": "read" if event is Event.VERIFY else None,
        "salt": new_salt(),
        **list_fields(write_lines(lines)),
    }
    wanted |= fields
    return Statement(**{"name": list_name(wanted["rse"], wanted["time"])} | wanted)


def stored(made: Trace, position: int) -> Stored:
    return Stored(made.id, made, position, START)
