"""Child processes that never outlive us.

Every server runs in a session of its own, so Ctrl-C on the terminal reaches only
the process that started it, which then stops its servers in order. Should that
process be killed before it can, the kernel sends each server its stop signal
(PR_SET_PDEATHSIG, set by util-linux's `setpriv` after it has dropped root).
The kernel watches the *thread* that forked: start servers from a thread that
lives as long as they should.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from .errors import MissingProgramError, SandboxError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Server", "first_user", "free_port", "give", "living", "program", "wait_until", "wrapper"]

# Below Linux's ephemeral range (32768 up), so that no outgoing connection of ours or
# anybody else's takes a port between our asking for it and a server's binding it.
_PORTS = range(21000, 32000)
_STOP_SECONDS = 10
_POLL_SECONDS = 0.02


class Server:
    """A running program; leaving the context stops it and everything it started."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start *argv*, as *user* when we are root and one is given."""
        self.name, self.log, self.stop_signal = name, log, stop_signal
        with log.open("ab") as output:
            self._log_start = output.tell()
            self.process = subprocess.Popen(
                [*wrapper(user, stop_signal), *(os.fspath(word) for word in argv)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_said(self, words: bytes) -> bool:
        """Whether *words* stand in the log since the start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return words in log.read()

    def wait_until_ready(self, ready: Callable[[], bool], seconds: float = 30) -> None:
        """Return once *ready* says so; raise `ServerError` when the server ended or time is up."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None:
                self.kill()
                raise ServerError(self.name, f"ended with status {self.process.returncode}", self.log)
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(self.name, f"not ready after {seconds:g} s", self.log)
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Stop the server; whatever it started goes with it."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the server and whatever it started (SIGKILL), and see them gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not living(self.process.pid), f"{self.name}: end of its processes")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def wrapper(user: str | None, stop_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """The words to put before a command so that it dies with us, and runs as *user* if we are root."""
    words = [program("setpriv", "util-linux"), "--pdeathsig", stop_signal.name.removeprefix("SIG")]
    if user is not None and os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        words += ["--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), "--clear-groups"]
    return [*words, "--"]


def program(name: str, package: str, *folders: Path) -> str:
    """Find a program in *folders*, then on PATH; `MissingProgramError` names Debian's package."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingProgramError(name, package)
    return found


def first_user(*names: str) -> str | None:
    """Pick the account a server may run as: the first that exists if we are root, else ourselves (None)."""
    if os.geteuid() != 0:
        return None
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise SandboxError(f"none of these accounts exists, and servers must not run as root: {', '.join(names)}")


def give(folder: Path, user: str | None) -> None:
    """Make *user* the owner of *folder* and of all it holds; None leaves it ours."""
    if user is None:
        return
    entry = pwd.getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def free_port(wanted: int | None = None) -> int:
    """Name a loopback port that nothing listens on now, *wanted* if that is so."""
    ports = random.sample(_PORTS, len(_PORTS))
    for port in ports if wanted is None else [wanted, *ports]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("0.0.0.0", port))  # noqa: S104 XRootD binds every interface, so ask about every one
                return port
    raise SandboxError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def living(session: int) -> list[int]:
    """List the processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything; after it come state, parent, group, session.
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                found.append(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Return once *condition* holds; raise naming *what* when time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SandboxError(f"{what}: still not so after {seconds:g} s")
        time.sleep(_POLL_SECONDS)
