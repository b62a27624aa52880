"""`GET /changes` and `GET /statistics`: what is new, and how much there is."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from rucio_trace.service.access import Reads, Watches
from rucio_trace.service.native.find import MAX_TRACES
from rucio_trace.service.native.models import Records
from rucio_trace.service.native.packed import json_response
from rucio_trace.service.native.records import records
from rucio_trace.service.problems import Problem, described
from rucio_trace.statement import format_time

__all__ = ["Head", "router"]

MAX_WAIT_SECONDS = 60
LOOK_SECONDS = 0.5

router = APIRouter(prefix="/api/v2", tags=["changes"])


class Changes(Records):
    next: Annotated[int, Field(description="What to give as `after`.")]


class Statistics(BaseModel):
    """How many traces the caller may see; `position` is the last one given out to any trace."""

    traces: int
    events: Annotated[dict[str, int], Field(examples=[{"CREATE": 20, "COPY": 35}])]
    rses: dict[str, int]
    position: int
    first_registered: str | None
    last_registered: str | None


class Head:
    """The store's last position, for all who wait for another: one look every half second, however many they are."""

    def __init__(self, position: Callable[[], int]) -> None:
        self._position = position
        self._look: asyncio.Task[int] | None = None
        self._ended = asyncio.Event()

    def close(self) -> None:
        """Whoever waits is answered now: nobody holds up the end of the service."""
        self._ended.set()

    async def beyond(self, position: int, seconds: float) -> bool:
        """Whether there is more than *position* within *seconds*, unless the service ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (left := deadline - loop.time()) > 0 and not self._ended.is_set():
            if self._look is None or self._look.done():
                self._look = loop.create_task(self._after_a_while())
            done, _ = await asyncio.wait([self._look], timeout=left)
            if any(look.result() > position for look in done):
                return True
        return False

    async def _after_a_while(self) -> int:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), LOOK_SECONDS)
        return await to_thread.run_sync(self._position)


class Gone(Problem):
    """The store was restored from a backup: who went on would miss what takes the positions given out since."""

    status, title = 410, "not given out"

    def __init__(self, after: int, position: int) -> None:
        hint = "the store was restored from an older state, or is another: begin again at 0"
        super().__init__(
            "after", expected=f"at most {position}, the last position given out", found=str(after), hint=hint
        )


@router.get("/changes", response_model=Changes, responses=described(401, 410, 429, 503))
async def changes(
    request: Request,
    store: Watches,
    after: Annotated[int, Query(ge=0, le=2**62, description="A position; `next` of the answer before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_TRACES)] = 100,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds, if there is nothing new yet.")] = 0,
    products: Annotated[bool, Query(description="Only what speaks of whole products.")] = False,
) -> Response:
    """The traces that follow a position, in the order in which they were registered: who asks on misses none."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    state = request.app.state
    while True:
        async with state.turns.turn():
            found, last = await to_thread.run_sync(partial(store.changes, after, limit, products=products))
            if not found and last == after and after > (position := await to_thread.run_sync(store.position)):
                raise Gone(after, position)
            told = await to_thread.run_sync(records, found)
        after = last
        if found or not await state.head.beyond(after, deadline - loop.time()):
            return json_response({"traces": told, "next": after})


@router.get("/statistics", response_model=Statistics, responses=described(401, 429, 503))
def statistics(store: Reads) -> Response:
    """Counted when traces came: asking costs nothing, however many there are."""
    found = store.statistics()
    times = (found.first_registered, found.last_registered)
    first, last = (time and format_time(time) for time in times)
    told = {"traces": found.traces, "events": found.events, "rses": found.rses, "position": found.position}
    return json_response({**told, "first_registered": first, "last_registered": last})
