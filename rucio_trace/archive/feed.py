"""Parsers that are fed: they ask for the bytes they need and wait while there are none.

A parser is a generator: it yields when it has used up everything given so far, and goes on when
the next chunk is there. So one parser serves files, sockets and storage protocols alike, and a
chunk may be overwritten as soon as `Parsing.update` returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rucio_trace.digest import Buffer

__all__ = ["CutOff", "Feed", "Parser", "Parsing"]

T = TypeVar("T")
Parser = Generator[None, None, T]


class CutOff(Exception):
    """The bytes ended where more were needed."""


class Feed:
    """The bytes of a stream in whatever portions its parser wants; `offset` is that of the next byte."""

    def __init__(self) -> None:
        self.offset = 0
        self._pieces: deque[memoryview] = deque()
        self._ended = False

    def give(self, chunk: Buffer) -> None:
        if len(chunk):
            self._pieces.append(memoryview(chunk))

    def end(self) -> None:
        self._ended = True

    def piece(self, limit: int) -> Parser[memoryview]:
        """The next bytes, at most *limit*, as they lie; none at the end of the stream."""
        while not self._pieces:
            if self._ended:
                return memoryview(b"")
            yield
        view = self._pieces.popleft()
        if len(view) > limit:
            self._pieces.appendleft(view[limit:])
            view = view[:limit]
        self.offset += len(view)
        return view

    def unread(self, data: Buffer) -> None:
        """Give back the last bytes taken."""
        if len(data):
            self._pieces.appendleft(memoryview(data))
            self.offset -= len(data)

    def take(self, count: int) -> Parser[bytes]:
        """Exactly *count* bytes, kept in memory: for headers, whose sizes are bounded."""
        data = yield from self.peek(count, keep=False)
        if len(data) < count:
            raise CutOff
        return data

    def peek(self, count: int, *, keep: bool = True) -> Parser[bytes]:
        """The next *count* bytes, fewer at the end, which stay to be read."""
        data = bytearray((yield from self.piece(count)))  # grows in place: a megabyte may come byte by byte
        while len(data) < count:
            more = yield from self.piece(count - len(data))
            if not more:
                break
            data += more
        found = bytes(data)
        if keep:
            self.unread(found)
        return found

    def pour(self, count: int, sink: Callable[[memoryview], object]) -> Parser[None]:
        """Pass exactly *count* bytes on to *sink* as they come."""
        while count:
            view = yield from self.piece(count)
            if not view:
                raise CutOff
            sink(view)
            count -= len(view)


class Parsing:
    """A parser at work on its feed; once it has returned, further bytes are ignored."""

    def __init__(self, feed: Feed, parser: Parser[None]) -> None:
        self._feed, self._parser = feed, parser
        self.done = False

    def update(self, chunk: Buffer) -> None:
        if not self.done:
            self._feed.give(chunk)
            self._advance()

    def finish(self) -> None:
        """Tell the parser that no more will come and let it end."""
        if not self.done:
            self._feed.end()
            self._advance()

    def _advance(self) -> None:
        try:
            next(self._parser)
        except StopIteration:
            self.done = True
        except BaseException:
            self.done = True
            raise
