"""The statement: what a trace says, and the one text that says it.

`serialise` writes a statement as the text that is signed; `parse` reads such a text. Both hold
`parse(serialise(s)) == s`. A statement with `schema` None is one of the Copernicus Traceability
Service: its keys are read, its unknown keys tolerated and kept in `extra`. Ours are closed: an
unknown key, a missing one or one in the wrong place is an error (docs/format.md, section 5).

Who signed, and whether that counts, is decided elsewhere (envelope, identity, verify). Pure.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from rucio_trace import strictjson
from rucio_trace.errors import Malformed
from rucio_trace.statement import (
    ALGORITHMS,
    DEFAULT_VO,
    HEX_DIGITS,
    METHODS,
    SCHEMA,
    STRONG,
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

# What the field's client escapes beyond JSON's own rules; such characters occur in strings only.
_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "&<>\u2028\u2029"})

_KEYS = tuple(name for name in Statement.__dataclass_fields__ if name != "extra")


def serialise(statement: Statement) -> str:
    """Write the exact text to be signed.

    Raises:
        Malformed: the statement breaks a rule of the format.
    """
    members = {key: _plain(value) for key in _KEYS if (value := getattr(statement, key)) is not None}
    members.update(statement.extra)
    try:
        text = json.dumps(members, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed("statement", expected="values that JSON can hold", found=str(error)) from None
    if parse(text) != statement:
        raise Malformed("statement", expected="a statement that reads back as itself", found="another one")
    return text


def _plain(value: Any) -> Any:
    """Nested parts as JSON: absent members are left out, except in `source`, which has both always."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Content):
        return {"hash": value.hash, "path": value.path}
    if isinstance(value, Input):
        return {"hash": value.hash, "name": value.name}
    if isinstance(value, Source):
        return {"rse": value.rse, "trace": value.trace}
    if isinstance(value, Cause | Service | Found | Checkpoint):
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
    _require(members, keys)
    return Statement(**{key: _READERS[key](key, members[key]) for key in keys}, schema=None)


_COPERNICUS_KEYS = frozenset({"contents", "hash", "inputs", "name", "size", "event"})
_COPERNICUS_EVENTS = frozenset({Event.CREATE, Event.COPY, Event.DELETE, Event.OBSOLETE})


def _copernicus(members: dict[str, Any], schema: str | None) -> Statement:
    """A statement of the Traceability Service: three digest algorithms of 256 bits, not named in the text."""
    _require(members, ("hash", "name", "size", "event"))
    fields = {key: _READERS[key](key, members[key]) for key in _COPERNICUS_KEYS & members.keys()}
    if len(fields["hash"]) != 64:
        raise Malformed("hash", expected="64 hexadecimal digits", found=fields["hash"])
    if schema is None and fields["event"] not in _COPERNICUS_EVENTS:
        raise Malformed("event", expected="CREATE, COPY, DELETE or OBSOLETE", found=fields["event"])
    own = _COPERNICUS_KEYS if schema is None else _COPERNICUS_KEYS | {"schema"}
    extra = {key: value for key, value in members.items() if key not in own}
    return Statement(**fields, schema=schema, extra=extra)


_REQUIRED = ("hash", "name", "size", "event", "event_id", "hash_algorithm", "site", "signer", "time", "salt")


def _ours(members: dict[str, Any]) -> Statement:
    unknown = members.keys() - _READERS.keys()
    if unknown:
        raise Malformed("statement", expected=f"only keys of {SCHEMA}", found=", ".join(sorted(unknown)))
    _require(members, _REQUIRED)
    statement = Statement(**{key: _READERS[key](key, value) for key, value in members.items()})
    _check_digests(statement)
    _check_product(statement)
    _check_event(statement)
    return statement


def _require(members: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in members:
            raise Malformed(key, expected="a value", found="none")


# --- one value each

_HEX = re.compile(r"[0-9a-f]+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST_LENGTHS = frozenset(HEX_DIGITS.values())

# PostgreSQL indexes texts up to a third of its 8 KiB page; Rucio's own limit is 500 characters.
MAX_TEXT_BYTES = 2048


def _text(key: str, value: Any) -> str:
    if type(value) is not str or not value or "\0" in value:
        raise Malformed(key, expected="a text without NUL", found=repr(value))
    if len(value) * 4 > MAX_TEXT_BYTES and len(value.encode("utf-8")) > MAX_TEXT_BYTES:
        raise Malformed(key, expected=f"at most {MAX_TEXT_BYTES} bytes", found=value)
    return value


def _any_hex(key: str, value: Any) -> str:
    if type(value) is not str or not _HEX.fullmatch(value):
        raise Malformed(key, expected="lower-case hexadecimal digits", found=repr(value))
    return value


def _hex(digits: int) -> Callable[[str, Any], str]:
    def read_hex(key: str, value: Any) -> str:
        if len(_any_hex(key, value)) != digits:
            raise Malformed(key, expected=f"{digits} hexadecimal digits", found=value)
        return str(value)

    return read_hex


def _one_of(*words: str) -> Callable[[str, Any], str]:
    def read_word(key: str, value: Any) -> str:
        if type(value) is not str or value not in words:
            raise Malformed(key, expected=", ".join(words), found=repr(value))
        return value

    return read_word


def _event(key: str, value: Any) -> Event:
    if type(value) is not str or value not in Event.__members__:
        raise Malformed(key, expected=", ".join(Event), found=repr(value))
    return Event[value]


def _size(key: str, value: Any) -> int:
    if type(value) is not int or value < 0:  # the upper bound is every integer's
        raise Malformed(key, expected="a number of bytes", found=repr(value))
    return value


def _uuid(key: str, value: Any) -> str:
    if type(value) is not str or not _UUID.fullmatch(value):
        raise Malformed(key, expected="a UUID in lower case", found=repr(value))
    return value


def _trace_id(key: str, value: Any) -> str:
    """A UUID, or for a trace of the Traceability Service the SHA-256 of its signed text."""
    if type(value) is str and len(value) == 64:
        return _any_hex(key, value)
    return _uuid(key, value)


def _moment(key: str, value: Any) -> str:
    parse_time(_text(key, value))
    return str(value)


def _true(key: str, value: Any) -> bool:
    if value is not True:
        raise Malformed(key, expected="true, or no such key", found=repr(value))
    return True


def _did(key: str, value: Any) -> str:
    scope, colon, name = _text(key, value).partition(":")
    if not (scope and colon and name):
        raise Malformed(key, expected="scope:name", found=repr(value))
    return str(value)


def _bag(key: str, value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise Malformed(key, expected="an object", found=type(value).__name__)
    return value


def _hashes(key: str, value: Any) -> dict[str, str]:
    for algorithm, digest in _bag(key, value).items():
        if algorithm not in HEX_DIGITS:
            raise Malformed(key, expected=", ".join(ALGORITHMS), found=algorithm)
        if len(_any_hex(algorithm, digest)) != HEX_DIGITS[algorithm]:
            raise Malformed(algorithm, expected=f"{HEX_DIGITS[algorithm]} digits", found=digest)
    return dict(value)


def _members(key: str, value: Any, allowed: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    unknown = _bag(key, value).keys() - allowed.keys()
    if unknown:
        raise Malformed(key, expected=", ".join(allowed), found=", ".join(sorted(unknown)))
    return {name: allowed[name](f"{key}.{name}", part) for name, part in value.items()}


def _list(key: str, value: Any, names: frozenset[str]) -> list[Any]:
    if type(value) is not list:
        raise Malformed(key, expected="a list", found=type(value).__name__)
    for item in value:
        if type(item) is not dict or item.keys() != names:
            raise Malformed(key, expected=f"objects of {' and '.join(sorted(names))}", found=repr(item))
    return value


def _contents(key: str, value: Any) -> tuple[Content, ...]:
    items = _list(key, value, frozenset({"path", "hash"}))
    return tuple(Content(_text("contents.path", i["path"]), _any_hex("contents.hash", i["hash"])) for i in items)


def _inputs(key: str, value: Any) -> tuple[Input, ...]:
    items = _list(key, value, frozenset({"name", "hash"}))
    return tuple(Input(_text("inputs.name", i["name"]), _any_hex("inputs.hash", i["hash"])) for i in items)


def _text_or_null(key: str, value: Any) -> str | None:
    return None if value is None else _text(key, value)


def _trace_id_or_null(key: str, value: Any) -> str | None:
    return None if value is None else _trace_id(key, value)


def _source(key: str, value: Any) -> Source:
    members = _members(key, value, {"rse": _text_or_null, "trace": _trace_id_or_null})
    _require(members, ("rse", "trace"))
    return Source(**members)


_CAUSE = dict.fromkeys(Cause.__dataclass_fields__, _text)
_SERVICE = dict.fromkeys(Service.__dataclass_fields__, _text)


def _found(key: str, value: Any) -> Found:
    members = _members(key, value, {"size": _size, "hashes": _hashes})
    _require(members, ("size", "hashes"))
    return Found(**members)


def _checkpoint(key: str, value: Any) -> Checkpoint:
    members = _members(key, value, {"size": _size, "root": _hex(64)})
    _require(members, ("size", "root"))
    return Checkpoint(**members)


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "contents": _contents,
    "hash": _any_hex,
    "inputs": _inputs,
    "name": _text,
    "size": _size,
    "event": _event,
    "schema": _text,
    "event_id": _uuid,
    "hash_algorithm": _one_of(*ALGORITHMS),
    "hashes": _hashes,
    "rucio": _text,
    "vo": _text,
    "did": _did,
    "generation": _moment,
    "site": _text,
    "signer": _hex(64),
    "rse": _text,
    "time": _moment,
    "observed": _moment,
    "method": _one_of(*METHODS),
    "adopted": _true,
    "unobserved": _true,
    "source": _source,
    "replaces": _trace_id,
    "cause": lambda key, value: Cause(**_members(key, value, _CAUSE)),
    "service": lambda key, value: Service(**_members(key, value, _SERVICE)),
    "attributes": _bag,
    "found": _found,
    "obsolescence": _text,
    "replaced_by": _text,
    "revokes": _trace_id,
    "checkpoint": _checkpoint,
    "salt": _hex(32),
}

# --- values that must fit each other


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


def _check_product(s: Statement) -> None:
    present = {s.rucio is not None, s.did is not None, s.generation is not None}
    if len(present) > 1:
        raise Malformed("product", expected="rucio, did and generation, or none of them", found="some")
    if s.name in (".", "..") or "/" in s.name:
        raise Malformed("name", expected="a base name", found=s.name)
    if s.did is None:
        if s.vo is not None or s.rse is not None:
            raise Malformed("product", expected="no vo and no rse outside Rucio", found=s.vo or s.rse or "")
        return
    if s.name != base_name(s.did.partition(":")[2]):
        raise Malformed("name", expected=f"the base name of {s.did}", found=s.name)
    if s.vo == DEFAULT_VO:
        raise Malformed("vo", expected="no such key for the default", found=s.vo)


# Keys that only some events may carry.
_ONLY_WITH = {
    "adopted": (Event.CREATE, Event.COPY, Event.VERIFY),
    "replaces": (Event.COPY,),
    "unobserved": (Event.DELETE,),
    "found": (Event.CORRUPT,),
    "obsolescence": (Event.OBSOLETE, Event.REVOKE),
    "replaced_by": (Event.OBSOLETE,),
    "revokes": (Event.REVOKE,),
    "rse": tuple(event for event in Event if event not in (Event.OBSOLETE, Event.REVOKE)),
}
_OF_A_REPLICA = (Event.COPY, Event.VERIFY, Event.CORRUPT, Event.LOST, Event.DELETE)
_LOOKED_AT_BYTES = (Event.CREATE, Event.COPY, Event.VERIFY, Event.CORRUPT, Event.LOST)


def _check_event(s: Statement) -> None:
    if s.hash_algorithm not in STRONG and not _claims_no_bytes(s):
        raise Malformed("hash_algorithm", expected=", ".join(STRONG), found=s.hash_algorithm or "")
    for key, events in _ONLY_WITH.items():
        if getattr(s, key) is not None and s.event not in events:
            raise Malformed(key, expected=f"only with {', '.join(events)}", found=s.event)
    if s.event is Event.CORRUPT and s.found is None:
        raise Malformed("found", expected="what the replica held", found="none")
    if s.event is Event.REVOKE and s.revokes is None:
        raise Malformed("revokes", expected="the id of a trace", found="none")
    if s.did is not None and s.rse is None and s.event in _OF_A_REPLICA:
        raise Malformed("rse", expected=f"an RSE with {s.event}", found="none")
    if s.adopted and s.rse is None:
        raise Malformed("adopted", expected="an RSE", found="none")
    if s.rse is not None and s.event in _LOOKED_AT_BYTES:
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
