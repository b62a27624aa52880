"""Files of traces of any length, read piece by piece: an array, one trace, or an answer of a trace service.

One unreadable trace costs itself alone, and memory holds no more than a batch. What a trace is decides
`envelope.parse_traces`; here an array's text is only cut between its elements. Pure.
"""

import json
import re
from collections.abc import Iterable, Iterator

from rucio_trace.envelope import Trace, parse_traces, unreadable
from rucio_trace.errors import Malformed, TraceabilityError
from rucio_trace.strictjson import MAX_BYTES

__all__ = ["BATCH_BYTES", "BATCH_TRACES", "elements", "read_traces"]

BATCH_TRACES = 500  # as recorders send them: one transaction of the store
BATCH_BYTES = MAX_BYTES // 2

_SPACE = b" \t\r\n"
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
# Up to a bracket, or a comma. Within an element commas do not matter, and objects without others in them are skipped.
_NOTHING = re.compile(rb'(?:[^\[\]{},"]+|' + _STRING + rb")*", re.DOTALL)
_FLAT = rb'\{[^\[\]{}"]*(?:' + _STRING + rb'[^\[\]{}"]*)*\}'
_NOTHING_NESTED = re.compile(rb'(?:[^\[\]{}"]+|' + _STRING + rb"|" + _FLAT + rb")*", re.DOTALL)
# Finds the end of a good element, in a third of the time that the patterns take; what it makes of it is not used.
_DECODER = json.JSONDecoder(strict=False)
_SPACES = re.compile(r"[ \t\r\n]*")


def read_traces(pieces: Iterable[bytes]) -> Iterator[list[Trace]]:
    """The traces of a text that comes in *pieces* of any size, in batches; those that cannot be read have faults.

    Raises:
        Malformed: the text as a whole is not traces, or ends too soon; what came before has been given.
    """
    pieces = iter(pieces)
    start = b""
    while not start and (piece := next(pieces, None)) is not None:
        start = piece.lstrip(_SPACE)
    if start.startswith(b"["):
        yield from _batches(elements(start[1:], pieces))
    else:
        yield parse_traces(_whole(start, pieces))


def _whole(start: bytes, pieces: Iterator[bytes]) -> bytes:
    parts, length = [start], len(start)
    for piece in pieces:
        parts.append(piece)
        length += len(piece)
        if length > MAX_BYTES:
            raise Malformed("traces", expected=f"an array, or an object of at most {MAX_BYTES} bytes", found="more")
    return b"".join(parts)


def _batches(elements: Iterable[bytes | None]) -> Iterator[list[Trace]]:
    batch: list[bytes | None] = []
    size = 0
    try:
        for element in elements:
            batch.append(element)
            size += len(element or b"")
            if len(batch) == BATCH_TRACES or size >= BATCH_BYTES:
                yield _parsed(batch)
                batch, size = [], 0
    except (TraceabilityError, OSError):  # of whoever cuts or reads: what is here is whole
        if batch:
            yield _parsed(batch)
        raise
    if batch:
        yield _parsed(batch)


def _parsed(batch: list[bytes | None]) -> list[Trace]:
    """All at once, which is quick; one by one if something is wrong with any."""
    texts = [element for element in batch if element is not None]
    if len(texts) == len(batch):
        try:
            traces = parse_traces(b"[" + b",".join(texts) + b"]", max_bytes=BATCH_BYTES + MAX_BYTES)
        except Malformed:
            pass
        else:
            if len(traces) == len(batch):
                return traces
    return [_one(element) for element in batch]


def _one(element: bytes | None) -> Trace:
    try:
        if element is None:
            raise Malformed("trace", expected=f"at most {MAX_BYTES} bytes", found="more")
        traces = parse_traces(b"[" + element + b"]", max_bytes=MAX_BYTES + 2)
        if len(traces) != 1:
            raise Malformed("trace", expected="an object", found="nothing")
    except Malformed as error:
        return unreadable(error)
    return traces[0]


def elements(start: bytes, pieces: Iterable[bytes], *, max_bytes: int = MAX_BYTES) -> Iterator[bytes | None]:
    """The elements of an array whose opening bracket has been read, as they stand there; None for one too long.

    Raises:
        Malformed: the array does not end, or more follows.
    """
    cutter = _Cutter(max_bytes)
    yield from cutter.cut(start)
    for piece in pieces:
        yield from cutter.cut(piece)
    if not cutter.ended:
        raise Malformed("traces", expected="a closing bracket", found="the end of the text")


def _end(pattern: re.Pattern[bytes], piece: bytes, position: int) -> int:
    """Where *pattern*, which matches anything, stops to match."""
    match = pattern.match(piece, position)
    assert match is not None
    return match.end()


def _end_of_value(text: str, position: int) -> int:
    """Where the JSON value at *position* ends, if it is a whole and good one; else *position*."""
    start = _SPACES.match(text, position).end()  # type: ignore[union-attr]  # it matches anything
    try:
        end = _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return position
    # A number may go on in the next piece.
    return end if text[end - 1] in "]}" else position


class _Cutter:
    """Follows brackets and strings, and nothing else of what JSON asks: the elements are parsed later."""

    def __init__(self, max_bytes: int) -> None:
        self.ended = False
        self._max_bytes = max_bytes
        self._depth = 0  # within the element
        self._in_string = False
        self._escape = b""  # a backslash that ended a piece
        self._parts: list[bytes] = []
        self._length = 0
        self._any = False

    def cut(self, piece: bytes) -> Iterator[bytes | None]:
        """The elements that end in *piece*."""
        piece, self._escape = self._escape + piece, b""
        begin = position = 0
        text = piece.decode("latin-1")  # a character a byte: brackets, quotes and escapes are where they were
        while not self.ended:
            if self._depth == 0 and not self._in_string and not self._length and begin == position:
                position = _end_of_value(text, position)
            if (found := self._next(piece, position)) is None:
                break
            token, position = found
            if self._depth == 0 and token in b",]":
                self._keep(piece[begin : position - 1])
                begin = position
                self.ended = token == b"]"
                element = self._taken()
                if element != b"" or self._any or not self.ended:
                    yield element
                self._any = True
            elif token in b"[{":
                self._depth += 1
            elif token in b"]}":
                self._depth = max(0, self._depth - 1)
        if not self.ended:
            self._keep(piece[begin : len(piece) - len(self._escape)])
        elif piece[begin:].strip(_SPACE):
            raise Malformed("traces", expected="one array", found="more after its end")

    def _next(self, piece: bytes, position: int) -> tuple[bytes, int] | None:
        """The next bracket, or comma between elements, and the place behind it; None at the end of *piece*."""
        if self._in_string:
            position = _end(_REST_OF_STRING, piece, position) + 1
            if position > len(piece) or piece[position - 1 : position] == b"\\":
                self._escape = piece[position - 1 :]  # nothing, or a backslash whose character comes next
                return None
            self._in_string = False
        position = _end(_NOTHING_NESTED if self._depth else _NOTHING, piece, position)
        token = piece[position : position + 1]
        if token == b'"':  # of a string that does not end here
            self._in_string = True
            return self._next(piece, position + 1)
        return (token, position + 1) if token else None

    def _keep(self, part: bytes) -> None:
        self._length += len(part)
        if self._length <= self._max_bytes:
            self._parts.append(part)
        else:
            self._parts = []

    def _taken(self) -> bytes | None:
        element = b"".join(self._parts).strip(_SPACE) if self._length <= self._max_bytes else None
        self._parts, self._length = [], 0
        return element
