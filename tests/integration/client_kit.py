"""A trace service for tests: `rucio-trace serve` as its operator starts it, on a store of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rucio_trace.client import Client, ServiceStore
from rucio_trace.service.access import Role
from rucio_trace.service.tokens import TokenFile
from rucio_trace.store import Store

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

__all__ = ["ServiceProcess"]

CLI = "from rucio_trace.cli import main; main()"


class ServiceProcess:
    """Killed and started again at will; its port and its token stay the same."""

    def __init__(self, folder: Path, trust: str, store: str | None = None, **settings: Any) -> None:
        """*trust* is the `[trust]` section of its settings."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, 0
        self.store_url = store or f"sqlite:///{folder}/traces.db"
        lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
        self.config = folder / "service.toml"
        self.config.write_text(
            f'[store]\nurl = "{self.store_url}"\n[trust]\n{trust}\n[service]\ntokens = "tokens.json"\n{lines}\n'
        )
        tokens = TokenFile(folder / "tokens.json")
        self.token = tokens.create("recorder", "SITE-A", [Role.REGISTER, Role.READ], datetime.now(UTC))
        self.token_file = folder / "token"
        self.token_file.write_text(self.token + "\n")
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", CLI, "--config", str(self.config), "serve", "--port", str(self.port)]
        with (self.folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), (self.folder / "service.log").read_text()
        self.url = line.split()[2].rstrip(",")
        self.port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """Without a warning, as a machine goes."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
            self._process.wait(30)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def client(self, *, token: bool = True, patience: float = 5.0, **options: Any) -> Client:
        return Client(self.url, self.token if token else None, patience=patience, **options)

    def asked(self, *, own: bool = True) -> ServiceStore:
        return ServiceStore(self.client(), own=own)

    def store(self) -> Store:
        """What the service keeps, to look into it."""
        return Store.open(self.store_url, migrate=False)
