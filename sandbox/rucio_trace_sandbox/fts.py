"""A stand-in for the REST interface of FTS3, as far as Rucio's conveyor calls it.

It is not FTS3: one machine, no queue worth the name, no database, no credentials.
But it really copies, really compares checksums and really fails: the replicas
that Rucio then calls AVAILABLE have bytes behind them. For tests it can be told
to fail, to wait, to answer late and to die in the middle.
`python -m rucio_trace_sandbox.fts HOST PORT` runs it alone.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .copying import Copier, CopyFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FtsStandIn", "Job"]

_WORKERS = 2
_FINAL = {"FINISHED", "FAILED", "CANCELED", "NOT_USED"}
_BASE_ID = "01874efb-4735-4595-bc9c-591aef8240c9"  # any UUID: Rucio derives its deterministic ids from it


@dataclass
class File:
    """One source of one file of a job; several with the same `index` are alternatives."""

    index: int
    source: str
    destination: str
    checksum: str | None
    metadata: dict[str, Any]
    state: str = "SUBMITTED"
    reason: str | None = None
    started: str | None = None
    finished: str | None = None

    def end(self, state: str, reason: str | None = None) -> None:
        self.state, self.reason, self.finished = state, reason, _now()

    def answer(self) -> dict[str, Any]:
        return {
            "file_state": self.state,
            "source_surl": self.source,
            "dest_surl": self.destination,
            "start_time": self.started,
            "finish_time": self.finished,
            "staging_start": None,
            "staging_finished": None,
            "reason": self.reason,
            "file_metadata": self.metadata,
        }


@dataclass
class Job:
    """What one POST brought."""

    id: str
    files: list[File]
    params: dict[str, Any]
    priority: int = 3
    canceled: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Job:
        params = body.get("params") or {}
        files = [
            File(index, source, entry["destinations"][0], entry.get("checksum"), entry.get("metadata") or {})
            for index, entry in enumerate(body["files"])
            for source in entry["sources"]
        ]
        return cls(
            str(uuid.uuid4()), files, params, params.get("priority") or 3, metadata=params.get("job_metadata") or {}
        )

    @property
    def type(self) -> str:
        if self.params.get("multihop"):
            return "H"
        return "R" if len({file.index for file in self.files}) < len(self.files) else "N"

    @property
    def state(self) -> str:
        states = {file.state for file in self.files} - {"NOT_USED"}
        if not states <= _FINAL:
            return "ACTIVE" if states - {"SUBMITTED"} else "SUBMITTED"
        if self.canceled:
            return "CANCELED"
        if self.type == "R":
            return "FINISHED" if "FINISHED" in states else "FAILED"
        if states <= {"FINISHED"}:
            return "FINISHED"
        return "FINISHEDDIRTY" if "FINISHED" in states else "FAILED"

    def answer(self) -> dict[str, Any]:
        return {
            "job_id": self.id,
            "http_status": "200 Ok",
            "job_state": self.state,
            "job_type": self.type,
            "job_metadata": self.metadata,
            "priority": self.priority,
            "files": [file.answer() for file in self.files],
        }


class FtsStandIn:
    """A running stand-in at `url`, which RSEs name in their attribute `fts`.

    The switches, all for tests: `hold()` keeps jobs from starting until `release()`;
    `before_copy` and `half_way` are called with each file; `answer_delay_seconds`
    makes every answer late; `crash()` and `restart()` do what they say.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.jobs: dict[str, Job] = {}
        self.answer_delay_seconds = 0.0
        self.before_copy: Callable[[File], None] = _nothing
        self.half_way: Callable[[File], None] = _nothing
        self._may_run = threading.Event()
        self._may_run.set()
        self._host, self._port = host, port
        self.restart()

    @classmethod
    @contextlib.contextmanager
    def start(cls, host: str = "127.0.0.1", port: int = 0) -> Iterator[FtsStandIn]:
        standin = cls(host, port)
        try:
            yield standin
        finally:
            standin.crash()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    def hold(self) -> None:
        self._may_run.clear()

    def release(self) -> None:
        self._may_run.set()

    def crash(self) -> None:
        """Die at once: no answers any more, copies under way are cut off and leave what they wrote."""
        self._copier.kill()
        self._may_run.set()
        self._http.shutdown()
        self._http.server_close()
        for _ in self._workers:
            self._queue.put(None)
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()

    def restart(self) -> None:
        """Come up (again) at the same address; copies that were under way have failed."""
        for job in self.jobs.values():
            for file in job.files:
                if file.state == "ACTIVE":
                    file.end("FAILED", "TRANSFER [103] the agent died while copying")
        self._copier = Copier()
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._http = _Server((self._host, self._port), self)
        self._port = self._http.server_port
        serve = {"target": self._http.serve_forever, "kwargs": {"poll_interval": 0.05}}
        threading.Thread(name="fts-http", daemon=True, **serve).start()  # type: ignore[arg-type]
        # They start xrdcp, which dies with the thread that started it: so threads that stay, not one a job.
        self._workers = [
            threading.Thread(target=self._work, args=(self._queue, self._copier), name=f"fts-{number}", daemon=True)
            for number in range(_WORKERS)
        ]
        for worker in self._workers:
            worker.start()
        for job in self.jobs.values():
            if job.state not in _FINAL:
                self._queue.put(job)

    def wait(self, seconds: float = 60) -> None:
        """Return once no job is under way."""
        deadline = time.monotonic() + seconds
        while any(file.state not in _FINAL for job in list(self.jobs.values()) for file in job.files):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the stand-in for FTS3 still copies after {seconds:g} s")
            time.sleep(0.02)

    def submit(self, job: Job) -> None:
        self.jobs[job.id] = job
        self._queue.put(job)

    def cancel(self, job: Job) -> None:
        job.canceled = True
        for file in job.files:
            if file.state == "SUBMITTED":
                file.end("CANCELED", "canceled by the user")

    def _work(self, jobs: queue.Queue[Job | None], copier: Copier) -> None:
        while (job := jobs.get()) is not None:
            self._may_run.wait()
            for file in job.files:
                if copier.killed:
                    return
                if file.state == "SUBMITTED":
                    self._transfer(job, file, copier)

    def _transfer(self, job: Job, file: File, copier: Copier) -> None:
        file.started, file.state = _now(), "ACTIVE"
        try:
            self._copy(job, file, copier)
        except CopyFailed as error:
            if not copier.killed:
                file.end("FAILED", str(error))
                if job.type == "H":
                    _end_rest(job, lambda _: True)
        else:
            file.end("FINISHED")
            _end_rest(job, lambda other: other.index == file.index)

    def _copy(self, job: Job, file: File, copier: Copier) -> None:
        strategy = job.params.get("verify_checksum")
        algorithm, _, expected = (file.checksum or "").partition(":")
        compared = bool(expected) and algorithm == "ADLER32"
        self.before_copy(file)
        if compared and strategy in ("source", "both"):
            _compare("SOURCE", expected, copier.adler32(file.source))
        overwrite = bool(job.params.get("overwrite"))
        copier.copy(file.source, file.destination, overwrite=overwrite, half_way=lambda: self.half_way(file))
        if copier.killed:
            raise CopyFailed("the agent died")
        if compared and strategy in ("target", "both"):
            try:
                _compare("DESTINATION", expected, copier.adler32(file.destination))
            except CopyFailed:
                copier.remove(file.destination)
                raise


def _compare(side: str, expected: str, found: str) -> None:
    if expected.lower() != found.lower():
        raise CopyFailed(f"{side} [22] checksum mismatch: the user gave ADLER32 {expected}, the storage has {found}")


def _end_rest(job: Job, concerned: Callable[[File], bool]) -> None:
    for other in job.files:
        if other.state == "SUBMITTED" and concerned(other):
            other.end("NOT_USED")


def _nothing(_file: File) -> None:
    pass


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], standin: FtsStandIn) -> None:
        self.standin = standin
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class names it
        pass

    def do_GET(self) -> None:
        kind, ids = self._target()
        if kind == "whoami":
            return self._answer(200, {"base_id": _BASE_ID, "vos": ["sandbox"], "user_dn": "/CN=sandbox"})
        if kind == "":
            return self._answer(200, {"api": {"major": 3}, "delegation": {}, "stand-in": True})
        if kind != "jobs" or not ids:
            return self._answer(404, {"status": "404 Not Found"})
        jobs = self.server.standin.jobs
        answers = [jobs[id_].answer() if id_ in jobs else _missing(id_) for id_ in ids]
        found = {answer["http_status"] for answer in answers}
        if len(ids) == 1 and "files" not in self.path.partition("?")[2]:
            return self._answer(200 if ids[0] in jobs else 404, answers[0])
        return self._answer(200 if found == {"200 Ok"} else 207, answers)

    def do_POST(self) -> None:
        kind, ids = self._target()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        standin = self.server.standin
        if kind != "jobs":
            return self._answer(404, {"status": "404 Not Found"})
        if not ids:
            job = Job.parse(body)
            standin.submit(job)
            return self._answer(200, {"job_id": job.id})
        found = standin.jobs.get(ids[0])
        if found is None:
            return self._answer(404, _missing(ids[0]))
        found.priority = int(body["params"]["priority"])
        return self._answer(200, found.answer())

    def do_DELETE(self) -> None:
        kind, ids = self._target()
        job = self.server.standin.jobs.get(ids[0]) if kind == "jobs" and ids else None
        if job is None:
            return self._answer(404, {"status": "404 Not Found"})
        self.server.standin.cancel(job)
        return self._answer(200, job.answer())

    def _target(self) -> tuple[str, list[str]]:
        kind, _, ids = self.path.partition("?")[0].strip("/").partition("/")
        return kind, [id_ for id_ in ids.split(",") if id_]

    def _answer(self, status: int, content: object) -> None:
        time.sleep(self.server.standin.answer_delay_seconds)
        body = json.dumps(content).encode()
        # Whoever asked may have given up waiting.
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def _missing(id_: str) -> dict[str, Any]:
    return {"job_id": id_, "http_status": "404 Not Found", "http_message": f'No job with the id "{id_}" has been found'}


def main(argv: list[str]) -> None:
    """Run one until SIGTERM."""
    host, port = argv
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with FtsStandIn.start(host, int(port)):
        ended.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
