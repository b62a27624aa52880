"""`POST /traces` and `GET /traces/{id}`: traces go in, and come out as they were signed."""

from collections import Counter
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from rucio_trace.service.access import Reads, Registers
from rucio_trace.service.intake import registered
from rucio_trace.service.items import MAX_ITEMS, read_items
from rucio_trace.service.native.examples import ITEM, TRACE
from rucio_trace.service.native.models import Fault, Record
from rucio_trace.service.native.packed import json_response
from rucio_trace.service.native.records import answer, record
from rucio_trace.service.problems import NotFound, described
from rucio_trace.store import Outcome

__all__ = ["router"]

router = APIRouter(prefix="/api/v2", tags=["traces"])


class Answer(BaseModel):
    """What became of one item. `position` is null unless it is in the store, `id` if it has no signed text."""

    id: str | None
    outcome: Outcome
    position: int | None
    reason: str | None
    faults: list[Fault]


class Answers(BaseModel):
    """How many of each outcome, and one answer for each item, in their order."""

    stored: int
    known: int
    conflict: int
    refused: int
    undecided: int
    results: list[Answer]


_ITEM = {
    "type": "object",
    "description": "A trace (docs/format.md), or `trace` with `list`, the base64 list of a batch, or with `scope`.",
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"type": "array", "maxItems": MAX_ITEMS, "items": _ITEM},
            "examples": {
                "traces": {"summary": "Traces, as they were signed", "value": [TRACE]},
                "with scope": {"summary": "A file in no Rucio is to join a product of this scope", "value": [ITEM]},
            },
        },
        "application/x-ndjson": {"schema": {"type": "string", "description": "One such item a line."}},
    },
}


@router.post(
    "/traces",
    openapi_extra={"requestBody": _BODY},
    responses={200: {"model": Answers}, **described(400, 401, 403, 408, 413, 415, 429, 503)},
)
async def register(
    request: Request,
    principal: Registers,
    scope: Annotated[str | None, Query(description="What items of files in no Rucio join that name no scope.")] = None,
) -> Response:
    """Register traces, each once: repeating a request is safe, and after 429 or 503 it is what to do.

    Everything said to be stored or known is durable. An item that is refused costs itself alone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    read = partial(read_items, is_json=kind == "application/json", scope=scope)
    answers = await registered(request, principal.provider, read)
    counts = Counter(each.outcome for each in answers)
    return json_response({**{str(o): counts[o] for o in Outcome}, "results": [answer(each) for each in answers]})


@router.get("/traces/{trace_id}", response_model=Record, responses=described(401, 404, 429, 503))
def trace(trace_id: str, store: Reads) -> Any:
    """The trace with this id."""
    found = store.by_id(trace_id)
    if not found:
        raise NotFound(f"trace {trace_id}")
    return record(found[0])
