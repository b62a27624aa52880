"""A real `rucio-trace serve` on a free port, for tests, and what they send it."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from rucio_trace_sandbox.processes import Server
from samples import authority

from rucio_trace.envelope import to_json
from rucio_trace.service.access import Role
from rucio_trace.service.tokens import TokenFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pytest

    from rucio_trace.envelope import Trace

__all__ = ["Running", "address", "body", "new_store", "program", "serving"]

_LISTENING = re.compile(rb"listening on (\S+), ")


@dataclass
class Running:
    """The service, and how to speak to it as somebody."""

    url: str
    server: Server
    tokens: TokenFile

    def token(self, name: str = "registrar", provider: str = "SITE", *roles: Role) -> str:
        """A new token; to register unless other roles are given."""
        return self.tokens.create(name, provider, roles or [Role.REGISTER], datetime.now(UTC))

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)


@contextmanager
def serving(
    folder: Path, store_url: str, *, trust: Mapping[str, Any] | None = None, port: int = 0, **service: Any
) -> Iterator[Running]:
    """Run the service; *service* are options of that section of the settings, *trust* of the other.

    Unless told otherwise it believes whom `samples` sign with.
    """
    folder.mkdir(exist_ok=True, parents=True)
    anchor, tokens, settings = folder / "anchor.pem", folder / "tokens.json", folder / "rucio-trace.toml"
    anchor.write_bytes(authority().pem)
    options = {"port": port, "tokens": str(tokens), **service}
    trust = {"anchors": [str(anchor)]} if trust is None else trust
    lines = ["[store]", f"url = {json.dumps(store_url)}", "[service]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    lines += ["[trust]", *(f"{key} = {json.dumps(value)}" for key, value in trust.items())]
    settings.write_text("\n".join(lines))
    with program(folder, "serve", settings=settings) as server:
        yield Running(address(server), server, TokenFile(tokens))


@contextmanager
def program(folder: Path, *arguments: str, settings: Path = Path(os.devnull), **environment: str) -> Iterator[Server]:
    """Run `rucio-trace` until it has said where it listens."""
    argv = [str(Path(sys.executable).with_name("rucio-trace")), "--config", str(settings), *arguments]
    with Server("serve", argv, log=folder / "log", env=os.environ | environment) as server:
        server.wait_until_ready(lambda: server.has_said(b"listening on "), seconds=120)
        yield server


def new_store(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a new store on the database that the fixture's parameter names: sqlite or postgresql."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'traces.db'}"
    cluster = request.getfixturevalue("postgres")
    return str(cluster.url(cluster.create()))


def address(server: Server) -> str:
    """Where it listens."""
    return _LISTENING.findall(server.log.read_bytes())[-1].decode()


def get(url: str, **options: Any) -> httpx.Response:
    """Ask once; on a busy machine a worker that is only starting takes longer than httpx would wait."""
    return httpx.get(url, timeout=90, **options)


def body(traces: Iterable[Trace]) -> bytes:
    """What a client posts."""
    return json.dumps([to_json(trace) for trace in traces]).encode()
