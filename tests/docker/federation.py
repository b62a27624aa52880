"""What a test can do with the federation of `docker/compose.yaml`."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker.models.containers import Container
    from engine import Engine

ROOT = Path(__file__).parents[2]
PROJECT = "rucio-trace-test"


@dataclass(frozen=True)
class Federation:
    """What `docker/compose.yaml` brought up. `products` is the folder a user keeps files in."""

    engine: Engine
    environment: dict[str, str]
    products: Path

    def shell(self, script: str, status: int = 0) -> str:
        """Run a script as a user would, from the top of the checkout; returns what it printed."""
        done = subprocess.run(
            ["sh", "-eu", "-c", script], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=600
        )
        said = f"{script}\nended with {done.returncode}, expected {status}:\n{done.stdout}{done.stderr}"
        assert done.returncode == status, said[-6000:]
        return done.stdout

    def client(self, command: str, status: int = 0) -> str:
        """Run a command of Rucio's or ours as a user of the federation."""
        return self.shell(f"docker-compose run --rm --no-deps -T client {command}", status)

    def container(self, service: str) -> Container:
        """The one that `up` made for a service."""
        labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
        found = self.engine.client.containers.list(all=True, filters={"label": labels})
        (container,) = [one for one in found if one.labels.get("com.docker.compose.oneoff") != "True"]
        return container

    def run(self, service: str, *argv: str) -> tuple[int, str]:
        """Run a command inside a service; its status and all it said."""
        status, output = self.container(service).exec_run(list(argv))
        return status, output.decode(errors="replace")

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = self.shell("docker-compose logs --no-color --tail 30")
                raise AssertionError(f"{what}: not within {seconds:g} s\n{logs[-12000:]}")
            time.sleep(2)
