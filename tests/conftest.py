"""Fixtures: a real Rucio, real databases, real storage, real servers. See `rucio_trace_sandbox`."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from rucio_trace_sandbox.activemq import ActiveMQ
from rucio_trace_sandbox.fts import FtsStandIn
from rucio_trace_sandbox.home import RucioHome, claim_process
from rucio_trace_sandbox.mariadb import RUCIO_CHARSET, MariaDbServer
from rucio_trace_sandbox.pki import SandboxAuthority
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.rest import gunicorn as start_gunicorn
from rucio_trace_sandbox.rest import in_process
from rucio_trace_sandbox.s3 import Moto
from rucio_trace_sandbox.sftp import Sshd
from rucio_trace_sandbox.tls import LoopbackTls
from rucio_trace_sandbox.webdav import Nginx
from rucio_trace_sandbox.workspace import workspace
from rucio_trace_sandbox.xrootd import XRootD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.rest import Rest

# Modules are kept compiled, for us and for all that we start, elsewhere where that is forbidden beside them:
# half the time of a short process is else its compiler's.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(sys.prefix) / "compiled")
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": sys.pycache_prefix}

# A machine under load is no reason for a property to fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell that starts us in the background makes us, and so every program we test, deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Rucio reads its configuration when it is imported, and test modules import it at their top:
# so this process gets a home now. The fixture `rucio` then gives every test one of its own.
_stack = contextlib.ExitStack()
_OWNER = os.getpid()


@atexit.register
def _end() -> None:
    if os.getpid() == _OWNER:  # a test may fork, and its child may end in the ordinary way
        _stack.close()


_WORKSPACE = _stack.enter_context(workspace())
claim_process(RucioHome.server(_WORKSPACE / "import", "sqlite://"))

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def sandbox_folder() -> Path:
    """A folder with a short path that servers running as other accounts can enter."""
    return _WORKSPACE


@pytest.fixture
def folder(sandbox_folder: Path) -> Path:
    """A folder of this test's own, which servers running as other accounts can enter."""
    folder = sandbox_folder / f"test{next(_numbers)}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def postgres(sandbox_folder: Path) -> Iterator[PostgresCluster]:
    """A private PostgreSQL cluster; `create()` makes a database, `url(name)` names it."""
    with PostgresCluster.start(sandbox_folder / "pg") as cluster:
        yield cluster


@pytest.fixture
def postgres_database(postgres: PostgresCluster) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test's own."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(scope="session")
def sqlite_template(sandbox_folder: Path) -> Path:
    """A SQLite file that holds an empty Rucio."""
    from rucio_trace_sandbox.embedded import bootstrap, detach, sqlite_url

    path = sandbox_folder / "template.db"
    bootstrap(RucioHome.server(sandbox_folder / "template-sqlite", sqlite_url(path)))
    detach()
    return path


@pytest.fixture(scope="session")
def postgres_template(sandbox_folder: Path, postgres: PostgresCluster) -> str:
    """The name of a PostgreSQL database that holds an empty Rucio."""
    from rucio_trace_sandbox.embedded import bootstrap, detach

    name = postgres.create(prefix="template")
    bootstrap(RucioHome.server(sandbox_folder / "template-postgresql", postgres.url(name)))
    detach()
    return name


@contextlib.contextmanager
def _attached(url: str, folder: Path) -> Iterator[EmbeddedRucio]:
    from rucio_trace_sandbox.embedded import EmbeddedRucio, detach

    yield EmbeddedRucio(RucioHome.server(folder / "rucio", url), url, folder)
    detach()


@pytest.fixture
def rucio_sqlite(folder: Path, sqlite_template: Path) -> Iterator[EmbeddedRucio]:
    """A clean Rucio in this process, on SQLite."""
    from rucio_trace_sandbox.embedded import clone_sqlite, sqlite_url

    clone_sqlite(sqlite_template, folder / "rucio.db")
    with _attached(sqlite_url(folder / "rucio.db"), folder) as rucio:
        yield rucio


@pytest.fixture(scope="session")
def postgres_rucio(postgres: PostgresCluster, postgres_template: str) -> str:
    """The name of a PostgreSQL database that holds a Rucio, for one test after another."""
    name = postgres.create(postgres_template)
    postgres.keep(name)
    return name


@pytest.fixture
def rucio_postgresql(folder: Path, postgres: PostgresCluster, postgres_rucio: str) -> Iterator[EmbeddedRucio]:
    """A clean Rucio in this process, on PostgreSQL."""
    postgres.reset(postgres_rucio)
    with _attached(postgres.url(postgres_rucio), folder) as rucio:
        yield rucio


@pytest.fixture
def rucio_postgresql_alone(folder: Path, postgres: PostgresCluster, postgres_template: str) -> Iterator[EmbeddedRucio]:
    """The same in a database of its own, for tests that change more than tables and rows."""
    name = postgres.create(postgres_template)
    with _attached(postgres.url(name), folder) as rucio:
        yield rucio
    postgres.drop(name)


# MariaDB has no third run of everything: tests/integration/test_mariadb_*.py choose what differs there.


@pytest.fixture(scope="session")
def mariadb(sandbox_folder: Path) -> Iterator[MariaDbServer]:
    """A private MariaDB server; `create()` makes a database, `url(name)` names it."""
    with MariaDbServer.start(sandbox_folder / "maria") as server:
        yield server


@pytest.fixture
def mariadb_database(mariadb: MariaDbServer) -> Iterator[str]:
    """The URL of an empty MariaDB database of this test's own."""
    name = mariadb.create()
    yield mariadb.url(name)
    mariadb.drop(name)


@pytest.fixture(scope="session")
def mariadb_rucio(sandbox_folder: Path, mariadb: MariaDbServer) -> str:
    """The name of a MariaDB database that holds a Rucio, for one test after another."""
    from rucio_trace_sandbox.embedded import bootstrap, detach

    name = mariadb.create("rucio", *RUCIO_CHARSET)
    bootstrap(RucioHome.server(sandbox_folder / name, mariadb.url(name)))
    detach()
    mariadb.keep(name)
    return name


@pytest.fixture
def rucio_mariadb(folder: Path, mariadb: MariaDbServer, mariadb_rucio: str) -> Iterator[EmbeddedRucio]:
    """A clean Rucio in this process, on MariaDB; its `backend` is `mysql`."""
    mariadb.reset(mariadb_rucio)
    with _attached(mariadb.url(mariadb_rucio), folder) as rucio:
        yield rucio


@pytest.fixture(params=["sqlite", "postgresql"])
def rucio(request: pytest.FixtureRequest) -> EmbeddedRucio:
    """A clean Rucio in this process: the test runs on SQLite, then on PostgreSQL."""
    return request.getfixturevalue(f"rucio_{request.param}")


@pytest.fixture
def rest(rucio: EmbeddedRucio) -> Iterator[Rest]:
    """Rucio's REST server on the test's Rucio, within this process; `rest.root` is a client."""
    with in_process(rucio.folder / "rest") as server:
        yield server


@pytest.fixture
def gunicorn(rucio: EmbeddedRucio) -> Iterator[Rest]:
    """Rucio's REST server in a process of its own, for what Rucio decides while it is imported.

    Start it with other options by `rucio.home.configure(...)` and `rucio_trace_sandbox.rest.gunicorn` in the test.
    """
    with start_gunicorn(rucio.home, rucio.folder / "gunicorn") as server:
        yield server


@pytest.fixture(scope="session")
def xrootd(sandbox_folder: Path) -> Iterator[XRootD]:
    """An XRootD server; `rucio.add_xrootd_rse(name, xrootd)` puts an RSE on it."""
    with XRootD.start(sandbox_folder / "xrd") as server:
        yield server


@pytest.fixture(scope="session")
def other_xrootd(sandbox_folder: Path) -> Iterator[XRootD]:
    """A second XRootD server, to copy to."""
    with XRootD.start(sandbox_folder / "xrd2") as server:
        yield server


@pytest.fixture(scope="session")
def tls(sandbox_folder: Path) -> LoopbackTls:
    """A CA and the certificate of a server on loopback."""
    return LoopbackTls.make(sandbox_folder / "tls")


@pytest.fixture
def trusted(tls: LoopbackTls, monkeypatch: pytest.MonkeyPatch) -> LoopbackTls:
    """The same, in a process that trusts it as it would a grid's CAs."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("X509_CERT_DIR", str(tls.ca_folder))
    return tls


@pytest.fixture(scope="session")
def nginx(sandbox_folder: Path, tls: LoopbackTls) -> Iterator[Nginx]:
    """nginx as a WebDAV storage over TLS."""
    with Nginx.start(sandbox_folder / "nginx", tls) as server:
        yield server


@pytest.fixture(scope="session")
def xrootd_https(sandbox_folder: Path, tls: LoopbackTls) -> Iterator[XRootD]:
    """An XRootD server that speaks WebDAV over TLS on its `https_port` too."""
    with XRootD.start(sandbox_folder / "xrdh", "https", tls=tls) as server:
        yield server


@pytest.fixture(scope="session")
def moto(sandbox_folder: Path, tls: LoopbackTls) -> Iterator[Moto]:
    """moto as an S3 storage over TLS."""
    with Moto.start(sandbox_folder / "moto", tls) as server:
        yield server


@pytest.fixture(scope="session")
def activemq(sandbox_folder: Path) -> Iterator[ActiveMQ]:
    """A broker; Rucio's Hermes reaches it with `rucio.configure(**activemq.rucio_sections)`."""
    with ActiveMQ.start(sandbox_folder / "activemq") as broker:
        yield broker


@pytest.fixture(scope="session")
def sshd(sandbox_folder: Path) -> Iterator[Sshd]:
    """OpenSSH's server; put its `programs` before the rest of PATH to be known to it."""
    with Sshd.start(sandbox_folder / "sshd") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database for a trace store: the test runs on SQLite, then on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'traces.db'}"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture(scope="session")
def sqlite_store(sandbox_folder: Path) -> Path:
    """A SQLite file that holds an empty trace store; to copy it is quicker than to make its tables."""
    path = sandbox_folder / "store.db"
    _make_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_store(postgres: PostgresCluster) -> str:
    """The name of a PostgreSQL database that holds a trace store, for one test after another."""
    name = postgres.create(prefix="store")
    _make_store(postgres.url(name))
    postgres.keep(name)
    return name


@pytest.fixture(scope="session")
def mariadb_store(mariadb: MariaDbServer) -> str:
    """The name of a MariaDB database that holds a trace store, for one test after another."""
    name = mariadb.create("store")
    _make_store(mariadb.url(name))
    mariadb.keep(name)
    return name


def _make_store(url: str) -> None:
    from rucio_trace.store import Store

    Store.open(url).close()


@pytest.fixture
def store_url_sqlite(sqlite_store: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copyfile(sqlite_store, tmp_path / 'traces.db')}"


@pytest.fixture
def store_url_postgresql(postgres: PostgresCluster, postgres_store: str) -> str:
    postgres.reset(postgres_store)
    return postgres.url(postgres_store)


@pytest.fixture
def store_url_mariadb(mariadb: MariaDbServer, mariadb_store: str) -> str:
    mariadb.reset(mariadb_store)
    return mariadb.url(mariadb_store)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty trace store: the test runs on SQLite, then on PostgreSQL.

    It is set back between tests, by its rows: one that changes tables wants `empty_url`.
    """
    return str(request.getfixturevalue(f"store_url_{request.param}"))


@pytest.fixture
def pki(folder: Path) -> SandboxAuthority:
    """A CA and a federation file; `admit(name)` makes a member with key, certificate and rights."""
    return SandboxAuthority(folder / "pki")


@pytest.fixture
def fts() -> Iterator[FtsStandIn]:
    """A stand-in for FTS3; its `url` is the RSE attribute `fts`."""
    with FtsStandIn.start() as standin:
        yield standin
