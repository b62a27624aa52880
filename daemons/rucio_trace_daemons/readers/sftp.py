"""Files behind SSH: the SFTP protocol (paramiko's) over the connection that OpenSSH's own client makes.

Rucio's protocol for such storage runs `ssh` and `scp`; so do we, and have the same keys, agents, jump hosts and known
hosts, whatever the account's configuration says. The encryption is done in that other process, too.
"""

from __future__ import annotations

import socket
import stat
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rucio_trace_daemons.readers.base import silence
from rucio_trace_daemons.storage_errors import Changed, NotFound, Refused, ShortRead, Unavailable, from_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paramiko import SFTPClient

    from rucio_trace.errors import StorageError
    from rucio_trace_daemons.readers.base import StorageDigest
    from rucio_trace_daemons.streams import Pieces

__all__ = ["SCHEMES", "SftpReader"]

SCHEMES = frozenset({"sftp", "ssh", "scp"})

PIECE = 1 << 20
# So much is asked for at once: enough to fill a long line, and all of it may lie in memory.
WINDOW = 16 * PIECE
CONNECT_SECONDS, SILENT_SECONDS = 10, 60
# Never a question to a terminal, never a host that is not known; the rest is the account's own configuration.
_OPTIONS = ("BatchMode=yes", "StrictHostKeyChecking=yes", f"ConnectTimeout={CONNECT_SECONDS}", "LogLevel=ERROR")
_CONNECTION_FAILED = 255
_NOT_OURS = (b"permission denied", b"host key verification failed", b"too many authentication failures")


class SftpReader:
    """Reads files of one server; `user` as the RSE's protocol names it."""

    def __init__(self, user: str | None) -> None:
        self._user = user
        silence("paramiko")  # it writes down every path

    @contextmanager
    def pieces(self, what: str, url: str, size: int | None = None) -> Iterator[Pieces]:
        with self._session(what, url) as (client, path), _errors(what):
            before = client.stat(path)
            if not stat.S_ISREG(before.st_mode or 0):
                raise Unavailable(what, "is not a regular file")
            with client.open(path, "rb") as file:
                yield _pieces(what, file, before.st_size or 0)
                after = client.stat(path)
        if (before.st_size, before.st_mtime) != (after.st_size, after.st_mtime):
            raise Changed(what)

    def exists(self, what: str, url: str) -> bool:
        try:
            with self._session(what, url) as (client, path), _errors(what):
                return stat.S_ISREG(client.stat(path).st_mode or 0)
        except NotFound:
            return False

    def check_folder(self, what: str, url: str) -> bool:
        with self._session(what, url) as (client, path), _errors(what):
            if not stat.S_ISDIR(client.stat(path).st_mode or 0):
                raise NotFound(what)
        return True

    def digest(self, what: str, url: str, algorithms: Sequence[str]) -> StorageDigest | None:
        return None

    @contextmanager
    def _session(self, what: str, url: str) -> Iterator[tuple[SFTPClient, str]]:
        from paramiko import SFTPClient, SFTPError, SSHException

        # Not urlsplit().path: a name may hold '?' and '#', and Rucio does not escape them.
        place = urlsplit(url.partition("#")[0].partition("?")[0])
        path = "/" + url.partition("://")[2].partition("/")[2]
        user, host = place.username or self._user, place.hostname or ""
        argv = ["ssh", *(f"-o{option}" for option in _OPTIONS), "-p", str(place.port or 22)]
        argv += [*(("-l", user) if user else ()), "-s", "--", host, "sftp"]
        ours, theirs = socket.socketpair()
        ours.settimeout(SILENT_SECONDS)
        with tempfile.TemporaryFile() as said, ours:
            try:
                process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=said)
            except FileNotFoundError:
                raise Unavailable(what, "OpenSSH's client is not installed") from None
            finally:
                theirs.close()
            try:
                try:
                    client = SFTPClient(_Line(ours))  # type: ignore[arg-type]  # it asks no more of a channel
                except (SSHException, SFTPError, EOFError, OSError) as error:
                    raise _connection_error(what, process, said) from error
                yield client, path
            finally:
                _end(process, ours)


class _Line:
    """A socket whose time-out paramiko respects: of a real one it takes no notice."""

    def __init__(self, line: socket.socket) -> None:
        self.send, self.recv, self.close = line.send, line.recv, line.close

    def get_name(self) -> str:
        return "ssh"


def _end(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    with suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pieces(what: str, file: object, size: int) -> Pieces:
    taken = 0
    with _errors(what):
        for start in range(0, size, WINDOW):
            end = min(start + WINDOW, size)
            for piece in file.readv([(at, min(PIECE, end - at)) for at in range(start, end, PIECE)]):  # type: ignore[attr-defined]
                taken += len(piece)
                yield piece
            if taken != end:
                raise ShortRead(what, size, taken)


def _connection_error(what: str, process: subprocess.Popen[bytes], said: object) -> StorageError:
    """Why there is no connection; the words of ssh stay here, for they name hosts, accounts and files."""
    try:
        process.wait(CONNECT_SECONDS)
    except subprocess.TimeoutExpired:
        return Unavailable(what, "the SSH server says nothing")
    said.seek(0)  # type: ignore[attr-defined]
    words = said.read(65536).lower()  # type: ignore[attr-defined]
    if process.returncode == _CONNECTION_FAILED and any(reason in words for reason in _NOT_OURS):
        return Refused(what)
    return Unavailable(what, f"no SFTP over SSH (ssh ended with status {process.returncode})")


@contextmanager
def _errors(what: str) -> Iterator[None]:
    from paramiko import SFTPError, SSHException

    try:
        yield
    except (SSHException, SFTPError, EOFError):
        raise Unavailable(what, "the SFTP connection broke") from None
    except TimeoutError:
        raise Unavailable(what, f"the SFTP server says nothing for {SILENT_SECONDS} s") from None
    except OSError as error:
        raise from_os_error(what, error) from None
