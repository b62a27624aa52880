from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from rucio_trace_sandbox.errors import SandboxError, ServerError
from rucio_trace_sandbox.processes import Server, free_port, living, wait_until
from rucio_trace_sandbox.xrootd import XRootD

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.mariadb import MariaDbServer
    from rucio_trace_sandbox.postgres import PostgresCluster


def _run(*argv: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=60)


def _address_of_this_machine() -> str | None:
    """An address others would use for this machine, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks for the route
        except OSError:
            return None
        address = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def test_postgres_has_no_tcp_port_and_does_not_run_as_root(postgres: PostgresCluster) -> None:
    with postgres.connect() as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    if os.geteuid() == 0:
        assert Path(f"/proc/{postgres.server.pid}").stat().st_uid != 0


def test_a_dropped_database_is_gone_although_somebody_uses_it(postgres: PostgresCluster) -> None:
    name = postgres.create()
    with postgres.connect(name):
        postgres.drop(name)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        postgres.connect(name)


def test_a_mariadb_server_keeps_its_temporary_tables_where_no_other_server_removes_them(mariadb: MariaDbServer) -> None:
    assert mariadb.run("SELECT @@tmpdir") == ((str(mariadb.folder / "tmp"),),)


def test_xrootd_serves_loopback(xrootd: XRootD) -> None:
    folder = xrootd.make_folder("served")
    (folder / "file").write_bytes(b"content")
    answer = _run("xrdfs", xrootd.url, "query", "checksum", "/served/file")
    assert answer.stdout.split() == ["adler32", f"{zlib.adler32(b'content'):08x}"]


def test_xrootd_turns_everybody_else_away(xrootd: XRootD) -> None:
    address = _address_of_this_machine()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    assert len(_handshake("127.0.0.1", xrootd.port)) == 16
    assert _handshake(address, xrootd.port) == b""


def _handshake(address: str, port: int) -> bytes:
    """Open the XRootD protocol; whoever is let in gets sixteen bytes back."""
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.sendall(bytes([0] * 15 + [4]) + (2012).to_bytes(4, "big"))
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(16)
    return b""


def test_one_xrootd_copies_from_another(xrootd: XRootD, other_xrootd: XRootD) -> None:
    content = os.urandom(100_000)
    source = xrootd.make_folder("from") / "file"
    source.write_bytes(content)
    other_xrootd.make_folder("to")
    copied = _run(
        "xrdcp", "--tpc", "only", "--cksum", "adler32", f"{xrootd.url}/from/file", f"{other_xrootd.url}/to/f/file"
    )
    assert copied.returncode == 0, copied.stderr
    assert (other_xrootd.data / "to/f/file").read_bytes() == content


def test_rucio_finds_a_file_on_an_xrootd_rse(rucio_sqlite: EmbeddedRucio, xrootd: XRootD) -> None:
    from rucio.rse import rsemanager

    stored = rucio_sqlite.upload(rucio_sqlite.add_xrootd_rse("XRD", xrootd), "file", b"content")
    settings = rsemanager.get_rse_info("XRD", vo=rucio_sqlite.vo)
    assert rsemanager.exists(settings, [{"scope": "test", "name": "file"}]) is True
    assert stored.path.stat().st_uid == xrootd.data.stat().st_uid


def test_a_folder_too_long_for_sockets_is_refused_clearly(folder: Path) -> None:
    with pytest.raises(SandboxError, match="too long for XRootD's sockets"), XRootD.start(folder / ("x" * 70)):
        pass


def test_a_server_that_ends_at_once_shows_its_log(folder: Path) -> None:
    server = Server("liar", ["sh", "-c", "echo no such disk; exit 3"], log=folder / "log")
    with pytest.raises(ServerError, match=r"(?s)liar: ended with status 3.*no such disk"):
        server.wait_until_ready(lambda: False)


def test_a_server_that_is_never_ready_is_killed(folder: Path) -> None:
    server = Server("sleeper", ["sh", "-c", "sleep 60 & sleep 60"], log=folder / "log")
    with pytest.raises(ServerError, match="sleeper: not ready"):
        server.wait_until_ready(lambda: False, seconds=0.2)
    assert living(server.pid) == []


_STARTER = """
import sys, time
from pathlib import Path
from rucio_trace_sandbox.processes import Server
server = Server("child", ["sleep", "60"], log=Path(sys.argv[1]))
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_dies_with_whoever_started_it(folder: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STARTER, folder / "log"], stdout=subprocess.PIPE, text=True
    ) as starter:
        pid = int(starter.stdout.readline())
        wait_until(lambda: living(pid) != [], "start of the server")
        starter.send_signal(how)
    wait_until(lambda: living(pid) == [], "end of the server", 5)


def test_free_ports_are_free() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1] < 32768
