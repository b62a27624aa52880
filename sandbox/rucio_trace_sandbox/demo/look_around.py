"""`FOLDER/look-around`: the servers of a demo run again, for as long as a shell or a command does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rucio_trace_sandbox import daemons
from rucio_trace_sandbox.errors import SandboxError
from rucio_trace_sandbox.processes import Server

from .federation import SITES, Federation, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]

_GREETING = """\
The federation of the demo runs again: Rucio with its daemons, XRootD, both recorders. Try for example:
  rucio did list --filter type=FILE --short 'eo:*'
  rucio rule add --copies 1 --rses XRD-B eo:NAME      (and watch the trace come: rucio-trace history eo:NAME)
  rucio-trace search --event CREATE
`exit` stops the servers."""
_PAUSE_SECONDS = 3.0
_CANNOT_RUN = 3


def main(argv: list[str]) -> int:
    """Run *argv*'s command, or a shell, on the demo whose folder is the first argument."""
    place, command = Place(Path(argv[1])), argv[2:]
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        with Federation.run(place) as federation, _everyday_life(federation):
            if not command:
                print(_GREETING)  # noqa: T201
                command = [os.environ.get("SHELL", "/bin/sh")]
            # Ctrl-C is for what runs in the shell, not for us.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return subprocess.run(command, env=federation.environment(), check=False).returncode
    except SandboxError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return _CANNOT_RUN


@contextlib.contextmanager
def _everyday_life(federation: Federation) -> Iterator[None]:
    """Run Rucio's daemons, round after round, and the recorders."""
    place, environment = federation.place, federation.environment()
    ended = threading.Event()
    rounds = threading.Thread(target=_rounds, args=(federation, ended), name="rucio-daemons")
    with contextlib.ExitStack() as stack:
        for site in SITES:
            argv = ["--sleep-time", "2", "--config", str(place.recorder_settings(site))]
            program = Path(sys.executable).with_name("rucio-trace-recorder")
            log = place.logs / f"recorder-{site.lower()}.log"
            stack.enter_context(Server(f"recorder of SITE-{site}", [program, *argv], log=log, env=environment))
        rounds.start()
        try:
            yield
        finally:
            ended.set()
            rounds.join()


def _rounds(federation: Federation, ended: threading.Event) -> None:
    while not ended.wait(_PAUSE_SECONDS):
        try:
            daemons.evaluate()
            daemons.move(federation.fts)
            daemons.clean()
            daemons.reap("*")
        except Exception:
            # As Rucio's own loop does: a round that failed is told in the log, and the next one begins.
            logging.getLogger(__name__).exception("a round of Rucio's daemons failed")


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
