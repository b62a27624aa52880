"""One HTTP request: verified TLS, a bounded number of redirects, and credentials that reach nobody else.

Built on urllib3 alone, because nothing may happen by itself here: no decompression, no netrc, no retry, no redirect
that takes an Authorization header along.
"""

from __future__ import annotations

import logging
import os
import ssl
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.exceptions import SSLError as TLSError

from rucio_trace_daemons.readers.base import silence
from rucio_trace_daemons.storage_errors import NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.response import HTTPResponse

    from rucio_trace_daemons.readers.credentials import Credentials

__all__ = ["BROKEN", "Transport", "check_answer"]

# What a connection that breaks looks like; never shown, because their words may hold a URL.
BROKEN = (HTTPError, HTTPException, OSError)
# A server that says nothing for this long counts as down; the row comes back later.
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
# A head node sends us to a door, and that to a disk server: more than a few is a loop.
REDIRECTS = 5
_REDIRECT = frozenset({301, 302, 303, 307, 308})
GRID_CERTIFICATES = "/etc/grid-security/certificates"
_PLAIN = {"dav": "http", "davs": "https"}


class Transport:
    """Requests to one storage, from one thread; connections are kept."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._pools: dict[tuple[str | None, str | None], urllib3.PoolManager] = {}
        # It writes URLs down, signatures and all: every one at DEBUG, that of an odd answer as a warning.
        silence("urllib3.connectionpool", logging.ERROR)

    def ask(self, what: str, method: str, url: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
        """The final answer, its body unread: to be closed, or released once it is read.

        Raises:
            Refused, Unavailable: there is no answer, or one that we must not follow. That another host than the
            storage's own has no such file is none: a broken pool, a log-in page gone, is not a loss.
        """
        scheme, _, rest = url.partition("://")
        target = self.credentials.url(f"{_PLAIN.get(scheme, scheme)}://{rest}")
        home, at_home = _origin(target), True
        for _ in range(REDIRECTS + 1):
            own = self.credentials.headers(method, target) if at_home else {}
            certificate = self.credentials.certificate if at_home else None
            asked = {"Accept-Encoding": "identity", **(headers or {}), **own}
            response = self._send(what, method, target, asked, certificate)
            location = response.headers.get("Location")
            if response.status not in _REDIRECT or not location:
                return response if at_home else _elsewhere(what, response)
            response.close()
            encrypted, target = target.startswith("https:"), _followed(what, target, location)
            if not target.startswith("https:") and (encrypted or not target.startswith("http:")):
                raise Unavailable(what, "the storage redirects to a connection without TLS, which is not followed")
            at_home = at_home and _origin(target) == home
        raise Unavailable(what, f"the storage redirects more than {REDIRECTS} times")

    def _send(
        self, what: str, method: str, url: str, headers: Mapping[str, str], certificate: str | None
    ) -> HTTPResponse:
        try:
            pool = self._pool(url, certificate)
        except (ssl.SSLError, OSError):
            raise Refused(what) from None  # the proxy certificate cannot be used
        try:
            return pool.request(
                method,
                url,
                headers=dict(headers),
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
            )
        except TLSError as error:
            cause = next((a for a in error.args if isinstance(a, ssl.SSLError)), None)
            raise Unavailable(what, f"TLS failed: {cause.reason if cause else 'no reason given'}") from None
        except BROKEN as error:
            raise Unavailable(what, f"no answer over HTTP: {type(error).__name__}") from None

    def _pool(self, url: str, certificate: str | None) -> urllib3.PoolManager:
        parts = urlsplit(url)
        bypassed = parts.hostname is not None and urllib.request.proxy_bypass(parts.hostname)
        proxy = None if bypassed else urllib.request.getproxies().get(parts.scheme)
        pool = self._pools.get((certificate, proxy))
        if pool is None:
            timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
            options = {"ssl_context": _tls(certificate), "timeout": timeout, "maxsize": 2}
            pool = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
            self._pools[certificate, proxy] = pool
        return pool


def _followed(what: str, url: str, location: str) -> str:
    """Where *location*, in the answer of *url*, leads."""
    try:
        target = urljoin(url, location)
        _origin(target)
    except ValueError:
        raise Unavailable(what, "the storage redirects to what is no address") from None
    return target


def _elsewhere(what: str, response: HTTPResponse) -> HTTPResponse:
    if response.status in (404, 410):
        response.close()
        raise Unavailable(what, "the host that the storage redirects to does not have it")
    return response


def check_answer(what: str, response: HTTPResponse, *wanted: int) -> HTTPResponse:
    """The *response* if its status is one of *wanted*; otherwise it is closed.

    Raises:
        NotFound, Refused, Unavailable: by the status alone, never by a body.
    """
    if response.status in wanted:
        return response
    response.close()
    match response.status:
        case 401 | 403:
            raise Refused(what)
        case 404 | 410:
            raise NotFound(what)
        case status:
            raise Unavailable(what, f"the storage answers with HTTP {status}")


def _tls(certificate: str | None) -> ssl.SSLContext:
    """Verifying, always: by REQUESTS_CA_BUNDLE alone if that is set, else by the system's CAs and the grid's."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    if bundle:
        folder = Path(bundle).is_dir()
        context = ssl.create_default_context(cafile=None if folder else bundle, capath=bundle if folder else None)
    else:
        context = ssl.create_default_context()
        grid = os.environ.get("X509_CERT_DIR", GRID_CERTIFICATES)
        if Path(grid).is_dir():
            context.load_verify_locations(capath=grid)
    context.check_hostname = False  # urllib3 does it, and for addresses too; otherwise it cannot
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
