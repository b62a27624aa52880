"""Who may do what: the one place where a caller is told apart, and where other identity providers will plug in.

Every route states what it asks for by one of `Open`, `Reads` and `Registers`; a test holds every route to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator  # noqa: TC003 - the framework reads annotations
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from rucio_trace.service.problems import Busy, Forbidden, Unauthenticated
from rucio_trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ANONYMOUS",
    "READERS",
    "Access",
    "Open",
    "Principal",
    "Reads",
    "Registers",
    "Role",
    "Turns",
    "Watches",
    "anyone",
    "reader",
    "registrant",
    "watcher",
]

READERS: Final = 8
"""Questions to the store at once: of the 15 connections and the 40 threads of a worker the rest is for registration,
probes and metrics."""

_WAITING: Final = 64  # questions that wait for one of those; the last waits for some seconds where all are heavy


class Role(StrEnum):
    """What a token allows."""

    REGISTER = "register"  # register traces for its provider
    READ = "read"  # read its provider's traces where those are private
    AUDIT = "audit"  # read everybody's


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the token's name, the provider it belongs to, what it allows."""

    name: str
    provider: str | None
    roles: frozenset[Role]


ANONYMOUS = Principal("anonymous", None, frozenset())


class Access:
    """Tells callers apart, and what each may see."""

    def __init__(self, find: Callable[[str], Principal | None], private: frozenset[str]) -> None:
        """*find* gives the holder of a bearer token; traces of *private* providers are shown to their own alone."""
        self._find, self.private = find, private

    def identify(self, authorization: str | None) -> Principal:
        """Whose request bears this `Authorization` header.

        Raises:
            Unauthenticated: the header is no bearer token, or not one that is known.
        """
        if authorization is None:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        principal = self._find(token.strip()) if scheme.lower() == "bearer" else None
        if principal is None:
            raise Unauthenticated("a known bearer token", "another")
        return principal

    def hidden_from(self, principal: Principal) -> frozenset[str]:
        """The providers whose traces do not exist for *principal*."""
        if Role.AUDIT in principal.roles:
            return frozenset()
        own = {principal.provider} if Role.READ in principal.roles else set()
        return self.private - own


class Turns:
    """Lets so many read at once as the store can bear; others wait, and some are sent away."""

    def __init__(self) -> None:
        self._free, self._waiting = asyncio.Semaphore(READERS), 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises Busy: too many wait already."""
        if self._waiting >= _WAITING:
            raise Busy("questions that wait", expected=f"at most {_WAITING}", found="more")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


# Tells the OpenAPI document, and so the page at /docs, that there are tokens; it decides nothing.
_BEARER = HTTPBearer(auto_error=False)


def _principal(request: Request) -> Principal:
    access: Access = request.app.state.service.access
    return access.identify(request.headers.get("authorization"))


async def anyone() -> None:
    """For routes that tell nothing of any trace."""


def _visible(request: Request) -> Store:
    service = request.app.state.service
    hidden = service.access.hidden_from(_principal(request))
    store: Store = service.store
    return store.without_providers(hidden)


async def reader(request: Request, _shown: Annotated[object, Depends(_BEARER)]) -> AsyncIterator[Store]:
    """The store as the caller may see it, when it is the caller's turn and until the answer is made."""
    store = _visible(request)
    async with request.app.state.turns.turn():
        yield store


async def watcher(request: Request, _shown: Annotated[object, Depends(_BEARER)]) -> Store:
    """The same, for who may wait long: each look at the store is to wait for its turn."""
    return _visible(request)


async def registrant(request: Request, _shown: Annotated[object, Depends(_BEARER)]) -> Principal:
    """A caller who may register traces."""
    principal = _principal(request)
    if principal is ANONYMOUS:
        raise Unauthenticated("a bearer token that may register traces")
    if Role.REGISTER not in principal.roles:
        raise Forbidden(f"a token with the role {Role.REGISTER}", f"{principal.name}, which has none")
    return principal


Open = Depends(anyone)
Reads = Annotated[Store, Depends(reader, scope="function")]  # a slow client of a made answer keeps nobody waiting
Watches = Annotated[Store, Depends(watcher)]
Registers = Annotated[Principal, Depends(registrant)]
