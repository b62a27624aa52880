"""moto as an S3 storage over TLS, for this machine alone.

moto and Rucio pin the same libraries differently: it lives in an environment of its own, `moto` inside ours.
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SandboxError
from .processes import Server, free_port
from .webdav import listens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tls import LoopbackTls

__all__ = ["ACCESS_KEY", "SECRET_KEY", "Moto"]

ACCESS_KEY, SECRET_KEY = "sandbox", "sandbox-secret"


class Moto:
    """A running server; `client` is boto3's."""

    def __init__(self, port: int, client: Any) -> None:
        self.port, self.client = port, client

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path, tls: LoopbackTls) -> Iterator[Moto]:
        import boto3

        program = Path(sys.prefix) / "moto" / "bin" / "moto_server"
        if not program.exists():
            raise SandboxError(f"{program} is missing: run `make moto VENV={sys.prefix}`")
        folder.mkdir(parents=True)
        port = free_port()
        argv = [program, "-H", "127.0.0.1", "-p", str(port), "-c", tls.certificate, "-k", tls.key]
        with Server("moto", argv, log=folder / "log", cwd=folder) as server:
            server.wait_until_ready(partial(listens, port))
            client = boto3.client(
                "s3",
                endpoint_url=f"https://127.0.0.1:{port}",
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
                region_name="us-east-1",
                verify=str(tls.ca),
            )
            yield cls(port, client)
