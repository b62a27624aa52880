"""Files over HTTP: WebDAV storage, signed URLs and, with every request signed, S3.

A connection that breaks is taken up where it broke only if the server proves that the rest is of the same file: by
its strong ETag, or by an unchanged Last-Modified and size. Anything else is an error, and the row waits: no digest is
ever made of two different files, or of what a server made of a file on the way.
"""

from __future__ import annotations

import base64
import time
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from rucio_trace_daemons.readers.base import StorageDigest
from rucio_trace_daemons.readers.credentials import Presigned
from rucio_trace_daemons.readers.transport import BROKEN, Transport, check_answer
from rucio_trace_daemons.storage_errors import Changed, NotFound, ShortRead, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from urllib3.response import HTTPResponse

    from rucio_trace_daemons.readers.credentials import Credentials
    from rucio_trace_daemons.streams import Pieces

__all__ = ["SCHEMES", "HttpReader"]

SCHEMES = frozenset({"https", "davs", "http", "dav"})

# Measured: larger pieces fall out of the processor's cache before they are hashed.
PIECE = 1 << 18
# A link that breaks more often than this within one file is better tried again later.
RESUMES = 10
# What is sent with status 200 where somebody should log in, or should know that a server is down.
PAGES = frozenset({"text/html", "application/xhtml+xml"})
# Our names of the strong digests that RFC 9530 has names for.
REPR_DIGESTS = {"SHA256": "sha-256", "SHA512": "sha-512"}


class HttpReader:
    """Reads files from one storage; `encodings_are_stored` if Content-Encoding only repeats what was uploaded."""

    encodings_are_stored = False

    def __init__(self, credentials: Credentials) -> None:
        self.transport = Transport(credentials)

    @contextmanager
    def pieces(self, what: str, url: str, size: int | None = None) -> Iterator[Pieces]:
        body = _Body(self.transport, what, self.private_url(url), size, encoded=self.encodings_are_stored)
        try:
            yield body.pieces()
        finally:
            body.close()

    def exists(self, what: str, url: str) -> bool:
        url = self.private_url(url)
        try:
            if not isinstance(self.transport.credentials, Presigned):
                response = self.transport.ask(what, "HEAD", url)
                if response.status not in (405, 501):
                    check_answer(what, response, 200).close()
                    if _kind(response) in PAGES and not url.endswith((".html", ".htm", ".xhtml")):
                        raise Unavailable(what, "the storage sends a web page")
                    return True
                response.close()
            # The signature is good for GET alone. An empty file has no first byte (416), but it is there.
            response = self.transport.ask(what, "GET", url, {"Range": "bytes=0-0"})
            check_answer(what, response, 200, 206, 416).close()
        except NotFound:
            return False
        return True

    def check_folder(self, what: str, url: str) -> bool:
        if isinstance(self.transport.credentials, Presigned):
            return False
        folder = self.private_url(url).rstrip("/") + "/"
        response = self.transport.ask(what, "PROPFIND", folder, {"Depth": "0"})
        if response.status in (207, 401, 404, 410):
            check_answer(what, response, 207).close()
            return True
        response.close()
        # No WebDAV, or not all of it: many servers then show no folder to anybody, which says nothing.
        response = self.transport.ask(what, "HEAD", folder)
        response.close()
        if response.status in (401, 404, 410):
            check_answer(what, response)
        return response.status == 200

    def digest(self, what: str, url: str, algorithms: Sequence[str]) -> StorageDigest | None:
        """The `Repr-Digest` of RFC 9530, else the `Digest` of RFC 3230, of a file that is sent as it is stored."""
        names = [name for name in algorithms if name in REPR_DIGESTS]
        if not names or isinstance(self.transport.credentials, Presigned):  # the signature is good for GET alone
            return None
        wanted = ", ".join(f"{REPR_DIGESTS[name]}={10 - place}" for place, name in enumerate(names))
        older = ", ".join(f"{REPR_DIGESTS[name]};q={1 - place / 10:g}" for place, name in enumerate(names))
        asked = {"Want-Repr-Digest": wanted, "Want-Digest": older, "Cache-Control": "no-cache"}
        response = self.transport.ask(what, "HEAD", self.private_url(url), asked)
        response.close()
        if response.status in (401, 403, 404, 410):
            check_answer(what, response)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if response.status != 200 or encoding not in ("identity", ""):
            return None
        for header, quote in (("Repr-Digest", ":"), ("Digest", "")):
            answers = _digests(response.headers.get(header, ""), quote)
            for name in names:
                if value := answers.get(REPR_DIGESTS[name]):
                    return StorageDigest(name, value, "Age" not in response.headers, header)
        return None

    def private_url(self, url: str) -> str:
        """Where a file that Rucio calls *url* is asked for."""
        return url


class _Body:
    """The body of one file, over as many connections as it takes."""

    def __init__(self, transport: Transport, what: str, url: str, size: int | None, *, encoded: bool) -> None:
        self._transport, self._what, self._url, self._encoded = transport, what, url, encoded
        self._taken = self._resumes = 0
        self._response = check_answer(what, transport.ask(what, "GET", url), 200)
        try:
            self._check_encoding()
            self._promised = self._length()
            # Without a length, only Rucio's can tell the end of the file from the end of a server's patience.
            self._size = size if self._promised is None else self._promised
            if self._size is None:
                raise Unavailable(what, "the storage promises no length, and Rucio knows none")
            self._check_page(size)
            self._validator = _validator(self._response)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        self._response.close()

    def pieces(self) -> Pieces:
        while True:
            try:
                piece = self._some()
            except BROKEN:
                self._resume()
                continue
            if piece:
                self._taken += len(piece)
                if self._taken > (self._size or 0):
                    raise ShortRead(self._what, self._size, self._taken)
                yield piece
            elif self._taken == self._size:
                self._response.drain_conn()
                self._response.release_conn()
                return
            elif self._promised is None:
                raise ShortRead(self._what, self._size, self._taken)
            else:
                self._resume()

    def _some(self) -> bytes:
        """The next bytes, at most `PIECE`: what came within a second, so that nobody waits unheard on a slow line."""
        parts: list[bytes] = []
        size, until = 0, time.monotonic() + 1.0
        while size < PIECE and time.monotonic() < until:
            # urllib3 1.26 waits until all that is asked for is there; its own file, http.client's, need not.
            part = self._response._fp.read1(PIECE - size)  # type: ignore[union-attr]
            if not part:
                break
            parts.append(part)
            size += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _resume(self) -> None:
        """Go on at the byte that was reached, if the server proves that this is the same file still."""
        self._response.close()
        if self._promised is None or self._validator is None or self._resumes == RESUMES:
            raise ShortRead(self._what, self._size, self._taken)
        if self._taken == self._size:
            return
        self._resumes += 1
        name, value = self._validator
        # S3 knows If-Match and ignores If-Range; where both are known they agree.
        condition = {"If-Range": value} | ({"If-Match": value} if name == "ETag" else {})
        ranged = {"Range": f"bytes={self._taken}-", **condition}
        response = self._response = self._transport.ask(self._what, "GET", self._url, ranged)
        if response.status in (404, 410, 412, 416):
            raise Changed(self._what)
        check_answer(self._what, response, 200, 206)
        self._check_encoding()
        if response.headers.get(name) != value:
            raise Changed(self._what)
        if response.status == 200:  # all of it again: the server knows no ranges
            raise ShortRead(self._what, self._size, self._taken)
        expected = f"bytes {self._taken}-{self._size - 1}/{self._size}"
        if response.headers.get("Content-Range", "").strip().lower() != expected:
            raise Changed(self._what)

    def _check_encoding(self) -> None:
        headers = self._response.headers
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "") and not self._encoded:
            raise Unavailable(self._what, f"the storage sends it {encoding[:20]}-encoded, not as it is stored")
        transfer = headers.get("Transfer-Encoding", "chunked").strip().lower()
        if transfer != "chunked":
            raise Unavailable(self._what, f"the storage sends it with Transfer-Encoding {transfer[:20]}")

    def _check_page(self, size: int | None) -> None:
        """A page to log in, a proxy's apology, of another size than Rucio's, is no answer about the file."""
        if _kind(self._response) in PAGES and self._size != size:
            raise Unavailable(self._what, f"the storage sends a web page of {self._size} bytes")

    def _length(self) -> int | None:
        headers = self._response.headers
        length = headers.get("Content-Length")
        if length is None:
            return None
        if "Transfer-Encoding" in headers or not (length.isascii() and length.isdecimal() and len(length) < 20):
            raise Unavailable(self._what, "the storage contradicts itself about the length")
        return int(length)


def _kind(response: HTTPResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _digests(header: str, quote: str) -> dict[str, str]:
    """The digests of *header*, base64 within *quote*, in hex by their lower-case names; what is none is left out."""
    found: dict[str, str] = {}
    for member in header.split(","):
        name, _, value = member.strip().partition("=")
        with suppress(ValueError):
            if value.startswith(quote) and value.endswith(quote):
                found[name.lower()] = base64.b64decode(value.strip(quote), validate=True).hex()
    return found


def _validator(response: HTTPResponse) -> tuple[str, str] | None:
    """The header by which the file can be recognised, and its value."""
    etag, modified, date = (response.headers.get(name) for name in ("ETag", "Last-Modified", "Date"))
    if etag and etag.startswith('"'):  # W/"…" promises only that it means the same
        return "ETag", etag
    try:
        # Within the second of its change a file can change again and keep its date (RFC 9110, 8.8.2.2).
        if modified and date and (parsedate_to_datetime(date) - parsedate_to_datetime(modified)).total_seconds() >= 1:
            return "Last-Modified", modified
    except (TypeError, ValueError):
        pass
    return None
