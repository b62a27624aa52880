"""What comes in by HTTP, bounded: in bytes, compressed or not, in time, and in what all requests hold together.

`Bounded` stands before every route. What was compressed is unpacked piece by piece, outside of the event loop.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Any, Self, TypeVar

import zstandard
from anyio import CapacityLimiter, to_thread

from rucio_trace.service.problems import BadRequest, Busy, TooLarge, TooSlow, UnknownEncoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rucio_trace.config import Service as ServiceSettings

__all__ = ["BODIES_HELD", "MAX_QUESTION_BYTES", "Bounded", "Received", "asked", "received", "unpacked"]

_T = TypeVar("_T")

BODIES_HELD = 8
"""So many of the largest bodies, as they came or unpacked, may be in memory at once; more is answered with 429."""

MAX_QUESTION_BYTES = 16 * 1024**2
"""Packed or not: enough for 10,000 names as long as Rucio allows."""

_PARSERS = CapacityLimiter(1)  # work of the interpreter: more threads would only take turns
_ASKERS = CapacityLimiter(1)  # strangers ask: traces must not wait behind their questions
_BODY = "rucio_trace.body"

_MAX_PARTS = 1_000  # members or frames, each of which costs more than its bytes: 64 MB in the 64 KiB that bgzip makes
_SMALL = 16 * 1024  # three usual traces
_STEP = 64 * 1024
_PIECE = 256 * 1024
_ZSTD_INPUT = 256  # bytes: the tightest four of zstd become 128 KiB, so one step makes at most 8 MiB
_ZSTD_WINDOW = 8 * 1024**2  # RFC 9659: what a recipient of this encoding need not exceed


class Bounded:
    """ASGI middleware: a body that is too large, too slow or one too many ends in a problem where it is read."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app, self.settings = app, settings
        self.traces = Budget(BODIES_HELD * settings.max_body_bytes)
        self.questions = Budget(BODIES_HELD * MAX_QUESTION_BYTES)  # of their own: anybody may hold all of them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self, receive, _declared(scope))
        scope[_BODY] = body  # in place: what the router notes there is read outside
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.give_back()


class Budget:
    """How many bytes may be in memory, and are."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0


class _Body:
    """One request's, while it comes and until it is answered. Belongs to the event loop."""

    def __init__(self, bounds: Bounded, receive: Receive, declared: int) -> None:
        self._bounds, self._receive, self._declared = bounds, receive, declared
        self._budget, self._most = bounds.traces, bounds.settings.max_body_bytes
        self._deadline: float | None = None
        self._length, self._ended = 0, False
        self._held = 0

    def is_question(self) -> None:
        """Before any of it is read."""
        self._budget, self._most = self._bounds.questions, min(MAX_QUESTION_BYTES, self._most)

    async def receive(self) -> Message:
        if self._ended:  # what waits now waits for the client to go away
            return await self._receive()
        settings = self._bounds.settings
        self._limit(self._declared)
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + settings.max_body_seconds
        try:
            async with asyncio.timeout_at(min(self._deadline, now + settings.max_silence_seconds)):
                message = await self._receive()
        except TimeoutError:
            patience = f"some of it within {settings.max_silence_seconds} s, all within {settings.max_body_seconds} s"
            raise TooSlow("body", expected=patience, found=f"{self._length} bytes by then") from None
        self._length += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        self._limit(self._length)
        self.hold(len(message.get("body", b"")))
        return message

    def hold(self, size: int) -> None:
        """Note that so much more is in memory, until the request is answered."""
        budget = self._budget
        if budget.held + size > budget.most:
            raise Busy("bodies", expected=f"at most {budget.most} bytes at once", found="more")
        budget.held += size
        self._held += size

    def give_back(self) -> None:
        """When the request is answered."""
        self._budget.held -= self._held

    @property
    def most(self) -> int:
        """So many bytes it may have, packed or unpacked."""
        return self._most

    def _limit(self, length: int) -> None:
        if length > self._most:
            raise TooLarge("body", expected=f"at most {self._most} bytes", found=str(length))


def _declared(scope: Scope) -> int:
    """The length in the header; the server has refused what is no number."""
    return max((int(value) for name, value in scope["headers"] if name == b"content-length"), default=0)


async def received(request: Request) -> Received:
    """The body of a request. Raises Problem: a bound of the middleware, or the client went away in its midst."""
    return Received(request.scope[_BODY], await _read(request), request.headers.get("content-encoding"))


class Received:
    """A body as it was sent, whole."""

    def __init__(self, body: _Body, data: bytes, encoding: str | None) -> None:
        self._body, self._data, self._encoding = body, data, encoding

    @property
    def small(self) -> bool:
        """Whether to hand it to another thread takes longer than to read it."""
        return len(self._data) <= _SMALL and self._encoding in (None, "identity")

    def pieces(self) -> Iterator[bytes]:
        """Unpacked; see `unpacked`."""
        return unpacked(self._data, self._encoding, self._body.most)

    async def parsed(self, parse: Callable[[Iterator[bytes]], _T], limiter: CapacityLimiter = _PARSERS) -> _T:
        """What *parse* makes of the pieces. It runs in a thread: others are answered meanwhile.

        Raises:
            Problem: a bound, an unknown encoding, or what *parse* raises.
        """
        pieces = _Counted(self.pieces())
        value = await to_thread.run_sync(parse, pieces, limiter=limiter)
        self._body.hold(pieces.length)
        return value


async def asked(request: Request, parse: Callable[[Iterator[bytes]], _T]) -> _T:
    """What *parse* makes of a question. Anybody may ask: it has at most MAX_QUESTION_BYTES, and keeps no traces out."""
    request.scope[_BODY].is_question()
    return await (await received(request)).parsed(parse, _ASKERS)


class _Counted:
    """Pieces, and how long they were together."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self.length = pieces, 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self.length += len(piece)
        return piece


async def _read(request: Request) -> bytes:
    """The body as it was sent, whole; see `unpacked`.

    Raises:
        Problem: a bound of the middleware.
        BadRequest: the client went away in its midst.
    """
    parts: list[bytes] = []
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("body", expected="all of it", found=f"the end of the connection after {len(parts)} pieces")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def unpacked(body: bytes, encoding: str | None, most: int) -> Iterator[bytes]:
    """The pieces of *body*, which came with this `Content-Encoding`, at most *most* bytes in all.

    Raises:
        UnknownEncoding, BadRequest, TooLarge: while the pieces are taken.
    """
    length = 0
    for piece in _pieces(body, (encoding or "identity").strip().lower()):
        length += len(piece)
        if length > most:
            raise TooLarge("body", expected=f"at most {most} bytes unpacked", found="more")
        yield piece


def _pieces(body: bytes, encoding: str) -> Iterator[bytes]:
    if encoding == "identity":
        for start in range(0, len(body), _PIECE):
            yield body[start : start + _PIECE]
    elif encoding in ("gzip", "x-gzip"):
        yield from _gunzipped(body)
    elif encoding == "zstd":
        yield from _unzstd(body)
    else:
        raise UnknownEncoding("Content-Encoding", expected="gzip, zstd or identity", found=encoding)


def _one_more(parts: int) -> int:
    """Of members or frames. Raises TooLarge: there are too many."""
    if parts == _MAX_PARTS:
        raise TooLarge("body", expected=f"at most {_MAX_PARTS} members or frames", found="more")
    return parts + 1


def _gunzipped(body: bytes) -> Iterator[bytes]:
    """Of all members: they follow each other."""
    rest, parts = memoryview(body), 0
    while rest:
        parts = _one_more(parts)
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            step: bytes | memoryview = member.unconsumed_tail
            if not step:
                step, rest = rest[:_STEP], rest[_STEP:]
            try:
                piece = member.decompress(step, _PIECE)
            except zlib.error as error:
                raise BadRequest("body", expected="gzip", found=str(error)) from None
            if not piece and not step:
                raise BadRequest("body", expected="whole gzip", found="its beginning")
            yield piece
        rest = memoryview(body)[len(body) - len(rest) - len(member.unused_data) :]


def _unzstd(body: bytes) -> Iterator[bytes]:
    """Of all frames: they follow each other."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    rest, parts = memoryview(body), 0
    while rest:
        parts = _one_more(parts)
        frame: Any = unpacker.decompressobj()
        while not frame.eof:
            if not rest:
                raise BadRequest("body", expected="whole zstd", found="its beginning")
            step, rest = rest[:_ZSTD_INPUT], rest[_ZSTD_INPUT:]
            try:
                yield frame.decompress(step)
            except zstandard.ZstdError as error:
                raise BadRequest("body", expected="zstd", found=str(error)) from None
        if frame.unused_data:
            rest = memoryview(body)[len(body) - len(rest) - len(frame.unused_data) :]
