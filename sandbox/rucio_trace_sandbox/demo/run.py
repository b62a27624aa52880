"""The demo as a whole: its folder, its beginning, its end, also when it is cut short."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rucio_trace_sandbox.errors import SandboxError
from rucio_trace_sandbox.processes import first_user, program, wrapper

from .federation import Federation, Place
from .narrator import Narrator
from .story import STEPS, Story

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["play"]


def play(folder: Path | None, product: Path | None, megabytes: float) -> None:
    """Run the demo in *folder* (a new one below the temporary folder unless given) with the user's *product*.

    At the end no process runs any more; what was made stays. Interrupted, it removes what it made.

    Raises:
        SandboxError: something could not be made, or a step did not turn out as told. The folder stays for a look.
    """
    _end_on_signals()
    narrator = Narrator()
    with _demo_folder(folder) as made:
        place = Place(made)
        narrator.tell(f"Everything of this demo lies in {made}")
        try:
            _play(place, narrator, product, megabytes)
        except SandboxError:
            narrator.tell(f"\nThe demo did not succeed. Logs are in {place.logs}; remove all with: rm -rf {made}")
            raise
    narrator.tell(_farewell(place))


def _play(place: Place, narrator: Narrator, product: Path | None, megabytes: float) -> None:
    with contextlib.ExitStack() as stack:
        (first, tell_first), *others = STEPS
        narrator.begin(1, first)
        with narrator.doing("starting Rucio, XRootD and a certification authority"):
            federation = stack.enter_context(Federation.build(place))
        story = Story(federation, narrator, product, megabytes)
        tell_first(story)
        for number, (title, happen) in enumerate(others, start=2):
            narrator.begin(number, title)
            happen(story)
        narrator.begin(len(STEPS) + 1, "Look around")


@contextlib.contextmanager
def _demo_folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is None:
        folder = Path(tempfile.mkdtemp(prefix="rucio-trace-demo-"))
    else:
        folder = wanted.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise SandboxError(f"{folder}: not empty; the demo wants a folder of its own")
        except OSError as error:
            raise SandboxError(f"{folder}: {error.strerror}") from error
    try:
        folder.chmod(0o755)  # XRootD runs as another account
        _check_reachable(folder)
        yield folder
    except (KeyboardInterrupt, SystemExit):
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_reachable(folder: Path) -> None:
    user = first_user("xrootd", "nobody")
    look = [*wrapper(user), program("test", "coreutils"), "-x", str(folder)]
    if subprocess.run(look, check=False).returncode:
        raise SandboxError(
            f"{folder}: the account {user}, as which XRootD runs, cannot enter it; choose another folder"
        )


def _end_on_signals() -> None:
    """Let the signals that end a process unwind it, so that the servers are stopped in order."""

    def end(number: int, _frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def _farewell(place: Place) -> str:
    remove = f"rm -rf {place.folder}"
    if os.geteuid() == 0:
        remove = f"rm -rf {place.folder}   (as root: XRootD's files are its own)"
    return f"""\
All servers have stopped; no process of the demo is left. In {place.folder} lie the databases, the four
storages, keys, settings and logs.

  {place.look_around}
      starts the servers again, with a shell in which rucio, rucio-trace and rucio-trace-recorder work on them
  {remove}
      removes everything"""
