"""The keys of a statement, each with the one way to read its value.

Every reader takes the key, for errors, and the value as JSON gave it, and returns the value as
`Statement` holds it. Whether values fit each other is `trace`'s matter. Pure.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from rucio_trace.errors import Malformed
from rucio_trace.statement import (
    ALGORITHMS,
    HEX_DIGITS,
    MAX_LINES,
    METHODS,
    Batch,
    Cause,
    Checkpoint,
    Content,
    Event,
    Found,
    Input,
    Service,
    Source,
    parse_time,
)

__all__ = ["MAX_TEXT_BYTES", "READERS", "require"]

_HEX = re.compile(r"[0-9a-f]+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

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


def _count(key: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Malformed(key, expected="a number", found=repr(value))
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
    items = _list(key, value, _CONTENT_KEYS)
    paths, hashes = [i["path"] for i in items], [i["hash"] for i in items]
    if not _plain(paths, hashes):  # one of them is wrong, or long: look at each
        for path, digest in zip(paths, hashes, strict=True):
            _text("contents.path", path)
            _any_hex("contents.hash", digest)
    return tuple(map(Content, paths, hashes))


_CONTENT_KEYS = frozenset({"path", "hash"})


def _plain(paths: list[Any], hashes: list[Any]) -> bool:
    """Whether all are certainly right: asked of all at once, this costs a third of asking each."""
    if not all(paths) or not all(hashes) or set(map(type, paths + hashes)) != {str}:
        return False
    return max(map(len, paths)) * 4 <= MAX_TEXT_BYTES and "\0" not in "".join(paths) and _is_hex("".join(hashes))


def _is_hex(text: str) -> bool:
    return _HEX.fullmatch(text) is not None


def _inputs(key: str, value: Any) -> tuple[Input, ...]:
    items = _list(key, value, frozenset({"name", "hash"}))
    return tuple(Input(_text("inputs.name", i["name"]), _any_hex("inputs.hash", i["hash"])) for i in items)


def _text_or_null(key: str, value: Any) -> str | None:
    return None if value is None else _text(key, value)


def _trace_id_or_null(key: str, value: Any) -> str | None:
    return None if value is None else _trace_id(key, value)


def _source(key: str, value: Any) -> Source:
    members = _members(key, value, {"rse": _text_or_null, "trace": _trace_id_or_null})
    require(members, ("rse", "trace"))
    return Source(**members)


_CAUSE = dict.fromkeys(Cause.__dataclass_fields__, _text)
_SERVICE = dict.fromkeys(Service.__dataclass_fields__, _text)


def _found(key: str, value: Any) -> Found:
    members = _members(key, value, {"size": _size, "hashes": _hashes})
    require(members, ("size", "hashes"))
    return Found(**members)


def _batch(key: str, value: Any) -> Batch:
    members = _members(key, value, {"count": _size, "root": _hex(64)})
    require(members, ("count", "root"))
    if not 0 < members["count"] <= MAX_LINES:
        raise Malformed("batch.count", expected=f"1 to {MAX_LINES} lines", found=str(members["count"]))
    return Batch(**members)


def _checkpoint(key: str, value: Any) -> Checkpoint:
    members = _members(key, value, {"size": _size, "root": _hex(64)})
    require(members, ("size", "root"))
    return Checkpoint(**members)


READERS: dict[str, Callable[[str, Any], Any]] = {
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
    "members": _count,
    "site": _text,
    "signer": _hex(64),
    "rse": _text,
    "time": _moment,
    "observed": _moment,
    "method": _one_of(*METHODS),
    "adopted": _true,
    "unobserved": _true,
    "batch": _batch,
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


def require(members: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Refuse *members* without all of *keys*."""
    for key in keys:
        if key not in members:
            raise Malformed(key, expected="a value", found="none")
