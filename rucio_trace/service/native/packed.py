"""Questions that come in a body, packed or not and no larger than a question can be; and answers of any size."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from anyio import to_thread
from fastapi import Request, Response
from fastapi.routing import APIRoute

from rucio_trace.service.bodies import read_body, unpacked

__all__ = ["MAX_QUESTION_BYTES", "Packed", "json_response"]

MAX_QUESTION_BYTES: Final = 16 * 1024**2
"""Enough for 10,000 names as long as Rucio allows; it is parsed while others wait."""


class Packed(APIRoute):
    """A route whose body may come with a `Content-Encoding`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def unpacking(request: Request) -> Response:
            if request.method == "POST":
                body, encoding = await read_body(request), request.headers.get("content-encoding")
                most = min(MAX_QUESTION_BYTES, request.app.state.service.settings.max_body_bytes)
                request._body = await to_thread.run_sync(lambda: b"".join(unpacked(body, encoding, most)))
            return await handler(request)

        return unpacking


def json_response(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
