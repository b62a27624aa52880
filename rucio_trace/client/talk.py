"""Everything a trace service can be asked, as scripts: requests out, values in (docs/service.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from rucio_trace.client.asking import Answer, Request, Script, ask, check, is_problem, read
from rucio_trace.client.errors import ServiceUnavailable, TooLarge
from rucio_trace.client.records import (
    item_to_json,
    key_of,
    key_to_json,
    line_of,
    lineage_of,
    record_of,
    records_of,
    registration_of,
    typed,
)
from rucio_trace.errors import Malformed
from rucio_trace.statement import format_time
from rucio_trace.store.records import Outcome, Registration

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from rucio_trace.envelope import Trace
    from rucio_trace.lineage import Lineage
    from rucio_trace.statement import ProductKey
    from rucio_trace.store.records import BatchLine, Stored

__all__ = ["Changes", "Histories", "Item", "Known", "Search", "Talk", "items", "portions"]

API: Final = "/api/v2"
TRACES_A_REQUEST: Final = 10_000  # the service takes no more
BODY_BYTES: Final = 32 * 1024**2  # half of what a service takes unless it is told otherwise
PAGE_TRACES: Final = 1_000
KEYS_A_REQUEST: Final = 200  # products, whose histories come back whole; digests, names, DIDs
VERDICTS_A_REQUEST: Final = 10_000

T = TypeVar("T")


@dataclass(slots=True)
class Search:
    """A search that goes on from page to page until it is `ended`. `left`: at most so many more."""

    talk: Talk
    filters: Mapping[str, Any]
    left: int | None = None
    cursor: str | None = None
    ended: bool = False

    def page(self) -> Script[list[Stored]]:
        """The traces that follow."""
        limit = PAGE_TRACES if self.left is None else min(self.left, PAGE_TRACES)
        query = _query({**self.filters, "limit": limit, "cursor": self.cursor})
        found, self.cursor = yield from self.talk.get("traces", query, _searched)
        if self.left is not None:
            self.left -= len(found)
        self.ended = self.cursor is None or self.left == 0
        return found


@dataclass(frozen=True, slots=True)
class Changes:
    """The traces that follow a position, and the position to ask for next."""

    traces: Sequence[Stored]
    position: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the service knows of one product: traces in the order of positions, and lines of batches.

    `status` and `replicas` ("<good>/<all>") are the service's opinion, by whom it trusts.
    """

    product: ProductKey
    traces: Sequence[Stored]
    lines: Sequence[BatchLine]
    status: str = ""
    replicas: str = ""


@dataclass(frozen=True, slots=True)
class Histories:
    """Each product's own traces and lines; `strangers` are of files in no Rucio, and may have joined one of them."""

    products: Mapping[ProductKey, Known]
    strangers: Sequence[Stored]


@dataclass(frozen=True, slots=True)
class Talk:
    """Scripts for one service at *url*. Each may raise what `asking.ask` and `asking.read` do."""

    url: str
    patience: float
    away: Event = field(default_factory=Event, compare=False)
    """Patience has ended once: nobody who asks a thousand questions waits for each of them."""

    # ------------------------------------------------------------------------------ writing

    def register(self, some: Sequence[Item]) -> Script[list[Registration]]:
        """Hand in one of `portions`, in parts if the service wants them smaller; one answer each, in their order.

        What is too large alone is refused, and costs no other.
        """

        def parse(value: Any) -> list[Registration]:
            return [registration_of(result) for result in _each(value, "results", len(some))]

        try:
            return (yield from self._post("traces", b"[" + b",".join(item.text for item in some) + b"]", parse))
        except TooLarge as error:
            if len(some) == 1:
                return [Registration(some[0].id, None, Outcome.REFUSED, str(error))]
            half = len(some) // 2
            return [*(yield from self.register(some[:half])), *(yield from self.register(some[half:]))]

    # ------------------------------------------------------------------------------ reading

    def one(self, trace_id: str) -> Script[Stored | None]:
        return self._get_one(f"traces/{_part(trace_id)}", record_of)

    def query(self, kind: str, values: Collection[str], limit: int | None = None) -> Script[list[Stored]]:
        """Traces by `ids`, `names`, `dids`, `digests` or `contents`, oldest first; all, or the first *limit*."""
        found: dict[int, Stored] = {}
        for some in _portioned(sorted(values), KEYS_A_REQUEST):
            after: int | None = 0
            while after is not None and (limit is None or len(found) < limit):
                body = {kind: some, "after": after, "limit": PAGE_TRACES}
                page, after = yield from self._post("traces/query", _json(body), _page)
                found |= {stored.position: stored for stored in page}
        return [found[position] for position in sorted(found)][:limit]

    def history(self, did: str) -> Script[list[Known]]:
        return self.get("history", [("did", did)], lambda value: [_known(each) for each in value["products"]])

    def products(self, keys: Collection[ProductKey], *, traces: bool = True, lines: bool = True) -> Script[Histories]:
        """What is known of each of *keys*, or its *traces* or *lines* alone; nothing at all is an empty history."""
        found: dict[ProductKey, Known] = {}
        strangers: dict[int, Stored] = {}
        for some in _portioned(sorted(set(keys)), KEYS_A_REQUEST):
            body = _json({"products": [key_to_json(key) for key in some], "traces": traces, "lines": lines})
            answered = yield from self._post("products", body, _histories)
            found |= answered.products
            strangers |= {stored.position: stored for stored in answered.strangers}
        whole = {key: found.get(key, Known(key, (), ())) for key in keys}
        return Histories(whole, [strangers[position] for position in sorted(strangers)])

    def evidence(
        self, hashes: Mapping[str, str], names: Collection[str], did: str | None, product_digest: str | None
    ) -> Script[list[Stored]]:
        asked: dict[str, Any] = {"hashes": dict(hashes), "names": list(names)}
        asked |= {key: value for key, value in (("did", did), ("product_digest", product_digest)) if value is not None}
        return self._post("evidence", _json(asked), lambda value: records_of(value["traces"]))

    def verdicts(self, items: Sequence[Mapping[str, Any]]) -> Script[list[dict[str, Any]]]:
        told: list[dict[str, Any]] = []
        for some in _portioned(items, VERDICTS_A_REQUEST):
            told += yield from self._post("verdicts", _json({"items": some}), partial(_verdicts, count=len(some)))
        return told

    def lineage(
        self, digests: Collection[str], did: str | None, *, up: bool, depth: int | None
    ) -> Script[Lineage | None]:
        query = [("digest", digest) for digest in sorted(digests)]
        query += _query({"did": did, "direction": "up" if up else "down", "depth": depth})
        return self._get_one("lineage", lineage_of, query)

    def list_of(self, trace_id: str) -> Script[bytes | None]:
        request = Request("GET", f"{API}/lists/{_part(trace_id)}")
        answer = yield from self._ask(request)
        if answer.status == 404 and is_problem(answer):
            return None
        check(answer, self.url)
        return answer.body

    def changes(self, after: int, limit: int, wait: float, *, products: bool) -> Script[Changes]:
        query = _query({"after": after, "limit": min(limit, PAGE_TRACES)})
        query += _query({"wait": f"{wait:g}" if wait else None, "products": "true" if products else None})
        return self.get(
            "changes", query, lambda v: Changes(records_of(v["traces"]), typed(v, "next", int)), silent=wait
        )

    def statistics(self) -> Script[dict[str, Any]]:
        return self.get("statistics", [], _statistics)

    def ready(self) -> Script[bool]:
        """Whether it answers that it is ready; asked once."""
        answer = yield Request("GET", "/ready", seconds=10.0)
        return isinstance(answer, Answer) and answer.status == 200

    # ------------------------------------------------------------------------------ one question

    def _ask(self, request: Request) -> Script[Answer]:
        try:
            answer = yield from ask(request, self.url, 0.0 if self.away.is_set() else self.patience)
        except ServiceUnavailable:
            self.away.set()
            raise
        self.away.clear()
        return answer

    def get(
        self, path: str, query: Sequence[tuple[str, str]], parse: Callable[[Any], T], silent: float = 0.0
    ) -> Script[T]:
        request = Request("GET", f"{API}/{path}", tuple(query))
        answer = yield from self._ask(Request("GET", request.path, request.query, seconds=request.seconds + silent))
        return read(answer, self.url, path, parse)

    def _get_one(self, path: str, parse: Callable[[Any], T], query: Sequence[tuple[str, str]] = ()) -> Script[T | None]:
        """What there may be none of."""
        answer = yield from self._ask(Request("GET", f"{API}/{path}", tuple(query)))
        if answer.status == 404 and is_problem(answer):
            return None
        return read(answer, self.url, path, parse)

    def _post(self, path: str, body: bytes, parse: Callable[[Any], T]) -> Script[T]:
        answer = yield from self._ask(Request("POST", f"{API}/{path}", body=body))
        return read(answer, self.url, path, parse)


class Item(NamedTuple):
    """A trace as it is handed in: its id, and the JSON text of it and what belongs to it."""

    id: str
    text: bytes


def items(
    traces: Iterable[Trace], scopes: Mapping[str, str] | None = None, lists: Mapping[str, bytes] | None = None
) -> list[Item]:
    """What is handed in of *traces*; *scopes* and *lists* are those of `Store.register`."""
    scopes, lists = scopes or {}, lists or {}
    return [Item(t.id, _json(item_to_json(t, scopes.get(t.id), lists.get(t.id)))) for t in traces]


def portions(some: Iterable[Item]) -> Iterator[list[Item]]:
    """*some* in order, in portions that one request holds."""
    portion: list[Item] = []
    size = 0
    for item in some:
        if portion and (len(portion) == TRACES_A_REQUEST or size + len(item.text) > BODY_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += len(item.text) + 1
    if portion:
        yield portion


def _portioned(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _json(value: Any) -> bytes:
    """Surrogates, which a strange file's name may hold, travel escaped."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _part(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def _query(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What of *parameters* is not None, as it is written in a URL."""
    found: list[tuple[str, str]] = []
    for key, value in parameters.items():
        given = value if isinstance(value, list | tuple) else [] if value is None else [value]
        found += [(key, format_time(each) if isinstance(each, datetime) else _unicode(each)) for each in given]
    return found


def _unicode(value: object) -> str:
    """A file's name that is no UTF-8 is known by lone surrogates: no trace has it, and no URL can."""
    return str(value).encode("utf-8", "replace").decode()


def _searched(value: Any) -> tuple[list[Stored], str | None]:
    following = value["next"]
    return records_of(value["traces"]), None if following is None else typed(value, "next", str)


def _page(value: Any) -> tuple[list[Stored], int | None]:
    following = value.get("next")
    return records_of(value["traces"]), None if following is None else typed(value, "next", int)


def _known(value: Any, batches: dict[str, Stored] | None = None) -> Known:
    key = key_of(value["product"])
    found = {} if batches is None else batches
    return Known(
        key,
        records_of(value["traces"]),
        [line_of(line, key, found) for line in value["lines"]],
        value.get("status") or "",
        value.get("replicas") or "",
    )


def _histories(value: Any) -> Histories:
    batches: dict[str, Stored] = {}
    known = [_known(each, batches) for each in value["products"]]
    for each in known:
        for stored in each.traces:
            if stored.trace.statement.product != each.product:
                raise Malformed(
                    f"trace {stored.id}",
                    expected=f"one of {each.product.did}",
                    found=stored.trace.statement.did or "none",
                )
    return Histories({each.product: each for each in known}, records_of(value["strangers"]))


def _each(value: Any, key: str, count: int) -> list[Any]:
    """`value[key]`, an answer to each of so many."""
    found = typed(value, key, list)
    if len(found) != count:
        raise Malformed(key, expected=f"{count}", found=f"{len(found)}")
    return found


def _verdicts(value: Any, count: int) -> list[dict[str, Any]]:
    return [_an_object(each) for each in _each(value, "verdicts", count)]


def _statistics(value: Any) -> dict[str, Any]:
    typed(value, "position", int)  # which others rely on
    return _an_object(value)


def _an_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed("answer", expected="an object", found=type(value).__name__)
    return value
