"""The service when things go wrong: too much at once, clients that stall, kills, a database that goes away."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.processes import free_port, wait_until
from samples import signer, trace
from service_kit import Running, body, get, serving

from rucio_trace.envelope import to_json
from rucio_trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace.envelope import Trace

TRACES = "/api/v2/traces"


class Load:
    """Clients that register traces until told to stop, repeat what was not answered, and note what was."""

    def __init__(self, url: str, token: str, clients: int = 4) -> None:
        self.acknowledged: list[str] = []
        self.sent: list[str] = []
        self.codes: set[int] = set()
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._url, self._token = url, token
        signer()  # made once, before threads ask for it at the same time
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, headers={"Authorization": f"Bearer {self._token}"}, timeout=60) as client:
            while not self._stop.is_set():
                made = [trace() for _ in range(3)]
                self.sent += [each.id for each in made]
                while not self._stop.is_set() and not self._registered(client, made):
                    self._stop.wait(0.05)

    def _registered(self, client: httpx.Client, made: list[Trace]) -> bool:
        try:
            answer = client.post(TRACES, content=body(made))
        except httpx.TransportError:
            return False
        self.codes.add(answer.status_code)
        if answer.status_code != 200:
            return False
        results = answer.json()["results"]
        self.wrong += [r["reason"] for r in results if r["outcome"] not in ("stored", "known")]
        self.acknowledged += [r["id"] for r in results if r["outcome"] in ("stored", "known")]
        return True

    def goes_on(self, more: int = 20) -> None:
        """Wait for new acknowledgements."""
        before = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) >= before + more, "acknowledged traces", seconds=120)


def check_everything_is_there_once(url: str, load: Load) -> None:
    assert load.acknowledged
    assert not load.wrong
    with Store.open(url, migrate=False) as store:
        ids = [stored.id for stored in store.since(0, limit=1_000_000)]
    assert len(ids) == len(set(ids)), "nothing twice"
    assert set(load.acknowledged) <= set(ids), "everything acknowledged is there"
    assert set(ids) <= set(load.sent)


def test_killed_under_load_it_has_lost_nothing_that_it_acknowledged(tmp_path: Path, store_url: str) -> None:
    port = free_port()
    with serving(tmp_path, store_url, port=port) as running:
        token = running.token()
        load = Load(running.url, token)
        with load:
            load.goes_on()
            running.server.kill()
            with serving(tmp_path, store_url, port=port):
                load.goes_on()
    check_everything_is_there_once(store_url, load)


@pytest.mark.parametrize("workers", [1, 2])
def test_ended_under_load_it_finishes_what_it_accepted(tmp_path: Path, store_url: str, workers: int) -> None:
    with serving(tmp_path, store_url, workers=workers) as running, Load(running.url, running.token()) as load:
        load.goes_on()
        running.server.process.send_signal(signal.SIGTERM)
        assert running.server.process.wait(30) in (0, -signal.SIGTERM)
        assert 500 not in load.codes
    assert b"Traceback" not in running.server.log.read_bytes()
    check_everything_is_there_once(store_url, load)


def test_two_workers_share_a_port_and_a_database(tmp_path: Path, store_url: str) -> None:
    with serving(tmp_path, store_url, workers=2) as running:
        with Load(running.url, running.token(), clients=6) as load:
            load.goes_on(100)
        metrics = get(f"{running.url}/metrics").text
        stored = next(row for row in metrics.splitlines() if row.startswith("traceability_service_traces_total"))
        assert float(stored.split()[-1]) == len(load.acknowledged), "either process tells for both"
        assert f"traceability_store_position {float(len(load.acknowledged))}" in metrics
        parent = running.server.process
        parent.kill()
        parent.wait()
        address = urlsplit(running.url)
        wait_until(lambda: not _listens(address.port or 0), "the end of workers whose parent was killed")
    check_everything_is_there_once(store_url, load)


@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_waits_for_news_is_answered_before_it_ends(tmp_path: Path, workers: int) -> None:
    """Else each would hold up the end for as long as the server has patience, and be cut off then."""
    answers: list[httpx.Response] = []
    with serving(tmp_path, f"sqlite:///{tmp_path}/t.db", workers=workers) as running:

        def wait() -> None:
            answers.append(get(f"{running.url}/api/v2/changes?wait=60"))

        get(f"{running.url}/ready")
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(2)  # until it waits: nothing tells
        running.server.process.send_signal(signal.SIGTERM)
        running.server.process.wait(60)
        thread.join()
    assert [answer.json() for answer in answers] == [{"traces": [], "next": 0}]


def test_what_waited_in_a_worker_that_died_waits_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def counting() -> dict[int, Path]:
        found = tmp_path.glob("rucio-trace-metrics-*/gauge_livesum_*.db")
        return {int(file.stem.rpartition("_")[2]): file for file in found}

    with serving(tmp_path / "service", f"sqlite:///{tmp_path}/t.db", workers=2):
        wait_until(lambda: len(counting()) == 2, "two workers", seconds=60)
        pid, file = counting().popitem()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not file.exists(), "the end of what it counted", seconds=60)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_while_the_database_restarts_clients_are_told_to_come_again(tmp_path: Path, folder: Path) -> None:
    with PostgresCluster.start(folder / "own") as cluster:
        url = cluster.url(cluster.create())
        with serving(tmp_path, url) as running, Load(running.url, running.token()) as load:
            load.goes_on()
            data = cluster.folder / "data"
            cluster.server.process.send_signal(signal.SIGINT)  # "fast": connections end, what was committed is kept
            wait_until(lambda: 503 in load.codes, "503")
            assert get(f"{running.url}/ready").status_code == 503
            assert get(f"{running.url}/health").status_code == 200
            assert "traceability_store_position" not in get(f"{running.url}/metrics").text
            assert get(f"{running.url}/api/status").json()["status"] == "error"
            cluster.server.process.wait()
            with _restarted(cluster, data):
                load.goes_on()
                assert load.codes == {200, 503}
                assert get(f"{running.url}/ready").status_code == 200
                load.__exit__()
                check_everything_is_there_once(url, load)


@contextlib.contextmanager
def _restarted(cluster: PostgresCluster, data: Path) -> Iterator[None]:
    from rucio_trace_sandbox.postgres import _binary
    from rucio_trace_sandbox.processes import Server, first_user

    argv = [_binary("postgres"), "-D", str(data), "-k", str(cluster.folder), "-c", "listen_addresses="]
    log, user = cluster.folder / "log2", first_user("postgres", "nobody")
    with Server("PostgreSQL", argv, log=log, user=user, stop_signal=signal.SIGQUIT) as server:
        server.wait_until_ready(cluster._answers)
        yield


def test_when_too_much_waits_more_is_turned_away_whole(tmp_path: Path, postgres_database: str) -> None:
    """The store's lock is held by somebody else meanwhile; what waits is registered once it is free."""
    import psycopg

    def waiting(client: httpx.Client) -> float:
        rows = client.get("/metrics").text.splitlines()
        return float(next(r for r in rows if r.startswith("traceability_service_waiting_traces")).split()[-1])

    name = postgres_database.replace("postgresql+psycopg", "postgresql")
    with serving(tmp_path, postgres_database, max_waiting_traces=4) as running:
        token = running.token()
        answers: list[httpx.Response] = []

        def post() -> None:
            with running.client(token) as client:
                answers.append(client.post(TRACES, content=body([trace() for _ in range(5)])))

        clients = [threading.Thread(target=post) for _ in range(4)]
        with psycopg.connect(name) as lock, running.client(token) as client:
            lock.execute("SELECT * FROM trace_head FOR UPDATE")
            for thread in clients:
                thread.start()
            wait_until(lambda: waiting(client) == 4, "four waiting requests, each of which counts as one trace")
            made = trace()
            refused = client.post(TRACES, content=body([made]))
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 0
            assert client.get(f"{TRACES}/{made.id}").status_code == 404, "reading goes on"
            lock.rollback()
            for thread in clients:
                thread.join()
            assert [answer.json()["stored"] for answer in answers] == [5] * 4
            assert client.get(f"{TRACES}/{made.id}").status_code == 404
            assert client.post(TRACES, content=body([made])).json()["stored"] == 1
            assert client.post(TRACES, content=body([trace() for _ in range(20)])).status_code == 413, (
                "a large one by its traces"
            )


# ------------------------------------------------------------------------- clients that stall


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    folder = tmp_path_factory.mktemp("impatient")
    bounds = {"max_silence_seconds": 1, "max_body_seconds": 3}
    with serving(folder, f"sqlite:///{folder / 'traces.db'}", **bounds) as running:
        yield running, running.token()


def _connection(running: Running) -> socket.socket:
    address = urlsplit(running.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def _request(running: tuple[Running, str], length: int) -> tuple[socket.socket, bytes]:
    return _connection(running[0]), _head(running, f"Content-Length: {length}")


def _head(running: tuple[Running, str], header: str) -> bytes:
    return f"POST {TRACES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running[1]}\r\n{header}\r\n\r\n".encode()


def _answer(connection: socket.socket) -> HTTPResponse:
    answer = HTTPResponse(connection)
    answer.begin()
    return answer


def test_a_client_that_falls_silent_is_told_and_left(impatient: tuple[Running, str]) -> None:
    connection, head = _request(impatient, 1000)
    with connection:
        connection.sendall(head + b"[")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_a_client_that_sends_a_byte_now_and_then_is_left_too(impatient: tuple[Running, str]) -> None:
    connection, head = _request(impatient, 1000)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(head)
        for _ in range(1000):
            connection.sendall(b" ")
            time.sleep(0.2)
        pytest.fail("it was listened to for 200 s")


def test_what_was_half_sent_is_not_registered(impatient: tuple[Running, str]) -> None:
    made = [trace(), trace()]
    content = b"\n".join(json.dumps(to_json(each)).encode() for each in made)
    connection, head = _request(impatient, len(content))
    with connection:
        connection.sendall(head + content[:-10])
    running, token = impatient
    with running.client(token) as client:
        assert client.post(TRACES, content=b"[]").status_code == 200
        for each in made:
            assert client.get(f"{TRACES}/{each.id}").status_code == 404
    assert b"Traceback" not in running.server.log.read_bytes()


def test_those_who_stall_do_not_keep_others_waiting(impatient: tuple[Running, str]) -> None:
    stalling = [_request(impatient, 1000) for _ in range(200)]
    try:
        for connection, head in stalling:
            connection.sendall(head)
        running, token = impatient
        with running.client(token) as client:
            answer: Any = client.post(TRACES, content=body([trace()])).json()
            assert answer["stored"] == 1
    finally:
        for connection, _ in stalling:
            connection.close()


# ------------------------------------------------------------------------- heads of requests


def _endless(running: tuple[Running, str]) -> list[tuple[bytes, bytes]]:
    """How each begins, and 1 KiB of what never ends."""
    line = b"GET / HTTP/1.1\r\nHost: x\r\n"
    chunked = _head(running, "Transfer-Encoding: chunked") + b"1\r\n[\r\n"
    beginnings = (b"GET /", line + b"X", line + b"X: ", chunked + b"0\r\nX: ", chunked + b"1;")
    return [*((beginning, b"x" * 1024) for beginning in beginnings), (line, b"a:\r\n" * 256), (b"", b"\r\n" * 512)]


def test_a_head_without_end_is_refused_and_kept_nowhere(impatient: tuple[Running, str]) -> None:
    running, _ = impatient
    process = psutil.Process(running.server.pid)
    with contextlib.ExitStack() as stack, running.client() as client:
        for beginning, more in _endless(impatient):
            connection = stack.enter_context(_connection(running))
            connection.sendall(beginning + more * 140)
            answer = _answer(connection)
            assert (answer.status, json.loads(answer.read())["status"]) == (431, 431), beginning
        before = process.memory_info().rss
        for beginning, more in _endless(impatient):
            connection = stack.enter_context(_connection(running))
            connection.settimeout(0.2)
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection.sendall(beginning + more * 16 * 1024)
            assert client.get("/health").status_code == 200
        assert process.memory_info().rss - before < 16 * 1024**2
    assert b"Traceback" not in running.server.log.read_bytes()


def test_a_large_head_is_read_however_it_comes(impatient: tuple[Running, str]) -> None:
    """And the next one on its connection, be it before or after the answer."""
    asked = b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 65_000 + b"\r\n\r\n"
    with _connection(impatient[0]) as connection:
        for start in range(0, len(asked), 5_000):
            connection.sendall(asked[start : start + 5_000])
        assert _answer(connection).status == 200
        connection.sendall(asked * 2 + asked.replace(b"X", b"Connection: close\r\nX", 1))
        assert connection.makefile("rb").read().count(b"HTTP/1.1 200 OK\r\n") == 3


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("between", [0, 1])
def test_a_head_without_end_behind_a_request_that_waits_is_not_answered_in_its_place(
    impatient: tuple[Running, str], between: int, pieces: int
) -> None:
    """Seen while a request is served it ends the connection, and is else answered in its turn."""
    running, _ = impatient
    with running.client() as client:
        position = client.get("/api/v2/statistics").json()["position"]
        waiting = f"GET /api/v2/changes?after={position}&wait=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        sent = waiting + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * between + b"GET / HTTP/1.1\r\nX: "
        told = b""
        with _connection(running) as connection, contextlib.suppress(ConnectionError):
            if pieces == 2:
                connection.sendall(sent)
                time.sleep(0.1)
                sent = b""
            connection.sendall(sent + b"x" * 128 * 1024)
            while more := connection.recv(4096):
                told += more
        due = [b"200"] * (1 + between) + [b"431"]
        answers = re.findall(rb"HTTP/1.1 (\d+)", told)
        assert answers == due[: len(answers)]
        assert client.get("/health").status_code == 200
    assert b"Traceback" not in running.server.log.read_bytes()


def test_a_client_that_does_not_end_its_head_is_left(impatient: tuple[Running, str]) -> None:
    running, _ = impatient
    beginnings = (b"", b"GET /health HTTP/1.1\r\nHost:", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01")
    connections = [_connection(running) for _ in beginnings]
    for connection, beginning in zip(connections, beginnings, strict=True):
        connection.sendall(beginning)
    silent, slow, again, other = connections
    assert silent.recv(1) == b""
    assert _answer(slow).status == 408
    answer = _answer(again)
    assert (answer.status, answer.read()) == (200, b'{"status":"running"}')
    again.sendall(b"G")
    assert _answer(again).status == 408
    assert _answer(other).status == 400
    for connection in connections:
        connection.close()
