"""Daemons and programs in children forked from the warm process of a test: to be killed, or to run side by side."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

from rucio_trace.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recorder_kit import Kit

__all__ = ["forked", "forked_program", "killed_at", "was_killed"]

_PR_SET_PDEATHSIG = 1


def forked(kit: Kit, work: Callable[[], None]) -> int:
    """Do *work* in a child; returns its process id, to be waited for."""
    kit.rucio.engine.dispose()  # no connection may be in two processes
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def was_killed(child: int) -> bool:
    """Wait for its end; whether it was killed, and else had no error."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the daemon failed by itself"
    return False


def killed_at(kit: Kit, run: Callable[[Callable[[str], None]], None], seam: str, hit: int = 1) -> bool:
    """*run* in a child that kills itself at the *hit*-th passing of *seam*; whether it got that far."""
    passed = Counter[str]()

    def at_seam(name: str) -> None:
        passed[name] += 1
        if name == seam and passed[name] == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    return was_killed(forked(kit, lambda: run(at_seam)))


def forked_program(*words: str, log: Path) -> int:
    """`rucio-trace` with these *words*, which need not import again what we have; returns its process id."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            with log.open("ab") as output:
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            sys.argv = ["rucio-trace", *words]
            main()
        finally:
            os._exit(1)
    return child
