"""How the service says no: RFC 9457 problems, whose `detail` names the object, expected, found and what to do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rucio_trace.errors import ConfigurationError, Malformed, Refuted, StorageError, TraceabilityError, shown
from rucio_trace.store.errors import TooMuchEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request, Response

__all__ = [
    "BadRequest",
    "Busy",
    "Forbidden",
    "HeadTooLarge",
    "NotFound",
    "NotHttp",
    "Problem",
    "TooLarge",
    "TooMuch",
    "TooSlow",
    "Unauthenticated",
    "Unavailable",
    "UnknownEncoding",
    "answer",
    "described",
    "faults_of",
    "install",
    "untold",
]

LOG = logging.getLogger("rucio-trace.service")

_TOLD_FAULTS = 100  # nobody reads more, and a small body can have thousands

RETRY_SECONDS = 5
"""When a client should come again: a full queue empties, and a database restarts, in about that time."""


class Problem(TraceabilityError):
    """A request that is refused: its class says with which status."""

    status = 400
    title = "bad request"

    def headers(self) -> dict[str, str]:
        return {}


class BadRequest(Problem):
    pass


class Unauthenticated(Problem):
    status, title = 401, "who are you?"

    def __init__(self, expected: str, found: str = "none") -> None:
        super().__init__("Authorization", expected=expected, found=found)

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(Problem):
    status, title = 403, "not allowed"

    def __init__(self, expected: str, found: str) -> None:
        super().__init__("authorisation", expected=expected, found=found)


class NotFound(Problem):
    """There is none, or none that the caller may see."""

    status, title = 404, "not found"

    def __init__(self, what: str) -> None:
        super().__init__(what, expected="one in this service", found="none")


class _Unread(Problem):
    """The rest of the body is not read: the connection ends with the answer."""

    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}


class TooLarge(_Unread):
    status, title = 413, "too large"


class TooMuch(Problem):
    """An answer of which a part would mislead."""

    status, title = 413, "too much to tell"


class NotHttp(_Unread):
    title = "bad request"


class HeadTooLarge(_Unread):
    status, title = 431, "too large"


class TooSlow(_Unread):
    status, title = 408, "too slow"


class UnknownEncoding(_Unread):
    status, title = 415, "cannot be read"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "Accept-Encoding": "gzip, zstd, identity"}


class _Later(Problem):
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_SECONDS)}


class Busy(_Later):
    status, title = 429, "too many at once"


class Unavailable(_Later):
    status, title = 503, "unavailable"


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def answer(error: Problem) -> Response:
    return problem(error.status, error.title, str(error), error.headers())


_DESCRIPTIONS = {
    400: "The request cannot be read.",
    401: "The token is missing where one is needed, or not known.",
    403: "The token does not allow this.",
    404: "There is none, or none that you may see.",
    408: "The request took too long; nothing was done.",
    410: "The store has given out fewer positions: it was restored from an older state. Begin again at 0.",
    413: "More than one request may bring, or than one answer may hold; nothing was done.",
    422: "The parameters or the traces are not what they should be.",
    415: "The body is packed in a way that is not known.",
    429: "Too much waits already; nothing was done. Come again after `Retry-After` seconds.",
    431: "The request line and the headers are larger than 64 KiB; nothing was done.",
    503: "The store does not answer, or something is not configured. Come again after `Retry-After` seconds.",
}
_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {"type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}}
    | {"detail": {"type": "string", "description": "The object, what was expected, what was found, what to do."}},
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses` say of these problems."""
    content = {"application/problem+json": {"schema": _SCHEMA}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Answer each error with its problem: ours, those of the framework, and as a last resort a bug."""
    app.add_exception_handler(TraceabilityError, _of_ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(Exception, _of_a_bug)


async def _of_ours(_request: Request, error: Exception) -> Response:
    if isinstance(error, Problem):
        return answer(error)
    if isinstance(error, TooMuchEvidence):
        return problem(TooMuch.status, TooMuch.title, str(error))
    if isinstance(error, Malformed | Refuted):
        return problem(400, "bad request", str(error))
    assert isinstance(error, TraceabilityError)
    return problem(503, "unavailable", untold(error), {"Retry-After": str(RETRY_SECONDS)})


def untold(error: TraceabilityError) -> str:
    """What strangers are told of an error that is none of theirs: it may name hosts and files, so the log has it."""
    if not isinstance(error, StorageError | ConfigurationError):
        return str(error)
    LOG.error("%s", error)
    what = "the trace store does not answer" if isinstance(error, StorageError) else "a file of settings is wrong"
    return f"{what}; the service's log says more. Repeating later is safe"


async def _of_http(request: Request, error: Exception) -> Response:
    """No such path or method; or a body that the framework was reading when one of our bounds ended it."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, TraceabilityError):
        return await _of_ours(request, error.__cause__)
    title = str(error.detail)
    return problem(error.status_code, title.lower(), f"{request.method} {request.url.path}: {title}", error.headers)


async def _of_parameters(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = faults_of(error)
    detail = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in errors)
    return problem(422, "cannot be understood", shown(detail), errors=errors)


def faults_of(error: RequestValidationError) -> list[dict[str, Any]]:
    """What is wrong with which parameter, without what was sent; the first of them."""
    return [{key: fault[key] for key in ("loc", "msg", "type")} for fault in error.errors()[:_TOLD_FAULTS]]


async def _of_a_bug(_request: Request, _error: Exception) -> Response:
    return problem(500, "internal error", "this is a bug; the service's log says more")  # uvicorn writes where it was
