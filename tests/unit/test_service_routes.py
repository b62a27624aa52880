"""Every route states who may use it, in the one place where that is decided; and the document tells the truth."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from rucio_trace.config import Service as ServiceSettings
from rucio_trace.service import access
from rucio_trace.service.app import Service, create_app
from rucio_trace.service.bodies import MAX_QUESTION_BYTES
from rucio_trace.service.cdse import _items
from rucio_trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI
    from fastapi.dependencies.models import Dependant

OURS = {access.anyone, access.reader, access.watcher, access.registrant}
OF_THE_FRAMEWORK = {"/openapi.json"}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    store = Store.open(f"sqlite:///{tmp_path / 'traces.db'}")
    who = access.Access(lambda _token: None, frozenset())
    return create_app(Service(store, lambda: None, False, who, ServiceSettings()))


def routes_of(holder: Any) -> Iterator[Any]:
    for route in holder.routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router)
        else:
            yield route


def calls(dependant: Dependant) -> set[Any]:
    found = {dependant.call}
    for inner in dependant.dependencies:
        found |= calls(inner)
    return found


def ask(app: FastAPI, *requests: tuple[str, str], **options: Any) -> list[httpx.Response]:
    """The answers to requests, each a method and a path."""

    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return [await client.request(method, path, **options) for method, path in requests]

    return asyncio.run(answers())


def test_every_route_states_its_authorisation(app: FastAPI) -> None:
    stated = 0
    for route in routes_of(app):
        if isinstance(route, Mount):
            assert route.path == "/docs/files", "files of the documentation, and no others"
        elif isinstance(route, APIRoute):
            assert len(calls(route.dependant) & OURS) == 1, route.path
            stated += 1
        else:
            assert isinstance(route, Route)
            assert route.path in OF_THE_FRAMEWORK
    assert stated >= len(app.openapi()["paths"])


def test_whoever_changes_something_is_asked_who_they_are(app: FastAPI) -> None:
    writing = {"/api/v2/traces": "POST", "/api/v1/traces": "PUT"}
    for route in routes_of(app):
        if isinstance(route, APIRoute) and access.registrant in calls(route.dependant):
            assert writing.pop(route.path) in route.methods
    assert not writing


def test_what_can_be_read_with_a_token_says_so(app: FastAPI) -> None:
    """Else the page at /docs sends none."""
    paths = app.openapi()["paths"]
    open_ = {path for path, of in paths.items() if not any("security" in operation for operation in of.values())}
    assert open_ == {"/health", "/ready", "/metrics", "/api/status"}
    for path in ("verdicts", "evidence", "products", "traces/query"):
        assert {"408", "413", "415", "429"} <= set(paths[f"/api/v2/{path}"]["post"]["responses"])


def test_every_operation_has_a_name_of_its_own_and_tells_what_it_does(app: FastAPI) -> None:
    operations = [o for path in app.openapi()["paths"].values() for o in path.values()]
    assert len({o["operationId"] for o in operations}) == len(operations)
    assert all(o["description"] for o in operations)


def test_every_reference_in_the_document_leads_somewhere(app: FastAPI) -> None:
    """No two models of one name: the document would call both by their modules, and change with them."""
    document = app.openapi()
    names = set(document["components"]["schemas"])
    assert not [name for name in names if "__" in name]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document))) <= names


def test_a_bug_is_a_500_that_tells_nothing(app: FastAPI) -> None:
    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("secret")

    (answer,) = ask(app, ("GET", "/bug"))
    assert answer.status_code == 500
    assert answer.json()["title"] == "internal error"
    assert "secret" not in answer.text


def test_a_body_of_unknown_keys_costs_a_short_answer_or_is_not_looked_at(app: FastAPI) -> None:
    """Each would be an error of its own."""
    json_ = {"Content-Type": "application/json"}
    for count, status in ((40_000, 422), (200_000, 400)):
        content = '{"items": [{' + ",".join(f'"{n}": 0' for n in range(count)) + "}]}"
        (answer,) = ask(app, ("POST", "/api/v2/verdicts"), content=content, headers=json_)
        assert answer.status_code == status
        assert len(answer.content) < 20_000


def test_an_archive_of_wrong_members_is_one_fault() -> None:
    wrong = {"product": {"name": "a", "size": 1, "hash": "x", "contents": [0] * 50_000}}
    with pytest.raises(RequestValidationError) as raised:
        _items(iter([json.dumps([wrong]).encode()]))
    assert len(raised.value.errors()) < 10


def test_a_question_says_everything_once(app: FastAPI) -> None:
    for content in (b'{"names": ["a"], "names": ["b"]}', b'{"names": ' + b"[" * 100 + b"]" * 100 + b"}", b"{"):
        (answer,) = ask(
            app, ("POST", "/api/v2/traces/query"), content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400, answer.text


def test_a_question_is_bounded_as_it_comes_and_not_only_unpacked(app: FastAPI) -> None:
    content = b" " * (MAX_QUESTION_BYTES + 1)
    (answer,) = ask(app, ("POST", "/api/v2/verdicts"), content=content)
    assert answer.status_code == 413


def test_strangers_are_not_told_where_the_store_is(app: FastAPI, tmp_path: Path) -> None:
    (tmp_path / "traces.db").rename(tmp_path / "gone")
    for path in ("/trace-api/Traces", "/trace-api/Traces(1)", "/api/v2/traces", "/api/v1/traces/1", "/ready"):
        (answer,) = ask(app, ("GET", path))
        assert answer.status_code == 503, path
        assert "does not answer" in answer.text
        assert str(tmp_path) not in answer.text
        assert answer.headers["retry-after"]


def test_too_many_questions_are_sent_away_while_probes_are_answered(app: FastAPI) -> None:
    """All turns are taken by others, and as many wait as may."""

    async def main() -> None:
        turns, done = app.state.turns, asyncio.Event()

        async def hold() -> None:
            async with turns.turn():
                await done.wait()

        holding = [asyncio.create_task(hold()) for _ in range(access.READERS)]
        await asyncio.sleep(0)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            waiting = [asyncio.create_task(client.get("/api/v2/traces")) for _ in range(64)]
            while turns._waiting < 64:
                await asyncio.sleep(0)
            answer = await client.get("/trace-api/Traces")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
            assert (await client.get("/api/v2/changes")).status_code == 429
            assert (await client.get("/ready")).status_code == 200
            done.set()
            assert {(await each).status_code for each in waiting} == {200}
            await asyncio.gather(*holding)

    asyncio.run(main())


def test_whoever_waits_for_news_is_answered_when_the_service_ends(app: FastAPI) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            waiting = asyncio.create_task(client.get("/api/v2/changes?wait=60"))
            await asyncio.sleep(0.2)
            app.state.head.close()
            answer = await asyncio.wait_for(waiting, 20)
            assert answer.json() == {"traces": [], "next": 0}

    asyncio.run(main())


def test_who_is_beyond_all_positions_is_told(app: FastAPI) -> None:
    """After a restore from a backup it would miss what is registered next."""
    (answer,) = ask(app, ("GET", "/api/v2/changes?after=1000000&wait=60"))
    assert answer.status_code == 410
    assert "at most 0" in answer.json()["detail"]


def test_the_routes_of_metrics_are_not_made_up_by_clients(app: FastAPI) -> None:
    odd = [(("GET", f"/no/{n}"), ("GET", f"/api/v2/traces/{n}"), (f"M{n}", "/health")) for n in range(50)]
    *_, metrics = ask(app, *(request for some in odd for request in some), ("GET", "/metrics"))
    rows = [row for row in metrics.text.splitlines() if row.startswith("traceability_service_requests_total")]
    assert len(rows) <= 4, rows
    for route in ("none", "/api/v2/traces/{trace_id}", "/health"):
        assert any(f'route="{route}"' in row for row in rows), rows
