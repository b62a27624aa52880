"""`FOLDER/look-around`: the servers of a demo run again, for as long as a shell or a command does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from rucio_trace_sandbox.errors import SandboxError

from .federation import Federation, Place

__all__ = ["main"]

_GREETING = """\
The servers of the demo run again. In this shell, for example:
  rucio did list --filter 'type=FILE' eo:*
  rucio-trace search
  rucio-trace-recorder --run-once --config {folder}/recorder-a.toml
`exit` stops the servers."""


def main(argv: list[str]) -> int:
    """Run *argv*'s command, or a shell, on the demo whose folder is the first argument."""
    place = Place(Path(argv[1]))
    command = argv[2:]
    try:
        with Federation.run(place) as federation:
            if not command:
                print(_GREETING.format(folder=place.folder))  # noqa: T201
                command = [os.environ.get("SHELL", "/bin/sh")]
            # Ctrl-C is for what runs in the shell, not for us.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return subprocess.run(command, env=federation.environment(), check=False).returncode
    except SandboxError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv))
