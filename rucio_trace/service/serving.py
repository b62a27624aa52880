"""The service as processes: opened from the settings, one port, as many workers as wanted.

`open_app` runs in each worker; `run` prepares the store and the port once, and stays until a signal ends it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from rucio_trace.configured import open_database
from rucio_trace.errors import ConfigurationError
from rucio_trace.service.access import Access
from rucio_trace.service.app import Service, create_app
from rucio_trace.service.heads import BoundedHeads
from rucio_trace.service.tokens import Tokens
from rucio_trace.watched import Trusted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fastapi import FastAPI

    from rucio_trace.config import Service as ServiceSettings
    from rucio_trace.config import Settings

__all__ = ["at_home", "open_app", "run"]

_GRACE_SECONDS = 30  # what a transaction of the store may still take when the service ends
_IDLE_SECONDS = 75  # longer than clients and proxies keep a connection, so that it is they who close it
_START_SECONDS = 60  # a worker that imports on a busy host answers late; one that is silent for longer hangs
_BACKLOG = 2048  # connections that wait to be accepted


def at_home(settings: Settings, environment: Mapping[str, str] = os.environ) -> Settings:
    """*settings* with a store and a file of tokens: where none are named, those of the user."""
    data = environment.get("XDG_DATA_HOME") or Path(environment.get("HOME", "/var/lib")) / ".local" / "share"
    folder = Path(data) / "rucio-trace"
    store, service = settings.store, settings.service
    if not store.url:
        store = replace(store, url=f"sqlite:///{folder / 'traces.db'}")
    return replace(settings, store=store, service=replace(service, tokens=service.tokens or folder / "tokens.json"))


def open_app(settings: Settings) -> FastAPI:
    """The service that *settings*, completed by `at_home`, describe, on a store that is ready.

    Raises:
        ConfigurationError, StorageError: something named is missing or wrong.
    """
    _end_with_parent()
    # Requests leave no circles: collecting as often as usual takes a tenth of the time that parsing does.
    gc.set_threshold(50_000, 20, 50)
    # A thread that checks signatures gives way at each of them, and would wait 5 ms, the default, for each turn.
    sys.setswitchinterval(0.0005)
    assert settings.service.tokens is not None
    access = Access(Tokens(settings.service.tokens), frozenset(settings.service.private))
    trusted = Trusted(settings.trust)
    store = open_database(settings, migrate=False)
    return create_app(Service(store, trusted, settings.trust.allow_stale_crl, access, settings.service))


def run(settings: Settings, listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; *listening* is told the address once connections are taken.

    Raises:
        ConfigurationError, StorageError: as `open_app`; or the address cannot be listened on.
    """
    service = settings.service
    if (service.certificate is None) != (service.key is None):
        raise ConfigurationError("[service]", expected="certificate and key, or neither", found="one of them")
    if settings.store.url.startswith("sqlite:///"):
        Path(settings.store.url.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)
    with open_database(settings, migrate=True):
        pass
    with _listening(service) as ports, _counting_together(service.workers):
        config = _config(settings)
        _try(config if service.workers == 1 else _config(settings))
        host = f"[{service.address}]" if ":" in service.address else service.address
        listening(f"http{'s' if service.certificate else ''}://{host}:{ports[0].getsockname()[1]}")
        if service.workers == 1:
            uvicorn.Server(config).run(ports)
        else:
            _Workers(config, ports).run()


class _Workers(Multiprocess):
    """Workers that each listen on a socket of their own.

    With one for all, whoever wakes first takes all connections that come at a time, and one core does all the work. A
    worker that takes the place of another listens on all of them.
    """

    def init_processes(self) -> None:
        self._counting: set[int | None] = set()
        for port in self.sockets:
            self.processes.append(Process(self.config, [port]))
            self.processes[-1].start()

    def keep_subprocess_alive(self) -> None:
        """And forget what waited in those whose place others have taken."""
        super().keep_subprocess_alive()
        alive = {process.pid for process in self.processes}
        for dead in self._counting - alive:
            mark_process_dead(dead)  # type: ignore[no-untyped-call]
        self._counting = alive


def _config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        partial(open_app, settings),
        factory=True,
        workers=settings.service.workers,
        loop="uvloop",
        http=partial(BoundedHeads, seconds=settings.service.max_silence_seconds),  # type: ignore[arg-type]
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_worker_healthcheck=_START_SECONDS,
        ssl_certfile=settings.service.certificate,
        ssl_keyfile=settings.service.key,
    )


def _try(config: uvicorn.Config) -> None:
    """What is wrong shows before anybody connects, and not again and again in workers."""
    try:
        config.load()
    except OSError as error:  # ssl's are
        files = f"{config.ssl_certfile}, {config.ssl_keyfile}"
        raise ConfigurationError(files, expected="a certificate and its key", found=str(error)) from error


@contextmanager
def _listening(service: ServiceSettings) -> Iterator[list[socket.socket]]:
    """A socket for each worker, all on one port: the kernel deals connections out among them."""
    ports: list[socket.socket] = []
    try:
        shared = service.workers > 1
        if shared:  # else another service of this user could have a part of the connections, unnoticed
            _listen(service, service.port, shared=False).close()
        for _ in range(service.workers):
            ports.append(_listen(service, ports[0].getsockname()[1] if ports else service.port, shared=shared))
        yield ports
    finally:
        for port in ports:
            port.close()


def _listen(service: ServiceSettings, number: int, *, shared: bool) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(
            service.address, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        port = socket.create_server(address[:2], family=family, backlog=_BACKLOG, reuse_port=shared)
    except OSError as error:
        where = f"{service.address} port {number}"
        raise ConfigurationError(
            where, expected="an address to listen on", found=error.strerror or str(error)
        ) from error
    port.set_inheritable(True)
    return port


@contextmanager
def _counting_together(workers: int) -> Iterator[None]:
    """A folder in which several processes count, so that any of them can tell for all."""
    if workers == 1:
        yield
        return
    folder = tempfile.mkdtemp(prefix="rucio-trace-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on, and hold the port that its successor wants."""
    if (parent := multiprocessing.parent_process()) is not None:

        def follow(sentinel: int = parent.sentinel) -> None:
            wait([sentinel])
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=follow, name="parent", daemon=True).start()
