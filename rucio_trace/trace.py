"""The statement: what a trace says, and the one text that says it.

`serialise` writes a statement as the text that is signed; `parse` reads such a text. Both hold
`parse(serialise(s)) == s`. A statement with `schema` None is one of the Copernicus Traceability
Service: its keys are read, its unknown keys tolerated and kept in `extra`. Ours are closed: an
unknown key, a missing one or one in the wrong place is an error (docs/format.md, section 5).

Who signed, and whether that counts, is decided elsewhere (envelope, identity, verify). Pure.
"""

from collections.abc import Mapping
from typing import Any

from rucio_trace import strictjson
from rucio_trace.errors import Malformed
from rucio_trace.fields import READERS, require
from rucio_trace.statement import (
    ALGORITHMS,
    DEFAULT_VO,
    HEX_DIGITS,
    LIST_SUFFIX,
    METHODS,
    SCHEMA,
    STRONG,
    Batch,
    Cause,
    Checkpoint,
    Content,
    Event,
    Found,
    Input,
    ProductKey,
    Service,
    Source,
    Statement,
    base_name,
    format_time,
    new_event_id,
    new_salt,
    parse_time,
)

__all__ = [
    "ALGORITHMS",
    "DEFAULT_VO",
    "HEX_DIGITS",
    "METHODS",
    "SCHEMA",
    "STRONG",
    "Batch",
    "Cause",
    "Checkpoint",
    "Content",
    "Event",
    "Found",
    "Input",
    "ProductKey",
    "Service",
    "Source",
    "Statement",
    "base_name",
    "format_time",
    "new_event_id",
    "new_salt",
    "parse",
    "parse_time",
    "read",
    "read_claims",
    "serialise",
]

_KEYS = tuple(name for name in Statement.__dataclass_fields__ if name != "extra")


def serialise(statement: Statement) -> str:
    """Write the exact text to be signed.

    Raises:
        Malformed: the statement breaks a rule of the format.
    """
    members = {key: _plain(value) for key in _KEYS if (value := getattr(statement, key)) is not None}
    members.update(statement.extra)
    text = strictjson.write(members, "statement")
    if parse(text) != statement:
        raise Malformed("statement", expected="a statement that reads back as itself", found="another one")
    return text


def _plain(value: Any) -> Any:
    """Nested parts as JSON: absent members are left out, except in `source`, which has both always."""
    if isinstance(value, Content):
        return {"hash": value.hash, "path": value.path}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Input):
        return {"hash": value.hash, "name": value.name}
    if isinstance(value, Source):
        return {"rse": value.rse, "trace": value.trace}
    if isinstance(value, Batch | Cause | Service | Found | Checkpoint):
        members = {key: getattr(value, key) for key in value.__dataclass_fields__}
        return {key: _plain(part) for key, part in members.items() if part is not None}
    return dict(value) if isinstance(value, Mapping) else value


def parse(text: str) -> Statement:
    """Read a signed text.

    A text of a newer schema of ours gives a statement that keeps that `schema`, with only the
    CDSE keys read and all others in `extra`: it must be judged undecided, not false.

    Raises:
        Malformed: anything else than a statement; no other error escapes.
    """
    return read(text)[0]


def read(text: str) -> tuple[Statement, dict[str, Any]]:
    """As `parse`, with the JSON members as they stand in the text."""
    members = strictjson.read(text, "statement")
    if not isinstance(members, dict):
        raise Malformed("statement", expected="an object", found=type(members).__name__)
    schema = members.get("schema")
    if schema == SCHEMA:
        return _ours(members), members
    if schema is not None and not isinstance(schema, str):
        raise Malformed("schema", expected="a text", found=repr(schema))
    return _copernicus(members, schema), members


def read_claims(members: Mapping[str, Any]) -> Statement:
    """What an unsigned object claims of a file and an event, in the shape of a statement."""
    keys = ("hash", "name", "size", "event")
    require(members, keys)
    return Statement(**{key: READERS[key](key, members[key]) for key in keys}, schema=None)


_COPERNICUS_KEYS = frozenset({"contents", "hash", "inputs", "name", "size", "event"})
_COPERNICUS_EVENTS = frozenset({Event.CREATE, Event.COPY, Event.DELETE, Event.OBSOLETE})


def _copernicus(members: dict[str, Any], schema: str | None) -> Statement:
    """A statement of the Traceability Service: three digest algorithms of 256 bits, not named in the text."""
    require(members, ("hash", "name", "size", "event"))
    fields = {key: READERS[key](key, members[key]) for key in _COPERNICUS_KEYS & members.keys()}
    if len(fields["hash"]) != 64:
        raise Malformed("hash", expected="64 hexadecimal digits", found=fields["hash"])
    if schema is None and fields["event"] not in _COPERNICUS_EVENTS:
        raise Malformed("event", expected="CREATE, COPY, DELETE or OBSOLETE", found=fields["event"])
    own = _COPERNICUS_KEYS if schema is None else _COPERNICUS_KEYS | {"schema"}
    extra = {key: value for key, value in members.items() if key not in own}
    return Statement(**fields, schema=schema, extra=extra)


_REQUIRED = ("hash", "name", "size", "event", "event_id", "hash_algorithm", "site", "signer", "time", "salt")


def _ours(members: dict[str, Any]) -> Statement:
    if unknown := members.keys() - READERS.keys():
        raise Malformed("statement", expected=f"only keys of {SCHEMA}", found=", ".join(sorted(unknown)))
    require(members, _REQUIRED)
    statement = Statement(**{key: READERS[key](key, value) for key, value in members.items()})
    _check_digests(statement)
    _check_name(statement)
    if statement.batch is None:
        _check_product(statement)
    else:
        _check_batch(statement)
    _check_event(statement)
    return statement


# ------------------------------------------------------------- values that must fit each other

_DIGEST_LENGTHS = frozenset(HEX_DIGITS.values())


def _check_digests(s: Statement) -> None:
    """Every digest has its algorithm's length; members lie inside the archive, each once."""
    digits = HEX_DIGITS[s.hash_algorithm or ""]
    for digest in (s.hash, *(content.hash for content in s.contents or ())):
        if len(digest) != digits:
            raise Malformed("hash", expected=f"{digits} digits of {s.hash_algorithm}", found=digest)
    if s.hashes is not None and s.hash_algorithm in s.hashes:
        raise Malformed("hashes", expected="further algorithms only", found=s.hash_algorithm or "")
    for given in s.inputs or ():
        if len(given.hash) not in _DIGEST_LENGTHS:
            raise Malformed("inputs.hash", expected="a digest", found=given.hash)
    paths = [content.path for content in s.contents or ()]
    if len(set(paths)) != len(paths):
        raise Malformed("contents", expected="every path once", found="one twice")
    for path in paths:
        if path[0] == "/" or (".." in path and ".." in path.split("/")):
            raise Malformed("contents.path", expected="a path inside the archive", found=path)


def _check_name(s: Statement) -> None:
    if s.name in (".", "..") or "/" in s.name:
        raise Malformed("name", expected="a base name", found=s.name)
    if s.vo == DEFAULT_VO:
        raise Malformed("vo", expected="no such key for the default", found=s.vo)


def _check_product(s: Statement) -> None:
    present = {s.rucio is not None, s.did is not None, s.generation is not None}
    if len(present) > 1:
        raise Malformed("product", expected="rucio, did and generation, or none of them", found="some")
    if s.did is None:
        if s.vo is not None or s.rse is not None:
            raise Malformed("product", expected="no vo and no rse outside Rucio", found=s.vo or s.rse or "")
        return
    if s.name != base_name(s.did.partition(":")[2]):
        raise Malformed("name", expected=f"the base name of {s.did}", found=s.name)


# Each line of a batch speaks of a product of its own, and of when it was read.
_OF_A_LINE = ("did", "generation", "contents", "inputs", "observed", "adopted", "source")


def _check_batch(s: Statement) -> None:
    """The statement speaks of a list of lines, and of no product: whoever looks for files must not find it."""
    if not s.name.endswith(LIST_SUFFIX):
        raise Malformed("name", expected=f"…{LIST_SUFFIX} with a batch", found=s.name)
    if s.hash_algorithm != "BLAKE3":
        raise Malformed("hash_algorithm", expected="BLAKE3 with a batch", found=s.hash_algorithm or "")
    for key in ("rucio", "rse"):
        if getattr(s, key) is None:
            raise Malformed(key, expected="a value with a batch", found="none")
    for key in _OF_A_LINE:
        if getattr(s, key) is not None:
            raise Malformed(key, expected="no such key with a batch", found="one")
    allowed = ("read", "storage") if s.event is Event.VERIFY else (None,)
    if s.method not in allowed:
        raise Malformed("method", expected="read or storage in the VERIFY of a batch", found=f"{s.method} in {s.event}")


# Keys that only some events may carry.
_ONLY_WITH = {
    "batch": (Event.VERIFY, Event.REVOKE),
    "adopted": (Event.CREATE, Event.COPY, Event.VERIFY),
    "replaces": (Event.COPY,),
    "unobserved": (Event.DELETE,),
    "found": (Event.CORRUPT,),
    "obsolescence": (Event.OBSOLETE, Event.REVOKE),
    "replaced_by": (Event.OBSOLETE,),
    "revokes": (Event.REVOKE,),
    "members": (Event.CREATE, Event.OBSOLETE, Event.REVOKE),
}
_OF_A_REPLICA = (Event.COPY, Event.VERIFY, Event.CORRUPT, Event.LOST, Event.DELETE)
_LOOKED_AT_BYTES = (Event.CREATE, Event.COPY, Event.VERIFY, Event.CORRUPT, Event.LOST)


def _check_event(s: Statement) -> None:
    if s.hash_algorithm not in STRONG and not _claims_no_bytes(s):
        raise Malformed("hash_algorithm", expected=", ".join(STRONG), found=s.hash_algorithm or "")
    for key, events in _ONLY_WITH.items():
        if getattr(s, key) is not None and s.event not in events:
            raise Malformed(key, expected=f"only with {', '.join(events)}", found=s.event)
    if s.rse is not None and s.batch is None and s.event in (Event.OBSOLETE, Event.REVOKE):
        raise Malformed("rse", expected=f"none with {s.event}, which speaks for the product", found=s.rse)
    if s.event is Event.CORRUPT and s.found is None:
        raise Malformed("found", expected="what the replica held", found="none")
    if s.event is Event.REVOKE and s.revokes is None:
        raise Malformed("revokes", expected="the id of a trace", found="none")
    if s.did is not None and s.rse is None and s.event in _OF_A_REPLICA:
        raise Malformed("rse", expected=f"an RSE with {s.event}", found="none")
    if s.members is not None and (s.did is None or s.rse is not None):
        raise Malformed("members", expected="a dataset in Rucio, and no RSE", found=s.rse or "no DID")
    if s.adopted and s.rse is None:
        raise Malformed("adopted", expected="an RSE", found="none")
    if s.rse is not None and s.batch is None and s.event in _LOOKED_AT_BYTES:
        _check_observation(s)


def _claims_no_bytes(s: Statement) -> bool:
    """Such a trace makes no file genuine: it may name the product by the checksum that Rucio's row holds."""
    if s.event is Event.COPY:
        return s.method in ("none", "transfer")
    return s.event in (Event.CORRUPT, Event.LOST, Event.DELETE)


def _check_observation(s: Statement) -> None:
    """How it is known: only a COPY may be recorded without bytes."""
    if s.method is None or (s.method == "none" and s.event is not Event.COPY):
        raise Malformed("method", expected=f"how {s.event} is known", found=s.method or "none given")
    if s.method in ("read", "storage") and s.observed is None:
        raise Malformed("observed", expected="when the bytes were read", found="none")
