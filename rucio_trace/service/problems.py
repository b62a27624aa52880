"""How the service says no: RFC 9457 problem details; `detail` names the object, expected, found and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse

from rucio_trace.errors import ConfigurationError, Malformed, Refuted, StorageError, TraceabilityError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

__all__ = ["BadRequest", "Busy", "Forbidden", "NotFound", "Problem", "TooLarge", "Unauthenticated", "install"]

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

    def __init__(self, expected: str) -> None:
        super().__init__("Authorization", expected=expected, found="none")

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


class TooLarge(Problem):
    status, title = 413, "too large"


class Busy(Problem):
    status, title = 429, "too many at once"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_SECONDS)}


def problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Answer each of our errors with its problem."""

    async def answer(_request: Request, error: Exception) -> Response:
        if isinstance(error, Problem):
            return problem(error.status, error.title, str(error), error.headers())
        if isinstance(error, Malformed | Refuted):
            return problem(400, "bad request", str(error))
        retry = {"Retry-After": str(RETRY_SECONDS)}
        if isinstance(error, StorageError | ConfigurationError):
            return problem(503, "unavailable", str(error), retry)
        return problem(503, "undecided", str(error), retry)

    app.add_exception_handler(TraceabilityError, answer)
