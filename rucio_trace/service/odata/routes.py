"""`/trace-api/Traces`: the entity set, its entities, and whether they hold."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse

from rucio_trace.checking import Refused, check_trace
from rucio_trace.errors import Malformed, Refuted, TraceabilityError
from rucio_trace.faults import Fault, OutsideRights, Uncertain
from rucio_trace.service.access import Open, Reads
from rucio_trace.service.intake import trusted
from rucio_trace.service.odata.entities import FIELDS, entity
from rucio_trace.service.odata.filtering import COLUMNS
from rucio_trace.service.odata.options import DEFAULT_TOP, MAX_SKIP, MAX_TOP, Options, parse_options
from rucio_trace.service.problems import RETRY_SECONDS, NotFound, Problem, faults_of, untold
from rucio_trace.store import Store, Stored

__all__ = ["router"]

_VERSION = {"OData-Version": "4.0"}
_CONTEXT = "$metadata#Traces"


class _OData(APIRoute):
    """A route whose errors are OData's: `{"error": {"code", "message"}}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answering(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                return _refusal(400, "bad request", "; ".join(str(fault["msg"]) for fault in faults_of(error)))
            except Problem as error:
                return _refusal(error.status, error.title, str(error), error.headers())
            except (Malformed, Refuted) as error:
                return _refusal(400, "bad request", str(error))
            except TraceabilityError as error:
                return _refusal(503, "unavailable", untold(error), {"Retry-After": str(RETRY_SECONDS)})

        return answering


def _refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    error = {"error": {"code": code, "message": message}}
    return JSONResponse(error, status, headers=_VERSION | (headers or {}))


router = APIRouter(prefix="/trace-api", tags=["OData"], route_class=_OData)

_ERROR = {
    "content": {
        "application/json": {
            "example": {"error": {"code": "bad request", "message": "$top: expected a number from 0 to 1000, found -1"}}
        }
    }
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"description": "An option that is wrong, or that nothing but a look at every trace could answer.", **_ERROR},
    401: {"description": "The token is not known.", **_ERROR},
    429: {"description": "Too many ask already.", **_ERROR},
    503: {"description": "The store does not answer.", **_ERROR},
}
_ABSENT: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is none.", **_ERROR},
    **{status: _REFUSED[status] for status in (401, 429, 503)},
}
_NAME = "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.zip"


@router.get("/Traces", responses=_REFUSED)
def traces(
    request: Request,
    store: Reads,
    filter: Annotated[str | None, Query(alias="$filter", examples=[f"name eq '{_NAME}'"])] = None,  # noqa: A002
    orderby: Annotated[str | None, Query(alias="$orderby", description=f"Of {', '.join(COLUMNS)}.")] = None,
    top: Annotated[str | None, Query(alias="$top", description=f"{DEFAULT_TOP}, at most {MAX_TOP}.")] = None,
    skip: Annotated[str | None, Query(alias="$skip", description=f"At most {MAX_SKIP}.")] = None,
    count: Annotated[str | None, Query(alias="$count", examples=["true"])] = None,
    select: Annotated[str | None, Query(alias="$select", examples=["id,name,hash"])] = None,
    format: Annotated[str | None, Query(alias="$format", examples=["json"])] = None,  # noqa: A002
) -> Response:
    """Traces that the filter holds for, the newest first.

    Filters compare fields by eq, ne, gt, ge, lt, le and startswith, endswith, contains, joined by and, or, not. `name`,
    `hash`, `id`, `date` and `eventType` are found by indices. Others, and attributes, are compared with what was read,
    at most 10,000 traces: where more would have to be looked at the answer is 400, and never a part.
    """
    options = parse_options(request.query_params.multi_items())
    top_ = DEFAULT_TOP if options.top is None else options.top
    found, total = store.select(
        options.filter.condition,
        [(COLUMNS[field], descending) for field, descending in options.order],
        None if options.filter.exact else lambda stored: options.filter.holds(entity(stored)),
        skip=options.skip,
        limit=top_ + (options.top is None),  # one more tells whether there is more
        count=options.count,
    )
    told: dict[str, Any] = {"@odata.context": _CONTEXT}
    if options.count:
        told["@odata.count"] = total
    told["value"] = [_selected(stored, options) for stored in found[:top_]]
    if len(found) > top_ and options.skip + top_ <= MAX_SKIP:
        told["@odata.nextLink"] = _next(request, options.skip + top_)
    return JSONResponse(told, headers=_VERSION)


@router.get("/Traces({key})", responses=_ABSENT)
def trace(key: str, store: Reads) -> Response:
    """One trace, by its id, with or without quotes."""
    return JSONResponse({"@odata.context": f"{_CONTEXT}/$entity"} | entity(_one(store, key)), headers=_VERSION)


@router.get("/Traces({key})/Datac.Quality()", responses=_ABSENT)
@router.get("/Traces({key})/Datac.Validate()", responses=_ABSENT)
@router.get("/Traces({key})/Validate()", responses=_ABSENT)
def validate(key: str, request: Request, store: Reads) -> Response:
    """Whether its signature and the chain of its certificate hold, by whom this service trusts.

    `value` is true or false, or null where it cannot be found out now; `faults` say why. What its signer may say is
    not asked: a trace of a file in no Rucio may have been taken for the scope that it was to join.
    """
    service, stored = request.app.state.service, _one(store, key)
    value: bool | None = True
    faults: tuple[Fault, ...] = ()
    try:
        check_trace(
            stored.trace,
            trusted(service),
            datetime.now(UTC),
            registered_at=stored.registered_at,
            allow_stale_crl=service.allow_stale_crl,
        )
    except Refused as error:
        faults = tuple(fault for fault in error.faults if not isinstance(fault, OutsideRights))
        if faults:
            value = None if all(isinstance(fault, Uncertain) for fault in faults) else False
    told = {"@odata.context": "$metadata#Edm.Boolean", "value": value, "faults": [str(fault) for fault in faults]}
    return JSONResponse(told, headers=_VERSION)


@router.get("/", dependencies=[Open], include_in_schema=False)
def document() -> Response:
    """What there is here."""
    sets = [{"name": "Traces", "kind": "EntitySet", "url": "Traces"}]
    return JSONResponse({"@odata.context": "$metadata", "value": sets}, headers=_VERSION)


@router.get("/$metadata", dependencies=[Open], include_in_schema=False)
def metadata() -> Response:
    """The fields and their types."""
    fields = "".join(f'<Property Name="{name}" Type="{kind}"/>' for name, kind in FIELDS.items())
    returned = '<Parameter Name="trace" Type="Datac.Trace"/><ReturnType Type="Edm.Boolean"/>'
    functions = "".join(f'<Function Name="{name}" IsBound="true">{returned}</Function>' for name in _FUNCTIONS)
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<edmx:Edmx Version="4.0" xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx"><edmx:DataServices>'
        '<Schema Namespace="Datac" xmlns="http://docs.oasis-open.org/odata/ns/edm">'
        f'<EntityType Name="Trace" OpenType="true"><Key><PropertyRef Name="id"/></Key>{fields}</EntityType>{functions}'
        '<EntityContainer Name="Container"><EntitySet Name="Traces" EntityType="Datac.Trace"/></EntityContainer>'
        "</Schema></edmx:DataServices></edmx:Edmx>"
    )
    return Response(document, media_type="application/xml", headers=_VERSION)


_FUNCTIONS = ("Quality", "Validate")


def _one(store: Store, key: str) -> Stored:
    id_ = key.strip("'").lower()
    found = store.by_id(id_)
    if not found:
        raise NotFound(f"trace {id_}")
    return found[0]


def _selected(stored: Stored, options: Options) -> dict[str, Any]:
    whole = entity(stored)
    return whole if options.select is None else {field: whole.get(field) for field in options.select}


def _next(request: Request, skip: int) -> str:
    query = [(name, text) for name, text in request.query_params.multi_items() if name != "$skip"]
    return f"Traces?{urlencode([*query, ('$skip', str(skip))])}"
