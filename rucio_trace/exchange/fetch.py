"""Traces from an http(s) address, as a stream of bytes: the edge.

Nothing is sent but the question: no credentials, no cookies, so none can follow a redirect to another host. A server
cannot make us wait or write for ever, go back from TLS, or hand over a part as the whole.
"""

from __future__ import annotations

import http.client
import queue
import ssl
import threading
import time
import urllib.request
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from rucio_trace import __version__
from rucio_trace.errors import ConfigurationError, Undecided

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message
    from typing import IO

__all__ = ["MAX_FETCHED_BYTES", "NotFetched", "fetch", "is_address"]

MAX_FETCHED_BYTES: Final = 1 << 30  # some 400,000 traces of products; more comes as files
MAX_SECONDS: Final = 600  # for all of them, at no less than 2 MB/s
SILENCE_SECONDS: Final = 30
MAX_REDIRECTIONS: Final = 5
_PIECE: Final = 256 * 1024
_AHEAD: Final = 8  # pieces


class NotFetched(Undecided):
    """The traces could not be had; nothing is known about them. The address is told without its query."""

    def __init__(self, url: str, expected: str, found: str) -> None:
        super().__init__(_shown(url), expected=expected, found=found)


def is_address(text: str) -> bool:
    """Whether *text* is to be fetched, rather than the name of a file."""
    return text.lower().startswith(("http://", "https://"))


def fetch(url: str, *, most: int = MAX_FETCHED_BYTES, seconds: float = MAX_SECONDS) -> Iterator[bytes]:
    """The body of the answer, piece by piece.

    Proxies are those of the environment, authorities those of the system, or of SSL_CERT_FILE.

    Raises:
        ConfigurationError: an address that we do not ask.
        NotFetched: no answer, an error, or not the whole answer; the pieces given before are no whole either.
    """
    _check(url)
    until = time.monotonic() + seconds
    arriving: queue.Queue[bytes | Exception | None] = queue.Queue(_AHEAD)
    left = threading.Event()
    # In a thread of its own, for a server can keep one waiting in places where nothing looks at a clock.
    threading.Thread(target=_work, args=(url, most, arriving, left), name="fetch", daemon=True).start()
    length = 0
    try:
        while True:
            try:
                item = arriving.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise NotFetched(url, "an answer in time", f"{length} bytes so far") from None
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            length += len(item)
            yield item
    finally:
        left.set()


def _work(url: str, most: int, arriving: queue.Queue[bytes | Exception | None], left: threading.Event) -> None:
    """Put the pieces of the answer into *arriving*, then None or what went wrong, until its reader has *left*."""

    def give(item: bytes | Exception | None) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                arriving.put(item, timeout=1.0)
                return

    try:
        for piece in _answer(url, most):
            give(piece)
            if left.is_set():
                return
        give(None)
    except Exception as error:  # noqa: BLE001 - raised in the thread that waits
        give(error)


def _answer(url: str, most: int) -> Iterator[bytes]:
    try:
        with closing(_opener().open(_request(url), timeout=SILENCE_SECONDS)) as response:
            yield from _body(url, response, most)
    except urllib.request.HTTPError as error:
        error.close()
        raise NotFetched(url, "an answer", f"{error.code} {error.reason}") from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NotFetched(url, "an answer", str(reason) or type(error).__name__) from error


def _body(url: str, response: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise NotFetched(url, "an answer as it is", f"one encoded as {encoding}")
    announced = response.headers.get("Content-Length")
    length = 0
    while piece := response.read1(_PIECE):
        length += len(piece)
        if length > most:
            raise NotFetched(url, f"at most {most} bytes", "more")
        yield piece
    if announced is not None and announced != str(length):
        raise NotFetched(url, f"{announced} bytes", f"{length}, then the end")


def _request(url: str) -> urllib.request.Request:
    headers = {"Accept": "application/json", "User-Agent": f"rucio-trace/{__version__}"}
    return urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme has been checked


class _Redirections(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTIONS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request:
        """A new question, which takes nothing along from the old one."""
        fp.close()  # our caller would read what comes with a redirection, however much it is
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise NotFetched(req.full_url, "an answer over TLS", f"a redirection to {_shown(newurl)}")
        try:
            _check(newurl)
        except ConfigurationError as error:  # the server's fault, which ends this question alone
            raise NotFetched(req.full_url, error.expected, f"a redirection to {_shown(newurl)}") from None
        return _request(newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Speaks HTTP and HTTPS alone: the usual one would read files and FTP too."""
    opener = urllib.request.OpenerDirector()
    handlers = (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
        _Redirections(),
    )
    for handler in handlers:
        opener.add_handler(handler)
    return opener


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(_shown(url), expected="http(s)://host/path without a user", found="another address")


def _shown(url: str) -> str:
    """Where from, without what may be secret: a user, a query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
