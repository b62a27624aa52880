"""nginx as a WebDAV storage over TLS, for this machine alone."""

from __future__ import annotations

import contextlib
import shutil
import socket
from functools import partial
from typing import TYPE_CHECKING

from .processes import Server, first_user, free_port, give, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .tls import LoopbackTls

__all__ = ["Nginx", "listens"]

_CONFIG = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off; sendfile on; client_max_body_size 0;
  client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/host.pem; ssl_certificate_key {folder}/host.key;
    root {folder}/data;
    location / {{ dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on; autoindex on; }}
  }}
}}
"""


class Nginx:
    """A running server; its `/` is the folder `data`."""

    def __init__(self, folder: Path, port: int, user: str | None, server: Server) -> None:
        self.data, self.port, self.user, self.server = folder / "data", port, user, server

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path, tls: LoopbackTls) -> Iterator[Nginx]:
        """Run a server whose data and log lie in *folder*."""
        user, port = first_user("www-data", "nobody"), free_port()
        for made in (folder / "data", folder / "tmp"):
            made.mkdir(parents=True)
        for file in (tls.certificate, tls.key):
            shutil.copy(file, folder)
        (folder / "conf").write_text(_CONFIG.format(folder=folder, port=port))
        give(folder, user)
        argv = [program("nginx", "nginx-light"), "-p", folder, "-c", folder / "conf", "-e", "stderr"]
        with Server("nginx", argv, log=folder / "log", user=user) as server:
            server.wait_until_ready(partial(listens, port))
            yield cls(folder, port, user, server)

    def make_folder(self, name: str) -> Path:
        """Create a top-level folder that the server may write to."""
        folder = self.data / name.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        give(folder, self.user)
        return folder


def listens(port: int) -> bool:
    """Whether somebody accepts connections on *port* of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
