"""The commands of the demo: the very programs a user would call, in the demo's environment."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_trace_sandbox.errors import SandboxError
from rucio_trace_sandbox.processes import program, wrapper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Done", "NotSoError", "run"]

_COMMAND_SECONDS = 600
_TAIL_LINES = 20
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Rucio colours its log whether or not somebody looks


class NotSoError(SandboxError):
    """A step of the demo did not turn out as it was told."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    line: str
    status: int
    output: str
    talk: str

    @property
    def tail(self) -> str:
        """The end of what it said, for whoever looks for a fault: Rucio's commands may fail and end with 0."""
        lines = (self.output + self.talk).splitlines()[-_TAIL_LINES:]
        return "\n".join([f"the last command, `{self.line}`, ended with {self.status} and said:", *lines])

    def check(self, status: int = 0) -> Done:
        """Insist on the exit status."""
        if self.status != status:
            raise NotSoError(f"`{self.line}` ended with {self.status}, expected {status}:\n{self.output}{self.talk}")
        return self


def run(argv: Sequence[str], environment: Mapping[str, str], folder: Path) -> Done:
    """Run a program of this interpreter's environment in *folder*; if we are interrupted, so is all it started."""
    line = shlex.join(argv)
    executable = program(argv[0], "rucio-trace", Path(sys.executable).parent)
    process = subprocess.Popen(
        [*wrapper(None), executable, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
    )
    try:
        output, talk = process.communicate(timeout=_COMMAND_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotSoError(f"`{line}` did not end within {_COMMAND_SECONDS} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return Done(line, process.returncode, _COLOURS.sub("", output), _COLOURS.sub("", talk))
