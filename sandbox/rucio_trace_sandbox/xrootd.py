"""XRootD servers that only this machine may talk to.

Debian's 5.5.3 listens on every interface. Two locks keep others out: `xrd.allow`
drops their connections, and the authorisation file grants this host's loopback
name everything and nobody else anything. (The name alone would trust whoever
controls the reverse DNS of his own address.) `localhost` in a URL makes
third-party copy hang: always write 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
from functools import partial
from typing import TYPE_CHECKING

from .errors import SandboxError, ServerError
from .processes import Server, first_user, free_port, give, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .tls import LoopbackTls

__all__ = ["ACCOUNTS", "XRootD"]

ACCOUNTS = ("xrootd", "nobody")
"""Whom a server may run as, started by root."""

_ATTEMPTS = 5
_CHECKSUMS = "max 2 adler32 crc32c md5"
_READY = "initialization completed."
# A Unix socket's path holds 107 bytes; the server puts `admin/NAME/.xrd/…` behind ours.
_MAX_FOLDER_LENGTH = 64
_CONFIG = """\
all.export /
oss.localroot {folder}/data
all.adminpath {folder}/admin
all.pidpath {folder}/admin
xrd.port {port}
xrd.allow host 127.0.0.1
xrootd.chksum {checksums}
ofs.tpc ttl 60 60 xfr 9 pgm {xrdcp} --server
ofs.authorize
acc.authdb {folder}/authdb
"""
_HTTP = """\
xrd.tls {folder}/host.pem {folder}/host.key
xrd.tlsca noverify
xrd.protocol http:{port} libXrdHttp.so
"""


class XRootD:
    """A running server; its `/` is the folder `data`, which belongs to the account it runs as."""

    def __init__(self, folder: Path, port: int, user: str | None, server: Server, https_port: int | None) -> None:
        self.data, self.port, self.user, self.server = folder / "data", port, user, server
        self.https_port = https_port

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        folder: Path,
        name: str = "xrootd",
        port: int | None = None,
        tls: LoopbackTls | None = None,
        checksums: str = _CHECKSUMS,
    ) -> Iterator[XRootD]:
        """Run a server whose data, authorisation file and log lie in *folder* (a new or an earlier one).

        It listens on *port* if that is free, else on another one; with *tls* on `https_port` as well. *checksums* are
        those it answers, as `xrootd.chksum` has them.
        """
        if len(str(folder)) > _MAX_FOLDER_LENGTH:
            raise SandboxError(f"{folder}: too long for XRootD's sockets; use one of {_MAX_FOLDER_LENGTH} characters")
        user = first_user(*ACCOUNTS)
        for made in (folder / "data", folder / "admin"):
            made.mkdir(parents=True, exist_ok=True)
        (folder / "authdb").write_text(f"h {socket.gethostbyaddr('127.0.0.1')[0]} / a\n")
        for file in () if tls is None else (tls.certificate, tls.key):
            shutil.copy(file, folder)
        give(folder, user)
        _require_host_name()
        port, https_port, server = _start(folder, name, user, port, checksums, https=tls is not None)
        with server:
            yield cls(folder, port, user, server, https_port)

    @property
    def url(self) -> str:
        """The server's root: append a path that begins with `/`."""
        return f"root://127.0.0.1:{self.port}/"

    def make_folder(self, name: str) -> Path:
        """Create a top-level folder that the server may write to."""
        folder = self.data / name.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        give(folder, self.user)
        return folder


def _require_host_name() -> None:
    """XRootD wants to know who it is before it serves anybody, and says little when it cannot."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None, socket.AF_INET)
    except socket.gaierror as error:
        raise SandboxError(
            f"this machine's own name, {name}, has no IPv4 address, which XRootD needs; "
            f"add to /etc/hosts: 127.0.1.1 {name}"
        ) from error


def _start(
    folder: Path, name: str, user: str | None, wanted: int | None, checksums: str, *, https: bool
) -> tuple[int, int | None, Server]:
    xrootd, xrdcp = program("xrootd", "xrootd-server"), program("xrdcp", "xrootd-client")
    config = folder / "xrootd.cf"
    for attempt in range(1, _ATTEMPTS + 1):
        # Between our asking for a port and its binding, somebody else may take it: then another one.
        port = free_port(wanted if attempt == 1 else None)
        https_port = free_port() if https else None
        more = _HTTP.format(folder=folder, port=https_port) if https else ""
        settings = _CONFIG.format(folder=folder, port=port, xrdcp=xrdcp, checksums=checksums)
        config.write_text(settings + more)
        server = Server(name, [xrootd, "-I", "v4", "-c", config, "-n", name], log=folder / "log", user=user, cwd=folder)
        try:
            # It names the port of the protocol that was set up last.
            server.wait_until_ready(partial(server.has_said, f":{https_port or port} {_READY}".encode()))
        except ServerError:
            if attempt == _ATTEMPTS:
                raise
        else:
            return port, https_port, server
    raise AssertionError("the loop returns or raises")
