"""What comes in by HTTP, bounded: in bytes, compressed or not, in time, and in what all requests hold together.

`Bounded` stands before every route. What was compressed is unpacked piece by piece, outside of the event loop.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Any

import zstandard

from rucio_trace.service.problems import BadRequest, Busy, TooLarge, TooSlow, UnknownEncoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rucio_trace.config import Service as ServiceSettings

__all__ = ["Bounded", "read_body", "unpacked"]

BODIES_HELD = 4
"""So many of the largest bodies may be in memory at once; more is answered with 429."""

_PIECE = 256 * 1024
_ZSTD_INPUT = 256  # bytes: the tightest four of zstd become 128 KiB, so one step makes at most 8 MiB
_ZSTD_WINDOW = 8 * 1024**2  # RFC 9659: what a recipient of this encoding need not exceed


class Bounded:
    """ASGI middleware: a body that is too large, too slow or one too many ends in a problem where it is read."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app, self._settings = app, settings
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most, deadline, length, ended = self._settings.max_body_bytes, None, 0, False

        async def bounded() -> Message:
            nonlocal deadline, length, ended
            if ended:  # what waits now waits for the client to go away
                return await receive()
            if _declared(scope) > most:
                raise TooLarge("body", expected=f"at most {most} bytes", found=str(_declared(scope)))
            now = asyncio.get_running_loop().time()
            deadline = deadline or now + self._settings.max_body_seconds
            try:
                async with asyncio.timeout_at(min(deadline, now + self._settings.max_silence_seconds)):
                    message = await receive()
            except TimeoutError:
                raise TooSlow("body", expected=self._patience(), found=f"{length} bytes by then") from None
            size = len(message.get("body", b""))
            length += size
            self._held += size
            ended = not message.get("more_body", False)
            if length > most:
                raise TooLarge("body", expected=f"at most {most} bytes", found="more")
            if self._held > BODIES_HELD * most:
                raise Busy("bodies", expected=f"at most {BODIES_HELD * most} bytes at once", found="more")
            return message

        try:
            await self._app(scope, bounded, send)
        finally:
            self._held -= length

    def _patience(self) -> str:
        settings = self._settings
        return f"some of it within {settings.max_silence_seconds} s, all within {settings.max_body_seconds} s"


def _declared(scope: Scope) -> int:
    """The length in the header; the server has refused what is no number."""
    return max((int(value) for name, value in scope["headers"] if name == b"content-length"), default=0)


async def read_body(request: Request) -> bytes:
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


def _gunzipped(body: bytes) -> Iterator[bytes]:
    """Of all members: they follow each other."""
    while body:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(body, _PIECE)
            except zlib.error as error:
                raise BadRequest("body", expected="gzip", found=str(error)) from None
            body = member.unconsumed_tail or member.unused_data
            if not piece and not body and not member.eof:
                raise BadRequest("body", expected="whole gzip", found="its beginning")
            yield piece


def _unzstd(body: bytes) -> Iterator[bytes]:
    """Of all frames: they follow each other."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    rest = memoryview(body)
    while rest:
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
