"""The commands of the demo: the very programs a user would call, in the demo's environment."""

from __future__ import annotations

import contextlib
import os
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


class NotSoError(SandboxError):
    """A step of the demo did not turn out as it was told."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    line: str
    status: int
    output: str
    talk: str

    def check(self, status: int = 0, *holds: str) -> Done:
        """Insist on the exit status and on words in what was printed."""
        if self.status != status:
            raise NotSoError(f"`{self.line}` ended with {self.status}, expected {status}:\n{self.output}{self.talk}")
        for words in holds:
            if words not in self.output + self.talk:
                raise NotSoError(f"`{self.line}` did not say “{words}”:\n{self.output}{self.talk}")
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
    return Done(line, process.returncode, output, talk)
