"""The application: every route, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI

from rucio_trace import __version__
from rucio_trace.service import problems

if TYPE_CHECKING:
    from collections.abc import Callable

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


def create_app(service: Service) -> FastAPI:
    """The ASGI application of *service*."""
    app = FastAPI(title="rucio-trace", version=__version__, summary="Signed provenance traces of replicas in Rucio")
    app.state.service = service
    problems.install(app)
    return app
