"""The clients: what runs the scripts of `talk` over HTTP, one that waits and one that is awaited. The edge."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import httpx
from isal import igzip

from rucio_trace import __version__
from rucio_trace.client.asking import MAX_ANSWER_BYTES, Answer, Pause, Request, Script, Unreached, check_url, is_here
from rucio_trace.client.errors import BadToken
from rucio_trace.client.spool import Spool, registering
from rucio_trace.client.talk import Search, Talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from rucio_trace.client.talk import Changes, Histories, Known
    from rucio_trace.envelope import Trace
    from rucio_trace.lineage import Lineage
    from rucio_trace.statement import ProductKey
    from rucio_trace.store.records import Registration, Stored

__all__ = ["AsyncClient", "Client"]

PATIENCE_SECONDS: Final = 60.0
"""A service that is started anew is there again by then; who can come back later waits less."""

CONNECT_SECONDS: Final = 10.0
MAX_SECONDS: Final = 600.0  # for one answer, however slowly it comes
_TOKEN: Final = re.compile("[!-~]+")
_COMPRESSION: Final = 1  # of 0 to 3: 400 MB/s, and the certificates that every trace repeats are gone
_UNPACKED_BYTES: Final = 16 * 1024  # what a service reads at once, without a thread of its own

T = TypeVar("T")


class _Base(ABC):
    """What both clients are made from."""

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str] | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        spool: Path | Spool | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """For the service at *url*; *token* is sent with every question, and shown nowhere. A function that
        gives it is called again when the service refuses it: it may have been replaced.

        What is busy or away is asked again for up to *patience* seconds; after that once for each question, until it
        answers one. With *spool*, a folder, what `register` could not deliver is kept there and delivered before
        anything else the next time. *tls* is for authorities that the system does not know; by default they are the
        system's, or those of SSL_CERT_FILE.

        Raises:
            BadServiceUrl: no such URL, or a token would travel in the open.
            BadToken: a header cannot hold it.
        """
        self.url: Final = check_url(url, secret=token is not None)
        self._talk = Talk(self.url, patience)
        self._spool = spool if isinstance(spool, Spool | None) else Spool(spool, self.url)
        self._token = token
        self._authorization = self._authorize()
        headers = {"User-Agent": f"rucio-trace/{__version__}", "Accept-Encoding": "gzip"}
        # No redirection is followed, and no proxy is asked for this machine: a token is for this service alone.
        options = {"follow_redirects": False, "trust_env": not is_here(self.url)}
        self._connect(headers=headers, verify=tls or ssl.create_default_context(), **options)

    @abstractmethod
    def _connect(self, **options: Any) -> None: ...

    @property
    def spool(self) -> Spool | None:
        """Where traces wait that could not be delivered."""
        return self._spool

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _authorize(self) -> dict[str, str]:
        """The header with the token, which is read anew where it may change.

        Raises:
            BadToken: a header cannot hold it.
        """
        token = self._token() if callable(self._token) else self._token
        if token is None:
            return {}
        if not _TOKEN.fullmatch(token):  # which a library would tell, token and all
            raise BadToken(self.url)
        return {"Authorization": f"Bearer {token}"}

    def _has_other(self, sent: dict[str, Any], answer: Answer | Unreached) -> bool:
        """Whether the token of *sent* was refused, and there is another one by now, which it bears then."""
        if not callable(self._token) or isinstance(answer, Unreached) or answer.status != 401:
            return False
        before, self._authorization = sent["headers"], self._authorize()
        sent["headers"] = before | self._authorization
        return bool(sent["headers"] != before)

    def _sent(self, request: Request) -> dict[str, Any]:
        """*request* for httpx."""
        headers = dict(self._authorization)
        content = request.body
        if content is not None:
            headers |= {"Content-Type": "application/json"}
            if len(content) > _UNPACKED_BYTES:
                headers |= {"Content-Encoding": "gzip"}
                content = igzip.compress(content, _COMPRESSION)
        return {
            "method": request.method,
            "url": self.url + request.path,
            "params": request.query,
            "content": content,
            "headers": headers,
            "timeout": httpx.Timeout(request.seconds, connect=CONNECT_SECONDS),
        }


class Client(_Base):
    """Asks a trace service, and waits for its answers. A context manager; many threads may use one.

    Besides what each method says it raises: ServiceUnavailable, where there is no answer; Denied, where another token
    is wanted; Unreadable and NotTaken with the reason that the service gives; BadAnswer. All are `TraceabilityError`.
    """

    def _connect(self, **options: Any) -> None:
        self._http = httpx.Client(**options)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def run(self, script: Script[T]) -> T:
        """What *script* returns."""
        with closing(script):
            try:
                step = next(script)
                while True:
                    if isinstance(step, Pause):
                        time.sleep(step.seconds)
                        step = script.send(None)
                    else:
                        sent = self._sent(step)
                        answer = self._answer(sent)
                        step = script.send(self._answer(sent) if self._has_other(sent, answer) else answer)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]

    def _answer(self, sent: Mapping[str, Any]) -> Answer | Unreached:
        try:
            with self._http.stream(**sent) as response:
                body = _Body()
                for piece in response.iter_bytes():
                    body.add(piece)
                return body.answer(response)
        except (httpx.HTTPError, _TooLong) as error:
            return _unreached(error)

    def register(
        self,
        traces: Iterable[Trace],
        *,
        scopes: Mapping[str, str] | None = None,
        lists: Mapping[str, bytes] | None = None,
    ) -> list[Registration]:
        """Register any number of traces; one answer each, in their order. Repeating is safe.

        *scopes* and *lists* are those of `Store.register`. With a spool, an answer may be `kept_in` it.

        Raises:
            SpoolFull: the service is away, and the spool holds no more.
        """
        return self.run(registering(self._talk, self._spool, traces, scopes, lists))

    def deliver(self) -> int:
        """Hand in what waits in the spool; returns how many traces are still waiting.

        Raises:
            ServiceUnavailable: the service is away; all that waited still does.
        """
        return 0 if self._spool is None else self.run(self._spool.delivering(self._talk))

    def get(self, trace_id: str) -> Stored | None:
        """The trace with this id, if there is one that may be seen."""
        return self.run(self._talk.one(trace_id))

    def search(self, *, limit: int | None = None, **filters: Any) -> Iterator[Stored]:
        """The newest traces that fulfil everything given, the newest first, as they are asked for, page by page.

        Filters: `name`, `prefix` (of a name, or of `scope:name`), `did`, `text`, `digest`, `content`, `rse`, `site`,
        `event`, `status`, `since`, `until` (aware datetimes), `attribute` (`"KEY:VALUE"`, or several).
        """
        search = Search(self._talk, filters, limit)
        while not search.ended:
            yield from self.run(search.page())

    def find(self, kind: str, values: Collection[str], *, limit: int | None = None) -> list[Stored]:
        """The traces with these `ids`, `names` (base names), `dids`, `digests` or `contents`, oldest first."""
        return self.run(self._talk.query(kind, values, limit))

    def history(self, did: str) -> list[Known]:
        """All that is known of the products that bear or bore the name *did*, one for each generation."""
        return self.run(self._talk.history(did))

    def products(self, keys: Collection[ProductKey], *, traces: bool = True, lines: bool = True) -> Histories:
        """The traces and lines of each of *keys*, and what was said of files in no Rucio that may have joined them."""
        return self.run(self._talk.products(keys, traces=traces, lines=lines))

    def evidence(
        self,
        hashes: Mapping[str, str],
        names: Collection[str],
        did: str | None = None,
        *,
        product_digest: str | None = None,
    ) -> list[Stored]:
        """All that `verify.judge` needs to judge a file; see `Store.candidates`."""
        return self.run(self._talk.evidence(hashes, names, did, product_digest))

    def verdicts(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The service's verdict on each of *items*: mappings with `digest`, `name` or `did`.

        They rest on whom the service trusts, and on its word; `evidence` and `verify.judge` rest on nobody's.
        """
        return self.run(self._talk.verdicts(items))

    def lineage(
        self, digests: Collection[str] = (), did: str | None = None, *, up: bool = True, depth: int | None = None
    ) -> Lineage | None:
        """What a product was made from, or what was made from it, as the service has put it together."""
        return self.run(self._talk.lineage(digests, did, up=up, depth=depth))

    def list_of(self, trace_id: str) -> bytes | None:
        """The list of a batch, not yet checked: `batch.check_list` holds it against what was signed."""
        return self.run(self._talk.list_of(trace_id))

    def changes(self, after: int = 0, *, limit: int = 1_000, wait: float = 0.0, products: bool = False) -> Changes:
        """The traces that follow position *after*; waits up to *wait* seconds (at most 60) for there to be one.

        With *products* only those that speak of whole products.
        """
        return self.run(self._talk.changes(after, limit, wait, products=products))

    def statistics(self) -> dict[str, Any]:
        """How much the service holds."""
        return self.run(self._talk.statistics())

    def ready(self) -> bool:
        """Whether the service says that it is ready."""
        return self.run(self._talk.ready())


class AsyncClient(_Base):
    """`Client` for those who await: the same questions, the same answers, the same errors.

    Only the spool, if there is one, is written without giving way.
    """

    def _connect(self, **options: Any) -> None:
        self._http = httpx.AsyncClient(**options)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def run(self, script: Script[T]) -> T:
        """What *script* returns."""
        with closing(script):
            try:
                step = next(script)
                while True:
                    if isinstance(step, Pause):
                        await asyncio.sleep(step.seconds)
                        step = script.send(None)
                    else:
                        sent = self._sent(step)
                        answer = await self._answer(sent)
                        step = script.send(await self._answer(sent) if self._has_other(sent, answer) else answer)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]

    async def _answer(self, sent: Mapping[str, Any]) -> Answer | Unreached:
        try:
            async with self._http.stream(**sent) as response:
                body = _Body()
                async for piece in response.aiter_bytes():
                    body.add(piece)
                return body.answer(response)
        except (httpx.HTTPError, _TooLong) as error:
            return _unreached(error)

    async def register(
        self,
        traces: Iterable[Trace],
        *,
        scopes: Mapping[str, str] | None = None,
        lists: Mapping[str, bytes] | None = None,
    ) -> list[Registration]:
        """See `Client.register`."""
        return await self.run(registering(self._talk, self._spool, traces, scopes, lists))

    async def deliver(self) -> int:
        """See `Client.deliver`."""
        return 0 if self._spool is None else await self.run(self._spool.delivering(self._talk))

    async def get(self, trace_id: str) -> Stored | None:
        """See `Client.get`."""
        return await self.run(self._talk.one(trace_id))

    async def search(self, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Stored]:
        """See `Client.search`."""
        search = Search(self._talk, filters, limit)
        while not search.ended:
            for stored in await self.run(search.page()):
                yield stored

    async def find(self, kind: str, values: Collection[str], *, limit: int | None = None) -> list[Stored]:
        """See `Client.find`."""
        return await self.run(self._talk.query(kind, values, limit))

    async def history(self, did: str) -> list[Known]:
        """See `Client.history`."""
        return await self.run(self._talk.history(did))

    async def products(self, keys: Collection[ProductKey], *, traces: bool = True, lines: bool = True) -> Histories:
        """See `Client.products`."""
        return await self.run(self._talk.products(keys, traces=traces, lines=lines))

    async def evidence(
        self,
        hashes: Mapping[str, str],
        names: Collection[str],
        did: str | None = None,
        *,
        product_digest: str | None = None,
    ) -> list[Stored]:
        """See `Client.evidence`."""
        return await self.run(self._talk.evidence(hashes, names, did, product_digest))

    async def verdicts(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Client.verdicts`."""
        return await self.run(self._talk.verdicts(items))

    async def lineage(
        self, digests: Collection[str] = (), did: str | None = None, *, up: bool = True, depth: int | None = None
    ) -> Lineage | None:
        """See `Client.lineage`."""
        return await self.run(self._talk.lineage(digests, did, up=up, depth=depth))

    async def list_of(self, trace_id: str) -> bytes | None:
        """See `Client.list_of`."""
        return await self.run(self._talk.list_of(trace_id))

    async def changes(
        self, after: int = 0, *, limit: int = 1_000, wait: float = 0.0, products: bool = False
    ) -> Changes:
        """See `Client.changes`."""
        return await self.run(self._talk.changes(after, limit, wait, products=products))

    async def statistics(self) -> dict[str, Any]:
        """See `Client.statistics`."""
        return await self.run(self._talk.statistics())

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self.run(self._talk.ready())


class _TooLong(Exception):
    """An answer that takes more memory or time than any is given."""


class _Body:
    """An answer's body as it comes, bounded."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self._until = time.monotonic() + MAX_SECONDS

    def add(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._length += len(piece)
        if self._length > MAX_ANSWER_BYTES:
            raise _TooLong(f"more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > self._until:
            raise _TooLong(f"no end of its answer within {MAX_SECONDS:g} s")

    def answer(self, response: httpx.Response) -> Answer:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, b"".join(self._parts))


def _unreached(error: Exception) -> Unreached:
    """Why there is no answer, without what was sent."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return Unreached(f"a certificate that is not trusted: {cause.verify_message}", final=True)
    return Unreached(str(error) or type(error).__name__, final=isinstance(error, _TooLong))
