"""Questions that come in a body, packed or not and no larger than a question can be; and answers of any size."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from rucio_trace import strictjson
from rucio_trace.service.bodies import MAX_QUESTION_BYTES, asked

__all__ = ["ASKED", "Packed", "json_response"]

ASKED: Final = (400, 401, 408, 413, 415, 429, 503)
"""How a question in a body may be refused."""

_MAX_VALUES: Final = 100_000
"""10,000 items of three keys are 40,000; each that is wrong becomes an error of some 1 KB before all are told."""


class Packed(APIRoute):
    """A route whose body may come with a `Content-Encoding`. It is read before the framework sees it, in bounds."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def unpacking(request: Request) -> Response:
            if request.method == "POST":
                request._body, request._json = await asked(request, _read)
            return await handler(request)

        return unpacking


def _read(pieces: Iterator[bytes]) -> tuple[bytes, Any]:
    text = b"".join(pieces)
    if not text:
        return text, None  # which the framework calls missing
    value = strictjson.read(text, "body", max_bytes=MAX_QUESTION_BYTES, max_values=_MAX_VALUES, any_characters=True)
    return text, value


def json_response(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
