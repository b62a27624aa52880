"""A trace service that goes and comes back, for those who ask it."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from service_kit import address, program

from rucio_trace.client import Client, ServiceStore
from rucio_trace.service.access import Role
from rucio_trace.service.tokens import TokenFile
from rucio_trace.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace_sandbox.processes import Server

__all__ = ["Service"]


class Service:
    """`rucio-trace serve` on a store of its own: its port and its token stay the same when it is started again."""

    def __init__(self, folder: Path, trust: str, store_url: str | None = None, **options: object) -> None:
        """*trust* is that section of its settings; *options* are of `[service]`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, 0
        self.store_url = store_url or f"sqlite:///{folder}/traces.db"
        self.config = folder / "service.toml"
        told = "\n".join(f'{key} = "{value}"' for key, value in {"tokens": "tokens.json", **options}.items())
        self.config.write_text(f'[store]\nurl = "{self.store_url}"\n[trust]\n{trust}\n[service]\n{told}\n')
        tokens = TokenFile(folder / "tokens.json")
        self.token = tokens.create("recorder", "SITE-A", [Role.REGISTER, Role.READ], datetime.now(UTC))
        self.token_file = folder / "token"
        self.token_file.write_text(self.token + "\n")
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        self._server: Server = self._stack.enter_context(
            program(self.folder, "serve", "--port", str(self.port), settings=self.config)
        )
        self.url = address(self._server)
        self.port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """Without a warning, as a machine goes."""
        self._server.kill()

    def close(self) -> None:
        self._stack.close()

    def client(self, *, token: bool = True, patience: float = 10.0, **options: Any) -> Client:
        return Client(self.url, self.token if token else None, patience=patience, **options)

    def asked(self, *, own: bool = True) -> ServiceStore:
        return ServiceStore(self.client(), own=own)

    def store(self) -> Store:
        """What the service keeps, to look into it."""
        return Store.open(self.store_url, migrate=False)
