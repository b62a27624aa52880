"""What stands in a body of traces: an array, or one a line; each a trace, or a trace with what belongs to it.

An item that cannot be read costs itself alone. Pure.
"""

from __future__ import annotations

import base64
import binascii
import io
from itertools import chain
from typing import TYPE_CHECKING, Any

from rucio_trace import strictjson
from rucio_trace.batch import MAX_LIST_BYTES
from rucio_trace.envelope import from_json, unreadable
from rucio_trace.errors import Malformed
from rucio_trace.exchange.incoming import elements
from rucio_trace.service.problems import BadRequest, TooLarge
from rucio_trace.store import Item

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MAX_ITEMS", "read_items"]

MAX_ITEMS = 10_000
"""A minute of the store's work, and an answer of a few MB."""

_ITEM_BYTES = strictjson.MAX_BYTES + MAX_LIST_BYTES * 4 // 3 + 1024  # a trace, and a list in base64
_KEYS = frozenset({"trace", "list", "scope"})
_SPACE = b" \t\r\n"


def read_items(pieces: Iterator[bytes], *, is_json: bool, scope: str | None) -> Iterator[Item]:
    """The items of a body, one after another; *scope* is for those of files in no Rucio that name none.

    What begins with a bracket is an array. Otherwise *is_json* tells one object from objects that stand one a line.

    Raises:
        Malformed: the body as a whole is neither.
        BadRequest: not one item can be read.
        TooLarge: more than MAX_ITEMS.
    """
    start = b""
    while not start and (piece := next(pieces, None)) is not None:
        start = piece.lstrip(_SPACE)
    if start.startswith(b"["):
        texts: Iterable[bytes | None] = elements(start[1:], pieces, max_bytes=_ITEM_BYTES)
    elif is_json:
        texts = [b"".join(chain([start], pieces))] if start else []
    else:
        texts = filter(None, (line.strip(_SPACE) for line in io.BytesIO(b"".join(chain([start], pieces)))))
    unread: Item | None = None
    for number, text in enumerate(texts):
        if number == MAX_ITEMS:
            raise TooLarge("traces", expected=f"at most {MAX_ITEMS} in a request", found="more")
        item = _item(text, scope)
        if not (number and unread is None):
            unread = item if item.trace.message == "" and item.trace.faults else None
        yield item
    if unread is not None:
        raise BadRequest("traces", expected="at least one that can be read", found=str(unread.trace.faults[0]))


def _item(text: bytes | None, scope: str | None) -> Item:
    try:
        if text is None:
            raise Malformed("item", expected=f"at most {_ITEM_BYTES} bytes", found="more")
        return _to_item(strictjson.read(text, "item", max_bytes=_ITEM_BYTES), scope)
    except Malformed as error:
        return Item(unreadable(error))


def _to_item(value: Any, scope: str | None) -> Item:
    if not isinstance(value, dict) or "trace" not in value or "product" in value:
        return _scoped(Item(from_json(value), scope=scope))
    if unknown := value.keys() - _KEYS:
        raise Malformed("item", expected=", ".join(sorted(_KEYS)), found=", ".join(sorted(unknown)))
    named = value.get("scope")
    if named is not None and not isinstance(named, str):
        raise Malformed("scope", expected="a text", found=repr(named))
    return _scoped(Item(from_json(value["trace"]), _list(value.get("list")), named or scope))


def _scoped(item: Item) -> Item:
    """Of a product in Rucio the scope is signed."""
    return item if item.scope is None or item.trace.statement.outside else Item(item.trace, item.list)


def _list(text: Any) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise Malformed("list", expected="base64", found=repr(text)) from None
