"""Traces that wait on this machine for a service that is away: a folder of files, one for each batch, in order.

    <folder>/<service>/000000000001.ndjson      an item a line, as `POST /traces` takes it
    <folder>/<service>/refused/…                what the service will never take, each with its reason

A file is written whole and durable before its name appears. What is delivered first is what was kept first; what the
service knows already does no harm. Any number of processes may use one folder: short work is done under `.lock`, one
delivers at a time, under `.delivering`. The edge.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rucio_trace.client.asking import Pause, Script
from rucio_trace.client.errors import NotTaken, ServiceFailed, ServiceUnavailable, Unreadable
from rucio_trace.client.talk import Item, items, portions
from rucio_trace.errors import StorageError
from rucio_trace.store.records import Outcome, Registration
from rucio_trace.store.register import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rucio_trace.client.talk import Talk
    from rucio_trace.envelope import Trace

__all__ = ["SPOOL_BYTES", "Spool", "SpoolBroken", "SpoolFull", "registering"]

SPOOL_BYTES: Final = 1024**3
"""Some 400,000 traces: a day of a busy site, on a disk that has other uses."""

REST_SECONDS: Final = 30.0
"""A service that was away is not tried anew for so long, nor what it could not judge: a large import would wait for
both with each of its batches."""

FAILURES_IN_A_ROW: Final = 10
"""At so many traces, each sent alone, a service fails that is broken itself: no trace's fault."""

_SUFFIX: Final = ".ndjson"
_UNFINISHED: Final = ".new-"
_TAKEN: Final = frozenset({Outcome.STORED, Outcome.KNOWN})


class SpoolFull(StorageError):
    """The service is away and the spool holds no more: these traces are kept by whoever handed them in."""

    def __init__(self, folder: Path, most: int, found: int) -> None:
        super().__init__(
            f"spool {folder}",
            expected=f"at most {most} bytes",
            found=f"{found} with what was to be kept",
            hint="come back when the service answers",
        )


class SpoolBroken(StorageError):
    """The folder cannot be read or written."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(f"spool {folder}", expected="a folder to write to", found=error.strerror or str(error))


def registering(
    talk: Talk,
    spool: Spool | None,
    traces: Iterable[Trace],
    scopes: Mapping[str, str] | None = None,
    lists: Mapping[str, bytes] | None = None,
) -> Script[list[Registration]]:
    """Hand in *traces*, or keep them; one answer each, in their order. What nobody can take is not sent."""
    traces = list(traces)
    answers = [refusal(trace) for trace in traces]
    fit = [number for number, answer in enumerate(answers) if answer is None]
    given: list[Registration] = []
    for some in portions(items([traces[number] for number in fit], scopes, lists)):
        given += yield from talk.register(some) if spool is None else spool.registering(talk, some)
    for number, answer in zip(fit, given, strict=True):
        answers[number] = answer
    return [answer for answer in answers if answer is not None]


class Spool:
    """What waits for one service; safe to share between threads and processes."""

    def __init__(self, folder: Path, url: str, max_bytes: int = SPOOL_BYTES) -> None:
        """For the service at *url*, below *folder*; nothing is made before there is something to keep."""
        self.folder = folder / quote(url, safe="")
        self._most, self._rests_until, self._reason = max_bytes, 0.0, ""
        self._left_until = 0.0

    def __repr__(self) -> str:
        return f"Spool({str(self.folder)!r})"

    def registering(self, talk: Talk, some: Sequence[Item]) -> Script[list[Registration]]:
        """What waits, then *some*: delivered, or kept if the service is away.

        Raises:
            SpoolFull, SpoolBroken: it is neither.
        """
        if time.monotonic() >= self._rests_until:
            try:
                if time.monotonic() >= self._left_until and (yield from self.delivering(talk)):
                    self._left_until = time.monotonic() + REST_SECONDS
                return (yield from talk.register(some))
            except ServiceUnavailable as error:
                self._rests_until, self._reason = time.monotonic() + REST_SECONDS, str(error)
        path = self.keep([item.text for item in some])
        reason = f"kept in {path}: {self._reason}"
        return [Registration(item.id, None, Outcome.UNDECIDED, reason, kept_in=str(path)) for item in some]

    def delivering(self, talk: Talk) -> Script[int]:
        """Hand in what waits, the oldest first; returns how many traces wait still, as they could not be judged.

        Raises:
            ServiceUnavailable: the service is away, or another process takes its time; nothing is lost.
        """
        if not self.waiting():
            return 0
        until = time.monotonic() + talk.patience
        left, failures = 0, list[ServiceFailed]()
        with self._file(".delivering") as lock:
            while not _try_lock(lock):
                if time.monotonic() > until:
                    raise ServiceUnavailable(talk.url, "that another process is delivering still")
                yield Pause(0.1)
            for path in self.waiting():
                texts = path.read_bytes().splitlines()
                answers = yield from _handing_in(talk, [Item("", text) for text in texts], failures)
                left += self._settle(path, texts, answers)
        return left

    def keep(self, texts: Sequence[bytes]) -> Path:
        """Make *texts* durable, after all that waits; returns the file.

        Raises:
            SpoolFull, SpoolBroken: they are not kept.
        """
        data = b"".join(text + b"\n" for text in texts)
        with self._locked():
            waiting = self.waiting()
            found = sum(path.stat().st_size for path in waiting) + len(data)
            if found > self._most:
                raise SpoolFull(self.folder, self._most, found)
            number = int(waiting[-1].stem) + 1 if waiting else 1
            path = self.folder / f"{number:012d}{_SUFFIX}"
            self._write(path, data)
        return path

    def waiting(self) -> list[Path]:
        """The files that wait, the oldest first."""
        return sorted(self.folder.glob(f"[0-9]*{_SUFFIX}"))

    def refused(self) -> list[Path]:
        """The files with what the service did not take."""
        return sorted((self.folder / "refused").glob("*.json"))

    def count(self) -> int:
        """How many traces wait."""
        return sum(path.read_bytes().count(b"\n") for path in self.waiting())

    def _settle(self, path: Path, texts: Sequence[bytes], answers: Sequence[Registration]) -> int:
        """Set aside what was refused, leave what could not be judged, drop the rest; returns how many are left."""
        answered = list(zip(texts, answers, strict=True))
        undecided = [text for text, answer in answered if answer.outcome is Outcome.UNDECIDED]
        refused = [
            {"outcome": answer.outcome, "reason": answer.reason, "item": text.decode()}
            for text, answer in answered
            if answer.outcome not in (*_TAKEN, Outcome.UNDECIDED)
        ]
        with self._locked():
            if refused:
                data = json.dumps({"refused": refused}, indent=1).encode()
                # The same again after a crash has the same name; another part of the same file has another.
                name = f"{path.stem}-{hashlib.sha256(data).hexdigest()[:16]}.json"
                self._write(self.folder / "refused" / name, data)
            if not undecided:
                path.unlink()
                _sync(self.folder)
            elif len(undecided) < len(texts):
                self._write(path, b"".join(text + b"\n" for text in undecided))
        return len(undecided)

    def _write(self, path: Path, data: bytes) -> None:
        """A whole file under its name, or none."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = path.with_name(_UNFINISHED + path.name)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        _sync(path.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """For a moment: nobody else writes here."""
        with self._file(".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _file(self, name: str) -> Iterator[int]:
        """A file to lock, by its descriptor; to close it unlocks it.

        Raises:
            SpoolBroken: for whatever the system refuses meanwhile.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SpoolBroken(self.folder, error) from error


def _handing_in(talk: Talk, some: Sequence[Item], failures: list[ServiceFailed]) -> Script[list[Registration]]:
    """One answer each: what spoils the request is parted from the rest by halving, and is refused alone.

    Where the service fails nothing is known of the trace. *failures* are those since it last took anything.

    Raises:
        ServiceUnavailable: it is away, or fails at whatever it is sent.
    """
    try:
        answers = yield from talk.register(some)
    except (Unreadable, NotTaken, ServiceFailed) as error:
        if len(some) > 1:
            half = len(some) // 2
            first = yield from _handing_in(talk, some[:half], failures)
            return [*first, *(yield from _handing_in(talk, some[half:], failures))]
        if not isinstance(error, ServiceFailed):
            return [Registration(some[0].id, None, Outcome.REFUSED, str(error))]
        failures.append(error)
        if len(failures) == FAILURES_IN_A_ROW:
            raise
        return [Registration(some[0].id, None, Outcome.UNDECIDED, str(error))]
    failures.clear()
    return answers


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(folder: Path) -> None:
    """What the folder lists survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
