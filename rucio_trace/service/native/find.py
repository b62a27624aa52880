"""`GET /traces` and `POST /traces/query`: traces by what is said in them."""

import base64
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, Field, StringConstraints, model_validator
from starlette.responses import Response

from rucio_trace.service.access import Reads
from rucio_trace.service.native.examples import TRACE
from rucio_trace.service.native.joining import may_join
from rucio_trace.service.native.models import Question, Records, Text
from rucio_trace.service.native.packed import ASKED, Packed, json_response
from rucio_trace.service.native.records import records
from rucio_trace.service.problems import BadRequest, described
from rucio_trace.statement import Event
from rucio_trace.status import Status
from rucio_trace.store import Filters
from rucio_trace.store.histories import anybody
from rucio_trace.store.search import Kind
from rucio_trace.words import words_in

__all__ = ["MAX_TRACES", "router"]

MAX_TRACES = 1_000  # of a page: some 4 MB
MAX_VALUES = 1_000

router = APIRouter(prefix="/api/v2", tags=["search"], route_class=Packed)

Digest = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{8,128}$")]
_Text = Annotated[str | None, Query(max_length=4096)]
_Digest = Annotated[str | None, Query(pattern=r"^[0-9a-fA-F]{8,128}$")]
_NAME = TRACE["product"]["name"]


class Page(Records):
    """The newest first. A page may hold less than `limit`, or nothing, and not be the last: that has no `next`."""

    next: Annotated[str | None, Field(description="What to give as `cursor`; null where there is no more.")]


class Portion(Records):
    """The oldest first."""

    next: Annotated[int | None, Field(description="What to give as `after`; null where there is no more.")]


class Values(Question):
    """Exactly one of `ids`, `names` (base names), `dids`, `digests` (of files) and `contents` (of their members)."""

    ids: Annotated[list[Text] | None, Field(max_length=MAX_VALUES)] = None
    names: Annotated[list[Text] | None, Field(max_length=MAX_VALUES, examples=[[_NAME]])] = None
    dids: Annotated[list[Text] | None, Field(max_length=MAX_VALUES)] = None
    digests: Annotated[list[Digest] | None, Field(max_length=MAX_VALUES)] = None
    contents: Annotated[list[Digest] | None, Field(max_length=MAX_VALUES)] = None
    after: Annotated[int, Field(ge=0, le=2**62, description="A position.")] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_TRACES)] = MAX_TRACES

    @model_validator(mode="after")
    def _one(self) -> "Values":
        if len(self.given) != 1:
            raise ValueError(f"one of ids, names, dids, digests, contents is needed, found {len(self.given)}")
        return self

    @property
    def given(self) -> dict[Kind, list[str]]:
        kinds: dict[Kind, list[str] | None] = {"ids": self.ids, "names": self.names, "dids": self.dids}
        kinds |= {"digests": self.digests, "contents": self.contents}
        return {kind: values for kind, values in kinds.items() if values is not None}


@router.get("/traces", response_model=Page, responses=described(400, 401, 429, 503))
def search(
    request: Request,
    store: Reads,
    name: Annotated[_Text, Query(description="The file's base name.", examples=[_NAME])] = None,
    prefix: Annotated[_Text, Query(description="Of the base name, or of `scope:name` if it holds a colon.")] = None,
    did: Annotated[_Text, Query(description="scope:name")] = None,
    text: Annotated[
        _Text, Query(description="Words (runs of letters and digits) of the name or of attributes; all must be there.")
    ] = None,
    digest: Annotated[_Digest, Query(description="Of the file or of a member of an archive, by any algorithm.")] = None,
    content: Annotated[_Digest, Query(description="Of a member of an archive.")] = None,
    rse: _Text = None,
    site: Annotated[_Text, Query(description="Who observed it. Not indexed.")] = None,
    event: Event | None = None,
    status: Annotated[Status | None, Query(description="The product's status now. Not indexed.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Of the event.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Of the event; not itself.")] = None,
    attribute: Annotated[
        list[Text] | None, Query(description="KEY:VALUE, several times. Not indexed.", max_length=20)
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_TRACES)] = 100,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> Response:
    """The newest traces that fulfil everything given, the newest first.

    What is registered meanwhile stands above: no page repeats a trace or leaves one out. For what is not indexed one
    request looks at 10,000 traces at most: give what is indexed too, or go on by the cursor.
    """
    if text is not None and not words_in(text):
        raise BadRequest("text", expected="a letter or a digit in it", found=text)
    filters = Filters(
        name=name,
        name_prefix=prefix,
        did=did,
        text=text,
        digest=digest.lower() if digest else None,
        content=content.lower() if content else None,
        rse=rse,
        site=site,
        event=event,
        status=status,
        since=_moment("since", since),
        until=_moment("until", until),
        attributes=[_pair(each) for each in attribute] if attribute else None,
        may_join=may_join(request.app.state.service) if status else anybody,
    )
    page = store.find(filters, limit, None if cursor is None else _position(cursor))
    return json_response({"traces": records(page.traces), "next": page.next and _cursor(page.next)})


@router.post("/traces/query", response_model=Portion, responses=described(*ASKED))
def query(values: Values, store: Reads) -> Response:
    """Traces with one of many ids, names, DIDs or digests."""
    ((kind, given),) = values.given.items()
    page = store.page(kind, set(given), values.after, values.limit)
    return json_response({"traces": records(page.traces), "next": page.next})


def _pair(text: str) -> str:
    if text.find(":") < 1:
        raise BadRequest("attribute", expected="KEY:VALUE", found=text)
    return text


def _moment(name: str, given: datetime | None) -> datetime | None:
    if given is None:
        return None
    try:
        return given.astimezone(UTC)
    except OverflowError:
        raise BadRequest(name, expected="a time within the years 1 to 9999 of UTC", found=given.isoformat()) from None


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def _position(cursor: str) -> int:
    try:
        text: Any = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        position = int(text)
    except ValueError:
        position = -1
    if not 0 < position < 2**62:
        raise BadRequest("cursor", expected="`next` of another page", found=cursor)
    return position
