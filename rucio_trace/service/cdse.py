"""`/api/status` and `/api/v1`: what the Copernicus trace client speaks, unmodified.

Traces come out in that service's form: its four events alone, and null for what is absent. Our signed texts hold more,
which that client tolerates.
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, TypeAdapter
from pydantic import ValidationError as Invalid
from starlette.responses import JSONResponse

from rucio_trace import __version__, strictjson
from rucio_trace.envelope import from_json
from rucio_trace.errors import Malformed, StorageError
from rucio_trace.exchange.cdse import for_service, unfit
from rucio_trace.identity import Trust
from rucio_trace.matching import COPERNICUS_ALGORITHMS
from rucio_trace.service.access import Open, Reads, Registers
from rucio_trace.service.intake import registered
from rucio_trace.service.problems import Forbidden, NotFound, Unauthenticated, described, faults_of
from rucio_trace.statement import format_time
from rucio_trace.store import Item, Outcome, Registration, Store, Stored
from rucio_trace.store.errors import TooMuchEvidence
from rucio_trace.verify import Judgement, Question, Verdict, check_evidence

__all__ = ["router"]

MAX_TRACES = 50
"""In a request and in an answer: the service's own limit."""

_LOOKED_AT = 1_000  # traces of one name or digest, of which those are chosen that the service has words for
_TOLD = 5  # faults in a message


class TraceEvent(StrEnum):
    """A trace event describes how the trace comes into life."""

    CREATE = "CREATE"
    COPY = "COPY"
    DELETE = "DELETE"
    OBSOLETE = "OBSOLETE"


class Content(BaseModel):
    """A member of an archive."""

    path: str
    hash: str


class Input(BaseModel):
    """A product that this one was made from."""

    name: str
    hash: str


class Product(BaseModel):
    """A file, or a collection of files."""

    name: str
    size: Annotated[int, Field(json_schema_extra={"format": "int64"})]
    hash: str
    contents: Annotated[list[Content], Field(fail_fast=True)] | None = None  # one wrong member says enough of many
    inputs: Annotated[list[Input], Field(fail_fast=True)] | None = None


class Signature(BaseModel):
    """The signature over the exact text in `message`; `certificate` is the signer's, DER in base64."""

    signature: str
    algorithm: str
    certificate: str
    message: str


class RegisterTrace(BaseModel):
    """A trace to register."""

    product: Product
    event: TraceEvent
    obsolescence: str | None = None
    hash_algorithm: str
    signature: Signature


class Trace(RegisterTrace):
    """A registered trace. `timestamp` is when it was; `origin` is the site that speaks, or who brought it."""

    timestamp: str
    origin: str
    id: str


class TraceRegistration(BaseModel):
    """What became of one trace."""

    success: bool
    message: str


class TraceRegistrations(BaseModel):
    success: int
    error: int
    traces: list[TraceRegistration]


class TraceValidation(BaseModel):
    """Whether the file is genuine by the traces that this service believes, and why."""

    success: bool
    message: str


class ServerStatus(StrEnum):
    RUNNING = "running"
    DEGRADED = "degraded"
    ERROR = "error"


class ServerInfo(BaseModel):
    server_version: str
    protocol_version: list[str]
    status: ServerStatus


class ValidationError(BaseModel):
    """What is wrong with one part of a request."""

    loc: list[str | int]
    msg: str
    type: str


class HTTPValidationError(BaseModel):
    detail: list[ValidationError]


class _Route(APIRoute):
    """Errors as that service words them: no 401, and what it says of parameters in the framework's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except Unauthenticated as error:
                raise Forbidden(error.expected, error.found) from None
            except RequestValidationError as error:
                return JSONResponse({"detail": faults_of(error)}, 422)

        return answered


router = APIRouter(
    prefix="/api",
    tags=["Copernicus"],
    route_class=_Route,
    responses={422: {"description": "Validation Error", "model": HTTPValidationError}},
)

_TRACES = TypeAdapter(Annotated[list[RegisterTrace], Field(min_length=1, max_length=MAX_TRACES)])
_SCHEMA = RegisterTrace.model_json_schema(ref_template="#/components/schemas/{model}")  # which `Trace` puts there
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "title": "Traces",
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_TRACES,
                "items": {key: value for key, value in _SCHEMA.items() if key != "$defs"},
            }
        }
    },
}


@router.get("/status", operation_id="ping_status_get", dependencies=[Open])
def status(request: Request) -> ServerInfo:
    """Whether the service works."""
    try:
        request.app.state.service.store.check()
    except StorageError:
        found = ServerStatus.ERROR
    else:
        found = ServerStatus.RUNNING
    return ServerInfo(server_version=__version__, protocol_version=["v1"], status=found)


@router.put(
    "/v1/traces",
    status_code=201,
    operation_id="put_traces_v1",
    openapi_extra={"requestBody": _BODY},
    responses=described(400, 403, 408, 413, 415, 429, 503),
)
async def put_traces(request: Request, principal: Registers) -> TraceRegistrations:
    """Register 1 to 50 traces of one event, each hash once."""
    told = [_registration(each) for each in await registered(request, principal.provider, _items)]
    good = sum(each.success for each in told)
    return TraceRegistrations(success=good, error=len(told) - good, traces=told)


def _items(pieces: Iterator[bytes]) -> list[Item]:
    text = b"".join(pieces)
    try:
        value = strictjson.read(text, "traces", max_bytes=len(text))  # which is bounded already
    except Malformed as error:
        raise _invalid("json_invalid", str(error)) from None
    try:
        traces = _TRACES.validate_python(value)
    except Invalid as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from None
    if len({trace.event for trace in traces}) > 1:
        raise _invalid("value_error", "all traces must have the same event")
    if len({trace.product.hash for trace in traces}) < len(traces):
        raise _invalid("value_error", "each product hash may occur only once")
    return [Item(from_json(item)) for item in value]


def _invalid(kind: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body",), "msg": message, "type": kind}])


def _registration(answer: Registration) -> TraceRegistration:
    if answer.outcome is Outcome.STORED:
        return TraceRegistration(success=True, message=f"registered as {answer.id}")
    if answer.outcome is Outcome.KNOWN:
        return TraceRegistration(success=True, message=f"registered before, as {answer.id}")
    return TraceRegistration(success=False, message=f"{answer.outcome}: {answer.reason}")


@router.get("/v1/traces/{id}", operation_id="get_trace_by_id_v1", response_model=Trace, responses=described(404))
def trace_by_id(trace_id: Annotated[str, Path(alias="id")], store: Reads) -> Any:
    """The trace with this id, as the answers of this API name it."""
    digest, _, position = trace_id.rpartition("-")
    found = store.by_id(trace_id) or [s for s in store.by_id(digest) if str(s.position) == position]
    if not (told := _told(store, found)):
        raise NotFound(f"trace {trace_id} in the form of this API")
    return JSONResponse(told[0])


@router.get("/v1/traces/name/{productname}", operation_id="get_trace_by_product_name_v1", response_model=list[Trace])
def traces_by_name(name: Annotated[str, Path(alias="productname")], store: Reads) -> Any:
    """The first 50 traces of products with this name, the oldest first."""
    return JSONResponse(_told(store, store.by_name(name, limit=_LOOKED_AT)))


@router.get("/v1/traces/hash/{hash}", operation_id="search_hash_v1", response_model=list[Trace])
def traces_by_hash(digest: Annotated[str, Path(alias="hash")], store: Reads) -> Any:
    """The first 50 traces of products with this digest, or that hold a file with it; the oldest first."""
    digest = digest.lower()
    found = [*store.by_digest(digest, limit=_LOOKED_AT), *store.by_content(digest, limit=_LOOKED_AT)]
    return JSONResponse(_told(store, {stored.position: stored for stored in found}.values()))


def _told(store: Store, found: Iterable[Stored]) -> list[dict[str, Any]]:
    """Those of *found* that the service has words for, in its form."""
    fit = sorted((each for each in found if unfit(each.trace) is None), key=lambda each: each.position)[:MAX_TRACES]
    providers = store.providers([each.position for each in fit])
    return [_as_trace(stored, providers.get(stored.position)) for stored in fit]


def _as_trace(stored: Stored, provider: str | None) -> dict[str, Any]:
    trace, s = for_service(stored.trace), stored.trace.statement
    product = {"contents": None, "inputs": None} | trace["product"]
    signature = trace["signature"]
    return {
        "product": {key: product[key] for key in ("name", "hash", "size", "contents", "inputs")},
        "event": trace["event"],
        "obsolescence": trace.get("obsolescence"),
        "hash_algorithm": trace["hash_algorithm"],
        "signature": {key: signature[key] for key in ("signature", "algorithm", "certificate", "message")} | signature,
        "timestamp": format_time(stored.registered_at),
        "origin": s.site or provider or stored.trace.claimed_origin or "",
        # Several members of the service may have signed one text, whose digest is then the id of each.
        "id": s.event_id or f"{stored.id}-{stored.position}",
    }


@router.get("/v1/traces/{productname}/validate", operation_id="validate_product")
def validate(
    name: Annotated[str, Path(alias="productname")],
    filehash: Annotated[str, Query(description="A digest by BLAKE3, SHA-256 or SHA3-256.")],
    store: Reads,
    request: Request,
) -> TraceValidation:
    """Whether a file of this name and digest is genuine (docs/format.md, section 7) by whom the service trusts."""
    service = request.app.state.service
    trust = service.trust() or Trust(())
    filehash = filehash.lower()
    try:
        evidence = store.candidates(dict.fromkeys(COPERNICUS_ALGORITHMS, filehash), name)
    except TooMuchEvidence as error:
        return TraceValidation(success=False, message=f"{Verdict.UNDECIDED}: {error}")
    checked = check_evidence(evidence, trust, datetime.now(UTC), allow_stale_crl=service.allow_stale_crl)
    judgement = checked.ask(Question(digest=filehash, name=name))
    return TraceValidation(success=judgement.verdict is Verdict.GENUINE, message=_message(judgement))


def _message(judgement: Judgement) -> str:
    if judgement.verdict is Verdict.GENUINE and judgement.origin is not None:
        return f"{Verdict.GENUINE}: as signed by {judgement.subject} in trace {judgement.origin.id}"
    told = [str(fault) for fault in judgement.faults]
    more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return f"{judgement.verdict}: {'; '.join(told[:_TOLD]) or 'no trace of it is here'}{more}"
