"""`GET /lineage`: what a product was made from, and what was made from it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from rucio_trace.lineage import Circular, strong_digests
from rucio_trace.service.access import Reads
from rucio_trace.service.native.find import Digest
from rucio_trace.service.native.packed import json_response
from rucio_trace.service.problems import BadRequest, NotFound, Problem, described
from rucio_trace.statement import Event
from rucio_trace.status import Status
from rucio_trace.store import Store

__all__ = ["router"]

router = APIRouter(prefix="/api/v2", tags=["products"])


class Ancestor(BaseModel):
    """A product, by its bytes; `beyond`: there is more, at which nobody looked. `inputs` is what it was made from."""

    digest: str
    name: str
    did: str | None
    known: bool
    trouble: Status | None
    beyond: bool
    inputs: list[str]
    because_of: Annotated[list[str], Field(description="Those of its ancestors that are in trouble.")]


class Lineage(BaseModel):
    product: str
    direction: Literal["up", "down"]
    complete: bool
    products: list[Ancestor]


class CircleOfInputs(Problem):
    """The traces contradict each other; there is nothing wrong with the question."""

    status, title = 409, "circular"


@router.get(
    "/lineage",
    response_model=Lineage,
    responses={
        **described(400, 401, 404, 413, 429, 503),
        409: {"description": "Traces say a product was made from itself."},
    },
)
def lineage(
    store: Reads,
    digest: Annotated[list[Digest] | None, Query(description="Of one file, several times.", max_length=10)] = None,
    did: Annotated[str | None, Query(description="scope:name", pattern="^[^:]+:.+$", max_length=4096)] = None,
    direction: Literal["up", "down"] = "up",
    depth: Annotated[int | None, Query(ge=1, le=10_000, description="Look at most so many steps far.")] = None,
) -> Response:
    """What it was made from, `up`, or what was made from it, `down`, as CREATE traces say."""
    if (digest is None) == (did is None):
        raise BadRequest("lineage", expected="digest or did", found="both" if digest else "none")
    up = direction == "up"
    asked = set(digest) if digest else _digests(store, did or "")
    try:
        found = store.lineage(asked, up=up, depth=depth) if asked else None
    except Circular as error:
        raise CircleOfInputs(error.subject, expected=error.expected, found=error.found) from error
    if found is None:
        raise NotFound(f"lineage of {did or ', '.join(sorted(asked))}")
    return json_response(found.as_object(up=up))


def _digests(store: Store, did: str) -> set[str]:
    """The strong digests of the product that bears the name now."""
    scope, _, name = did.partition(":")
    found = [stored.trace.statement for stored in store.whole_did(scope, name)]
    newest = max((s.generation for s in found if s.generation is not None), default=None)
    known = [s for s in found if s.generation == newest]
    created = [s for s in known if s.event is Event.CREATE]
    return {digest for s in created or known for digest in strong_digests(s)}
