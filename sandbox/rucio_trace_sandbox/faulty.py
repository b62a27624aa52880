"""A web server that does what it is told, also what no server should."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .tls import LoopbackTls

__all__ = ["FaultyHttp", "Request"]

_MODIFIED = 1_700_000_000  # any time long ago


class Request(BaseHTTPRequestHandler):
    """One request, with the answers a test may give to it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class names it
        pass

    def handle_any(self) -> None:
        owner = self.server.owner
        with owner.lock:
            owner.seen.append((self.command, self.path, dict(self.headers.items())))
            behave = owner.answers.pop(0) if owner.answers else None
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            if behave is not None:
                behave(self)
            else:
                self.serve()

    do_GET = do_HEAD = do_PROPFIND = handle_any  # noqa: N815 the base class looks for these

    def serve(self, *, cut: int | None = None, length: int | None = None, **headers: str) -> None:
        """Answer as a good server would, but promise *length* bytes, close after *cut*, and say *headers* too.

        A header whose value is empty is left out; `_` in its name stands for `-`.
        """
        content, owner = self.server.owner.content, self.server.owner
        start, status = 0, 200
        sent = {"ETag": owner.etag, "Last-Modified": formatdate(_MODIFIED, usegmt=True)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if asked and condition in (None, owner.etag, sent["Last-Modified"]):
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            status, sent["Content-Range"] = 206, f"bytes {start}-{end}/{len(content)}"
            content = content[: end + 1]
        body = content[start:]
        sent["Content-Length"] = str(len(body) if length is None else length)
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer(status, {name: value for name, value in sent.items() if value}, body[:cut])
        if cut is not None:
            self.hang_up()

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    def fail(self, status: int) -> None:
        self.answer(status, {"Content-Length": "0"})

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class FaultyHttp:
    """A running server of one file, `content`, at every path.

    `answers` are given in turn, one a request; when there are none left it behaves. `seen` is what it was asked.
    """

    def __init__(self, tls: LoopbackTls | None) -> None:
        self.content, self.etag = b"", '"1"'
        self.answers: list[Callable[[Request], None]] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.Lock()
        self.http = _Server(("127.0.0.1", 0), self)
        self.port, self.scheme = self.http.server_port, "http" if tls is None else "https"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)

    @classmethod
    @contextlib.contextmanager
    def start(cls, tls: LoopbackTls | None = None) -> Iterator[FaultyHttp]:
        faulty = cls(tls)
        serve = threading.Thread(target=faulty.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        serve.start()
        try:
            yield faulty
        finally:
            faulty.http.shutdown()
            faulty.http.server_close()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/file"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], owner: FaultyHttp) -> None:
        self.owner = owner
        super().__init__(address, Request)

    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away is what these tests are about
