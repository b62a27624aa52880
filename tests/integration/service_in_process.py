"""The application of a trace service within the test's process, on a real store."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastapi.testclient import TestClient
from samples import authority

from rucio_trace.config import Service as ServiceSettings
from rucio_trace.identity import Trust
from rucio_trace.service.access import Access, Principal, Role
from rucio_trace.service.app import Service, create_app
from rucio_trace.store import Item, Outcome, Store, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from rucio_trace.envelope import Trace

__all__ = ["TRUST", "Asked", "add", "asked"]

TRUST = Trust.from_anchors([authority().pem])

TOKENS = {
    "secret": Principal("reader", "SECRET", frozenset({Role.READ})),
    "audit": Principal("auditor", None, frozenset({Role.AUDIT})),
}


_JSON = {"Content-Type": "application/json"}


class Asked:
    """A client of the service, and the store behind it. Traces of the provider SECRET are private."""

    def __init__(self, client: TestClient, store: Store) -> None:
        self.client, self.store = client, store

    def get(self, path: str, status: int = 200, /, *, token: str | None = None, **query: Any) -> Any:
        return self._answer(self.client.get(path, params=query or None, headers=_headers(token)), status)

    def post(self, path: str, body: Any, status: int = 200, *, token: str | None = None) -> Any:
        return self._answer(self.client.post(path, content=json.dumps(body), headers=_headers(token) | _JSON), status)

    def _answer(self, answer: httpx.Response, status: int) -> Any:
        assert answer.status_code == status, answer.text[:500]
        return answer.json()


def _headers(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


@contextmanager
def asked(url: str, trust: Trust | None = TRUST) -> Iterator[Asked]:
    store = Store.open(url)
    access = Access(TOKENS.get, frozenset({"SECRET"}))
    service = Service(store, lambda: trust, False, access, ServiceSettings())
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        yield Asked(client, store)


def add(
    store: Store, *made: Trace, provider: str | None = None, lists: Mapping[str, bytes] | None = None
) -> list[Stored]:
    items = [Item(each, (lists or {}).get(each.id)) for each in made]
    answers = store.add(store.judge(items, TRUST), provider=provider, private={"SECRET"})
    assert [answer.outcome for answer in answers] == [Outcome.STORED] * len(made), answers
    found = store.by_ids([trace.id for trace in made])
    return [found[trace.id] for trace in made]
