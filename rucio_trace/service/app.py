"""The application: every route, and what they share."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles

from rucio_trace import __version__
from rucio_trace.service import cdse, native, odata, probes, problems
from rucio_trace.service.access import Open, Turns
from rucio_trace.service.bodies import Bounded
from rucio_trace.service.indexing import Indexing
from rucio_trace.service.intake import Intake, adding
from rucio_trace.service.metrics import Counted, Metrics
from rucio_trace.service.native.feed import Head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import FrameType

    from rucio_trace.config import Service as ServiceSettings
    from rucio_trace.identity import Trust
    from rucio_trace.service.access import Access
    from rucio_trace.store import Store

__all__ = ["Service", "create_app"]


@dataclass(frozen=True, slots=True)
class Service:
    """What every route works with. `trust` gives whom is trusted now: files are followed on disk."""

    store: Store
    trust: Callable[[], Trust | None]
    allow_stale_crl: bool
    access: Access
    settings: ServiceSettings


ROUTERS = (probes.router, *native.ROUTERS, odata.router, cdse.router)


def create_app(service: Service) -> FastAPI:
    """The ASGI application of *service*; when it ends, what was accepted is finished."""
    metrics = Metrics(service.store)
    intake = Intake(adding(service), service.settings.max_waiting_traces, metrics.waiting.set)
    indexing = Indexing(service.store)
    head = Head(service.store.position)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if service.store.indexes_later:
            indexing.start()
        _when_told_to_end(head.close)
        yield
        await to_thread.run_sync(intake.close)
        await to_thread.run_sync(indexing.close)
        service.store.close()

    app = FastAPI(
        title="rucio-trace",
        version=__version__,
        summary="Signed provenance traces of replicas in Rucio",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=problems.described(422, 431),
    )
    app.state.service, app.state.intake = service, intake
    app.state.metrics = metrics
    app.state.head, app.state.turns = head, Turns()
    problems.install(app)
    app.add_middleware(Bounded, settings=service.settings)
    app.add_middleware(Counted, metrics=metrics)
    for router in ROUTERS:
        app.include_router(router)
    _add_documentation(app)
    return app


def _when_told_to_end(call: Callable[[], None]) -> None:
    """Call it in the event loop when a signal ends the server, which then waits for all requests under way."""
    if threading.current_thread() is not threading.main_thread():  # no signal comes here
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if callable(servers := signal.getsignal(number)):

            def ending(number: int, frame: FrameType | None, servers: Callable[..., Any] = servers) -> None:
                loop.call_soon_threadsafe(call)
                servers(number, frame)

            signal.signal(number, ending)


def _add_documentation(app: FastAPI) -> None:
    """A page on which the API can be read and tried: from this host, where fastapi-offline is installed."""
    page = {}
    if spec := find_spec("fastapi_offline"):
        folder = Path(str(spec.origin)).parent / "static"
        app.mount("/docs/files", StaticFiles(directory=folder), name="docs")
        page = {"js": "swagger-ui-bundle.js", "css": "swagger-ui.css", "favicon": "favicon.png"}

    @app.get("/docs", include_in_schema=False, dependencies=[Open])
    async def documentation(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        files = {f"swagger_{kind}_url": f"{root}/docs/files/{name}" for kind, name in page.items()}
        return get_swagger_ui_html(openapi_url=f"{root}{app.openapi_url}", title=app.title, **files)  # type: ignore[arg-type]
