"""What can go wrong while a sandbox is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_trace.errors import TraceabilityError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MissingProgramError", "SandboxError", "ServerError"]

_LOG_TAIL_LINES = 15


class SandboxError(TraceabilityError):
    """A part of the sandbox could not be made; the text may have several lines."""

    def __str__(self) -> str:
        return self.subject


class MissingProgramError(SandboxError):
    def __init__(self, program: str, package: str) -> None:
        self.program, self.package = program, package
        super().__init__(f"{program}: not found; on Debian it comes with `apt-get install {package}`")


class ServerError(SandboxError):
    def __init__(self, name: str, what: str, log: Path) -> None:
        self.name, self.log = name, log
        super().__init__(f"{name}: {what}\n{_tail(log)}")


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return f"(no log at {log})"
    return "\n".join([f"the end of {log}:", *lines[-_LOG_TAIL_LINES:]])
