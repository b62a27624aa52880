"""A trace service on loopback: `rucio-trace serve`, as its operator starts it."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["trace_service"]

_LISTENING = re.compile(rb"listening on (\S+), ")


@contextlib.contextmanager
def trace_service(settings: Path, log: Path, port: int | None = None) -> Iterator[str]:
    """Serve the store that *settings* name, on *port* if it is free; the URL."""
    program = Path(sys.executable).with_name("rucio-trace")
    argv = [program, "--config", settings, "serve", "--port", str(free_port(port))]
    with Server("trace service", argv, log=log, cwd=settings.parent) as server:
        server.wait_until_ready(lambda: server.has_said(b"listening on "), 60)
        yield _LISTENING.findall(log.read_bytes())[-1].decode()
