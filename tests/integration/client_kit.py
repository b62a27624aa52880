"""A trace service that goes and comes back, for those who ask it."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from forking import forked_program
from rucio_trace_sandbox.processes import free_port, wait_until

from rucio_trace.client import Client, ServiceStore
from rucio_trace.service import serving  # noqa: F401 imported once for every start
from rucio_trace.service.access import Role
from rucio_trace.service.tokens import TokenFile
from rucio_trace.store import Store

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Service"]


class Service:
    """`rucio-trace serve` on a store of its own: its port and its token stay the same when it is started again."""

    def __init__(self, folder: Path, trust: str, *, started: bool = True, **options: object) -> None:
        """*trust* is that section of its settings; *options* are of `[service]`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log, self.port = folder, folder / "log", free_port()
        self.url = f"http{'s' if 'certificate' in options else ''}://127.0.0.1:{self.port}"
        self.store_url = f"sqlite:///{folder}/traces.db"
        self.config = folder / "service.toml"
        told = "\n".join(f'{key} = "{value}"' for key, value in {"tokens": "tokens.json", **options}.items())
        self.config.write_text(f'[store]\nurl = "{self.store_url}"\n[trust]\n{trust}\n[service]\n{told}\n')
        tokens = TokenFile(folder / "tokens.json")
        self.token = tokens.create("recorder", "SITE-A", [Role.REGISTER, Role.READ], datetime.now(UTC))
        self.token_file = folder / "token"
        self.token_file.write_text(self.token + "\n")
        self._process: int | None = None
        if started:
            self.start()

    def start(self) -> None:
        self.log.write_bytes(b"")
        words = ("--config", str(self.config), "serve", "--port", str(self.port))
        self._process = forked_program(*words, log=self.log)
        wait_until(lambda: b"listening on " in self.log.read_bytes(), f"the start that {self.log} tells of")

    def kill(self) -> None:
        """Without a warning, as a machine goes."""
        if self._process is not None:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._process = None

    close = kill

    def client(self, *, token: bool = True, patience: float = 10.0, **options: Any) -> Client:
        return Client(self.url, self.token if token else None, patience=patience, **options)

    def asked(self, *, own: bool = True) -> ServiceStore:
        return ServiceStore(self.client(), own=own)

    def store(self) -> Store:
        """What the service keeps, to look into it."""
        return Store.open(self.store_url, migrate=False)
