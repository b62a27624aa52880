"""Rucio's REST server: within this process (quick to start) or as gunicorn (as sites run it)."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
import urllib.error
import urllib.request
from functools import cached_property
from typing import TYPE_CHECKING

from .home import PASSWORD, USERNAME, RucioHome
from .processes import Server
from .storage import SCOPE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio.client import Client
    from rucio.client.uploadclient import UploadClient

__all__ = ["Rest", "gunicorn", "in_process"]

_THREADS = 8


class Rest:
    """A REST server that answers at `url`; `home` is that of a user of its."""

    def __init__(self, url: str, home: RucioHome, server: Server | None = None) -> None:
        self.url, self.home, self.server = url, home, server

    @cached_property
    def root(self) -> Client:
        """Rucio's Python client, logged in as root."""
        return self.login("root", USERNAME, PASSWORD)

    @cached_property
    def uploader(self) -> UploadClient:
        """What `rucio upload` calls, as root."""
        from rucio.client.uploadclient import UploadClient

        return UploadClient(self.root, logger=logging.getLogger("rucio.upload"))

    def upload(self, path: Path, rse: str, scope: str = SCOPE) -> str:
        """Upload a file as the stock client does; returns its DID."""
        self.uploader.upload([{"path": str(path), "rse": rse, "did_scope": scope, "register_after_upload": False}])
        return f"{scope}:{path.name}"

    def add_account(self, name: str) -> Client:
        """Create a user's account and log in as it; it has a scope `user.NAME`."""
        self.root.add_account(name, "USER", f"{name}@example.org")
        self.root.add_identity(name, name, "USERPASS", f"{name}@example.org", password=PASSWORD)
        self.root.add_scope(name, f"user.{name}")
        return self.login(name, name, PASSWORD)

    def login(self, account: str, username: str, password: str) -> Client:
        """Log in; the token is kept beside the other ones of this server only."""
        from rucio.client import Client
        from rucio.common.config import config_set

        # The client takes the path from this process's configuration, whichever server it is for.
        config_set("client", "auth_token_file_path", str(self.home.folder / "tokens" / account))
        return Client(
            rucio_host=self.url,
            auth_host=self.url,
            account=account,
            auth_type="userpass",
            creds={"username": username, "password": password},
        )


@contextlib.contextmanager
def in_process(folder: Path) -> Iterator[Rest]:
    """Serve whatever Rucio this process is attached to at the moment (see `embedded`)."""
    from rucio.web.rest.main import application
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object) -> None:
            pass

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield Rest(url, RucioHome.client(folder, url))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def gunicorn(home: RucioHome, folder: Path, port: int | None = None) -> Iterator[Rest]:
    """Serve *home* from a process of its own, on *port* if it is free; *folder* takes log and a client's home."""
    folder.mkdir(parents=True, exist_ok=True)
    with _listen(port) as listener:
        # The bound socket is handed over, so nobody can take the port in between.
        listener.set_inheritable(True)
        port = listener.getsockname()[1]
        argv = [
            sys.executable,
            *("-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--workers", "1", "--threads", str(_THREADS)),
            *("--no-control-socket", "--graceful-timeout", "2", "--log-level", "warning"),
            "rucio.web.rest.main:application",
        ]
        server = Server(
            "Rucio's REST server",
            argv,
            log=folder / "log",
            env=home.environment(),
            pass_fds=[listener.fileno()],
        )
    with server:
        url = f"http://127.0.0.1:{port}"
        server.wait_until_ready(lambda: _answers(f"{url}/ping"), 60)
        yield Rest(url, RucioHome.client(folder / "client", url), server)


def _listen(wanted: int | None) -> socket.socket:
    with contextlib.suppress(OSError):
        return socket.create_server(("127.0.0.1", wanted or 0))
    return socket.create_server(("127.0.0.1", 0))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 the caller's own loopback
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        raise  # it answers, and wrongly: waiting does not help
    except OSError:
        return False
