"""An engine that answers: the one this user reaches anyway, else a private one from Debian's package.

The private one keeps everything in a folder of its own and changes nothing of the machine's network: no bridge, no
packet filter, no forwarding. Builds use the host's network; containers reach each other and nobody else.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import DockerException
from rucio_trace_sandbox.processes import Server, program
from rucio_trace_sandbox.workspace import workspace

import docker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

# Images and layers take gigabytes: not in a folder that may lie in memory.
ON_DISK = Path("/var/tmp")


@dataclass(frozen=True)
class Engine:
    """A running engine; `build_network` is what `RUN` reaches the package registries through."""

    client: DockerClient
    private: bool
    environment: dict[str, str]

    @property
    def build_network(self) -> str | None:
        return "host" if self.private else None


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Lend the engine that answers, or a private one for as long as it is used."""
    with contextlib.suppress(DockerException):
        client = docker.from_env(timeout=1200)
        client.ping()
        yield Engine(client, private=False, environment=dict(os.environ))
        return
    if os.geteuid() != 0:
        raise RuntimeError("no Docker engine answers, and only root can start one")
    with workspace() as short, workspace(ON_DISK) as folder, _dockerd(short, folder) as client:
        address = {"DOCKER_HOST": f"unix://{short}/sock"}
        yield Engine(client, private=True, environment={**os.environ, **address})


@contextlib.contextmanager
def _dockerd(short: Path, folder: Path) -> Iterator[DockerClient]:
    argv = [
        program("dockerd", "docker.io"),
        *("--host", f"unix://{short}/sock", "--pidfile", short / "pid", "--exec-root", short / "exec"),
        *("--data-root", folder / "data", "--bridge", "none"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
    ]
    with Server("the Docker engine", argv, log=short / "log") as server:
        server.wait_until_ready(lambda: server.has_said(b"API listen on"), 60)
        client = docker.DockerClient(base_url=f"unix://{short}/sock", timeout=1200)
        try:
            yield client
        finally:
            for container in client.containers.list(all=True):
                container.remove(force=True)
            client.close()
