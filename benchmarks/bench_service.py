"""The service over HTTP on PostgreSQL, which keeps what it acknowledges: registrations in bulk and singly, verdicts.

Service, database and clients share the machine's cores, as they would not in production.
"""

from __future__ import annotations

import http.client
import itertools
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
from rucio_trace_sandbox.postgres import DURABLE, PostgresCluster
from rucio_trace_sandbox.workspace import workspace

from benchmarks.harness import ROUNDS, Row, at_least, at_most
from benchmarks.signed import Running, creations, digest, serving, signer
from rucio_trace.envelope import to_json
from rucio_trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BATCH = 1_000
CONTENTS = 15
WORKERS = 2
SECONDS = 60
CLIENTS = 16  # of bulk, eight for each worker: each sends a batch as soon as its last one is answered
BULK_TARGET = 2_500  # ten times the 250 a second that the Traceability Service reported
SINGLES = 12_000
SINGLE_CLIENTS = 32
SINGLE_TARGET = 600
LAG_TARGET = 60
MEMORY_TARGET = 1.2  # at the end, of what it was after a third of the minute
VERDICTS = 2_000
VERDICTS_TARGET = 0.5  # the field's client takes 2.97 s


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies = _written(folder, batches=BULK_TARGET * SECONDS * 3 // 2 // BATCH)
        singles = [_body([made]) for made in creations(-SINGLES, SINGLES, CONTENTS)]
        cluster = stack.enter_context(PostgresCluster.start(stack.enter_context(workspace()) / "pg", DURABLE))
        url = cluster.url(cluster.create())
        service = stack.enter_context(serving(folder, url, workers=WORKERS))
        token = service.token()
        yield from _bulk(service, token, bodies, url)
        yield _single(service, token, singles)
        yield from _verdicts(service)


def _written(folder: Path, batches: int) -> list[Path]:
    """Files of newline-delimited traces, made beforehand by two processes that share the signer."""
    signer()
    files = [folder / f"{number:05}.ndjson" for number in range(batches)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap(_write, enumerate(files))
    return files


def _write(number: int, file: Path) -> None:
    file.write_bytes(_body(creations(number * BATCH, BATCH, CONTENTS)))


def _body(traces: Iterable[Any]) -> bytes:
    return b"\n".join(json.dumps(to_json(made), separators=(",", ":")).encode() for made in traces)


def _bulk(service: Running, token: str, bodies: list[Path], url: str) -> Iterator[Row]:
    waiting, stored, memory = iter(bodies), itertools.count(), []
    deadline = time.perf_counter() + SECONDS

    def send(post: Callable[[bytes], dict[str, Any]]) -> None:
        for file in waiting:
            if time.perf_counter() > deadline:
                return
            answers = post(file.read_bytes())
            assert answers["stored"] == BATCH, answers
            if time.perf_counter() <= deadline:  # what is answered later shows how long a batch takes, and no rate
                next(stored)
            memory.append(_memory(service))

    with _lags(url) as lags:
        _at_once(service, token, [send] * CLIENTS)
    rate = next(stored) * BATCH / SECONDS
    growth = memory[-1] / statistics.median(memory[len(memory) // 3 :][:5])
    name = f"service: register in bulk for {SECONDS} s, {CONTENTS} contents each, {WORKERS} workers"
    yield at_least(name, rate, BULK_TARGET, "traces/s")
    yield at_most("service: the longest that members were not to be found", max(lags), LAG_TARGET)
    name = f"service: memory at its end ({memory[-1] >> 20} MiB) by that after a third"
    yield at_most(name, growth, MEMORY_TARGET, "x")


@contextmanager
def _lags(url: str) -> Iterator[list[float]]:
    """How many seconds the index lags, seen every second."""
    found, ended = [0.0], threading.Event()

    def watch() -> None:
        with Store.open(url, migrate=False) as store:
            while not ended.wait(1):
                found.append(store.index_lag().total_seconds())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        ended.set()
        watching.join()


def _single(service: Running, token: str, bodies: list[bytes]) -> Row:
    waiting = iter(bodies)

    def send(post: Callable[[bytes], dict[str, Any]]) -> None:
        for body in waiting:
            assert post(body)["stored"] == 1

    start = time.perf_counter()
    _at_once(service, token, [send] * SINGLE_CLIENTS)
    rate = len(bodies) / (time.perf_counter() - start)
    return at_least(f"service: register singly, {SINGLE_CLIENTS} connections", rate, SINGLE_TARGET, "traces/s")


def _verdicts(service: Running) -> Iterator[Row]:
    """On files registered in the last minutes, that nobody asked for yet; then once more on one connection."""
    headers = {"Content-Type": "application/json"}
    first, again = [], []
    for turn in range(ROUNDS):
        numbers = range(turn * VERDICTS, (turn + 1) * VERDICTS)
        body = json.dumps({"items": [{"digest": digest(f"file{n}"), "name": f"file{n}"} for n in numbers]}).encode()
        connection = _connection(service)
        for times in (first, again):
            start = time.perf_counter()
            answers = _post(connection, "/api/v2/verdicts", body, headers)
            times.append(time.perf_counter() - start)
            assert {answer["verdict"] for answer in answers["verdicts"]} == {"GENUINE"}
    yield at_most(f"service: {VERDICTS:,} verdicts over HTTP", statistics.median(first), VERDICTS_TARGET)
    yield at_most("service: the same ones again", statistics.median(again), VERDICTS_TARGET)


def _at_once(service: Running, token: str, work: list[Callable[[Callable[[bytes], dict[str, Any]]], None]]) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
    faults: list[Exception] = []

    def run(send: Callable[[Callable[[bytes], dict[str, Any]]], None]) -> None:
        connection = _connection(service)
        try:
            send(lambda body: _post(connection, "/api/v2/traces", body, headers))
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the measurement
            faults.append(error)

    threads = [threading.Thread(target=run, args=(send,)) for send in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def _connection(service: Running) -> http.client.HTTPConnection:
    parts = urlsplit(service.url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> Any:
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, (answer.status, text[:400])
    return json.loads(text)


def _memory(service: Running) -> int:
    """What all processes of the service hold."""
    main = psutil.Process(service.server.pid)
    return sum(process.memory_info().rss for process in (main, *main.children(recursive=True)))
