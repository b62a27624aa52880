"""I-JSON, read strictly: one text has one meaning, or it is refused. And written in one way.

Two readers that disagree about a duplicate key or a number can be shown different products under
one signature, so everything RFC 7493 leaves out is an error here. Bounded in size, depth and
number of values before anything is built from the text. No I/O; safe to call concurrently.
"""

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

import orjson

from rucio_trace.errors import Malformed

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_INTEGER", "read", "write"]

MAX_BYTES = 8 * 1024 * 1024  # 50,000 archive members; more is no product we know of
MAX_DEPTH = 16  # a trace needs five
MAX_VALUES = 1_000_000  # 8 MiB of "[]," would otherwise be built into 200 MB of lists
MAX_INTEGER = 2**53 - 1  # RFC 7493, 2.2: beyond it readers disagree

# RFC 7493, 2.1: surrogates and noncharacters identify no character.
_FORBIDDEN = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef" + "".join(chr(p << 16 | x) for p in range(17) for x in (0xFFFE, 0xFFFF)) + "]"
)


def read(
    text: str | bytes,
    subject: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_values: int = MAX_VALUES,
    any_characters: bool = False,
) -> Any:
    """Read one JSON value from *text*; *subject* names it in errors.

    With *any_characters* escapes may stand for what is no character, such as the bytes of a name that is no UTF-8.

    Raises:
        Malformed: anything else than one I-JSON value within the limits.
    """
    decoded = _decode(text, subject, max_bytes)
    if len(decoded) > max_values and sum(map(decoded.count, ",[{")) > max_values:  # counting takes longer than it looks
        raise Malformed(subject, expected=f"at most {max_values} values", found="more")
    try:
        value = _decoded(decoded)
    except RecursionError:
        raise Malformed(subject, expected=f"a depth of at most {MAX_DEPTH}", found="more") from None
    except _Refused as refused:
        raise Malformed(subject, expected=refused.expected, found=refused.found) from None
    except ValueError as error:
        raise Malformed(subject, expected="JSON", found=str(error)) from None
    _check_depth(value, subject)
    if not any_characters and (not decoded.isascii() or "\\u" in decoded):
        _check_characters(value, subject)
    return value


def _decoded(text: str) -> Any:
    """The value of *text*, every key of which stands once.

    A text that is just what its value is written as has no key twice and no number that readers disagree about: to
    read, write and compare it takes a third of the time of looking at every key. Others are looked at key by key.
    """
    try:
        value = orjson.loads(text)
        if orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER).decode() == text:
            return value
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass  # the other reader says what is wrong
    return _DECODER.decode(text)


def _decode(text: str | bytes, subject: str, max_bytes: int) -> str:
    if len(text) > max_bytes:
        raise Malformed(subject, expected=f"at most {max_bytes} bytes", found=f"{len(text)}")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        elif not text.isascii() and len(text.encode("utf-8")) > max_bytes:
            raise Malformed(subject, expected=f"at most {max_bytes} bytes", found="more")
    except UnicodeError as error:
        raise Malformed(subject, expected="UTF-8", found=str(error)) from None
    if text.startswith("\ufeff"):
        raise Malformed(subject, expected="no byte order mark", found="one")
    return text


# What the field's client escapes beyond JSON's own rules; such characters occur in strings only.
_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "&<>\u2028\u2029"})


def write(value: Any, subject: str) -> str:
    """The text of *value* as docs/format.md, 5.1 has it: no spaces, keys in the order they stand in.

    Raises:
        Malformed: JSON cannot hold it. Whether `read` would take it is not asked.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(subject, expected="values that JSON can hold", found=str(error)) from None
    return text.translate(_ESCAPES)


class _Refused(Exception):
    def __init__(self, expected: str, found: str) -> None:
        self.expected, self.found = expected, found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _Refused("every key once", f"{twice!r} twice")
    return members


def _integer(digits: str) -> int:
    # 17 characters hold a sign and 16 digits; int() of a million digits would take minutes
    if len(digits) > 17 or abs(value := int(digits)) > MAX_INTEGER:
        raise _Refused("integers of at most 2^53-1", digits[:40])
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Refused("finite numbers", digits[:40])
    return value


def _constant(name: str) -> NoReturn:
    raise _Refused("finite numbers", name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)


def _check_depth(value: Any, subject: str) -> None:
    """Walk level by level: no recursion, whatever the depth."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for item in level:
            for inner in item.values() if type(item) is dict else item:
                if type(inner) is dict or type(inner) is list:
                    deeper.append(inner)  # noqa: PERF401 - twice as fast as a generator here
        if not deeper:
            return
        level = deeper
    raise Malformed(subject, expected=f"a depth of at most {MAX_DEPTH}", found="more")


def _check_characters(value: Any, subject: str) -> None:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            if _FORBIDDEN.search(item):
                raise Malformed(subject, expected="Unicode characters", found=ascii(item)[:80])
        elif isinstance(item, list):
            todo.extend(item)
        elif isinstance(item, dict):
            todo.extend(item)
            todo.extend(item.values())
