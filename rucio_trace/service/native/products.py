"""`GET /history`, `POST /products`, `POST /evidence`, `GET /lists/{id}`: all that is known of products and files."""

from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from rucio_trace.service.access import Reads
from rucio_trace.service.native.find import Digest
from rucio_trace.service.native.joining import may_join
from rucio_trace.service.native.models import Histories, Known, Question, Record, Records, RucioProduct, Text
from rucio_trace.service.native.packed import ASKED, Packed, json_response
from rucio_trace.service.native.records import known, record, records
from rucio_trace.service.problems import NotFound, TooMuch, described
from rucio_trace.statement import ProductKey
from rucio_trace.status import product_status
from rucio_trace.store import Store, TooMuchEvidence
from rucio_trace.store.histories import assemble
from rucio_trace.store.read import WHOLE_CHARACTERS
from rucio_trace.store.records import BatchLine

__all__ = ["router"]

router = APIRouter(prefix="/api/v2", tags=["products"], route_class=Packed)


class Products(Question):
    products: Annotated[list[RucioProduct], Field(max_length=1_000)]
    traces: Annotated[bool, Field(description="Without them there are lines alone.")] = True
    lines: Annotated[bool, Field(description="Without them there are traces alone.")] = True


class KnownProducts(BaseModel):
    """`strangers` are of files in no Rucio and may have joined one of the products: that is for the asker to judge."""

    products: list[Known]
    strangers: list[Record]


class File(Question):
    """A file in hand: its digests by algorithm, its names (several, if it has others where it is packed)."""

    hashes: Annotated[dict[str, Digest], Field(max_length=10, default_factory=dict)]
    names: Annotated[list[Text], Field(max_length=100, default_factory=list)]
    did: Annotated[Text | None, Field(description="With it the names are not asked.")] = None
    product_digest: Digest | None = None


@router.get("/history", response_model=Histories, responses=described(401, 413, 429, 503))
def history(
    request: Request,
    store: Reads,
    did: Annotated[str, Query(description="scope:name", pattern="^[^:]+:.+$", max_length=4096)],
) -> Response:
    """What happened to the products that bear or bore this name, one for each generation; none if there are no traces.

    The status is by all traces that the service has accepted; by those of a file in no Rucio where the service trusts
    their signers to speak for the product that they joined.
    """
    scope, _, name = did.partition(":")
    keys = {key for stored in store.whole_did(scope, name) if (key := stored.trace.statement.product) is not None}
    own, strangers = store.histories(keys)
    found, lines = assemble(own, strangers, may_join(request.app.state.service)), _proven(store, keys)
    told = []
    for key in sorted(keys, key=lambda key: (key.rucio, key.vo, key.generation)):
        of = lines.get(key, [])
        status = product_status(found[key], str, of)
        told.append(known(key, found[key], of) | {"status": status.status, "replicas": status.trace_replicas})
    return json_response({"products": told})


@router.post("/products", response_model=KnownProducts, responses=described(*ASKED))
def products(asked: Products, store: Reads) -> Response:
    """The traces and lines of each product, in the order they are asked for, and those that may have joined one."""
    keys = dict.fromkeys(product.key for product in asked.products)
    own, strangers = store.histories(keys) if asked.traces else ({}, [])
    lines = _proven(store, keys) if asked.lines else {}
    told = [known(key, own.get(key, ()), lines.get(key, ())) for key in keys]
    return json_response({"products": told, "strangers": records(strangers)})


def _proven(store: Store, keys: Collection[ProductKey]) -> dict[ProductKey, list[BatchLine]]:
    """As `Store.proven`. Raises TooMuchEvidence: an answer, in which each line brings its batch, would be too long."""
    lines = store.proven(keys)
    if sum(len(line.batch.trace.message) for of in lines.values() for line in of) > WHOLE_CHARACTERS:
        raise TooMuchEvidence(WHOLE_CHARACTERS, "characters of signed texts")
    return lines


@router.post("/evidence", response_model=Records, responses=described(*ASKED))
def evidence(file: File, store: Reads) -> Response:
    """All that a verifier needs to judge a file by itself, whole or not at all: a part of it could mislead."""
    try:
        found = store.evidence(file.hashes, file.names, file.did, product_digest=file.product_digest)
    except TooMuchEvidence as error:
        raise TooMuch(error.subject, expected=error.expected, found=error.found, hint="ask with did") from error
    return json_response({"traces": [record(stored) for stored in found]})


@router.get(
    "/lists/{trace_id}",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {}}}, **described(401, 404, 429, 503)},
)
def list_of(trace_id: str, store: Reads) -> Response:
    """The list of a batch, as it was signed."""
    data = store.list_of(trace_id)
    if data is None:
        raise NotFound(f"list of trace {trace_id}")
    return Response(data, media_type="application/x-ndjson")
