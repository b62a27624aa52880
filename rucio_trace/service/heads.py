"""The head of a request, its first line and its headers, bounded in bytes and in time before any route sees it.

uvicorn bounds neither where httptools parses: it would keep an endless header in memory, and a silent client for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rucio_trace.service.problems import HeadTooLarge, NotHttp, Problem, TooSlow, answer

if TYPE_CHECKING:
    import asyncio

__all__ = ["MAX_HEAD_BYTES", "BoundedHeads"]

MAX_HEAD_BYTES: Final = 64 * 1024
_LINGER_SECONDS: Final = 1  # closed at once, with something unread, a connection takes the answer with it


class BoundedHeads(HttpToolsProtocol):
    """One connection. What follows a body of unknown length, its trailers, counts as a head does."""

    def __init__(self, *arguments: Any, seconds: int, **named: Any) -> None:
        """A head may take so many *seconds*."""
        super().__init__(*arguments, **named)
        self._seconds = seconds
        self._head = 0  # bytes since a head ended or a body went on
        self._patience: asyncio.TimerHandle | None = None
        self._over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._patience = self.loop.call_later(self._seconds, self._expired)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._be_patient()

    def data_received(self, data: bytes) -> None:
        while data and not self._over:
            room = MAX_HEAD_BYTES + 1 - self._head
            part, data = data[:room], data[room:]
            self._head += len(part)
            super().data_received(part)
            if self._head > MAX_HEAD_BYTES:
                expected = f"a request line and headers of at most {MAX_HEAD_BYTES} bytes"
                self._end(HeadTooLarge("head", expected=expected, found="more"))
        if self._patience is None and not self._busy():
            self._patience = self.loop.call_later(
                self._seconds if self._head else self.timeout_keep_alive, self._expired
            )

    def on_headers_complete(self) -> None:
        self._be_patient()
        self._head = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._end(NotHttp("request", expected="HTTP/1.1", found="something else"))

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _expired(self) -> None:
        self._patience = None
        if self._head:
            self._end(TooSlow("head", expected=f"all of it within {self._seconds} s", found=f"{self._head} bytes"))
        else:
            self.transport.close()

    def _end(self, error: Problem) -> None:
        """Say why, unless another answer may be under way, and close."""
        if self._over:
            return
        self._over = True
        if self.pipeline:  # the next answer is to another request
            self.transport.close()
            return
        if self._busy():
            if self.cycle.response_started or not self.cycle.more_body:
                self.transport.close()
                return
            self.cycle.disconnected = True  # so that no second answer follows
            self.cycle.message_event.set()
        self.flow.pause_reading()
        told = answer(error)
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *told.raw_headers)]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", told.body]))
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)
