"""For supervisors and Prometheus: is the process there, can it work, what has it done."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from rucio_trace.service.access import Open

__all__ = ["router"]

router = APIRouter(dependencies=[Open], tags=["operation"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process answers; of the database this says nothing."""
    return {"status": "running"}


@router.get("/ready", responses={503: {"description": "The store does not answer, or is of another version."}})
def ready(request: Request) -> dict[str, str]:
    """The store answers and its tables are right."""
    request.app.state.service.store.check()
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Counters in Prometheus' text format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
